package upstream

import (
	"maps"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

// GateState is a copy of what is known about a gate.
type GateState struct {
	Route    string // of the listener and the route; empty for that of the cluster
	Most     int64  // that may be in now; 0 unlimited
	Would    int64  // that might be if what is only observed were enforced; 0 the same
	Active   int64
	Waiting  int64
	Delay    time.Duration // how long the one has waited who came first
	Standing bool
	Refused  uint64
	Queue    *queue.Config      // nil without one
	Adaptive *adaptive.Snapshot // nil without one
}

// Bounds reports whether the gate may ever refuse anybody, or would if it did
// more than observe.
func (s *GateState) Bounds() bool { return s.Most > 0 || s.Would > 0 || s.Adaptive != nil }

// Shut reports whether who comes now would not be let in at once.
func (s *GateState) Shut() bool { return s.Waiting > 0 || s.Most > 0 && s.Active >= s.Most }

// State returns what is known about g.
func (g *Gate) State(now time.Duration) GateState {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := GateState{Most: g.most.Load(), Would: g.would.Load(), Active: g.limits.Requests.Value(), Waiting: g.waiting.Load(), Refused: g.limits.Rejected(limit.Requests)}
	if g.queueing {
		cfg := g.queue.Config()
		s.Queue, s.Delay, s.Standing = &cfg, g.queue.Delay(now), g.queue.Standing()
	}
	if a := g.adaptive.Load(); a != nil {
		snap := a.Snapshot()
		s.Adaptive = &snap
	}
	return s
}

// gateStates returns the gates of the cluster and of its routes, those that can
// never refuse anybody left out.
func (c *Cluster) gateStates(now time.Duration) (list []GateState) {
	c.mu.Lock()
	routes := maps.Clone(c.gates)
	c.mu.Unlock()
	if s := c.Gate.State(now); s.Bounds() {
		list = append(list, s)
	}
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		s := routes[name].State(now)
		s.Route = name
		if s.Bounds() {
			list = append(list, s)
		}
	}
	return list
}
