package upstream

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Cluster is a named group of endpoints under one policy. It outlives plans:
// endpoints, pools, counters and ejections stay when a plan is replaced.
type Cluster struct {
	Limits limit.Limits

	name      string
	direction telemetry.Direction
	registry  *Registry
	metrics   *telemetry.Cluster

	spec       atomic.Pointer[Spec]
	policy     atomic.Pointer[Policy]
	breaker    atomic.Pointer[breaker.Breaker]
	budget     atomic.Pointer[retry.Budget]
	set        atomic.Pointer[endpointSet]
	generation atomic.Uint64 // of the transport: older connections are not kept
	detector   atomic.Pointer[outlier.Detector]
	waiters    atomic.Int64
	free       chan struct{}

	refs int // under Registry.changing

	mu        sync.Mutex  // below: changes of endpoints and policy
	endpoints []*Endpoint // sorted by address
	listed    bool        // discovery has answered at least once
}

// endpointSet is what an attempt picks from: immutable, swapped whole.
type endpointSet struct {
	picker    *balance.Picker
	endpoints []*Endpoint // by Member.Index
	total     int
	panicking bool
}

// Name returns the cluster's name.
func (c *Cluster) Name() string { return c.name }

// Policy returns the policy in force.
func (c *Cluster) Policy() *Policy { return c.policy.Load() }

// Breaker returns the circuit breaker, or nil.
func (c *Cluster) Breaker() *breaker.Breaker { return c.breaker.Load() }

// Budget returns the retry budget, or nil when retries are off.
func (c *Cluster) Budget() *retry.Budget { return c.budget.Load() }

// Metrics returns the cluster's handles.
func (c *Cluster) Metrics() *telemetry.Cluster { return c.metrics }

// Tried holds the endpoints that earlier attempts of an exchange went to, so
// that another is preferred.
type Tried struct {
	loads [maxTried]*balance.Load
	n     int
}

const maxTried = 8

// Add remembers e.
func (t *Tried) Add(e *Endpoint) {
	if t.n < maxTried {
		t.loads[t.n] = &e.Load
		t.n++
	}
}

// Reset forgets all.
func (t *Tried) Reset() { *t = Tried{} }

// Pick chooses an endpoint for an attempt, or nil when the cluster has none
// that may be used.
func (c *Cluster) Pick(now time.Duration, tried *Tried) *Endpoint {
	s := c.set.Load()
	if s == nil || s.picker.Len() == 0 {
		return nil
	}
	mode := guard.Observe
	if p := c.policy.Load().Outlier; p != nil {
		mode = p.Mode
	}
	var passed Tried
	var last *Endpoint
	avoid := tried
	for range maxTried {
		i := s.picker.Pick(now, rand.Uint64(), avoid.loads[:avoid.n])
		if i < 0 {
			return nil
		}
		e := s.endpoints[s.picker.Member(i).Index]
		if e.usable(mode) || s.panicking {
			return e
		}
		// On probation, and its one probe is under way.
		if avoid != &passed {
			passed = *tried
			avoid = &passed
		}
		passed.Add(e)
		last = e
	}
	return c.pickOther(s, mode, last)
}

// pickOther looks at all endpoints in turn after Pick has met several on
// probation. Where every one of them is, the panic rule holds as if they were
// ejected: last is used.
func (c *Cluster) pickOther(s *endpointSet, mode guard.Mode, last *Endpoint) *Endpoint {
	n := s.picker.Len()
	from := rand.IntN(n)
	for i := range n {
		if e := s.endpoints[s.picker.Member((from+i)%n).Index]; e.usable(mode) {
			return e
		}
	}
	if c.policy.Load().Balance.PanicPercent > 0 {
		return last
	}
	return nil
}

// Begin counts the start of an attempt at e.
func (c *Cluster) Begin(e *Endpoint, now time.Duration) {
	e.Load.Begin(now)
}

