package upstream

import (
	"maps"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/hand"
	"github.com/outrigger-mesh/outrigger/resilience/health"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func (e *Endpoint) bindMetrics() {
	e.metrics = e.cluster.registry.metrics.Endpoint(e.cluster.name, e.address)
	e.metrics.Bind(e)
}

// Gauges implements telemetry.EndpointSource. It takes no lock of the cluster,
// which may be held by who waits for the one that a scrape holds.
func (e *Endpoint) Gauges() telemetry.EndpointGauges {
	now, p, no := e.cluster.registry.sweeper.Now(), e.cluster.policy.Load(), telemetry.Absent()
	g := telemetry.EndpointGauges{
		State:  float64(e.Outlier.State()),
		Hand:   float64(e.standing.Load()),
		Active: float64(e.Load.Inflight()),
		EWMA:   e.Load.EWMA(now).Seconds(),
		Drain:  e.draining(),
		Health: no, Breaker: no, Share: no, Weight: no,
	}
	if p.Health != nil {
		g.Health = float64(e.check.state())
	}
	if b := e.breaker.Load(); b != nil {
		g.Breaker = float64(b.State(now).Severity())
	}
	if p.caution() != nil {
		g.Share = e.Load.Share()
	}
	if p.Balance.ORCA != nil {
		g.Weight = e.reported.Factor()
	}
	return g
}

func (c *Cluster) bindMetrics() {
	clock := c.registry.sweeper.Now
	c.metrics.Bind(telemetry.ClusterGauges{
		BreakerState: func() float64 {
			if b := Worst(c.breakers(clock())); b != nil {
				return float64(b.State.Severity())
			}
			return 0
		},
		Rejection: func() float64 { return c.rejection(clock()) },
		RetryBudget: func() float64 {
			if b := c.budget.Load(); b != nil {
				return b.Balance(clock())
			}
			return 0
		},
		Most:           func() float64 { return float64(c.Gate.Most()) },
		Adaptive:       c.Gate.adapted,
		Queue:          func() float64 { return float64(c.Gate.waiting.Load()) },
		Pending:        func() float64 { return float64(c.Limits.Pending.Value()) },
		UpstreamActive: func() float64 { open, idle := c.connections(); return float64(open - idle) },
		UpstreamIdle:   func() float64 { _, idle := c.connections(); return float64(idle) },
		Endpoints:      func() float64 { total, _ := c.sizes(); return float64(total) },
		Available:      func() float64 { _, available := c.sizes(); return float64(available) },
	})
}

func (c *Cluster) connections() (open, idle int64) {
	// Not under c.mu: a scrape holds the lock of the metrics here, which
	// setEndpoints takes under c.mu.
	if s := c.set.Load(); s != nil {
		for _, e := range s.endpoints {
			open += e.conns.Load()
			idle += int64(e.pool.len())
		}
	}
	return open, idle
}

func (c *Cluster) sizes() (total, available int) {
	if s := c.set.Load(); s != nil {
		return s.total, s.picker.Len()
	}
	return 0, 0
}

func (c *Cluster) list() []*Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endpoints
}

// listWithOrders returns the endpoints, and copies of the orders by address.
func (c *Cluster) listWithOrders() ([]*Endpoint, map[string]*hand.Order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	orders := make(map[string]*hand.Order, c.orders.Len())
	for _, o := range c.orders.All() {
		orders[o.Endpoint] = &o
	}
	return c.endpoints, orders
}

// EndpointState is a copy of what is known about an endpoint.
type EndpointState struct {
	Cluster  string
	Spec     EndpointSpec
	Address  string
	Evidence outlier.Evidence
	Active   int64
	EWMA     time.Duration
	Success  uint64
	Failures uint64
	// Caution is nil without it.
	Caution *CautionState
	// Reported is nil unless endpoints are weighted by the load they report.
	Reported *ReportState
	// Absent says that discovery does not list it: there is only an order for it.
	Absent bool
	// Standing is what the orders by hand make of it, Order its own, or nil.
	Standing hand.Standing
	Order    *hand.Order
	// Fit says that active checks leave it traffic. Check and
	// CheckConfig are nil without them.
	Fit         bool
	Check       *health.Snapshot
	CheckConfig *health.Config
	Breaker     *breaker.Snapshot // nil unless it has one of its own
	MostActive  int64             // attempts that it may have at a time; 0 unlimited
}

