package exchange_test

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// hourly is a limit of so many requests in a time that no test lasts.
func hourly(t testing.TB, name string, requests int64, change func(*plan.RateLimit)) *plan.RateLimit {
	t.Helper()
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := ratelimit.Config{Requests: requests, Per: time.Hour}
	l := &plan.RateLimit{
		Name: name, Rate: c, Policy: plan.PolicyText(name, c), Refusal: io.ErrShortBuffer,
		Table: ratelimit.NewTable(c, 100), Metrics: m.RateLimit("api", telemetry.Outbound, name),
	}
	if change != nil {
		change(l)
	}
	return l
}

func limits(list ...*plan.RateLimit) func(*setup) {
	return func(s *setup) { s.route.RateLimits = list }
}

// decisions are what a limit has let pass, refused, and would have refused.
func decisions(l *plan.RateLimit) [3]uint64 {
	return [3]uint64{l.Metrics.Decisions(telemetry.RatePassed), l.Metrics.Decisions(telemetry.RateLimited), l.Metrics.Decisions(telemetry.RateWouldLimit)}
}

// Beyond the rate the answer is a 429 that says when to come again, in every
// combination of protocols; requests that do not match go on.
func TestRateLimited(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			limit := hourly(t, "writes", 2, func(l *plan.RateLimit) { l.Match.Methods = []string{"POST"} })
			p := newPair(t, l, limits(limit), describe, nil)
			for range 2 {
				if res, got := p.must(t, "POST", "/a", strings.NewReader("body")); res.StatusCode != 200 {
					t.Fatalf("status %d: %s", res.StatusCode, got)
				}
			}
			res, got := p.must(t, "POST", "/a", strings.NewReader(strings.Repeat("long", 60_000)))
			h := res.Header
			if res.StatusCode != 429 || h.Get("x-outrigger-reason") != "rate_limited" || !strings.Contains(got, "limit: writes\n") {
				t.Fatalf("status %d, %v: %s", res.StatusCode, h, got)
			}
			after, err := strconv.Atoi(h.Get("retry-after"))
			if err != nil || after < 1700 || after > 1800 {
				t.Errorf("Retry-After is %q", h.Get("retry-after"))
			}
			if h.Get("ratelimit-policy") != `"writes";q=2;w=3600` || h.Get("ratelimit") != `"writes";r=0;t=`+strconv.Itoa(after) {
				t.Errorf("RateLimit-Policy %q, RateLimit %q", h.Get("ratelimit-policy"), h.Get("ratelimit"))
			}
			if res, _ := p.must(t, "GET", "/a", nil); res.StatusCode != 200 || res.Header.Get("ratelimit") != "" {
				t.Errorf("a GET got %d, %v", res.StatusCode, res.Header)
			}
			if got := decisions(limit); got != [3]uint64{2, 1, 0} {
				t.Errorf("decisions %v", got)
			}
			for _, r := range p.wantReasons("ok", "ok", "ok", "rate_limited") {
				if r.Reason == "rate_limited" && (r.Attempts != 0 || r.Detail != io.ErrShortBuffer.Error()) {
					t.Errorf("record %+v", r)
				}
			}
		})
	}
}

// A gRPC call gets its status, and what an endpoint's sidecar refuses in this
// way does not count against the endpoint.
func TestRateLimitedCall(t *testing.T) {
	p := newPair(t, legs{true, true}, limits(hourly(t, "calls", 1, nil)), grpcOrigin, nil)
	if got, _, _ := p.call(t, "/svc/0", ""); got != "0" {
		t.Fatalf("status %s", got)
	}
	got, alone, res := p.call(t, "/svc/x", "")
	h := res.Header
	if got != "8" || !alone || res.StatusCode != 200 || h.Get("x-outrigger-reason") != "rate_limited" || h.Get("retry-after") == "" ||
		!strings.HasPrefix(h.Get("ratelimit"), `"calls";r=0;t=`) {
		t.Errorf("status %s, alone %v, %v", got, alone, h)
	}
	p.wantReasons("ok", "rate_limited")
}

