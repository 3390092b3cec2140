package exchange_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// path is a condition on the path.
func path(kind plan.TextKind, value string) plan.Match {
	return plan.Match{Path: plan.Text{Kind: kind, Value: value}}
}

// routes puts a table before the listener's own route. Routes without a cluster
// get the bed's.
func (b *bed) routes(refuse bool, list ...*plan.Route) {
	b.t.Helper()
	l := *b.plan.Load()
	last := &l.Route
	if refuse {
		last = &plan.Route{Name: l.Route.Name, Cluster: b.cluster, Refuse: outcome.NoRoute}
	}
	for _, r := range list {
		if r.Cluster == nil {
			r.Cluster = b.cluster
		}
	}
	metrics, err := telemetry.New(telemetry.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	l.Routes = plan.NewTable(list, last)
	l.Routes.Bind(metrics, &l)
	b.plan.Store(&l)
}

// service is a further cluster, with a policy of its own.
func (b *bed) service(name string, change func(*upstream.Policy)) *upstream.Cluster {
	s := b.spec
	s.Name = name
	if change != nil {
		change(&s.Policy)
	}
	c := b.registry.Acquire(s, telemetry.Outbound)
	b.onStop(func() { b.registry.Release(c) })
	return c
}

// policy is the bed's with a change.
func (b *bed) policy(change func(*upstream.Policy)) *upstream.Policy {
	p := *b.cluster.Policy()
	change(&p)
	return &p
}

func describe(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	names := []string{}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Test") {
			names = append(names, name+"="+strings.Join(r.Header[name], "+"))
		}
	}
	slices.Sort(names)
	w.Header().Set("server", "origin")
	w.Header().Add("x-kept", "1")
	w.Header().Add("x-gone", "1")
	fmt.Fprintf(w, "%s %s %s %q", r.Method, r.URL.RequestURI(), strings.Join(names, " "), b)
}

// TestRoutes: a request takes its route, and is and answered as that says, in
// every combination of protocols.
func TestRoutes(t *testing.T) {
	runLegs(t, allLegs, nil, describe, func(t *testing.T, p *pair) {
		other := p.service("other", nil)
		copyEndpoints(p.bed, other)
		set := func(name, value string) []plan.FieldLine { return []plan.FieldLine{{Name: name, Value: value}} }
		p.routes(false,
			&plan.Route{
				Name: "v2", Cluster: other, Match: path(plan.Prefix, "/api/"), Rewrite: plan.Rewrite{On: true, Cut: 5, To: "/v2/"},
				Request:  plan.NewEdits(set("X-Test-Set", "new"), set("x-test-add", "two"), []string{"x-test-gone"}),
				Response: plan.NewEdits(set("Server", "edge"), set("x-kept", "2"), []string{"X-Gone"}),
			},
			&plan.Route{Name: "search", Match: plan.Match{Query: []plan.QueryMatch{{Name: "q"}}}, Rewrite: plan.Rewrite{On: true, Cut: -1, To: "/search"}},
		)
		res, got := p.must(t, "GET", "/api/x?y=1", nil, "x-test-set", "old", "x-test-add", "one", "x-test-gone", "1")
		if want := `GET /v2/x?y=1 X-Test-Add=one+two X-Test-Set=new ""`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if h := res.Header; h.Get("server") != "edge" || strings.Join(h.Values("x-kept"), "+") != "1+2" || h.Get("x-gone") != "" {
			t.Errorf("response header %v", h)
		}
		for _, body := range []string{"short", strings.Repeat("long", 60_000)} {
			if _, got := p.must(t, "POST", "/api/y", strings.NewReader(body), "x-test-a", "1"); got != fmt.Sprintf("POST /v2/y X-Test-A=1 X-Test-Add=two X-Test-Set=new %q", body) {
				t.Errorf("got %.100s", got)
			}
		}
		res, got = p.must(t, "GET", "/x?q=z", nil)
		if got != `GET /search?q=z  ""` || res.Header.Get("server") != "origin" {
			t.Errorf("got %s, %v", got, res.Header)
		}
		if _, got = p.must(t, "GET", "/x?y", nil, "x-test-gone", "stays"); got != `GET /x?y X-Test-Gone=stays ""` {
			t.Errorf("got %s", got)
		}
		res, got = p.must(t, "GET", "/api/%2e%2e/secret", nil)
		if res.StatusCode != 400 || !strings.Contains(got, "more than one way") || res.Header.Get("x-outrigger-reason") != "bad_request" {
			t.Errorf("a dot segment: %d %s", res.StatusCode, got)
		}
		var seen []string
		for _, r := range p.wantReasons("ok", "ok", "ok", "ok", "ok", "bad_request") {
			seen = append(seen, r.Route+" "+r.Cluster+" "+r.Path)
		}
		slices.Sort(seen)
		if want := []string{
			"api api /api/%2e%2e/secret", "api api /x?y", "search api /x?q=z", "v2 other /api/x?y=1", "v2 other /api/y", "v2 other /api/y",
		}; !slices.Equal(seen, want) {
			t.Errorf("records %q, want %q", seen, want)
		}
	})
}

