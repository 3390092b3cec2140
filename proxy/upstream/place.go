package upstream

import (
	"errors"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
)

// ErrAllFull is why no endpoint was picked where each that might be has as many
// attempts as it may.
var ErrAllFull = errors.New("every endpoint that may be used has max_requests_per_endpoint under way")

// perEndpoint is how many attempts an endpoint may have; 0 unlimited, also where
// limits are observed for all.
func perEndpoint(p *Policy) int64 {
	if p.Limits.Mode == guard.Observe {
		return 0
	}
	return p.Limits.MaxRequestsPerEndpoint
}

// places is how many attempts the endpoints of s may have together; 0 unlimited.
// While no more exchanges than that are let in there is a place for each
// somewhere: an exchange has one attempt at a time. An endpoint on probation
// counts for its probe.
func (c *Cluster) places(p *Policy, s *endpointSet) (n int64) {
	for i := range s.picker.Len() {
		if s.endpoints[s.picker.Member(i).Index].Outlier.State() == outlier.Probation {
			n += min(p.Limits.MaxRequestsPerEndpoint, 1)
		} else {
			n += p.Limits.MaxRequestsPerEndpoint
		}
	}
	return n
}

// place takes one of the attempts that e, of s, may have at a time, and gives back
// what an earlier attempt had. An exchange for which limits are only observed has
// one beyond them.
func (t *Tried) place(e *Endpoint, s *endpointSet) bool {
	t.Vacate()
	most := s.perEndpoint
	if most <= 0 {
		return true
	}
	if !s.limitsMode.Acts(t.Draw) {
		most = 0
	}
	if !e.occupied().Acquire(most) {
		t.full = true
		return false
	}
	t.placed = e
	return true
}

// Vacate gives back the place of the attempt that has ended, if it had one.
func (t *Tried) Vacate() {
	if e := t.placed; e != nil {
		t.placed = nil
		e.occupied().Release()
	}
}

// occupied counts e's places that are taken.
func (e *Endpoint) occupied() *limit.Gauge {
	if g := e.places.Load(); g != nil {
		return g
	}
	e.places.CompareAndSwap(nil, new(limit.Gauge))
	return e.places.Load()
}

// Full reports whether the last pick passed over an endpoint because it had as
// many attempts as it may.
func (t *Tried) Full() bool { return t.full }
