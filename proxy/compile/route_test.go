package compile

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

const routed = `
service:   {name: web, port: 8080}
identity:  {files: {cert: a, key: b, bundle: c}}
discovery: {file: {path: catalog.yaml}}
inbound:
  listen: "127.0.0.1:15006"
  routes: [{name: slow, match: {path_prefix: /export}, timeout: 1m}]
outbound:
  upstreams:
    - service: api
      listen: "127.0.0.1:9001"
      protocol: http2
      unmatched: refuse
      routes:
        - {name: new, match: {path_regex: "/V[0-9]+/.*", ignore_case: true}, to: api-v2, timeout: 0, retry: {attempts: 4}}
        - name: canary
          match: {grpc: {service: shop.Cart, method: Get}, headers: [{name: host, suffix: .Example}, {name: X-User, regex: "a+"}]}
          split:
            - {service: api, weight: 90}
            - {service: api-v2, weight: 10, request_headers: {set: {x-canary: "1"}}}
          request_headers: {remove: [cookie]}
          retry: off
        - {match: {path: /closed}, respond: {status: 418, body: no}, response_headers: {add: {x-why: tea}}}
        - {name: rest, match: {path_prefix: /a/}, rewrite: {path_prefix: /}, stream_idle_timeout: 1s}
        - {name: query, match: {query: [{name: a, exact: b}, {name: c, regex: d}, {name: e, present: true}], methods: [GET]}}
    - {service: api-v2, listen: "127.0.0.1:9002", routes: [{name: old, match: {grpc: {service: x.Y}}, to: legacy, rewrite: {path: /one}}]}
policies:
  api: {timeout: 2s, retry: {attempts: 3, budget_percent: 7}}
  legacy: {transport: plaintext}
`

