package sidecar

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// entries are config entries with every field that routes, divides and resolves.
var chainEntries = []string{
	`{"Kind":"proxy-defaults","Name":"global","Config":{"protocol":"http"}}`,
	`{"Kind":"service-defaults","Name":"db","Protocol":"tcp"}`,
	`{"Kind":"service-defaults","Name":"db-standby","Protocol":"tcp"}`,
	`{"Kind":"service-defaults","Name":"legacy","Protocol":"http","ExternalSNI":"legacy.example.com"}`,
	`{"Kind":"service-resolver","Name":"api","DefaultSubset":"v1","ConnectTimeout":"3s","RequestTimeout":"7s",
		"Subsets":{"v1":{"Filter":"Service.Meta.version == v1"},"v2":{"Filter":"Service.Meta.version == v2","OnlyPassing":true}},
		"Failover":{"v1":{"ServiceSubset":"v2"},"*":{"Targets":[{"Service":"backup"},{"Datacenter":"dc2"},{"Peer":"east"}]}},
		"LoadBalancer":{"Policy":"ring_hash","RingHashConfig":{"MinimumRingSize":512,"MaximumRingSize":2048},
			"HashPolicies":[{"Field":"header","FieldValue":"x-user","Terminal":true},{"Field":"cookie","FieldValue":"sess","CookieConfig":{"TTL":"1h","Path":"/p"}},
				{"Field":"query_parameter","FieldValue":"u"},{"SourceIP":true}]}}`,
	`{"Kind":"service-resolver","Name":"cart","LoadBalancer":{"Policy":"least_request","LeastRequestConfig":{"ChoiceCount":4}},"RequestTimeout":"9s"}`,
	`{"Kind":"service-resolver","Name":"old","Redirect":{"Service":"cart"}}`,
	`{"Kind":"service-resolver","Name":"db","ConnectTimeout":"2s","Failover":{"*":{"Service":"db-standby"}}}`,
	`{"Kind":"service-splitter","Name":"users","Splits":[{"Weight":33.33,"Service":"api","ServiceSubset":"v2","RequestHeaders":{"Set":{"x-split":"1"}}},
		{"Weight":33.33,"Service":"cart","ResponseHeaders":{"Remove":["server"]}},{"Weight":33.34,"Service":"deep"}]}`,
	`{"Kind":"service-splitter","Name":"deep","Splits":[{"Weight":0.01,"Service":"cart"},{"Weight":99.99,"Service":"deep"}]}`,
	`{"Kind":"service-router","Name":"api","Routes":[
		{"Match":{"HTTP":{"PathExact":"/exact","Methods":["GET","HEAD"]}},"Destination":{"Service":"users","RequestTimeout":"11s","IdleTimeout":"30s"}},
		{"Match":{"HTTP":{"PathPrefix":"/admin","CaseInsensitive":true,"Header":[{"Name":"x-debug","Exact":"1"},{"Name":"x-no","Present":true,"Invert":true}]}},
			"Destination":{"ServiceSubset":"v2","PrefixRewrite":"/","NumRetries":3,"RetryOnConnectFailure":true,"RetryOn":["reset","gateway-error"],"RetryOnStatusCodes":[503,504],
				"RequestHeaders":{"Add":{"x-add":"1"},"Set":{"x-set":"2"},"Remove":["x-rm"]},"ResponseHeaders":{"Set":{"x-res":"3"}}}},
		{"Match":{"HTTP":{"PathRegex":"/items/[0-9]+","QueryParam":[{"Name":"q","Present":true},{"Name":"r","Exact":"1"},{"Name":"s","Regex":"[a-z]+"}]}},"Destination":{"Service":"cart","RequestTimeout":"-1s"}},
		{"Match":{"HTTP":{"Header":[{"Name":"x-a","Prefix":"1"},{"Name":"x-b","Suffix":"2","Invert":true},{"Name":"x-c","Regex":"[0-9]+"}]}},"Destination":{"Service":"old"}}]}`,
}

