package upstream

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// ErrAllBroken says that no endpoint could be picked because of their breakers.
var ErrAllBroken = errors.New("the breakers of all endpoints that might be picked are open")

// leave is a breaker's leave for one attempt.
type leave struct {
	by     *breaker.Breaker // nil: none was asked
	ticket breaker.Ticket
}

// RouteBreaker is the breaker of one route to a cluster.
type RouteBreaker struct {
	*breaker.Breaker
	Route string
	// Refusal says in words that it is open.
	Refusal error
}

// Breaker returns the one breaker of the cluster, or nil: with another scope
// the routes or the endpoints have theirs.
func (c *Cluster) Breaker() *breaker.Breaker { return c.breaker.Load() }

// KeepBreakers returns the breakers of the routes with these names, in their
// order, one a name, or nil where routes have none. One that the plan before had
// is what it was, as long as its configuration stays; others are forgotten.
func (c *Cluster) KeepBreakers(routes []string) []*RouteBreaker {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := c.policy.Load().Breaker
	if cfg == nil || cfg.Scope != breaker.ScopeRoute {
		c.routed.Store(nil)
		return nil
	}
	next := make(map[string]*RouteBreaker, len(routes))
	list := make([]*RouteBreaker, len(routes))
	var old map[string]*RouteBreaker
	if p := c.routed.Load(); p != nil {
		old = *p
	}
	for i, name := range routes {
		b := next[name]
		if b == nil {
			b = old[name]
		}
		if b == nil {
			b = &RouteBreaker{Breaker: c.newBreaker(cfg, name, "route", name), Route: name, Refusal: errors.New("the breaker of the route " + name + " is open")}
		}
		next[name], list[i] = b, b
	}
	c.routed.Store(&next)
	return list
}

// newBreaker returns a breaker that tells its changes. attr and value say in the
// log whose it is, unless it is the cluster's.
func (c *Cluster) newBreaker(cfg *breaker.Config, name, attr, value string) *breaker.Breaker {
	return breaker.New(name, *cfg, func(from, to breaker.State) { c.breakerChanged(from, to, attr, value) })
}

func (c *Cluster) breakerChanged(from, to breaker.State, attr, value string) {
	level := slog.LevelInfo
	if to == breaker.Open {
		level = slog.LevelWarn
		c.metrics.BreakerOpened.Inc()
	}
	if attr == "" { // of the cluster; a replay has no others
		c.logBreaker(from, to)
	}
	attrs := []any{"event", "breaker_" + to.String(), "cluster", c.name, "from", from.String()}
	if attr != "" {
		attrs = append(attrs, attr, value)
	}
	c.registry.log.Log(c.registry.ctx, level, "circuit breaker "+to.String(), attrs...)
}

// applyBreaker follows a change of the breaker in the policy. c.mu is held.
func (c *Cluster) applyBreaker(old, now *breaker.Config) {
	if old == now || old != nil && now != nil && *old == *now {
		return
	}
	c.breaker.Store(nil)
	c.routed.Store(nil) // made anew by KeepBreakers
	if now != nil && now.Scope == breaker.ScopeCluster {
		c.breaker.Store(c.newBreaker(now, c.name, "", ""))
	}
	for _, e := range c.endpoints {
		e.applyBreaker(now)
	}
}

// applyBreaker gives e a new breaker, or none.
func (e *Endpoint) applyBreaker(cfg *breaker.Config) {
	var b *breaker.Breaker
	if cfg != nil && cfg.Scope == breaker.ScopeEndpoint {
		b = e.cluster.newBreaker(cfg, e.address, "endpoint", e.address)
	}
	e.breaker.Store(b)
}

// Admit asks b, which may be nil, whether an attempt may be made. Settle is owed
// if so.
func (c *Cluster) Admit(b *breaker.Breaker, now time.Duration, t *Tried) bool {
	if b == nil {
		return true
	}
	ticket, ok := b.Allow(now, t.Draw)
	if !ok {
		return false
	}
	if ticket.Observed() {
		c.metrics.WouldHave(telemetry.WouldBreak)
	}
	t.leave = leave{b, ticket}
	return true
}

// Settle tells the breaker that has let an attempt pass how that ended. Without
// one it does nothing.
func (t *Tried) Settle(now time.Duration, res breaker.Result) {
	if l := t.leave; l.by != nil {
		t.leave = leave{}
		l.by.Done(l.ticket, now, res)
	}
}

// Broken reports whether the last pick found none for open breakers.
func (t *Tried) Broken() bool { return t.broken }

// Condition says what speaks against e in the words of the ledger: the state of
// its ejection, or of its breaker.
func (e *Endpoint) Condition(now time.Duration) string {
	if b := e.breaker.Load(); b != nil {
		if s := b.State(now); s != breaker.Closed {
			return "breaker " + s.String()
		}
	}
	return e.Outlier.State().String()
}

// BreakerState is that of the breaker which was asked for the attempts of an
// exchange: rb, the one of ep, or the cluster's. It reports false without one.
func (c *Cluster) BreakerState(rb *RouteBreaker, ep *Endpoint, now time.Duration) (breaker.State, bool) {
	b := c.breaker.Load()
	if rb != nil {
		b = rb.Breaker
	} else if b == nil && ep != nil {
		b = ep.breaker.Load()
	}
	if b == nil {
		return breaker.Closed, false
	}
	return b.State(now), true
}

// breakers returns what all breakers of the cluster show, by route or address.
// It takes no lock: scrapes call it.
func (c *Cluster) breakers(now time.Duration) (list []BreakerState) {
	if b := c.breaker.Load(); b != nil {
		return []BreakerState{{Snapshot: b.Snapshot(now)}}
	}
	if p := c.routed.Load(); p != nil {
		for _, name := range slices.Sorted(maps.Keys(*p)) {
			list = append(list, BreakerState{Scope: breaker.ScopeRoute, Of: name, Snapshot: (*p)[name].Snapshot(now)})
		}
		return list
	}
	if s := c.set.Load(); s != nil {
		for _, e := range s.endpoints {
			if b := e.breaker.Load(); b != nil {
				list = append(list, BreakerState{Scope: breaker.ScopeEndpoint, Of: e.address, Snapshot: b.Snapshot(now)})
			}
		}
	}
	return list
}

// BreakerState is a copy of what is known about a breaker.
type BreakerState struct {
	breaker.Snapshot
	Scope breaker.Scope
	Of    string // the route or the endpoint's address; empty for that of the cluster
}

// BreakerFor returns the breaker that decides about requests of a route, whose
// own is rb or nil: of those of the endpoints the one that refuses least.
func (cs *ClusterState) BreakerFor(rb *RouteBreaker) (found *BreakerState) {
	for i := range cs.Breakers {
		b := &cs.Breakers[i]
		switch {
		case b.Scope == breaker.ScopeRoute && (rb == nil || rb.Route != b.Of):
		case found == nil || b.State.Severity() < found.State.Severity():
			found = b
		}
	}
	return found
}

// Worst returns the one of list that refuses most, nil of none.
func Worst(list []BreakerState) *BreakerState {
	if len(list) == 0 {
		return nil
	}
	m := slices.MaxFunc(list, func(a, b BreakerState) int {
		if d := a.State.Severity() - b.State.Severity(); d != 0 {
			return d
		}
		return strings.Compare(b.Of, a.Of)
	})
	return &m
}
