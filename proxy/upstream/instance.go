package upstream

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Instances finds endpoints by their addresses, of clusters that are called
// directly (Spec.Direct): the application connects to the very instance that it
// means.
type Instances struct {
	mu sync.RWMutex
	of map[netip.Addr][]*Endpoint
}

// Find returns the endpoint that a connection to dst means: the one of that
// address and port, else, since an application dials its own port where the
// endpoint is that of a sidecar, the only one of that address.
func (i *Instances) Find(dst netip.AddrPort) *Endpoint {
	i.mu.RLock()
	defer i.mu.RUnlock()
	list := i.of[dst.Addr()]
	for _, e := range list {
		if e.AddrPort() == dst {
			return e
		}
	}
	if len(list) == 1 {
		return list[0]
	}
	return nil
}

// set makes list what is found of c.
func (i *Instances) set(c *Cluster, list []*Endpoint) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range c.found {
		a := e.AddrPort().Addr()
		if rest := slices.DeleteFunc(i.of[a], func(o *Endpoint) bool { return o == e }); len(rest) == 0 {
			delete(i.of, a)
		} else {
			i.of[a] = rest
		}
	}
	c.found = list
	if len(list) > 0 && i.of == nil {
		i.of = map[netip.Addr][]*Endpoint{}
	}
	for _, e := range list {
		a := e.AddrPort().Addr()
		i.of[a] = append(i.of[a], e)
	}
}

// show keeps what is found of c in step. c.mu is held.
func (c *Cluster) show() {
	var list []*Endpoint
	if s := c.spec.Load(); s != nil && s.Direct {
		list = c.endpoints
	}
	if len(list) > 0 || len(c.found) > 0 {
		c.registry.Instances.set(c, list)
	}
}

// Home returns the cluster whose endpoint e is.
func (e *Endpoint) Home() *Cluster { return e.cluster }

// pickOnly is Pick where the exchange means one endpoint: no other will do.
func (c *Cluster) pickOnly(now time.Duration, w *Wish, tried *Tried) *Endpoint {
	s := c.set.Load()
	tried.set, tried.held, tried.broken, tried.full = s, false, false, false
	tried.seen.Reset()
	if s == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(s.endpoints, w.Only, func(e *Endpoint, a netip.AddrPort) int { return e.AddrPort().Compare(a) })
	if !found {
		return nil
	}
	e := s.endpoints[i]
	// Ejected or unhealthy, it is still the one that is meant.
	if c.takes(s, e, guard.Observe, now, tried) {
		return e
	}
	return nil
}
