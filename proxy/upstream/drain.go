package upstream

import (
	"log/slog"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// rank says which of several entries for one address counts: the lowest.
func (s *EndpointSpec) rank() int {
	switch {
	case s.Draining != "":
		return 2
	case !s.Healthy:
		return 1
	}
	return 0
}

// withoutDraining leaves out the candidates that drain: they get nothing new,
// and are neither available nor failed. What a person has pinned stays. c.mu is
// held.
func (c *Cluster) withoutDraining(left []balance.Candidate, pinned bool) []balance.Candidate {
	drains := func(cand balance.Candidate) bool { return c.endpoints[cand.Index].spec.Load().Draining != "" }
	if pinned || !slices.ContainsFunc(left, drains) {
		return left
	}
	return slices.DeleteFunc(slices.Clone(left), drains)
}

// drains follows a change of what discovery says of e. Its connections stay: what
// is under way goes on, and those that nothing uses end by their idle time. Who
// is back begins slowly, as it may have been restarted. c.mu is held.
func (c *Cluster) drains(e *Endpoint, had, has *EndpointSpec, now time.Duration) {
	was := had != nil && had.Draining != ""
	switch is := has.Draining != ""; {
	case is && !was:
		c.registry.log.Log(c.registry.ctx, slog.LevelInfo, "endpoint drains: it gets nothing new", "event", "draining",
			"cluster", c.name, "endpoint", e.address, "cause", has.Draining, "active", e.Load.Inflight())
	case was && !is:
		e.since = now
		c.registry.log.Log(c.registry.ctx, slog.LevelInfo, "endpoint drains no more", "event", "draining_over", "cluster", c.name, "endpoint", e.address)
	}
}

// draining is 1 while e gets nothing new.
func (e *Endpoint) draining() float64 {
	if s := e.spec.Load(); s != nil && s.Draining != "" {
		return 1
	}
	return 0
}
