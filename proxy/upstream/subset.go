package upstream

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// SubsetSpec is a named part of a cluster's endpoints.
type SubsetSpec struct {
	Name string
	// Match are the labels that an endpoint must all have.
	Match balance.Labels
	// Any takes the whole cluster when none of the subset may be used.
	Any bool
}

// Subset is a part of a cluster that is picked from by itself: with a picker, an
// affinity and a panic rule of its own. Endpoints, their connections, load and
// ejections are the cluster's. It outlives plans like its cluster.
type Subset struct {
	spec    SubsetSpec
	refusal error
	set     atomic.Pointer[endpointSet]
	spill   balance.Spill // under Cluster.mu
	metrics *telemetry.Subset
}

// Name returns the subset's name.
func (s *Subset) Name() string { return s.spec.Name }

// Subset returns the subset of that name, nil when the policy in force has none.
func (c *Cluster) Subset(name string) *Subset {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subsets {
		if s.spec.Name == name {
			return s
		}
	}
	return nil
}

// Refusal is why a pick for w found nothing, where w is for a subset; else nil.
func (w *Wish) Refusal() error {
	if w.Subset == nil {
		return nil
	}
	w.Subset.metrics.Refused.Inc()
	return w.Subset.refusal
}

// applySubsets makes specs the cluster's subsets; one that stays as it is keeps
// its handle. Those that go keep what they have for exchanges that began under a
// plan which had them. c.mu is held.
func (c *Cluster) applySubsets(specs []SubsetSpec) {
	old := c.subsets
	c.subsets = make([]*Subset, 0, len(specs))
	for i := range specs {
		spec := &specs[i]
		at := slices.IndexFunc(old, func(s *Subset) bool { return s.spec == *spec })
		if at >= 0 {
			c.subsets = append(c.subsets, old[at])
			old = slices.Delete(slices.Clone(old), at, at+1)
			continue
		}
		s := &Subset{
			spec:    *spec,
			refusal: fmt.Errorf("no endpoint of subset %s of %s (%s) may be used", spec.Name, c.name, spec.Match),
			metrics: c.registry.metrics.Subset(c.name, c.direction, spec.Name),
		}
		s.metrics.Bind(
			func() float64 { return float64(s.sizes().total) },
			func() float64 { return float64(s.sizes().usable) },
		)
		c.subsets = append(c.subsets, s)
	}
	for _, s := range old {
		s.metrics.Release()
	}
}

// rebuildSubsets makes new sets for the subsets from the candidates that orders
// by hand and drains have left. whole is the cluster's own. c.mu is held.
func (c *Cluster) rebuildSubsets(p *Policy, left []balance.Candidate, whole *endpointSet) {
	for _, s := range c.subsets {
		var part []balance.Candidate
		for i := range left {
			if c.endpoints[left[i].Index].spec.Load().Labels.Has(s.spec.Match) {
				part = append(part, left[i])
			}
		}
		set := c.newSet(p, part, whole.pinned && len(part) > 0, s.set.Load(), s)
		set.of = s
		if set.picker.Len() == 0 && (s.spec.Any || whole.pinned) {
			all := *whole
			all.of, all.fallback, all.part = s, true, len(part)
			set = &all
		}
		s.set.Store(set)
	}
}

// subsetSizes are how many endpoints a subset has, and how many may be used.
type subsetSizes struct{ total, usable int }

func (s *Subset) sizes() subsetSizes {
	switch set := s.set.Load(); {
	case set == nil:
		return subsetSizes{}
	case set.fallback:
		return subsetSizes{total: set.part}
	default:
		return subsetSizes{set.total, set.picker.Len()}
	}
}

// SubsetState is a copy of what is known about a subset.
type SubsetState struct {
	Name      string
	Match     balance.Labels
	Any       bool // it falls back on the whole cluster
	Endpoints int
	Usable    int
	Panicking bool
	Fallback  bool // it does so now
	Fallbacks uint64
	Refused   uint64
	Tiers     []balance.TierState // how attempts are divided; nil where they are not
}

// subsetStates returns copies of all subsets.
func (c *Cluster) subsetStates() (states []SubsetState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subsets {
		states = append(states, s.State())
	}
	return states
}

// State returns a copy of what is known about the subset.
func (s *Subset) State() SubsetState {
	n := s.sizes()
	st := SubsetState{
		Name: s.spec.Name, Match: s.spec.Match, Any: s.spec.Any, Endpoints: n.total, Usable: n.usable,
		Fallbacks: s.metrics.Fallbacks.Value(), Refused: s.metrics.Refused.Value(),
	}
	if set := s.set.Load(); set != nil {
		st.Fallback, st.Panicking = set.fallback, set.panicking && !set.fallback
		st.Tiers = set.picker.Tiers()
	}
	return st
}
