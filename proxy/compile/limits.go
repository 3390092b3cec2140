package compile

import (
	"strconv"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
)

// gate is a route that has a limit of its own. Of a split its shares have the
// same one.
type gate struct {
	route *plan.Route
	spec  int // of the cluster that counts what becomes of those who wait
	want  upstream.GateSpec
}

// priorities prepares the rules about whose turn comes first.
func (c *compiler) priorities(path string, list []config.PriorityRule) []plan.PriorityRule {
	var rules []plan.PriorityRule
	for i := range list {
		r, at := &list[i], path+"["+strconv.Itoa(i)+"]"
		match, ok := c.match(at+".match", &r.Match)
		if !ok || r.Priority == nil {
			continue
		}
		p := plan.PriorityRule{Priority: *r.Priority, Match: match, OnlyHTTP: r.OnlyHTTP()}
		if len(r.From) > 0 {
			from, err := authz.Compile(r.Callers())
			if err != nil {
				c.problem(at+".from", "%v", err)
				continue
			}
			p.From = from
		}
		rules = append(rules, p)
	}
	return rules
}

// limited gives p what r says of its limits and its priority.
func (c *compiler) limited(p *plan.Route, listener string, r *config.Route, spec int) {
	if r.Priority != nil {
		p.Priority = *r.Priority
		for i := range p.Split {
			p.Split[i].Route.Priority = *r.Priority
		}
	}
	if l := r.Limits; l != nil {
		name := listener + " " + p.Name
		c.draft.gates = append(c.draft.gates, gate{p, spec, upstream.GateSpec{Name: name, Limits: limit.Config{MaxRequests: l.MaxRequests, Queue: l.Queue}}})
	}
}

// bindGates gives the routes of a cluster their gates.
func bindGates(gates []gate, spec int, c *upstream.Cluster) {
	var want []upstream.GateSpec
	for i := range gates {
		if gates[i].spec == spec {
			want = append(want, gates[i].want)
		}
	}
	made := c.KeepGates(want)
	for i := range gates {
		g := &gates[i]
		if g.spec != spec {
			continue
		}
		g.route.Gate, made = made[0], made[1:]
		for k := range g.route.Split {
			g.route.Split[k].Route.Gate = g.route.Gate
		}
	}
}
