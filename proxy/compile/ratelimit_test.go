package compile

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

const rated = `
service:   {name: web, port: 8080}
identity:  {files: {cert: a, key: b, bundle: c}}
discovery: {file: {path: catalog.yaml}}
inbound:
  routes: [{name: slow, match: {path_prefix: /export}, timeout: 1m}]
  rate_limits:
    - {name: caller, rate: {requests: 2, per: 1m}, key: identity, max_keys: 10}
    - {name: tenant, rate: {requests: 3}, key: header, header: X-Tenant, mode: observe, match: {methods: [POST]}}
outbound:
  upstreams:
    - {service: api, listen: "127.0.0.1:9001", unmatched: refuse, routes: [{name: v2, match: {path: /2}, to: api-v2}]}
policies:
  api-v2: {rate_limits: [{name: all, rate: {requests: 9}}]}
`

// Every route has the limits of the service that it calls.
func TestRateLimits(t *testing.T) {
	p, r := build(t, input(t, rated))
	in, api := p.Listeners[0], p.Listeners[1]
	for _, route := range []*plan.Route{&in.Route, in.Routes.Routes()[0]} {
		if len(route.RateLimits) != 2 {
			t.Fatalf("%s has %d limits", route.Name, len(route.RateLimits))
		}
	}
	caller, tenant := in.Route.RateLimits[0], in.Route.RateLimits[1]
	if caller.Key != plan.RateIdentity || caller.MaxKeys != 10 || caller.OnlyHTTP || caller.Mode != guard.Enforce || caller.Policy != `"caller";q=2;w=60` {
		t.Errorf("caller: %+v", caller)
	}
	if tenant.Key != plan.RateField || tenant.Field != "x-tenant" || !tenant.OnlyHTTP || tenant.Mode != guard.Observe || tenant.Rate.Per != time.Second ||
		len(tenant.Match.Methods) != 1 || tenant.Refusal.Error() != "rate limit tenant" {
		t.Errorf("tenant: %+v", tenant)
	}
	if v2 := api.Routes.Routes()[0]; len(v2.RateLimits) != 1 || v2.RateLimits[0].Cluster != "api-v2" || v2.RateLimits[0].Direction != telemetry.Outbound {
		t.Errorf("the route to api-v2 has %v", v2.RateLimits)
	}
	if len(api.Route.RateLimits)+len(api.Routes.Last().RateLimits) != 0 {
		t.Error("api has limits, which are api-v2's")
	}
	Release(p, r)
}

// What the buckets know outlives a plan, unless the rate or the key is another.
func TestRateLimitsOutlivePlans(t *testing.T) {
	in := input(t, rated)
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, r := build(t, in)
	left := func(l *plan.RateLimit) int64 { return l.Table.Take(0, &ratelimit.Key{}).Remaining }
	next := func(from, to string) *plan.Plan {
		t.Helper()
		d, err := Compile(input(t, strings.Replace(rated, from, to, 1)))
		if err != nil {
			t.Fatal(err)
		}
		return d.Build(r, m)
	}
	p := next("", "")
	limits := func() []*plan.RateLimit { return p.Listeners[0].Route.RateLimits }
	if n := left(limits()[0]); n != 1 {
		t.Fatalf("%d left in a new bucket", n)
	}
	limits()[0].Metrics.Decided(0, telemetry.RateLimited)
	for _, c := range []struct {
		name, from, to string
		left           int64
	}{
		{"nothing", "", "", 0},
		{"mode and match", "key: identity,", "key: identity, mode: observe, match: {methods: [GET]},", 0},
		{"rate", "{requests: 2, per: 1m}", "{requests: 5, per: 1m}", 4},
		{"key", "key: identity", "key: source_ip", 1},
	} {
		old := p
		p = next(c.from, c.to)
		Release(old, r)
		if n := left(limits()[0]); n != c.left {
			t.Errorf("%s changed: %d left, want %d", c.name, n, c.left)
		}
		if n := limits()[0].Metrics.Decisions(telemetry.RateLimited); n != 1 {
			t.Errorf("%s changed: the counter says %d", c.name, n)
		}
		if c.left == 0 { // again as it was
			continue
		}
		old = p
		p = next("", "")
		Release(old, r)
		left(limits()[0])
	}
	Release(p, r)
}
