package upstream

import "github.com/outrigger-mesh/outrigger/resilience/limit"

// GateSpec says which limit a plan wants for a route.
type GateSpec struct {
	Name   string // of the listener and the route
	Limits limit.Config
}

// routeGate is the gate of a route with what it counts in.
type routeGate struct {
	Gate
	limits limit.Limits
}

// KeepGates returns the gates of the routes in want. One that the plan before had
// under the same name is what it was, with those who are in it or wait; others
// are forgotten by the cluster, not by who is in them.
func (c *Cluster) KeepGates(want []GateSpec) []*Gate {
	now := c.registry.sweeper.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(want) == 0 {
		c.gates = nil
		return nil
	}
	next := make(map[string]*routeGate, len(want))
	list := make([]*Gate, len(want))
	for i := range want {
		g := c.gates[want[i].Name]
		if g == nil {
			g = &routeGate{}
			g.bind(c, &g.limits)
		}
		g.configure(&want[i].Limits, nil, now)
		next[want[i].Name], list[i] = g, &g.Gate
	}
	c.gates = next
	return list
}
