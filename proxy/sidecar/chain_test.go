package sidecar

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/mtls/consulca"
)

func decode[T any](t testing.TB, text string) *T {
	t.Helper()
	v := new(T)
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

const (
	apiTarget = `"api.default.default.dc1": {"ID": "api.default.default.dc1", "Service": "api", "Namespace": "default", "Partition": "default", "Datacenter": "dc1", "ConnectTimeout": "5s"}`
	v2Target  = `"v2.api.default.default.dc1": {"ID": "v2.api.default.default.dc1", "Service": "api", "ServiceSubset": "v2", "Namespace": "default", "Partition": "default", "Datacenter": "dc1", "ConnectTimeout": "3s"}`
	apiNode   = `"resolver:api": {"Type": "resolver", "Name": "api.default.default.dc1", "Resolver": {"Target": "api.default.default.dc1"}}`
	v2Node    = `"resolver:v2": {"Type": "resolver", "Name": "v2.api.default.default.dc1", "Resolver": {"Target": "v2.api.default.default.dc1"}}`
)

// chained is a chain that begins at start, with these nodes beside two resolvers.
func chained(t testing.TB, start, nodes string) *mesh.Chain {
	t.Helper()
	if nodes != "" {
		nodes = ", " + nodes
	}
	return decode[mesh.Chain](t, fmt.Sprintf(`{"ServiceName": "api", "Protocol": "http", "Datacenter": "dc1", "StartNode": %q, "Nodes": {%s, %s%s}, "Targets": {%s, %s}}`,
		start, apiNode, v2Node, nodes, apiTarget, v2Target))
}

func routed(t testing.TB, routes string) *mesh.Chain {
	return chained(t, "router:api", `"router:api": {"Type": "router", "Name": "api.default.default", "Routes": [`+routes+`]}`)
}

func told(s served, kind Kind, field string) bool {
	return slices.ContainsFunc(s.findings, func(f Finding) bool { return f.Kind == kind && strings.Contains(f.Field, field) })
}

// TestBrokenChains: a chain that cannot be followed is answered for with 503 and
// the reason; the other upstreams are as they were.
func TestBrokenChains(t *testing.T) {
	loop := `"splitter:a": {"Type": "splitter", "Name": "a", "Splits": [{"Weight": 100, "NextNode": "splitter:b"}]},
		"splitter:b": {"Type": "splitter", "Name": "b", "Splits": [{"Weight": 100, "NextNode": "splitter:a"}]}`
	deep := ""
	for i := range 20 {
		deep += fmt.Sprintf(`"splitter:%d": {"Type": "splitter", "Name": "s", "Splits": [{"Weight": 100, "NextNode": "splitter:%d"}]}, `, i, i+1)
	}
	wide := ""
	for i := range 520 {
		wide += fmt.Sprintf(`{"Weight": 0.1, "NextNode": "resolver:api", "Definition": {"RequestHeaders": {"Set": {"x-n": "%d"}}}},`, i)
	}
	for name, c := range map[string]*mesh.Chain{
		"no start":           chained(t, "router:gone", ""),
		"loop of splitters":  chained(t, "splitter:a", loop),
		"too deep":           chained(t, "splitter:0", deep+`"splitter:20": {"Type": "splitter", "Name": "s", "Splits": [{"Weight": 100, "NextNode": "resolver:api"}]}`),
		"too wide":           chained(t, "splitter:w", `"splitter:w": {"Type": "splitter", "Name": "w", "Splits": [`+strings.TrimSuffix(wide, ",")+`]}`),
		"missing node":       chained(t, "splitter:a", `"splitter:a": {"Type": "splitter", "Splits": [{"Weight": 100, "NextNode": "resolver:gone"}]}`),
		"missing target":     chained(t, "resolver:x", `"resolver:x": {"Type": "resolver", "Resolver": {"Target": "gone"}}`),
		"missing failover":   chained(t, "resolver:x", `"resolver:x": {"Type": "resolver", "Resolver": {"Target": "api.default.default.dc1", "Failover": {"Targets": ["gone"]}}}`),
		"empty resolver":     chained(t, "resolver:x", `"resolver:x": {"Type": "resolver"}`),
		"unknown type":       chained(t, "gate:x", `"gate:x": {"Type": "gate"}`),
		"router in splitter": chained(t, "splitter:a", `"splitter:a": {"Type": "splitter", "Splits": [{"Weight": 100, "NextNode": "router:b"}]}, "router:b": {"Type": "router"}`),
		"empty router":       routed(t, ""),
		"empty splitter":     chained(t, "splitter:a", `"splitter:a": {"Type": "splitter"}`),
		"null":               chained(t, "splitter:a", `"splitter:a": {"Type": "splitter", "Splits": [null]}`),
		"null route":         routed(t, "null"),
		"weights of nothing": chained(t, "splitter:a", `"splitter:a": {"Type": "splitter", "Splits": [{"Weight": -5, "NextNode": "resolver:api"}]}`),
		"a regex of another": routed(t, `{"Definition": {"Match": {"HTTP": {"PathRegex": "(?<!x)y"}}}, "NextNode": "resolver:api"}`),
		"a long regex":       routed(t, `{"Definition": {"Match": {"HTTP": {"Header": [{"Name": "x", "Regex": "`+strings.Repeat("a", 2000)+`"}]}}}, "NextNode": "resolver:api"}`),
		"pseudo header":      routed(t, `{"Definition": {"Match": {"HTTP": {"Header": [{"Name": ":path", "Exact": "/x"}]}}}, "NextNode": "resolver:api"}`),
		"rewrite to nothing": routed(t, `{"Definition": {"Destination": {"PrefixRewrite": "/a b"}}, "NextNode": "resolver:api"}`),
	} {
		t.Run(name, func(t *testing.T) {
			snap := of(c, "td")
			snap.Chains["db"] = decode[mesh.Chain](t, `{"ServiceName": "db", "Protocol": "tcp", "StartNode": "r", "Nodes": {"r": {"Type": "resolver", "Resolver": {"Target": "db"}}},
				"Targets": {"db": {"Service": "db", "Datacenter": "dc1"}}}`)
			snap.Proxy.Proxy.Upstreams = append(snap.Proxy.Proxy.Upstreams, mesh.Upstream{DestinationName: "db", LocalBindPort: 15002})
			s := serve(t, snap)
			_, r := goes(t, s.listener(t, "api"), asked{method: "GET", path: "/"})
			if r.Reply == nil || r.Reply.Status != 503 || !strings.Contains(string(r.Reply.Body), "cannot be followed") {
				t.Errorf("answered by %+v", r)
			}
			if len(s.findings) == 0 || s.findings[0].Kind != Refused {
				t.Errorf("findings %v", s.findings)
			}
			if s.listener(t, "db").Route.Cluster.Name() != "db" {
				t.Error("db is not what it was")
			}
		})
	}
	c := chained(t, "router:api", `"router:api": {"Type": "router", "Routes": [{"NextNode": "resolver:api"}]}`)
	c.Protocol = "tcp"
	if s := serve(t, of(c, "td")); len(s.plan.Listeners) != 0 || !told(s, Refused, "Protocol") {
		t.Errorf("a router of tcp: %v, %v", s.plan.Listeners, s.findings)
	}
}

// TestRouteRetries: what Consul lists is sent again under the same conditions, and
// nothing else.
func TestRouteRetries(t *testing.T) {
	for _, c := range []struct{ destination, want, finding string }{
		{`{}`, "none", ""},
		{`{"NumRetries": 3}`, "attempts 4 on [] statuses [] grpc [] any false", "NumRetries"},
		{`{"RetryOnConnectFailure": true}`, "attempts 2 on [connect_failure] statuses [] grpc [] any false", ""},
		{`{"NumRetries": 2, "RetryOnStatusCodes": [503, 409, 503]}`, "attempts 3 on [connect_failure] statuses [503 409] grpc [] any false", ""},
		{`{"NumRetries": 40, "RetryOn": ["5xx"]}`, "attempts 10 on [server_error reset connect_failure stale_connection] statuses [] grpc [] any true", "NumRetries"},
		{`{"RetryOn": ["gateway-error", "reset"]}`, "attempts 2 on [unavailable reset connect_failure stale_connection] statuses [] grpc [] any true", ""},
		{`{"RetryOn": ["connect-failure", "refused-stream", "envoy-ratelimited", "retriable-4xx"], "RetryOnStatusCodes": [409]}`, "attempts 2 on [connect_failure refused_stream rate_limited] statuses [409] grpc [] any false", ""},
		{`{"RetryOn": ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"]}`, "attempts 2 on [connect_failure] statuses [] grpc [CANCELLED DEADLINE_EXCEEDED INTERNAL RESOURCE_EXHAUSTED UNAVAILABLE] any false", ""},
		{`{"RetryOn": ["moonlight"], "RetryOnStatusCodes": [200]}`, "attempts 2 on [connect_failure] statuses [] grpc [] any false", "RetryOn"},
	} {
		s := serve(t, of(routed(t, `{"Definition": {"Destination": `+c.destination+`}, "NextNode": "resolver:api"}`), "td"))
		got := "none"
		if r := s.loaded.Config.Outbound.Upstreams[0].Routes[0].Retry; r != nil {
			any := r.NonIdempotent != nil && *r.NonIdempotent
			got = fmt.Sprintf("attempts %d on %v statuses %v grpc %v any %t", *r.Attempts, r.On, r.Statuses, r.GRPCStatuses, any)
		}
		if got != c.want || (c.finding != "") != told(s, Differs, c.finding) && (c.finding != "") != told(s, Refused, c.finding) {
			t.Errorf("%s: %s, want %s; %v", c.destination, got, c.want, s.findings)
		}
	}
}

// TestRewrites: paths become what Consul documents.
func TestRewrites(t *testing.T) {
	for _, c := range []struct{ match, to, path, want string }{
		{`"PathPrefix": "/admin"`, "/", "/admin/x", "/x"},
		{`"PathPrefix": "/admin"`, "/", "/admin", "/"},
		{`"PathPrefix": "/admin/"`, "/v2/", "/admin/x", "/v2/x"},
		{`"PathPrefix": "/admin/"`, "/v2", "/admin/x", "/v2/x"},
		{`"PathPrefix": "/admin", "CaseInsensitive": true`, "/v2", "/ADMIN/x", "/v2/x"},
		{`"PathExact": "/a"`, "/b", "/a", "/b"},
		{`"PathRegex": "/a.*"`, "/b", "/abc", "/b"},
		{``, "/v2", "/x", "/v2/x"},
	} {
		s := serve(t, of(routed(t, fmt.Sprintf(`{"Definition": {"Match": {"HTTP": {%s}}, "Destination": {"PrefixRewrite": %q}}, "NextNode": "resolver:api"}`, c.match, c.to)), "td"))
		q := asked{method: "GET", path: c.path, query: "q=1"}
		if got := line(t, s.listener(t, "api"), q); got != "GET "+c.want+"?q=1 HTTP/1.1" {
			t.Errorf("%s to %s: %s becomes %s", c.match, c.to, c.path, got)
		}
	}
}

// TestEdits: header changes of routes and of splits, nested ones too, are made, in
// that order; what cannot be done is told and left out.
func TestEdits(t *testing.T) {
	c := chained(t, "router:api", `
		"router:api": {"Type": "router", "Name": "api.default.default", "Routes": [{"NextNode": "splitter:a", "Definition": {"Destination": {
			"RequestHeaders": {"Set": {"x-a": "route", "x-pct": "5%%", "host": "other", "x-var": "%DOWNSTREAM_REMOTE_ADDRESS%"}, "Remove": ["x-gone"]},
			"ResponseHeaders": {"Add": {"x-r": "1"}, "Set": {"connection": "close"}}}}}]},
		"splitter:a": {"Type": "splitter", "Name": "a", "Splits": [{"Weight": 100, "NextNode": "splitter:b", "Definition": {"RequestHeaders": {"Set": {"x-a": "outer", "x-b": "outer"}}}}]},
		"splitter:b": {"Type": "splitter", "Name": "b", "Splits": [
			{"Weight": 50, "NextNode": "resolver:api", "Definition": {"RequestHeaders": {"Set": {"x-b": "inner"}}}},
			{"Weight": 50, "NextNode": "resolver:api"}]}`)
	s := serve(t, of(c, "td"))
	r := &s.loaded.Config.Outbound.Upstreams[0].Routes[0]
	if want := (&config.HeaderEdits{Set: map[string]string{"x-a": "route", "x-pct": "5%"}, Remove: []string{"x-gone"}}); !reflect.DeepEqual(r.RequestHeaders, want) {
		t.Errorf("%+v", r.RequestHeaders)
	}
	if len(r.Split) != 2 || r.Split[0].RequestHeaders.Set["x-b"] != "inner" || r.Split[1].RequestHeaders.Set["x-b"] != "outer" || r.Split[0].RequestHeaders.Set["x-a"] != "outer" {
		t.Errorf("%+v", r.Split)
	}
	for _, field := range []string{"Set[host]", "Set[x-var]", "Set[connection]"} {
		if !told(s, Refused, field) {
			t.Errorf("nothing is said of %s: %v", field, s.findings)
		}
	}
}

// TestLoadBalancers: policies and hash policies become those of the target.
func TestLoadBalancers(t *testing.T) {
	for _, c := range []struct{ lb, want, finding string }{
		{`{"Policy": ""}`, "p2c_ewma", ""},
		{`{"Policy": "round_robin"}`, "weighted_round_robin", ""},
		{`{"Policy": "random"}`, "random", ""},
		{`{"Policy": "least_request", "LeastRequestConfig": {"ChoiceCount": 5}}`, "least_request 5", ""},
		{`{"Policy": "least_request"}`, "least_request 2", ""},
		{`{"Policy": "maglev", "HashPolicies": [{"Field": "query_parameter", "FieldValue": "q", "Terminal": true}]}`, "maglev by query:q", ""},
		{`{"Policy": "ring_hash", "HashPolicies": [{"SourceIP": true}]}`, "ring_hash by source_ip from 1024 to 8388608", ""},
		{
			`{"Policy": "ring_hash", "RingHashConfig": {"MinimumRingSize": 64, "MaximumRingSize": 4096}, "HashPolicies": [{"Field": "header", "FieldValue": "x-user"},
			{"Field": "cookie", "FieldValue": "sess", "CookieConfig": {"TTL": 3600000000000, "Path": "/p"}, "Terminal": true}, {"Field": "cookie", "FieldValue": "s2", "CookieConfig": {"Session": true}}]}`,
			"ring_hash by header:x-user with cookie:sess 1h0m0s /p, else cookie:s2 0s / from 64 to 4096", "",
		},
		{`{"Policy": "ring_hash"}`, "random", ""},
		{`{"Policy": "maglev", "HashPolicies": [{"Field": "header", "FieldValue": "a b"}]}`, "random", "HashPolicies[0]"},
		{`{"Policy": "tea_leaves"}`, "p2c_ewma", "LoadBalancer.Policy"},
	} {
		node := `"resolver:lb": {"Type": "resolver", "Resolver": {"Target": "api.default.default.dc1"}, "LoadBalancer": ` + c.lb + `}`
		s := serve(t, of(chained(t, "resolver:lb", node), "td"))
		b := s.loaded.Config.Policies["api"].Balance
		got := b.Algorithm.String()
		if got == "least_request" {
			got += fmt.Sprintf(" %d", b.Choices)
		}
		before := " by "
		for _, h := range b.Hash {
			got += before + h.String()
			if before = ", else "; h.Combine {
				before = " with "
			}
			if k := h.Cookie; k != nil {
				got += fmt.Sprintf(" %s %s", k.TTL, k.Path)
				if !k.Insecure || k.Session != (k.TTL == 0) {
					t.Errorf("%s: %+v", c.lb, k)
				}
			}
		}
		if b.Algorithm.String() == "ring_hash" {
			got += fmt.Sprintf(" from %d to %d", b.MinRingSize, b.MaxRingSize)
		}
		if got != c.want || (c.finding != "") != told(s, Refused, c.finding) {
			t.Errorf("%s: %s, want %s; %v", c.lb, got, c.want, s.findings)
		}
	}
}

// TestTargets: each target has a policy of its own with its identity, connect
// timeout and failover; one that several upstreams lead to is made once.
func TestTargets(t *testing.T) {
	node := `"resolver:f": {"Type": "resolver", "Resolver": {"Target": "api.default.default.dc1", "RequestTimeout": 7000000000, "Failover": {"Targets": ["v2.api.default.default.dc1", "api.default.default.dc2", "api.default.default.external.east"]}}}`
	c := chained(t, "resolver:f", node)
	c.Targets["api.default.default.dc2"] = &mesh.Target{ID: "api.default.default.dc2", Service: "api", Datacenter: "dc2", ConnectTimeout: mesh.Duration(9 * time.Second)}
	c.Targets["api.default.default.external.east"] = &mesh.Target{ID: "api.default.default.external.east", Service: "api", Peer: "east"}
	snap := of(c, "td")
	snap.Chains["other"] = chained(t, "resolver:v2", "")
	snap.Proxy.Proxy.Upstreams = append(snap.Proxy.Proxy.Upstreams, mesh.Upstream{DestinationName: "other", LocalBindPort: 15002, Config: map[string]any{"limits": map[string]any{"max_connections": 5.0}}})
	s := serve(t, snap)
	api := s.loaded.Config.Policies["api"]
	if !slices.Equal(api.Failover, []string{"v2.api", "api.dc-dc2", "api.peer-east"}) || api.Outlier.MaxEjectedPercent != 100 || api.Outlier.KeepEndpoints != 0 || api.Balance.PanicPercent != 0 {
		t.Errorf("%+v", api)
	}
	if d := s.loaded.Config.Policies["api.dc-dc2"].ConnectTimeout; d != 9*time.Second || s.loaded.Config.Policies["v2.api"].ConnectTimeout != 3*time.Second {
		t.Errorf("connect timeouts %v", d)
	}
	if w, _ := goes(t, s.listener(t, "api"), asked{method: "GET", path: "/"}); w.timeout != 7*time.Second {
		t.Errorf("%v", w)
	}
	if l := s.listener(t, "other"); l.Route.Cluster.Name() != "v2.api" || !told(s, Differs, "Proxy.Upstreams[other].Config") {
		t.Errorf("%s, %v", l.Route.Cluster.Name(), s.findings)
	}
	base, err := config.ParseBase("base.yaml", []byte(`discovery: {consul: {}}`))
	if err != nil {
		t.Fatal(err)
	}
	p := &config.Policy{Transport: config.TransportMTLS}
	tr := &translation{s: snap, own: &snap.Proxy}
	if tr.Making, err = base.Make(); err != nil {
		t.Fatal(err)
	}
	tr.Config.Identity.Consul = &consulca.Config{}
	tr.target("api.dc-dc2", p, c.Targets["api.default.default.dc2"])
	if !slices.Equal(p.Identities, []string{"spiffe://td/ns/default/dc/dc2/svc/api"}) {
		t.Errorf("identities %v", p.Identities)
	}
	*p = config.Policy{Transport: config.TransportMTLS}
	tr.target("api.peer-east", p, c.Targets["api.default.default.external.east"])
	if p.Identities != nil {
		t.Errorf("identities of a peer's: %v", p.Identities)
	}
}

// TestExternalSNI: what a service-defaults entry has as ExternalSNI is asked for in
// the handshake; the identity stays that of the service.
func TestExternalSNI(t *testing.T) {
	c := chained(t, "resolver:api", "")
	api := c.Targets["api.default.default.dc1"]
	api.External, api.SNI = true, "legacy.example.com"
	base, err := config.ParseBase("base.yaml", []byte(`discovery: {consul: {}}`))
	if err != nil {
		t.Fatal(err)
	}
	snap := of(c, "td")
	loaded, findings, err := Translate(base, snap, nil)
	if err != nil || len(findings) != 0 {
		t.Fatal(err, findings)
	}
	if p := loaded.Config.Policies["api"]; p.ServerName != "legacy.example.com" || !slices.Equal(p.Identities, []string{"spiffe://td/ns/default/dc/dc1/svc/api"}) {
		t.Errorf("server name %q, identities %v", p.ServerName, p.Identities)
	}
}

// TestPeersOfFile: with the peer's roots in a file an upstream of a peer is called,
// and nothing is said of a redirect to it.
func TestPeersOfFile(t *testing.T) {
	base, err := config.ParseBase("base.yaml", []byte(`{discovery: {consul: {}}, identity: {bundles: {east.test: /east.pem}}}`))
	if err != nil {
		t.Fatal(err)
	}
	c := chained(t, "resolver:api", "")
	c.Targets["api.default.default.dc1"].Peer = "east"
	snap := of(c, "td")
	snap.Proxy.Proxy.Upstreams = append(snap.Proxy.Proxy.Upstreams, mesh.Upstream{DestinationName: "api", DestinationPeer: "east", LocalBindPort: 15002})
	snap.Chains["api.peer-east"] = c
	loaded, findings, err := Translate(base, snap, nil)
	if err != nil || len(findings) != 0 {
		t.Fatal(err, findings)
	}
	if ups := loaded.Config.Outbound.Upstreams; len(ups) != 2 || ups[0].Service != ups[1].Service || loaded.Config.Policies[ups[1].Service].Identities != nil {
		t.Errorf("%+v", ups)
	}
}

// FuzzChain: no chain makes the translation fail as a whole, or take long.
func FuzzChain(f *testing.F) {
	f.Add([]byte(`{"Protocol":"http","StartNode":"router:api","Nodes":{"router:api":{"Type":"router","Routes":[{"Definition":{"Match":{"HTTP":{"PathPrefix":"/a"}}},"NextNode":"resolver:api"}]},` + apiNode + `},"Targets":{` + apiTarget + `}}`))
	f.Add([]byte(`{"Protocol":"http","StartNode":"s","Nodes":{"s":{"Type":"splitter","Splits":[{"Weight":50,"NextNode":"s"},{"Weight":50,"NextNode":"resolver:api"}]},` + apiNode + `},"Targets":{` + apiTarget + `}}`))
	f.Add([]byte(`{"Protocol":"tcp","StartNode":"resolver:api","Nodes":{` + apiNode + `},"Targets":{` + apiTarget + `}}`))
	base, err := config.ParseBase("base.yaml", []byte(plaintextBase))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := new(mesh.Chain)
		if len(data) > 1<<14 || json.Unmarshal(data, c) != nil {
			return
		}
		if _, findings, err := Translate(base, of(c, "td"), nil); err != nil {
			t.Errorf("%v\n%v", err, findings)
		}
	})
}
