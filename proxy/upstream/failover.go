package upstream

import (
	"crypto/tls"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// MaxFailover bounds the services that one cluster's attempts may go to when its
// own cannot be used.
const MaxFailover = 8

// SetFailover makes list the clusters that have the attempts of c, in this
// order, while none of c's own endpoints is available: healthy by discovery and
// by active checks, and not ejected. Each is called by its own policy: identities,
// connect timeout, balancing and limits on connections are its own. What c has
// for exchanges stays c's: timeouts, retries and their budget, breaker, limits on
// requests. The failover of those in list is not asked.
func (c *Cluster) SetFailover(list []*Cluster) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(c.Failover(), list) {
		return
	}
	if len(list) == 0 {
		c.failover.Store(nil)
	} else {
		own := slices.Clone(list[:min(len(list), MaxFailover)])
		c.failover.Store(&own)
	}
	if c.set.Load() != nil {
		c.rebuild(c.registry.sweeper.Now())
	}
}

// Failover returns the clusters that SetFailover has set. It must not be changed.
func (c *Cluster) Failover() []*Cluster {
	if l := c.failover.Load(); l != nil {
		return *l
	}
	return nil
}

// source says which of the clusters that may have an exchange's attempts had
// the last one: 0 its own, else the place in its failover from 1.
type source uint8

// noSource is that of an attempt beside another one, whose failure moves nothing.
const noSource source = 0xff

// pickOver picks where c has failover. The own endpoints come first, then those
// of the other services in their order, as long as any are available. Another
// attempt prefers services that no earlier one has failed with, in the same order
// (Envoy's previous_priorities). Where nobody has any that is available, the panic
// rules decide.
func (c *Cluster) pickOver(now time.Duration, w *Wish, tried *Tried, over []*Cluster) *Endpoint {
	broken, full := false, false
	for _, strict := range [...]bool{true, false} {
		for _, again := range [...]bool{false, true} {
			for s := source(0); int(s) <= len(over); s++ {
				if tried.failed&(1<<s) != 0 != again {
					continue
				}
				e := c.pickAt(s, over, now, w, tried, strict)
				if e != nil {
					if again { // all have had their turn
						tried.failed = 0
					}
					return e
				}
				broken, full = broken || tried.broken, full || tried.full
			}
		}
	}
	tried.broken, tried.full = broken, full
	return nil
}

// pickAt picks among the endpoints of one service.
func (c *Cluster) pickAt(s source, over []*Cluster, now time.Duration, w *Wish, tried *Tried, strict bool) *Endpoint {
	tried.source = s
	if s == 0 {
		return c.pickFrom(now, w, tried, strict)
	}
	other := Wish{Key: w.Key, Keyed: w.Keyed} // cookie and subset are of the own service
	e := over[s-1].pickFrom(now, &other, tried, strict)
	if e != nil {
		c.metrics.FailedOver()
	}
	return e
}

// strictly is the set that s stands for where none but available endpoints are
// wanted, nil where it has none, and where they are not the last resort.
func (s *endpointSet) strictly(strict bool) *endpointSet {
	switch {
	case s == nil:
		return nil
	case !strict && s.last != nil:
		return s.last
	case strict && s.available == 0 && !s.pinned:
		return nil
	}
	return s
}

// lastResort is what the panic rule makes of a cluster with failover of which no
// endpoint is available; nil where it has nothing to say.
func (c *Cluster) lastResort(p *Policy, left []balance.Candidate, set *endpointSet) *endpointSet {
	if set.pinned || set.picker.Len() > 0 || len(left) == 0 {
		return nil
	}
	last := *set
	last.picker, last.panicking = choose(p, left, false, nil)
	if last.picker.Len() == 0 {
		return nil
	}
	last.affinity, last.tiered = nil, false
	return &last
}

// Of names the service whose endpoint e is, where that is not c's own; else it is
// empty.
func (c *Cluster) Of(e *Endpoint) string {
	if e.cluster == c {
		return ""
	}
	return e.cluster.name
}

// awaitFailover is AwaitListed for those who have c's attempts when it has nobody.
func (c *Cluster) awaitFailover(until time.Time) (waited bool) {
	for _, o := range c.Failover() {
		waited = o.awaitListed(time.Until(until)) || waited
	}
	return waited
}

// FailoverState is a copy of what is known about a service of a cluster's failover.
type FailoverState struct {
	Name      string
	Endpoints int
	Available int // without the panic rule
	// InUse: it is the one that first attempts go to.
	InUse      bool
	TLS        *tls.Config // nil for plaintext
	Identities []string
}

// failoverStates returns copies of all of them, in their order.
func (c *Cluster) failoverStates() (states []FailoverState) {
	over := c.Failover()
	used := len(over) == 0 || c.set.Load().strictly(true) != nil
	for _, o := range over {
		spec := o.spec.Load()
		s := FailoverState{Name: o.name, TLS: spec.TLS, Identities: spec.Identities}
		if set := o.set.Load(); set != nil {
			s.Endpoints, s.Available = set.total, set.available
			s.InUse = !used && set.strictly(true) != nil
		}
		used = used || s.InUse
		states = append(states, s)
	}
	return states
}