// copyEndpoints gives c the endpoints of the bed's cluster.
func copyEndpoints(b *bed, c *upstream.Cluster) {
	_, all := b.registry.States()
	var list []upstream.EndpointSpec
	for _, e := range all {
		list = append(list, e.Spec)
	}
	c.SetLocal(list)
}

// TestRefusedRoutes: without a route there is an answer at once, to gRPC calls in
// their own manner.
func TestRefusedRoutes(t *testing.T) {
	runLegs(t, []legs{{true, true}, {false, false}}, nil, describe, func(t *testing.T, p *pair) {
		p.routes(true, &plan.Route{Name: "svc", Match: plan.Match{Path: plan.Text{Kind: plan.Prefix, Value: "/shop.Cart/"}, GRPC: true}})
		want := []string{"ok", "no_route", "no_route", "no_route"}
		if res, got := p.must(t, "POST", "/shop.Cart/Get", nil, "content-type", "application/grpc"); res.StatusCode != 200 {
			t.Errorf("%d %s", res.StatusCode, got)
		}
		res, got := p.must(t, "POST", "/shop.Other/Get", nil, "content-type", "application/grpc")
		if res.StatusCode != 200 || res.Header.Get("grpc-status") != "12" || got != "" {
			t.Errorf("gRPC: %d %v %q", res.StatusCode, res.Header, got)
		}
		for _, body := range []string{"", strings.Repeat("x", 200_000)} {
			if res, got := p.must(t, "POST", "/shop.Cart/Get", strings.NewReader(body)); res.StatusCode != 404 || !strings.Contains(got, "no_route") {
				t.Errorf("%d %s", res.StatusCode, got)
			}
		}
		if n := p.heads.Load(); n != 1 {
			t.Errorf("the origin was asked %d times", n)
		}
		p.wantReasons(want...)
	})
}

// TestFixedAnswer: the proxy answers in place of any service.
func TestFixedAnswer(t *testing.T) {
	runLegs(t, []legs{{true, true}, {false, false}}, nil, describe, func(t *testing.T, p *pair) {
		p.routes(false,
			&plan.Route{Name: "closed", Match: path(plan.Exact, "/closed"), Reply: &plan.Reply{Status: 403, Reason: "Forbidden", Body: []byte("no\n"), Type: "text/plain"}},
			&plan.Route{
				Name: "moved", Match: path(plan.Prefix, "/old"), Reply: &plan.Reply{Status: 308, Reason: "Permanent Redirect"},
				Response: plan.NewEdits([]plan.FieldLine{{Name: "location", Value: "https://new.example/"}}, nil, nil),
			},
			&plan.Route{Name: "empty", Match: path(plan.Exact, "/empty"), Reply: &plan.Reply{Status: 204, Reason: "No Content"}},
		)
		var want []string
		for _, c := range []struct {
			method, path, body, want string
			status                   int
		}{
			{"GET", "/closed", "", "no\n", 403},
			{"HEAD", "/closed", "", "", 403},
			{"POST", "/closed", "short", "no\n", 403},
			{"POST", "/closed", strings.Repeat("x", 300_000), "no\n", 403},
			{"GET", "/old/x", "", "", 308},
			{"GET", "/empty", "", "", 204},
			{"GET", "/closed", "", "no\n", 403},
		} {
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			res, got := p.must(t, c.method, c.path, body)
			if res.StatusCode != c.status || got != c.want || res.Header.Get("x-request-id") == "" {
				t.Errorf("%s %s: %d %q %v", c.method, c.path, res.StatusCode, got, res.Header)
			}
			if typ := res.Header.Get("content-type"); (typ == "text/plain") != (c.status == 403) {
				t.Errorf("%s %s: content-type %q", c.method, c.path, typ)
			}
			if (res.Header.Get("location") == "https://new.example/") != (c.status == 308) {
				t.Errorf("%s %s: %v", c.method, c.path, res.Header)
			}
			if c.status == 204 && res.Header.Get("content-length") != "" {
				t.Errorf("204 with a length: %v", res.Header)
			}
			want = append(want, "ok")
		}
		if n := p.heads.Load(); n != 0 {
			t.Errorf("the origin was asked %d times", n)
		}
		p.wantReasons(want...)
	})
}

