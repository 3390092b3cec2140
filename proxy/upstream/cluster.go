package upstream

import (
	"cmp"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hand"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Cluster is a named group of endpoints under one policy. It outlives plans:
// endpoints, pools, counters and ejections stay when a plan is replaced.
type Cluster struct {
	Limits limit.Limits
	// Gate is where exchanges are let in, under the limit on active requests.
	Gate Gate

	name      string
	direction telemetry.Direction
	registry  *Registry
	metrics   *telemetry.Cluster

	spec       atomic.Pointer[Spec]
	policy     atomic.Pointer[Policy]
	breaker    atomic.Pointer[breaker.Breaker]
	throttles  atomic.Pointer[throttles]
	routed     atomic.Pointer[map[string]*RouteBreaker]
	budget     atomic.Pointer[retry.Budget]
	set        atomic.Pointer[endpointSet]
	failover   atomic.Pointer[[]*Cluster]      // nil without any
	learnt     atomic.Pointer[hedge.Latencies] // nil before a policy hedges
	generation atomic.Uint64                   // of the transport: older connections are not kept
	detector   atomic.Pointer[outlier.Detector]
	waiters    atomic.Int64
	free       chan struct{}
	listed     chan struct{} // closed when discovery has answered for the first time

	refs int // under Registry.changing

	mu        sync.Mutex  // below: changes of endpoints and policy
	endpoints []*Endpoint // sorted by address
	rates     map[RateSpec]*ratelimit.Table
	gates     map[string]*routeGate     // of routes, by their names
	latencies map[string]*hedge.Latency // by route
	orders    hand.Orders
	ordered   bool // the last rebuild had orders to obey
	logged    logged
	subsets   []*Subset
	found     []*Endpoint // by Registry.Instances
	spill     balance.Spill
	judged    time.Duration // when caution was last exercised
	weighed   time.Duration // when weights were last made of reports
}

// endpointSet is what an attempt picks from: immutable, swapped whole.
type endpointSet struct {
	picker      *balance.Picker
	endpoints   []*Endpoint // by Member.Index
	affinity    *affinity   // nil without one
	total       int
	available   int // of those that it is made of; the panic rule uses others
	panicking   bool
	pinned      bool         // by hand: one of them is used, whatever it is like
	name        string       // how it is picked from, in words
	abroad      string       // the same for exchanges of another service, whose failover it is
	last        *endpointSet // with failover: what the panic rule makes of none that is available
	of          *Subset
	fallback    bool  // it is that of the whole cluster, as the subset ...
	part        int   // ... with so many endpoints has none that may be used
	tiered      bool  // attempts are divided by priority or zone
	perEndpoint int64 // how many attempts one may have; 0 unlimited
	ejected     int
	limitsMode  guard.Mode
}

// Name returns the cluster's name.
func (c *Cluster) Name() string { return c.name }

// Direction returns which side of the service the cluster is on.
func (c *Cluster) Direction() telemetry.Direction { return c.direction }

// Policy returns the policy in force.
func (c *Cluster) Policy() *Policy { return c.policy.Load() }

// Budget returns the budget of retries and hedges, or nil when both are off.
func (c *Cluster) Budget() *retry.Budget { return c.budget.Load() }

// Metrics returns the cluster's handles.
func (c *Cluster) Metrics() *telemetry.Cluster { return c.metrics }

func (c *Cluster) detectorNow() *outlier.Detector {
	if c.policy.Load().Outlier == nil {
		return nil
	}
	return c.detector.Load()
}

// sweep lets the outlier detector act, ends orders by hand whose time is over,
// and rebuilds the set when that changed something.
func (c *Cluster) sweep(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := c.expire(now)
	if c.policy.Load().Outlier != nil && len(c.endpoints) > 0 && c.review(now) {
		changed = true
	}
	if changed {
		c.rebuild(now)
	}
}

// review lets the outlier detector act and reports whether it did. c.mu is held.
func (c *Cluster) review(now time.Duration) bool {
	d := c.detector.Load()
	if d.Out() == 0 && !slices.ContainsFunc(c.endpoints, func(e *Endpoint) bool { return e.Outlier.Used() }) {
		return false // there is no evidence: nobody calls it
	}
	states := make([]*outlier.Endpoint, 0, len(c.endpoints))
	for _, e := range c.endpoints {
		if e.spec.Load().Draining == "" { // else it is out anyway, and no evidence for others
			states = append(states, &e.Outlier)
		}
	}
	random := rand.Uint64()
	events := d.Sweep(now, random, states)
	for _, ev := range events {
		c.report(ev)
		c.logJudged(ev, random)
	}
	return len(events) > 0
}

func (c *Cluster) report(ev outlier.Event) {
	i := slices.IndexFunc(c.endpoints, func(e *Endpoint) bool { return &e.Outlier == ev.Endpoint })
	if i < 0 {
		return
	}
	e := c.endpoints[i]
	level := slog.LevelInfo
	if ev.Kind == outlier.KindEjected || ev.Kind == outlier.KindCapReached {
		level = slog.LevelWarn
	}
	attrs := []any{"event", ev.Kind.String(), "cluster", c.name, "endpoint", e.address}
	if ev.Cause != outlier.NoCause {
		attrs = append(attrs, "cause", ev.Cause.String())
	}
	if ev.Until > ev.At {
		attrs = append(attrs, "for", (ev.Until - ev.At).Round(time.Millisecond).String())
	}
	c.registry.log.Log(c.registry.ctx, level, "endpoint "+ev.Kind.String(), attrs...)
	switch ev.Kind {
	case outlier.KindEjected:
		e.pool.close(false, e.drop)
		e.mux.drain(false)
		e.metrics.Ejections.Inc()
	case outlier.KindWouldEject:
		c.metrics.WouldHave(telemetry.WouldEject)
	}
}

// rebuild makes a new set from the endpoints and their states. c.mu is held.
func (c *Cluster) rebuild(now time.Duration) {
	p := c.policy.Load()
	all := make([]balance.Candidate, len(c.endpoints))
	for i, e := range c.endpoints {
		s := e.spec.Load()
		all[i] = balance.Candidate{
			Member:  balance.Member{Load: &e.Load, Weight: e.weight(p, s), Since: e.since, Key: e.key, Index: i, Level: s.Priority, Far: p.far(s)},
			Healthy: s.Healthy && e.check.fit(p.Health),
			Ejected: p.Outlier != nil && e.Outlier.State() == outlier.Ejected,
		}
	}
	ejected := 0
	for i := range all {
		if all[i].Ejected {
			ejected++
		}
	}
	left, pinned := c.obey(all, now)
	left = c.withoutDraining(left, pinned)
	calm := p
	if len(c.Failover()) > 0 { // others are asked before the panic rule is
		own := *p
		own.Balance.PanicPercent = 0
		calm = &own
	}
	set := c.newSet(calm, left, pinned, c.set.Load(), nil)
	if calm != p {
		set.last = c.lastResort(p, left, set)
	}
	set.total, set.ejected = len(all), ejected
	c.logSet(all, set.panicking, now)
	c.set.Store(set)
	c.Gate.hold(c.places(p, set), now)
	c.rebuildSubsets(p, left, set)
}

// newSet returns what is picked from of the candidates in left: of the whole
// cluster, or of a subset. old is the set before. c.mu is held.
func (c *Cluster) newSet(p *Policy, left []balance.Candidate, pinned bool, old *endpointSet, sub *Subset) *endpointSet {
	spill := &c.spill
	if sub != nil {
		spill = &sub.spill
	}
	picker, panicking := choose(p, left, pinned, spill)
	if old != nil {
		picker.Resume(old.picker)
	}
	attrs := []any{"cluster", c.name}
	set := &endpointSet{
		picker:      picker,
		endpoints:   c.endpoints, // never changed in place
		total:       len(left),
		panicking:   panicking,
		pinned:      pinned,
		name:        p.Balance.Algorithm.String(),
		tiered:      picker.Tiers() != nil,
		perEndpoint: perEndpoint(p), limitsMode: p.Limits.Mode,
	}
	set.abroad = set.name + " of " + c.name + " as failover"
	for i := range left {
		if left[i].Healthy && !left[i].Ejected {
			set.available++
		}
	}
	if sub != nil {
		set.name += " in subset " + sub.spec.Name
		attrs = append(attrs, "subset", sub.spec.Name)
	}
	if panicking != (old != nil && old.panicking) {
		if panicking {
			c.registry.log.Warn("too few endpoints are available: using all of them", append([]any{"event", "panic", "endpoints", len(left)}, attrs...)...)
		} else {
			c.registry.log.Info("enough endpoints are available again", append([]any{"event", "panic_over"}, attrs...)...)
		}
	}
	set.affinity = c.newAffinity(p, set.picker, set.endpoints)
	return set
}

// setEndpoints makes list, which nobody changes any more, the cluster's endpoints.
// What is known about those that stay is kept.
func (c *Cluster) setEndpoints(list []EndpointSpec, now time.Duration) (added, removed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list = distinct(list)
	old, gone := c.endpoints, []*Endpoint(nil) // both lists are in the order of addresses
	p := c.policy.Load()
	// Slow start is for those who join a pool that carries the load already.
	since := time.Duration(-1)
	if len(c.endpoints) > 0 {
		since = now
	}
	first := !c.Listed()
	changed := first
	next := make([]*Endpoint, 0, len(list))
	for i := range list {
		s := &list[i]
		for len(old) > 0 && old[0].spec.Load().place(s) < 0 {
			gone, old = append(gone, old[0]), old[1:]
		}
		var e *Endpoint
		if len(old) > 0 && old[0].spec.Load().place(s) == 0 {
			e, old = old[0], old[1:]
		} else {
			e = &Endpoint{cluster: c, address: s.text(), since: since}
			e.key = balance.KeyOf(e.address)
			e.Load.Init(p.Balance)
			e.watch(p)
			e.heed(p)
			if p.Health != nil {
				e.check.start(p.Health, now)
			}
			e.applyBreaker(p.Breaker)
			e.bindMetrics()
			added++
		}
		had := e.spec.Load()
		e.spec.Store(s) // also where it is the same, so that nobody keeps the list before
		if had == nil || *had != *s {
			changed = true
			c.drains(e, had, s, now)
		}
		next = append(next, e)
	}
	c.endpoints, gone = next, append(gone, old...)
	c.show()
	if changed || len(gone) > 0 {
		c.rebuild(now)
	}
	if first {
		close(c.listed)
	}
	if added > 0 && p.Health != nil {
		c.registry.wakeChecks()
	}
	for _, e := range gone {
		e.gone()
		removed++
	}
	return added, removed
}

// distinct returns list in the order of addresses, with weights of at least 1
// and one entry an address: a catalog may know several instances under one.
// One that is healthy goes before one that is not, and that before one that drains.
func distinct(list []EndpointSpec) []EndpointSpec {
	if isDistinct(list) {
		return list // as most are
	}
	list = slices.Clone(list)
	for i := range list {
		list[i].Weight = max(list[i].Weight, 1)
	}
	slices.SortStableFunc(list, func(a, b EndpointSpec) int {
		return cmp.Or(a.place(&b), a.rank()-b.rank())
	})
	return slices.CompactFunc(list, func(a, b EndpointSpec) bool { return a.place(&b) == 0 })
}

func isDistinct(list []EndpointSpec) bool {
	for i := range list {
		if list[i].Weight == 0 || i > 0 && list[i-1].Address.Compare(list[i].Address) >= 0 {
			return false
		}
	}
	return true
}

// apply makes spec the cluster's own.
func (c *Cluster) apply(spec *Spec, now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.spec.Load()
	policy := spec.Policy
	if policy.Balance.IsZero() {
		policy.Balance = balance.Default()
	}
	if policy.Outlier != nil {
		if d := c.detector.Load(); d != nil {
			d.SetConfig(*policy.Outlier)
		} else {
			c.detector.Store(outlier.New(*policy.Outlier))
		}
	}
	c.spec.Store(spec)
	c.policy.Store(&policy)
	var oldPolicy *Policy
	if old != nil {
		oldPolicy = &old.Policy
	}
	c.applyAdmission(policy.Admission)
	if oldPolicy == nil {
		c.applyBreaker(nil, policy.Breaker)
	} else {
		c.applyBreaker(oldPolicy.Breaker, policy.Breaker)
	}
	c.applyBudget(oldPolicy, &policy)
	if old != nil && old.Transport != spec.Transport {
		c.anew()
	}
	c.Gate.configure(&policy.Limits, policy.Adaptive, now)
	c.applySubsets(policy.Subsets)
	c.applyHealth(oldPolicy, &policy, now)
	c.show()
	if old != nil {
		for _, e := range c.endpoints {
			e.Load.Init(policy.Balance)
			e.watch(&policy)
			e.heed(&policy)
		}
		c.rebuild(now)
	}
}

// Transport says in words how endpoints are reached.
func (c *Cluster) Transport() string { return c.spec.Load().Transport }
