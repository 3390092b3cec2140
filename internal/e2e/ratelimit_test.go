package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// limitView is a row of /rate-limits.
type limitView struct {
	Cluster, Direction, Name, Key, Mode string
	Keys                                int
	Passed, Limited                     uint64
	WouldLimit                          uint64 `json:"would_limit"`
}

// limited starts a pair of sidecars, of which that of api has the rate limits.
// again gives it others, and waits until they are in force.
func (m *mesh) limited(app int, protocol, limits string) (p *pair, again func(limits string)) {
	m.t.Helper()
	p = &pair{inbound: freeAddress(m.t)}
	inbound := func(limits string) sections {
		return sections{"inbound": fmt.Sprintf(`{listen: "%s", rate_limits: [%s]}`, p.inbound, limits)}
	}
	p.api, _ = m.inbound("api", app, inbound(limits).with(sections{"service": fmt.Sprintf("{name: api, port: %d, protocol: %s}", app, protocol)}))
	m.catalog(map[string][]string{"api": {p.inbound}})
	p.address = freeAddress(m.t)
	p.web, _ = m.outbound("web", "api", sections{
		"outbound": fmt.Sprintf(`{upstreams: [{service: api, listen: "%s", protocol: %s}]}`, p.address, protocol),
	})
	p.call = "http://" + p.address
	p.api.ready()
	p.web.ready()
	return p, func(limits string) {
		m.t.Helper()
		before := p.api.overview().Reload.Version
		p.api.rewrite(inbound(limits))
		p.api.applied(before)
	}
}

// curl sees a 429 with the fields that say when to come again; a reload keeps
// what the buckets know unless it changes their rate; observe only counts.
func TestRateLimitsWithCurl(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	m := newMesh(t)
	const caller = `{name: caller, rate: {requests: 3, per: 1h}, key: identity, match: {path: /pay}}`
	p, again := m.limited(serve(t, named("api", echo("api"))), "http", caller)
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(curl, append([]string{"-sS", "-i", "--max-time", "30", "--noproxy", "*"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl %q: %v\n%s", args, err, out)
		}
		return strings.ToLower(string(out))
	}
	pay := p.call + "/pay"
	for range 3 {
		if out := run(pay); !strings.HasPrefix(out, "http/1.1 200") {
			t.Fatalf("within the rate:\n%s", out)
		}
	}
	for _, args := range [][]string{{pay}, {"--http2-prior-knowledge", pay}, {"-d", "x=1", pay + "?again"}} {
		out := run(args...)
		for _, want := range []string{
			" 429", "\nretry-after: 1", "\nratelimit-policy: \"caller\";q=3;w=3600\r\n", "\nratelimit: \"caller\";r=0;t=1", "\nx-outrigger-reason: rate_limited\r\n", "\nlimit: caller\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("curl %q: no %q in\n%s", args, want, out)
			}
		}
	}
	if out := run(p.call + "/free"); !strings.HasPrefix(out, "http/1.1 200") || strings.Contains(out, "ratelimit") {
		t.Errorf("a path without a limit:\n%s", out)
	}
	p.api.counts(3, "outrigger_rate_limit_decisions_total", `limit="caller"`, `result="limited"`, `direction="inbound"`)
	p.api.counts(3, "outrigger_exchanges_total", `reason="rate_limited"`, `class="4xx"`)
	r := p.api.recorded("a refused request", func(r *record) bool { return r.Reason == "rate_limited" })
	if r.Status != 429 || r.Detail != "rate limit caller" {
		t.Errorf("record %+v", r)
	}
	if n := p.web.metric("outrigger_endpoint_ejections_total"); n != 0 {
		t.Errorf("%v endpoints ejected for a caller's excess", n)
	}

	// Another limit comes; the bucket stays as empty as it was.
	again(caller + `, {name: all, rate: {requests: 1000}}`)
	if out := run(pay); !strings.HasPrefix(out, "http/1.1 429") {
		t.Errorf("a reload has forgotten the bucket:\n%s", out)
	}
	again(strings.Replace(caller, "key:", "mode: observe, key:", 1))
	if out := run(pay); !strings.HasPrefix(out, "http/1.1 200") {
		t.Errorf("refused in observe mode:\n%s", out)
	}
	p.api.counts(1, "outrigger_rate_limit_decisions_total", `limit="caller"`, `result="would_limit"`)
	p.api.counts(1, "outrigger_would_have_total", `action="rate_limited"`)
	var views []limitView
	p.api.view("/rate-limits", &views)
	want := limitView{Cluster: "api", Direction: "inbound", Name: "caller", Key: "identity", Mode: "observe", Keys: 1, Passed: 3, Limited: 4, WouldLimit: 1}
	if len(views) != 1 || views[0] != want {
		t.Errorf("/rate-limits says %+v, want %+v", views, want)
	}
	again(strings.Replace(caller, "requests: 3", "requests: 4", 1))
	for i, want := range []string{"200", "200", "200", "200", "429"} {
		if out := run(pay); !strings.HasPrefix(out, "http/1.1 "+want) {
			t.Errorf("request %d under another rate:\n%s", i+1, out)
		}
	}
}