func TestLimitedThereIsNoFailure(t *testing.T) {
	for reason, want := range map[string]string{"rate_limited": "ok", "overload": "upstream_error"} {
		runLegs(t, []legs{{true, true}, {true, false}}, func(s *setup) {
			o := outlier.Default()
			s.policy.Outlier = &o
		}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-type", "application/grpc")
			w.Header().Set("x-outrigger-reason", reason)
			w.Header().Set("grpc-status", "8")
		}, func(t *testing.T, p *pair) {
			if got, _, _ := p.call(t, "/svc/x", ""); got != "8" {
				t.Errorf("status %s", got)
			}
			p.wantReasons(want)
		})
	}
}

// Requests are told apart by the key.
func TestRateKeys(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*plan.RateLimit)
		ask    []string // a path, and the value of x-tenant
		want   []int
	}{
		{"none", nil, []string{"/ a", "/ b"}, []int{200, 429}},
		{"field", func(l *plan.RateLimit) { l.Key, l.Field = plan.RateField, "x-tenant" }, []string{"/ a", "/ b", "/ a", "/", "/"}, []int{200, 200, 429, 200, 429}},
		{"host", func(l *plan.RateLimit) { l.Key, l.Field = plan.RateField, "host" }, []string{"/", "/"}, []int{200, 429}},
		{"source", func(l *plan.RateLimit) { l.Key = plan.RateSourceIP }, []string{"/ a", "/ b"}, []int{200, 429}},
		{"route", func(l *plan.RateLimit) { l.Key = plan.RateRoute }, []string{"/", "/v2", "/v2/x", "/"}, []int{200, 200, 429, 429}},
		{"path", func(l *plan.RateLimit) { l.Key = plan.RatePath }, []string{"/a?x", "/b", "/a?y"}, []int{200, 200, 429}},
		{"method", func(l *plan.RateLimit) { l.Key = plan.RateMethod }, []string{"/a", "/b"}, []int{200, 429}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			limit := hourly(t, "one", 1, c.change)
			p := newPair(t, legs{true, false}, limits(limit), describe, nil)
			p.routes(false, &plan.Route{Name: "v2", Match: path(plan.Prefix, "/v2"), RateLimits: []*plan.RateLimit{limit}})
			var got []int
			for _, a := range c.ask {
				target, tenant, ok := strings.Cut(a, " ")
				var header []string
				if ok {
					header = []string{"X-Tenant", tenant}
				}
				res, _ := p.must(t, "GET", target, nil, header...)
				got = append(got, res.StatusCode)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q: %v, want %v", c.ask, got, c.want)
			}
		})
	}
}

// The caller is who the certificate says; those without one share a bucket.
func TestRateByIdentity(t *testing.T) {
	for m, key := range map[mode]string{mtlsDown: clientID, plain: ""} {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			limit := hourly(t, "caller", 2, func(l *plan.RateLimit) { l.Key = plan.RateIdentity })
			b := newBed(t, m, limits(limit))
			b.start(steadyOrigin(okResponse))
			c := b.dial()
			c.send(steady[0].request)
			c.expect(okResponse)
			// The other request of that caller, made here.
			k := ratelimit.KeyOf([]byte(key))
			if d := limit.Table.Take(0, &k); !d.OK || d.Remaining != 0 {
				t.Errorf("the bucket of %q: %+v", key, d)
			}
			c.send(steady[0].request)
			c.reply(429, "rate_limited")
			b.wantReasons("ok", "rate_limited")
		})
	}
}

// In observe mode all pass, and it is counted who would not have.
func TestRateObserved(t *testing.T) {
	watched := hourly(t, "watched", 1, func(l *plan.RateLimit) { l.Mode = guard.Observe })
	total := hourly(t, "total", 3, nil)
	b := newBed(t, plain, limits(watched, total))
	b.start(steadyOrigin(okResponse))
	c := b.dial()
	for range 3 {
		c.send(steady[0].request)
		c.expect(okResponse)
	}
	c.send(steady[0].request)
	if _, body := c.reply(429, "rate_limited"); !strings.Contains(body, "limit: total\n") {
		t.Errorf("body %q", body)
	}
	if w, all := decisions(watched), decisions(total); w != [3]uint64{1, 0, 3} || all != [3]uint64{3, 1, 0} {
		t.Errorf("watched %v, total %v", w, all)
	}
	b.wantReasons("ok", "ok", "ok", "rate_limited")
}