// Finish counts the end of an attempt at e that took rtt: the time to the
// response head, or until it failed. An end for which the endpoint is not to
// blame, such as the caller's going away, says nothing about it.
func (c *Cluster) Finish(e *Endpoint, now, rtt time.Duration, reason outcome.Reason, status int) {
	row := reason.Row()
	res := outlier.Success
	switch {
	case reason == outcome.UpstreamError:
		res = outlier.Failure
	case row.Blame:
		res = outlier.LocalFailure
	case reason != outcome.OK:
		res = outlier.Ignored
	}
	if res == outlier.Ignored {
		rtt = -1
	}
	e.Load.End(now, rtt, res == outlier.Failure || res == outlier.LocalFailure)
	e.metrics.Attempt(telemetry.Result(res))
	if d := c.detectorNow(); d != nil && d.Observe(&e.Outlier, now, res, uint16(status)) {
		c.sweep(now)
	}
}

func (c *Cluster) detectorNow() *outlier.Detector {
	if c.policy.Load().Outlier == nil {
		return nil
	}
	return c.detector.Load()
}

// sweep lets the outlier detector act and rebuilds the set when it did.
func (c *Cluster) sweep(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.policy.Load().Outlier == nil || len(c.endpoints) == 0 {
		return
	}
	states := make([]*outlier.Endpoint, len(c.endpoints))
	for i, e := range c.endpoints {
		states[i] = &e.Outlier
	}
	events := c.detector.Load().Sweep(now, rand.Uint64(), states)
	if len(events) == 0 {
		return
	}
	for _, ev := range events {
		c.report(ev)
	}
	c.rebuild(now)
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
			Member:  balance.Member{Load: &e.Load, Weight: s.Weight, Since: e.since, Index: i},
			Healthy: s.Healthy,
			Ejected: p.Outlier != nil && e.Outlier.State() == outlier.Ejected,
		}
	}
	use, panicking := balance.Choose(p.Balance, all)
	if old := c.set.Load(); panicking != (old != nil && old.panicking) {
		if panicking {
			c.registry.log.Warn("too few endpoints are available: using all of them", "event", "panic", "cluster", c.name, "endpoints", len(all))
		} else {
			c.registry.log.Info("enough endpoints are available again", "event", "panic_over", "cluster", c.name)
		}
	}
	c.set.Store(&endpointSet{
		picker:    balance.NewPicker(p.Balance, use),
		endpoints: slices.Clone(c.endpoints),
		total:     len(all),
		panicking: panicking,
	})
}

// setEndpoints makes list the cluster's endpoints. What is known about those
// that stay is kept.
func (c *Cluster) setEndpoints(list []EndpointSpec, now time.Duration) (added, removed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list = distinct(list)
	old := make(map[netip.AddrPort]*Endpoint, len(c.endpoints))
	for _, e := range c.endpoints {
		old[e.addr] = e
	}
	p := c.policy.Load()
	// Slow start is for those who join a pool that carries the load already.
	since := time.Duration(-1)
	if len(c.endpoints) > 0 {
		since = now
	}
	changed := !c.listed
	next := make([]*Endpoint, 0, len(list))
	for i := range list {
		s := &list[i]
		e := old[s.Address]
		if e == nil {
			e = &Endpoint{cluster: c, address: s.Address.String(), addr: s.Address, since: since}
			e.Load.Init(p.Balance)
			e.bindMetrics()
			added++
		} else {
			delete(old, s.Address)
		}
		if had := e.spec.Load(); had == nil || *had != *s {
			own := *s
			e.spec.Store(&own)
			changed = true
		}
		next = append(next, e)
	}
	c.endpoints, c.listed = next, true
	if changed || len(old) > 0 {
		c.rebuild(now)
	}
	for _, e := range old {
		e.pool.close(true, e.drop)
		e.metrics.Release()
		removed++
	}
	return added, removed
}

// distinct returns list in the order of addresses, with weights of at least 1
// and one entry an address: a catalog may know several instances under one.
// One that is healthy goes before one that is not.
func distinct(list []EndpointSpec) []EndpointSpec {
	list = slices.Clone(list)
	for i := range list {
		list[i].Weight = max(list[i].Weight, 1)
	}
	slices.SortStableFunc(list, func(a, b EndpointSpec) int {
		if d := a.Address.Compare(b.Address); d != 0 || a.Healthy == b.Healthy {
			return d
		}
		if a.Healthy {
			return -1
		}
		return 1
	})
	return slices.CompactFunc(list, func(a, b EndpointSpec) bool { return a.Address == b.Address })
}

