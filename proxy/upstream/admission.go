package upstream

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/admission"
)

// throttles are a cluster's. They are immutable, swapped whole.
type throttles struct {
	cfg   *admission.Config
	whole *Throttle            // nil with one a route
	route map[string]*Throttle // by the names of the routes
}

// Throttle holds back requests to a cluster, or those of one route to it.
type Throttle struct {
	*admission.Throttle
	Route string // empty for that of the cluster
	// Refusal says in words why a request was held back.
	Refusal error
}

// applyAdmission follows a change of admission control in the policy. c.mu is
// held.
func (c *Cluster) applyAdmission(cfg *admission.Config) {
	old := c.throttles.Load()
	switch {
	case cfg == nil:
		c.throttles.Store(nil)
		return
	case old != nil && old.cfg.Equal(cfg):
		return
	}
	next := &throttles{cfg: cfg}
	if cfg.Scope == admission.ScopeCluster {
		next.whole = &Throttle{Throttle: admission.New(*cfg), Refusal: errors.New("the service accepted too few of the last requests")}
	}
	c.throttles.Store(next)
}

// KeepThrottles is KeepBreakers for admission control.
func (c *Cluster) KeepThrottles(routes []string) []*Throttle {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.throttles.Load()
	if old == nil || old.cfg.Scope != admission.ScopeRoute {
		return nil
	}
	next := &throttles{cfg: old.cfg, route: make(map[string]*Throttle, len(routes))}
	list := make([]*Throttle, len(routes))
	for i, name := range routes {
		t := next.route[name]
		if t == nil {
			t = old.route[name]
		}
		if t == nil {
			t = &Throttle{Throttle: admission.New(*old.cfg), Route: name, Refusal: errors.New("the service accepted too few of the last requests of the route " + name)}
		}
		next.route[name], list[i] = t, t
	}
	c.throttles.Store(next)
	return list
}

// Throttle returns the cluster's, or nil: with another scope the routes have
// theirs.
func (c *Cluster) Throttle() *Throttle {
	if t := c.throttles.Load(); t != nil {
		return t.whole
	}
	return nil
}

// AdmissionState is a copy of what is known about a throttle.
type AdmissionState struct {
	admission.Snapshot
	Route string
}

// admissions returns what all throttles of the cluster show. It takes no lock:
// scrapes call it.
func (c *Cluster) admissions(now time.Duration) (list []AdmissionState) {
	t := c.throttles.Load()
	if t == nil {
		return nil
	}
	if t.whole != nil {
		list = append(list, AdmissionState{Snapshot: t.whole.Snapshot(now)})
	}
	for _, name := range slices.Sorted(maps.Keys(t.route)) {
		list = append(list, AdmissionState{t.route[name].Snapshot(now), name})
	}
	return list
}

// rejection is the largest share of requests that is held back now.
func (c *Cluster) rejection(now time.Duration) (share float64) {
	for _, s := range c.admissions(now) {
		share = max(share, s.Rejection)
	}
	return share
}