// A gRPC client gets RESOURCE_EXHAUSTED, at once and not after attempts that
// its sidecar makes again.
func TestRateLimitedGRPC(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	port, _ := serveGRPC(t, newGRPCApp("api"))
	p, _ := m.limited(port, "grpc", `{name: empty, rate: {requests: 2, per: 1h}, key: identity, match: {grpc: {service: grpc.testing.TestService, method: EmptyCall}}}`)
	call := dialGRPC(t, p.address)
	for range 2 {
		if _, err := call.EmptyCall(within(t, patience), &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		_, err := call.EmptyCall(within(t, patience), &testpb.Empty{})
		if s := status.Convert(err); s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "rate_limited") || !strings.Contains(s.Message(), "Limit: empty") {
			t.Fatalf("%v; want RESOURCE_EXHAUSTED and the limit's name", err)
		}
	}
	if _, err := call.UnaryCall(within(t, patience), &testpb.SimpleRequest{}); err != nil {
		t.Errorf("another method: %v", err)
	}
	p.api.counts(10, "outrigger_rate_limit_decisions_total", `limit="empty"`, `result="limited"`)
	if n := p.api.metric("outrigger_rate_limit_decisions_total", `limit="empty"`, `result="limited"`); n != 10 {
		t.Errorf("%v calls were refused; there were 10", n)
	}
	if n := p.web.metric("outrigger_endpoint_ejections_total"); n != 0 {
		t.Errorf("%v endpoints ejected for a caller's excess", n)
	}
}

// Of connections that are not HTTP so many come in, and the others are closed.
// They count for their caller although they share one connection.
func TestRateLimitedTCP(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p, _ := m.limited(serveTCP(t, echoTCP), "tcp", `{name: caller, rate: {requests: 2, per: 1h}, key: identity}`)
	for i := range 4 {
		c, err := net.Dial("tcp", p.address)
		if i >= 2 && errors.Is(err, syscall.ECONNRESET) {
			continue // refused before Dial had looked
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "ping") // may come too late for one that is refused
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); (err == nil) != (i < 2) {
			t.Errorf("connection %d: %q, %v", i+1, b, err)
		}
	}
	p.api.counts(2, "outrigger_rate_limit_decisions_total", `limit="caller"`, `result="limited"`)
	p.api.counts(2, "outrigger_exchanges_total", `reason="rate_limited"`, `class="none"`)
}

// A policy limits what goes to an upstream before it leaves the proxy.
func TestRateLimitedUpstream(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, named("api", echo("api"))), sections{
		"policies": `{"*": {rate_limits: [{name: quota, rate: {requests: 2, per: 1h}, key: header, header: X-Tenant}]}}`,
	}, nil)
	ask := func(tenant string) (*http.Response, string) {
		return fetch(t, "GET", p.call+"/", func(r *http.Request) { r.Header.Set("X-Tenant", tenant) })
	}
	for _, c := range []struct {
		tenant string
		want   int
	}{{"a", 200}, {"a", 200}, {"a", 429}, {"b", 200}} {
		res, body := ask(c.tenant)
		if res.StatusCode != c.want {
			t.Errorf("tenant %s: %d, want %d: %s", c.tenant, res.StatusCode, c.want, body)
		}
		if c.want == 429 && (res.Header.Get("Retry-After") == "" || !strings.Contains(body, "cluster: api\n")) {
			t.Errorf("%v %s", res.Header, body)
		}
	}
	p.web.counts(1, "outrigger_rate_limit_decisions_total", `cluster="api"`, `direction="outbound"`, `limit="quota"`, `result="limited"`)
	p.api.counts(3, "outrigger_exchanges_total", `direction="inbound"`)
	if n := p.api.metric("outrigger_exchanges_total", `direction="inbound"`); n != 3 {
		t.Errorf("%v requests have reached api, want 3", n)
	}
}
