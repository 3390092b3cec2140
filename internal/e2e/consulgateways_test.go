package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// farPatience is patience where servers of two datacenters tell each other of a
// change first.
const farPatience = 3 * patience

// A service of another datacenter is called through mesh gateways, which are
// Envoys: the other datacenter's, and the own. Each side sees the other's identity,
// with its datacenter, and an intention ends the calls.
func TestConsulMeshGateways(t *testing.T) {
	testkit.FindEnvoy(t)
	one := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	two := testkit.Consul(t, testkit.ConsulOptions{Primary: one, Datacenter: "dc2"})
	mode := func(m string) {
		one.WriteEntry(t, entry("proxy-defaults", "global", "Config", object{"protocol": "http"}, "MeshGateway", object{"Mode": m}))
		two.Until(t, "config entries are replicated", "/v1/config/proxy-defaults/global", func(b []byte) bool {
			return strings.Contains(string(b), `"Mode":"`+m+`"`)
		})
	}
	mode("remote")
	one.Intentions(t, "api", testkit.Source("web", "allow"), testkit.Source("*", "deny"))
	gateways := map[string]int{"remote": freePort(t), "local": freePort(t)}
	two.Envoy(t, two.MeshGateway(t, gateways["remote"]))
	one.Envoy(t, one.MeshGateway(t, gateways["local"]))

	calls := freePort(t)
	api := &testkit.Sidecar{Service: "api", ID: "api-1", Port: freePort(t), App: serve(t, echo("api in dc2"))}
	web := &testkit.Sidecar{
		Service: "web", ID: "web-1", Port: freePort(t), App: freePort(t),
		Upstreams: []testkit.Upstream{{Service: "api", Port: calls, More: object{"Datacenter": "dc2"}}},
	}
	two.Register(t, api)
	one.Register(t, web)
	callee, caller := described(t, two, api, t.TempDir()), described(t, one, web, t.TempDir())
	callee.ready()
	caller.ready()
	url := "http://" + loopback(calls) + "/hello"
	for _, m := range []string{"remote", "local"} {
		mode(m)
		eventually(t, farPatience, "the endpoint is the gateway of mode "+m, func() (bool, string) {
			out := caller.mustTell("endpoints", "--json")
			var list []struct{ Cluster, Address string }
			if err := json.Unmarshal([]byte(out), &list); err != nil {
				return false, err.Error()
			}
			for _, e := range list {
				if strings.HasPrefix(e.Cluster, "api") && e.Address != loopback(gateways[m]) {
					return false, out
				}
			}
			return len(list) > 0, out
		})
		a := settlesWithin(t, farPatience, "a call through the gateway of mode "+m, http.MethodGet, url, nil, gives(http.StatusOK))
		s := parseSeen(t, a.body)
		xfcc := lastElement(strings.Join(s.Header["X-Forwarded-Client-Cert"], ","))
		if s.Instance != "api in dc2" || !strings.HasSuffix(xfcc["URI"], "/ns/default/dc/dc1/svc/web") || !strings.HasSuffix(xfcc["By"], "/ns/default/dc/dc2/svc/api") {
			t.Errorf("mode %s: %s was called with %v", m, s.Instance, xfcc)
		}
	}
	one.Intentions(t, "api", testkit.Source("web", "deny"))
	settlesWithin(t, farPatience, "an intention refuses", http.MethodGet, url, nil, gives(http.StatusForbidden))
}