// apply makes spec the cluster's own.
func (c *Cluster) apply(spec *Spec, now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.spec.Load()
	policy := spec.Policy
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
	if policy.Breaker == nil {
		c.breaker.Store(nil)
	} else if oldPolicy == nil || oldPolicy.Breaker == nil || *oldPolicy.Breaker != *policy.Breaker {
		c.breaker.Store(breaker.New(c.name, *policy.Breaker, c.breakerChanged))
	}
	if policy.Retry == nil {
		c.budget.Store(nil)
	} else if oldPolicy == nil || oldPolicy.Retry == nil || !sameBudget(oldPolicy.Retry, policy.Retry) {
		c.budget.Store(retry.NewBudget(*policy.Retry))
	}
	if old != nil && old.Transport != spec.Transport {
		c.generation.Add(1)
		for _, e := range c.endpoints {
			e.pool.close(false, e.drop)
		}
	}
	if old != nil {
		for _, e := range c.endpoints {
			e.Load.Init(policy.Balance)
		}
		c.rebuild(now)
	}
}

func sameBudget(a, b *retry.Config) bool {
	return a.BudgetPercent == b.BudgetPercent && a.BudgetMinPerSecond == b.BudgetMinPerSecond
}

func (c *Cluster) breakerChanged(from, to breaker.State) {
	level := slog.LevelInfo
	if to == breaker.Open {
		level = slog.LevelWarn
	}
	c.registry.log.Log(c.registry.ctx, level, "circuit breaker "+to.String(), "event", "breaker_"+to.String(), "cluster", c.name, "from", from.String())
	if to == breaker.Open {
		c.metrics.BreakerOpened.Inc()
	}
}

// slot takes the right to make one more connection. Where the limit is
// reached it waits for a connection to become free: then that one is returned,
// or an idle one of another endpoint is closed to make room.
func (c *Cluster) slot(e *Endpoint, p *Policy, w Want, until time.Time) (*wire.Conn, *outcome.Error) {
	most := p.Limits.MaxConnections
	if p.Limits.Mode == guard.Observe {
		if most > 0 && c.Limits.Connections.Value() >= most {
			c.metrics.WouldHave(telemetry.WouldLimit)
		}
		c.Limits.Acquire(&p.Limits, limit.Connections)
		return nil, nil
	}
	if c.Limits.Connections.Acquire(most) {
		return nil, nil
	}
	if !c.Limits.Acquire(&p.Limits, limit.Pending) {
		c.metrics.Limited(telemetry.LimitPending)
		return nil, &outcome.Error{Reason: outcome.LimitPending}
	}
	defer c.Limits.Release(limit.Pending)
	c.waiters.Add(1)
	defer c.waiters.Add(-1)
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		if !w.Fresh {
			if got := e.kept(c.registry.sweeper.Now(), p, true); got != nil {
				return got, nil
			}
		}
		if c.Limits.Connections.Acquire(most) {
			return nil, nil
		}
		if c.evictIdle() {
			continue
		}
		select {
		case <-c.free:
		case <-timer.C:
			if c.Limits.Acquire(&p.Limits, limit.Connections) {
				return nil, nil
			}
			c.metrics.Limited(telemetry.LimitConnections)
			return nil, &outcome.Error{Reason: outcome.LimitConnections}
		case <-c.registry.ctx.Done():
			return nil, &outcome.Error{Reason: outcome.Draining}
		}
	}
}

// evictIdle closes one idle connection of any endpoint.
func (c *Cluster) evictIdle() bool {
	for _, e := range c.set.Load().endpoints {
		if idle := e.pool.evict(); idle != nil {
			e.drop(idle)
			return true
		}
	}
	return false
}

// freed tells a waiter that a connection was put back or, with gone, closed.
func (c *Cluster) freed(gone bool) {
	if gone {
		c.Limits.Connections.Release()
	}
	if c.waiters.Load() > 0 {
		select {
		case c.free <- struct{}{}:
		default:
		}
	}
}

// Transport says in words how endpoints are reached.
func (c *Cluster) Transport() string { return c.spec.Load().Transport }