func readChain(t *testing.T, c *testkit.ConsulAgent, name string) *mesh.Chain {
	t.Helper()
	var answer struct{ Chain *mesh.Chain }
	if err := json.Unmarshal(c.Do(t, "POST", "/v1/discovery-chain/"+name, json.RawMessage(`{}`)), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Chain
}

// TestChainsOfRealConsul writes entries of every kind and field, and compares what
// becomes of the chains that Consul compiles with a literal walk of them.
func TestChainsOfRealConsul(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	for _, e := range chainEntries {
		agent.Do(t, "PUT", "/v1/config", json.RawMessage(e))
	}
	var roots struct{ TrustDomain string }
	if err := json.Unmarshal(agent.Do(t, "GET", "/v1/connect/ca/roots", nil), &roots); err != nil {
		t.Fatal(err)
	}
	snap := of(nil, roots.TrustDomain)
	snap.Proxy.Proxy.Upstreams = nil
	snap.Chains = map[string]*mesh.Chain{}
	for i, name := range []string{"api", "users", "cart", "old", "db", "legacy", "plain"} {
		snap.Chains[name] = readChain(t, agent, name)
		snap.Proxy.Proxy.Upstreams = append(snap.Proxy.Proxy.Upstreams, mesh.Upstream{DestinationName: name, LocalBindPort: 15001 + i})
	}
	s := serve(t, snap)

	// Where requests go, and for how long.
	r := &pieces{Rand: rand.New(rand.NewPCG(3, 4))}
	routes := map[string]bool{}
	for _, name := range []string{"api", "users", "cart", "old"} {
		l := s.listener(t, name)
		for range 400 {
			q := asked{method: pick(r, "GET", "POST"), path: pick(r, "/exact", "/admin/x", "/ADMIN", "/items/7", "/items/x", "/"), query: pick(r, "", "q&r=1&s=abc", "q=1&r=2&s=abc")}
			for _, f := range []string{"x-debug", "x-no", "X-A", "x-b", "x-c"} {
				if r.IntN(2) == 0 {
					q.fields = append(q.fields, [2]string{f, pick(r, "1", "12", "x")})
				}
			}
			want := walk(snap.Chains[name], &snap.Proxy, q)
			got, route := goes(t, l, q)
			if !got.like(want) {
				t.Fatalf("%s: %s goes to %s; the chain says %s\n%v", name, q.head(), got, want, s.findings)
			}
			routes[name+" "+route.Name] = true
		}
	}
	for _, want := range []string{"api routes[0]", "api routes[1]", "api routes[2]", "api routes[3]", "api routes[4]", "users splitter", "cart resolver", "old resolver"} {
		if !routes[want] {
			t.Errorf("no request has taken %s: %v", want, routes)
		}
	}

	cfg := s.loaded.Config
	api := cfg.Outbound.Upstreams[0]
	if cfg.Outbound.Upstreams[3].Title() != "old" || cfg.Outbound.Upstreams[3].Service != "cart" {
		t.Errorf("a redirect becomes %+v", cfg.Outbound.Upstreams[3])
	}
	route := api.Routes[1]
	if route.To != "" || api.Service != "v2.api" || api.Title() != "api" || route.Rewrite.PathPrefix != "/" || *route.Retry.Attempts != 4 || fmt.Sprint(route.Retry.On, route.Retry.Statuses) != "[connect_failure reset stale_connection unavailable] [503 504]" ||
		route.RequestHeaders.Add["x-add"] != "1" || route.RequestHeaders.Set["x-set"] != "2" || route.RequestHeaders.Remove[0] != "x-rm" || route.ResponseHeaders.Set["x-res"] != "3" {
		t.Errorf("%+v %+v", route, route.Retry)
	}
	for name, want := range map[string]string{
		"v1.api": "3s [v2.api]", "v2.api": "3s [backup v2.api.dc-dc2 v2.api.peer-east]", "cart": "5s []", "db": "2s [db-standby]", "db-standby": "5s []", "plain": "5s []", "legacy": "5s []",
	} {
		p, ok := cfg.Policies[name]
		if got := fmt.Sprint(p.ConnectTimeout, " ", p.Failover); !ok || got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	v2 := cfg.Policies["v2.api"].Balance
	if got := v2.Summary(); got != "ring_hash by header:x-user, else cookie:sess with query:u with source_ip" || v2.MinRingSize != 512 || v2.MaxRingSize != 2048 ||
		v2.Hash[1].Cookie.TTL != time.Hour || v2.Hash[1].Cookie.Path != "/p" {
		t.Errorf("%s, %+v", got, v2)
	}
	if b := cfg.Policies["cart"].Balance; b.Algorithm.String() != "least_request" || b.Choices != 4 {
		t.Errorf("%+v", b)
	}
	if p := cfg.Policies["db"]; cfg.ServiceProtocol("db-standby") != config.ProtocolTCP || len(p.Balance.Hash) != 0 {
		t.Errorf("%v", cfg.ServiceProtocol("db-standby"))
	}
	if v := s.loaded.Origin("outbound.upstreams[0].routes[0].timeout").String(); v != "Consul service-router/api Routes[0]" {
		t.Errorf("origin %q", v)
	}
	for _, f := range s.findings {
		if f.Kind == Refused {
			t.Errorf("%s", f)
		}
	}

	// The name and identity that targets have for TLS are Consul's own.
	for _, c := range snap.Chains {
		for _, target := range c.Targets {
			if target.Peer != "" {
				continue
			}
			if want := mesh.ServerName(roots.TrustDomain, target); target.SNI != want && !target.External {
				t.Errorf("SNI of %s is %s, made as %s", target.ID, target.SNI, want)
			}
		}
	}
	if sni := snap.Chains["legacy"].Targets["legacy.default.default.dc1"]; sni == nil || !sni.External || sni.SNI != "legacy.example.com" {
		t.Errorf("%+v", sni)
	}
}

// TestRefusedEntries: what Consul takes and this proxy does not is told, and what
// it refuses itself is not looked for here.
func TestRefusedEntries(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	agent.Do(t, "PUT", "/v1/config", json.RawMessage(`{"Kind":"service-defaults","Name":"api","Protocol":"http"}`))
	agent.Do(t, "PUT", "/v1/config", json.RawMessage(`{"Kind":"service-router","Name":"api","Routes":[
		{"Match":{"HTTP":{"PathPrefix":"/a/../b"}},"Destination":{"Service":"api"}},
		{"Match":{"HTTP":{"PathPrefix":"/x"}},"Destination":{"Service":"api","NumRetries":2,"RequestHeaders":{"Set":{"x-ip":"%DOWNSTREAM_REMOTE_ADDRESS%"}}}}]}`))
	var roots struct{ TrustDomain string }
	if err := json.Unmarshal(agent.Do(t, "GET", "/v1/connect/ca/roots", nil), &roots); err != nil {
		t.Fatal(err)
	}
	s := serve(t, of(readChain(t, agent, "api"), roots.TrustDomain))
	for _, want := range []string{
		`refused: service-router/api Routes[1].Destination.RequestHeaders.Set[x-ip]: has a variable of Envoy`,
		`differs: service-router/api Routes[0].Match.HTTP: is "/a/../b", which has a dot segment`,
		`differs: service-router/api Routes[1].Destination.NumRetries: is given without a condition`,
	} {
		found := false
		for _, f := range s.findings {
			found = found || strings.HasPrefix(f.String(), want)
		}
		if !found {
			t.Errorf("no finding %q in %v", want, s.findings)
		}
	}
	if n := len(s.loaded.Config.Outbound.Upstreams[0].Routes); n != 2 {
		t.Errorf("%d routes, want that of /x and the last", n)
	}
}

// TestEnterpriseChains: Consul itself refuses what only its Enterprise edition has
// in entries about chains, and of what would come of a newer one this proxy says
// what it leaves out.
func TestEnterpriseChains(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	agent.Do(t, "PUT", "/v1/config", json.RawMessage(`{"Kind":"proxy-defaults","Name":"global","Config":{"protocol":"http"}}`))
	for _, e := range []string{
		`{"Kind":"service-router","Name":"api","Namespace":"other","Routes":[]}`,
		`{"Kind":"service-splitter","Name":"api","Partition":"other","Splits":[{"Weight":100,"Service":"b"}]}`,
		`{"Kind":"service-resolver","Name":"api","Redirect":{"Service":"b","Namespace":"other"}}`,
		`{"Kind":"service-resolver","Name":"api","Redirect":{"SamenessGroup":"g"}}`,
		`{"Kind":"service-resolver","Name":"api","Failover":{"*":{"Namespace":"other"}}}`,
		`{"Kind":"service-resolver","Name":"api","Failover":{"*":{"SamenessGroup":"g"}}}`,
		`{"Kind":"service-resolver","Name":"api","Failover":{"*":{"Service":"b","Policy":{"Mode":"order-by-locality","Regions":["r"]}}}}`,
		`{"Kind":"service-resolver","Name":"api","Failover":{"*":{"Targets":[{"Partition":"other"}]}}}`,
		`{"Kind":"service-resolver","Name":"api","PrioritizeByLocality":{"Mode":"failover"}}`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, agent.Address+"/v1/config", strings.NewReader(e))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("Consul takes %s", e)
		}
	}
	c := chained(t, "resolver:f", `"resolver:f": {"Type": "resolver", "Resolver": {"Target": "api.default.default.dc1", "Failover": {"Targets": ["v2.api.default.default.dc1"], "Policy": {"Mode": "order-by-locality"}}}}`)
	if s := serve(t, of(c, "td")); !told(s, Refused, "Failover.Policy.Mode") {
		t.Errorf("%v", s.findings)
	}
}
