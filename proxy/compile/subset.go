package compile

import (
	"maps"
	"slices"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// subsets prepares the subsets of a policy, in the order of their names.
func subsets(p *config.Policy) []upstream.SubsetSpec {
	var list []upstream.SubsetSpec
	for _, name := range slices.Sorted(maps.Keys(p.Subsets)) {
		labels := make([]balance.Label, 0, len(p.Subsets[name]))
		for k, v := range p.Subsets[name] {
			labels = append(labels, balance.Label{Key: k, Value: v})
		}
		match, _ := balance.NewLabels(labels)
		list = append(list, upstream.SubsetSpec{Name: name, Match: match, Any: p.SubsetFallback == config.SubsetFallbackAny})
	}
	return list
}

// useSubset says that route calls a subset of the cluster of spec; an empty name
// is the whole of it.
func (c *compiler) useSubset(route *plan.Route, spec int, subset string) {
	c.draft.uses = append(c.draft.uses, use{c.listener, route, spec, subset})
}