// TestRoutePolicy: a route's times and retries hold for its requests only.
func TestRoutePolicy(t *testing.T) {
	var fails bool
	h := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/stall"):
			<-r.Context().Done()
		case fails:
			w.WriteHeader(503)
		}
	}
	change := func(s *setup) { s.policy.Retry = retrying(3); s.policy.Timeout = patience }
	runLegs(t, []legs{{false, false}}, change, h, func(t *testing.T, p *pair) {
		fails = true
		p.routes(false,
			&plan.Route{Name: "quick", Match: path(plan.Prefix, "/stall/quick"), Policy: p.policy(func(u *upstream.Policy) { u.Timeout = time.Second })},
			&plan.Route{Name: "idle", Match: path(plan.Prefix, "/stall/idle"), Policy: p.policy(func(u *upstream.Policy) { u.StreamIdle = time.Second })},
			&plan.Route{Name: "once", Match: path(plan.Prefix, "/once"), Policy: p.policy(func(u *upstream.Policy) { u.Retry = nil })},
			&plan.Route{Name: "five", Match: path(plan.Prefix, "/five"), Policy: p.policy(func(u *upstream.Policy) { u.Retry = retrying(5) })},
		)
		for _, c := range []struct {
			path     string
			status   int
			attempts int64
		}{{"/stall/quick", 504, 1}, {"/stall/idle", 504, 1}, {"/once", 503, 1}, {"/five", 503, 5}, {"/other", 503, 3}} {
			before := p.heads.Load()
			res, _ := p.must(t, "GET", c.path, nil)
			if n := p.heads.Load() - before; res.StatusCode != c.status || n != c.attempts {
				t.Errorf("%s: %d after %d attempts, want %d after %d", c.path, res.StatusCode, n, c.status, c.attempts)
			}
		}
		p.wantReasons("request_timeout", "stream_idle", "upstream_error", "upstream_error", "upstream_error")
	})
}

// TestNewService: the first requests to a cluster that has come with a reload
// wait for its endpoints; they do not wait for what never comes.
func TestNewService(t *testing.T) {
	runLegs(t, []legs{{false, false}}, nil, describe, func(t *testing.T, p *pair) {
		late := p.service("late", nil)
		never := p.service("never", func(u *upstream.Policy) { u.ConnectTimeout = 30 * time.Millisecond })
		p.routes(false,
			&plan.Route{Name: "late", Cluster: late, Match: path(plan.Prefix, "/late")},
			&plan.Route{Name: "never", Cluster: never, Match: path(plan.Prefix, "/never")},
		)
		if res, _ := p.must(t, "GET", "/never", nil); res.StatusCode != 503 {
			t.Errorf("status %d", res.StatusCode)
		}
		got := make(chan int)
		go func() {
			res, err := p.ask(t, "GET", "/late", nil)
			if err != nil {
				t.Error(err)
				got <- 0
				return
			}
			res.Body.Close()
			got <- res.StatusCode
		}()
		for late.Metrics().Active() == 0 {
			time.Sleep(time.Millisecond)
		}
		copyEndpoints(p.bed, late)
		if status := <-got; status != 200 {
			t.Errorf("status %d", status)
		}
		p.wantReasons("no_endpoints", "ok")
	})
}

// TestRouteNoAllocation: routes, splits and edits cost no allocation.
func TestRouteNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	got := mallocs(t, plain, 0, func(b *bed) {
		one := &plan.Route{Name: "x", Cluster: b.cluster, Request: plan.NewEdits([]plan.FieldLine{{Name: "x-a", Value: "1"}}, nil, []string{"x-b"})}
		b.routes(true,
			&plan.Route{Name: "login", Match: path(plan.Exact, "/login")},
			&plan.Route{Name: "post", Match: plan.Match{Methods: []string{"POST"}}},
			&plan.Route{Name: "x", Match: path(plan.Prefix, "/x"), Split: []plan.Share{{Below: 5000, Route: one}, {Below: plan.Parts, Route: one}}},
		)
	})
	if got > 0.05 {
		t.Errorf("%.3f allocations an exchange", got)
	}
}
