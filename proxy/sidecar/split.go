package sidecar

import (
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
)

// share is what a splitter gives a target.
type share struct {
	service           string
	weight            float64 // of 1
	request, response *config.HeaderEdits
}

// shares appends what the splitter n, which has part of the requests, gives to
// whom. Splitters below it divide their own shares.
func (c *chain) shares(n *mesh.Node, name string, part float64, request, response *config.HeaderEdits, list *[]share, above ...string) *broken {
	if len(above) >= maxNesting || slices.Contains(above, name) {
		return &broken{"Nodes", fmt.Sprintf("has a splitter %q that leads to itself, or too far", name), ""}
	}
	total := 0.0
	for _, s := range n.Splits {
		if s == nil || !(s.Weight >= 0 && s.Weight <= 1e9) {
			return &broken{"Nodes", fmt.Sprintf("has a splitter %q with a share without a weight of 0 or more", name), ""}
		}
		total += s.Weight
	}
	if total == 0 {
		return &broken{"Nodes", fmt.Sprintf("has a splitter %q that gives nobody anything", name), ""}
	}
	for i, s := range n.Splits {
		req, res := request, response
		if d := s.Definition; d != nil {
			entry, field := c.of(n)[len("Consul "):], fmt.Sprintf("Splits[%d].", i)
			req = joined(req, c.edits(entry, field+"RequestHeaders", d.RequestHeaders))
			res = joined(res, c.edits(entry, field+"ResponseHeaders", d.ResponseHeaders))
		}
		next := c.u.chain.Nodes[s.NextNode]
		switch {
		case next == nil:
			return &broken{"Nodes", fmt.Sprintf("has none of the name %q, to which a splitter leads", s.NextNode), ""}
		case next.Type == "splitter":
			if b := c.shares(next, s.NextNode, part*s.Weight/total, req, res, list, append(above, name)...); b != nil {
				return b
			}
			continue
		case next.Type != "resolver":
			return &broken{"Nodes", fmt.Sprintf("has a %s behind a splitter", next.Type), ""}
		}
		service, b := c.target(next)
		if b != nil {
			return b
		}
		c.lands(service)
		at := slices.IndexFunc(*list, func(o share) bool {
			return o.service == service && reflect.DeepEqual(o.request, req) && reflect.DeepEqual(o.response, res)
		})
		if at < 0 {
			if at = len(*list); at == maxShares {
				return &broken{"Nodes", fmt.Sprintf("has splitters with more than %d shares", maxShares), ""}
			}
			*list = append(*list, share{service: service, request: req, response: res})
		}
		(*list)[at].weight += part * s.Weight / total
	}
	return nil
}

// splitOf rounds shares to hundredths of a percent, so that they add up to 100:
// what is left over goes to those that rounding down has cost most.
func splitOf(shares []share) []config.RouteSplit {
	const all = 10_000
	parts, left := make([]int, len(shares)), all
	order := make([]int, len(shares))
	rest := func(i int) float64 { return shares[i].weight*all - float64(parts[i]) }
	for i := range shares {
		parts[i] = int(math.Floor(shares[i].weight*all + 1e-6))
		left -= parts[i]
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case rest(a) > rest(b):
			return -1
		case rest(a) < rest(b):
			return 1
		}
		return 0
	})
	for i := 0; i < len(order) && left > 0; i++ {
		if shares[order[i]].weight > 0 {
			parts[order[i]]++
			left--
		}
	}
	var list []config.RouteSplit
	for i, s := range shares {
		if parts[i] > 0 {
			list = append(list, config.RouteSplit{Service: s.service, Weight: float64(parts[i]) / 100, RequestHeaders: s.request, ResponseHeaders: s.response})
		}
	}
	return list
}
