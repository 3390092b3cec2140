package compile

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

const byRoute = `
service:   {name: web, port: 8080}
identity:  {files: {cert: a, key: b, bundle: c}}
discovery: {file: {path: catalog.yaml}}
outbound:
  upstreams:
    - service: api
      listen: "127.0.0.1:9001"
      routes:
        - {name: pay, match: {path: /pay}}
        - {name: half, match: {path: /half}, split: [{service: api, weight: 50}, {service: other, weight: 50}]}
    - {service: other, listen: "127.0.0.1:9002"}
policies:
  api: {breaker: {scope: route}}
`

// A route's breaker stays what it was through reloads, by the names of the
// listener and the route.
func TestRouteBreakers(t *testing.T) {
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, r := build(t, input(t, byRoute))
	breakers := func(p *plan.Plan) map[string]any {
		found := map[string]any{}
		see := func(name string, r *plan.Route) {
			if r.Breaker != nil {
				found[name] = r.Breaker
			}
		}
		for _, l := range p.Listeners {
			see(l.Name+" last", &l.Route)
			if l.Routes == nil {
				continue
			}
			for _, route := range l.Routes.Routes() {
				see(route.Name, route)
				for i, s := range route.Split {
					see(route.Name+string(rune('0'+i)), s.Route)
				}
			}
		}
		return found
	}
	first := breakers(p)
	if len(first) != 4 || first["pay"] == nil || first["half0"] == nil || first["outbound:api last"] == nil {
		t.Fatalf("breakers of %v; want those of pay, half, its share of api, and the last", first)
	}
	if first["half"] != first["half0"] || first["half"] == first["pay"] {
		t.Error("one a route and cluster was wanted")
	}
	for _, c := range []struct {
		name, from, to string
		pay            bool // stays
	}{
		{"nothing", "", "", true},
		{"the order of routes", "        - {name: pay, match: {path: /pay}}\n", "        - {name: new, match: {path: /new}}\n        - {name: pay, match: {path: /pay2}}\n", true},
		{"the name", "name: pay", "name: paid", false},
		{"the breaker", "scope: route", "scope: route, open_for: 1m", false},
	} {
		d, err := Compile(input(t, strings.Replace(byRoute, c.from, c.to, 1)))
		if err != nil {
			t.Fatal(err)
		}
		next := d.Build(r, m)
		if got := breakers(next)["pay"] == first["pay"]; got != c.pay {
			t.Errorf("%s changed: the breaker of pay stays %v, want %v", c.name, got, c.pay)
		}
		Release(p, r)
		p = next
	}
	Release(p, r)
}