func find(t *testing.T, l *plan.Listener, name string) *plan.Route {
	t.Helper()
	for _, r := range l.Routes.Routes() {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("%s has no route %s", l.Name, name)
	return nil
}

func TestRoutes(t *testing.T) {
	in := input(t, routed)
	d, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Services(); !slices.Equal(got, []string{"api", "api-v2", "legacy"}) {
		t.Errorf("services %q", got)
	}
	p, r := build(t, in)
	var names []string
	for _, c := range p.Clusters {
		names = append(names, c.Name())
	}
	if !slices.Equal(names, []string{"api", "api-v2", "legacy", "web"}) {
		t.Errorf("clusters %q", names)
	}
	web, api, v2 := p.Listeners[0], p.Listeners[1], p.Listeners[2]
	if got := find(t, web, "slow"); got.Cluster != web.Route.Cluster || got.Policy.Timeout != time.Minute || len(got.Policy.Retry.On) != 1 {
		t.Errorf("slow: %+v", got)
	}
	if web.Routes.Last() != &web.Route {
		t.Error("inbound requests without a route are not forwarded")
	}
	if last := api.Routes.Last(); last.Refuse != outcome.NoRoute || last.Cluster != api.Route.Cluster || last.Name != "api" {
		t.Errorf("the last route of api: %+v", last)
	}
	fresh := find(t, api, "new")
	if fresh.Cluster != v2.Route.Cluster || fresh.Policy.Timeout != 0 || fresh.Policy.Retry.Attempts != 4 || fresh.Policy.HTTP2 {
		t.Errorf("new: %+v %+v", fresh, fresh.Policy)
	}
	if re := fresh.Match.Path.Regexp; !re.MatchString("/v12/x") || re.MatchString("/a/v1/x") {
		t.Errorf("the expression %s", re)
	}
	canary := find(t, api, "canary")
	if len(canary.Split) != 2 || canary.Split[0].Below != 9000 || canary.Split[1].Below != plan.Parts {
		t.Fatalf("canary: %+v", canary.Split)
	}
	one, two := canary.Split[0].Route, canary.Split[1].Route
	if one.Cluster != api.Route.Cluster || two.Cluster != v2.Route.Cluster || one.Name != "canary" || one.Metrics != canary.Metrics || canary.Metrics == nil {
		t.Errorf("canary goes to %s and %s as %s", one.Cluster.Name(), two.Cluster.Name(), one.Name)
	}
	if one.Policy.Retry != nil || one.Policy.Timeout != 2*time.Second || two.Policy.Timeout != 0 || !one.Policy.HTTP2 || two.Policy.HTTP2 {
		t.Errorf("policies %+v, %+v", one.Policy, two.Policy)
	}
	if one.Request.Size() != 0 || two.Request.Size() != len("x-canary: 1\r\n") {
		t.Errorf("added: %d and %d bytes", one.Request.Size(), two.Request.Size())
	}
	m := canary.Match
	if !m.GRPC || m.Path.Kind != plan.Exact || m.Path.Value != "/shop.Cart/Get" || m.Fields[0].ID != http1.Host || m.Fields[0].Value.Value != ".example" || !m.Fields[0].Value.Fold ||
		m.Fields[1].Name != "x-user" || m.Fields[1].Value.Kind != plan.Regexp {
		t.Errorf("canary's conditions: %+v", m)
	}
	if got := find(t, api, "routes[2]"); got.Reply.Status != 418 || string(got.Reply.Body) != "no" || got.Reply.Type == "" || got.Response.Size() == 0 {
		t.Errorf("routes[2]: %+v", got.Reply)
	}
	if got := find(t, api, "rest"); got.Rewrite != (plan.Rewrite{On: true, Cut: 3, To: "/"}) || got.Policy.StreamIdle != time.Second || got.Policy.Retry.BudgetPercent != 7 {
		t.Errorf("rest: %+v %+v", got.Rewrite, got.Policy)
	}
	q := find(t, api, "query")
	if q.Policy != nil || len(q.Match.Query) != 3 || q.Match.Query[0].Value.Kind != plan.Exact || q.Match.Query[1].Value.Kind != plan.Regexp || q.Match.Query[2].Value.Kind != plan.AnyText || q.Match.Methods[0] != "GET" {
		t.Errorf("query: %+v", q.Match)
	}
	old := find(t, v2, "old")
	if old.Cluster.Name() != "legacy" || old.Cluster.Transport() != "plaintext" || old.Rewrite.Cut != -1 || old.Match.Path.Value != "/x.Y/" || old.Match.Path.Kind != plan.Prefix {
		t.Errorf("old: %+v", old)
	}
	// Nothing is left behind.
	Release(p, r)
	if clusters, _ := r.States(); len(clusters) != 0 {
		t.Errorf("%d clusters are left", len(clusters))
	}
}

// A route's service that cannot be called is told of at its place.
func TestRouteProblems(t *testing.T) {
	in := input(t, routed)
	in.Identities = map[string][]string{"api": {"spiffe://mesh.test/a b"}, "api-v2": {"http://mesh.test/v2"}}
	_, err := Compile(in)
	problems, ok := err.(config.Problems)
	if !ok || len(problems) == 0 {
		t.Fatalf("error %v", err)
	}
	in = input(t, strings.ReplaceAll(routed, "legacy: {transport: plaintext}", `legacy: {identities: ["spiffe://mesh.test/l"]}`))
	in.Source = nil
	_, err = Compile(in)
	problems, ok = err.(config.Problems)
	if !ok || !slices.ContainsFunc(problems, func(p config.Problem) bool { return strings.HasSuffix(p.Path, "inbound.mtls") }) {
		t.Fatalf("error %v", err)
	}
}

// TestRouteMetrics: what is bound with a plan goes with it.
func TestRouteMetrics(t *testing.T) {
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := input(t, routed)
	_, r := build(t, in)
	d, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	p := d.Build(r, m)
	route := find(t, p.Listeners[1], "canary")
	route.Metrics.Finish(0, outcome.OK, 200, time.Second)
	if again := m.Route(telemetry.Outbound, "outbound:api", "canary"); again != route.Metrics {
		t.Error("another handle of the same name")
	} else {
		again.Release()
	}
	Release(p, r)
	if again := m.Route(telemetry.Outbound, "outbound:api", "canary"); again == route.Metrics {
		t.Error("the handle is still there")
	}
}

// TestWeights: every weight that can be written is the part it stands for.
func TestWeights(t *testing.T) {
	for n := range plan.Parts + 1 {
		if got := parts(float64(n) / 100); got != uint32(n) {
			t.Fatalf("%g%% becomes %d parts", float64(n)/100, got)
		}
	}
}