// ClusterState is a copy of what is known about a cluster.
type ClusterState struct {
	Name      string
	Direction telemetry.Direction
	Spec      *Spec
	Endpoints int
	Available int
	Ejected   int
	Unhealthy int // by active checks
	Draining  int
	Panicking bool
	Balance   balance.Config   // in force
	Breakers  []BreakerState   // one of the cluster, or one a route or endpoint
	Admission []AdmissionState // of the cluster, or one a route
	Budget    float64          // retries that may be made now
	Totals    telemetry.ClusterTotals
	Limits    *limit.Limits
	Requests  int64 // active
	Subsets   []SubsetState
	Tiers     []balance.TierState // how attempts are divided; nil where they are not
	Gates     []GateState         // of the cluster, then of routes
	Turns     telemetry.QueueTotals
	Failover  []FailoverState // who has its attempts while none of its endpoints is available
}

// State returns a copy of what is known about the cluster itself; what its
// endpoints come to, Ejected and Unhealthy, is left out.
func (c *Cluster) State(now time.Duration) ClusterState {
	cs := ClusterState{
		Name: c.name, Direction: c.direction, Spec: c.spec.Load(), Totals: c.metrics.Totals(),
		Limits: &c.Limits, Requests: c.Limits.Requests.Value(), Balance: c.policy.Load().Balance,
		Subsets: c.subsetStates(), Gates: c.gateStates(now), Turns: c.metrics.QueueTotals(),
		Failover: c.failoverStates(),
	}
	if s := c.set.Load(); s != nil {
		cs.Endpoints, cs.Available, cs.Panicking, cs.Tiers = s.total, s.picker.Len(), s.panicking, s.picker.Tiers()
	}
	cs.Breakers, cs.Admission = c.breakers(now), c.admissions(now)
	if b := c.budget.Load(); b != nil {
		cs.Budget = b.Balance(now)
	}
	return cs
}

// States returns copies of all clusters and endpoints, in the order of their
// names and addresses.
func (r *Registry) States() (clusters []ClusterState, endpoints []EndpointState) {
	now := r.sweeper.Now()
	for _, c := range r.all() {
		cs := c.State(now)
		list, orders := c.listWithOrders()
		for _, e := range list {
			es := EndpointState{
				Standing: hand.Standing(e.standing.Load()), Order: orders[e.address],
				Cluster: c.name, Spec: *e.spec.Load(), Address: e.address,
				Evidence: e.Outlier.Evidence(now), Active: e.Load.Inflight(), EWMA: e.Load.EWMA(now),
				Success:  e.metrics.Attempts(telemetry.ResultSuccess),
				Failures: e.metrics.Attempts(telemetry.ResultFailure) + e.metrics.Attempts(telemetry.ResultLocalFailure),
			}
			if hc := c.policy.Load().Health; hc != nil {
				es.Fit = e.check.fit(hc)
				snap := e.check.snapshot()
				es.Check, es.CheckConfig = &snap, hc
				if snap.State == health.Unhealthy {
					cs.Unhealthy++
				}
			}
			if b := e.breaker.Load(); b != nil {
				snap := b.Snapshot(now)
				es.Breaker = &snap
			}
			es.Caution, es.MostActive = c.cautionState(e), c.policy.Load().Limits.MaxRequestsPerEndpoint
			es.Reported = c.reportState(e, now)
			if es.Evidence.State == outlier.Ejected {
				cs.Ejected++
			}
			if es.Spec.Draining != "" {
				cs.Draining++
			}
			delete(orders, e.address)
			endpoints = append(endpoints, es)
		}
		for _, address := range slices.Sorted(maps.Keys(orders)) {
			endpoints = append(endpoints, EndpointState{Cluster: c.name, Address: address, Absent: true, Order: orders[address]})
		}
		clusters = append(clusters, cs)
	}
	return clusters, endpoints
}
