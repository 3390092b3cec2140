package exchange_test

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// TestSubsetRoutes: a route leads to its subset, an empty one is refused in so
// many words, and one with a fallback goes anywhere; in every combination of
// protocols.
func TestSubsetRoutes(t *testing.T) {
	runLegs(t, allLegs, nil, describe, func(t *testing.T, p *pair) {
		v2, _ := balance.NewLabels([]balance.Label{{Key: "version", Value: "2"}})
		v3, _ := balance.NewLabels([]balance.Label{{Key: "version", Value: "3"}})
		p.apply(func(u *upstream.Policy) {
			u.Subsets = []upstream.SubsetSpec{{Name: "v2", Match: v2}, {Name: "v3", Match: v3}, {Name: "any", Match: v3, Any: true}}
		})
		_, endpoints := p.registry.States()
		list := []upstream.EndpointSpec{endpoints[0].Spec}
		list[0].Labels = v2
		p.cluster.SetLocal(list)
		var routes []*plan.Route
		for _, name := range []string{"v2", "v3", "any"} {
			routes = append(routes, &plan.Route{Name: name, Match: path(plan.Exact, "/"+name), Cluster: p.cluster, Subset: p.cluster.Subset(name)})
		}
		p.routes(false, routes...)
		for _, name := range []string{"v2", "any"} {
			if res, got := p.must(t, "GET", "/"+name, nil); res.StatusCode != 200 || !strings.HasPrefix(got, "GET /"+name) {
				t.Errorf("%s: %d %s", name, res.StatusCode, got)
			}
		}
		res, got := p.must(t, "GET", "/v3", nil)
		if res.StatusCode != 503 || !strings.Contains(got, "cause: no endpoint of subset v3 of api (version=3) may be used") {
			t.Errorf("an empty subset: %d %s", res.StatusCode, got)
		}
		p.wantReasons("ok", "ok", "no_endpoints")
	})
}