// What one limit refuses takes nothing from those behind it, and what the rules
// refuse takes nothing at all.
func TestRateOrder(t *testing.T) {
	first, second := hourly(t, "first", 1, nil), hourly(t, "second", 10, nil)
	rules, err := authz.Compile(authz.Config{Rules: []authz.Rule{{Name: "gets", From: []string{"*", "anonymous"}, Methods: []string{"GET"}}}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, plain, func(s *setup) {
		s.route.RateLimits, s.route.Authz = []*plan.RateLimit{first, second}, rules
	})
	b.start(steadyOrigin(okResponse))
	c := b.dial()
	c.send("DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n")
	c.reply(403, "denied")
	c.send(steady[0].request)
	c.expect(okResponse)
	for range 3 {
		c.send(steady[0].request)
		c.reply(429, "rate_limited")
	}
	if one, two := decisions(first), decisions(second); one != [3]uint64{1, 3, 0} || two != [3]uint64{1, 0, 0} {
		t.Errorf("first %v, second %v", one, two)
	}
}

// A TCP connection counts as a request, for limits that do not ask what only
// requests have.
func TestRateLimitedTCP(t *testing.T) {
	requests := hourly(t, "requests", 1, func(l *plan.RateLimit) { l.OnlyHTTP = true })
	source := hourly(t, "source", 2, func(l *plan.RateLimit) { l.Key = plan.RateSourceIP })
	b := newBed(t, plain, func(s *setup) {
		s.tcp = true
		s.route.RateLimits = []*plan.RateLimit{requests, source}
	})
	b.start(func(c *originConn) { _, _ = io.Copy(c, c.br) })
	for range 2 {
		c := b.dial()
		c.send("ping")
		c.expect("ping")
		_ = c.Conn.Close()
	}
	b.dial().closed()
	if r, s := decisions(requests), decisions(source); r != [3]uint64{} || s != [3]uint64{2, 1, 0} {
		t.Errorf("requests %v, source %v", r, s)
	}
	list := b.records()
	refused := 0
	for _, r := range list {
		if r.Reason == "rate_limited" {
			refused++
		}
	}
	if len(list) != 3 || refused != 1 {
		t.Errorf("records %+v", list)
	}
}

// Where the protocol is found out no endpoint is called for a connection that a
// limit would refuse, and what turns out to be HTTP is counted by requests.
func TestRateLimitedDetection(t *testing.T) {
	source := hourly(t, "source", 2, func(l *plan.RateLimit) { l.Key = plan.RateSourceIP })
	b := newBed(t, plain, func(s *setup) {
		soon(s)
		s.route.RateLimits = []*plan.RateLimit{source}
		s.http.HeadTimeout = time.Millisecond // the rest is patience
	})
	o := b.start(func(c *originConn) {
		c.send("hello ")
		_, _ = io.Copy(c, c.br)
	})
	for range 2 {
		c := b.dial()
		c.expect("hello ")
		_ = c.Conn.Close()
	}
	if got, _ := b.dial().rest(); got != "" {
		t.Errorf("a connection beyond the rate got %q", got)
	}
	c := b.dial()
	c.send(steady[0].request)
	c.reply(429, "rate_limited")
	if n := o.accepted.Load(); n != 2 {
		t.Errorf("the endpoint has got %d connections, want 2", n)
	}
	if got := decisions(source); got != [3]uint64{2, 2, 0} {
		t.Errorf("decisions %v", got)
	}
}

// Limits cost no allocation.
func TestRateLimitsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	want := mallocs(t, plain, 0, nil)
	got := mallocs(t, plain, 0, func(b *bed) {
		l := *b.plan.Load()
		for _, k := range []plan.RateKey{plan.RateAll, plan.RateIdentity, plan.RateSourceIP, plan.RateField, plan.RateRoute, plan.RatePath, plan.RateMethod} {
			l.Route.RateLimits = append(l.Route.RateLimits, hourly(t, k.String(), ratelimit.MaxCount, func(r *plan.RateLimit) {
				r.Key, r.Field = k, "user-agent"
			}))
		}
		b.plan.Store(&l)
	})
	if got > want+0.1 {
		t.Errorf("%v objects an exchange with limits, %v without", got, want)
	}
}
