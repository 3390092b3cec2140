package exchange_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/limiter"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// oracle answers what the test says, and keeps what it was asked.
type oracle struct {
	mu     sync.Mutex
	answer ratelimit.Answer
	asked  []string
	within []time.Duration
}

func (o *oracle) Take(_, within time.Duration, values [][]byte) ratelimit.Answer {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []string
	for _, v := range values {
		list = append(list, string(v))
	}
	o.asked, o.within = append(o.asked, strings.Join(list, "|")), append(o.within, within)
	return o.answer
}

func (o *oracle) say(a ratelimit.Answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = a
}

// heard is what it was asked, and how long it had for each answer.
func (o *oracle) heard() (asked []string, within []time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked), slices.Clone(o.within)
}

// counted is a limit that o counts.
func counted(t testing.TB, name string, o *oracle, change func(*plan.RateLimit)) *plan.RateLimit {
	t.Helper()
	return hourly(t, name, 5, func(l *plan.RateLimit) {
		l.Table, l.Shared, l.Counted = nil, o, &limiter.Limit{Name: name}
		l.Rate, l.Policy = ratelimit.Config{}, ""
		if change != nil {
			change(l)
		}
	})
}

func unknown(l *plan.RateLimit) [2]uint64 {
	return [2]uint64{l.Metrics.Decisions(telemetry.RateUnknownPassed), l.Metrics.Decisions(telemetry.RateUnknownRefused)}
}

var (
	passes = ratelimit.Answer{
		Decision: ratelimit.Decision{OK: true, Remaining: 4, Full: 1500 * time.Millisecond},
		Policy:   ratelimit.Config{Requests: 5, Per: time.Minute}, Fields: []byte("\r\nx-left: 4"),
	}
	refuses = ratelimit.Answer{
		Decision: ratelimit.Decision{Wait: 7 * time.Second},
		Policy:   ratelimit.Config{Requests: 5, Per: time.Minute}, Fields: []byte("\r\nx-left: 0"),
	}
)

// What who counts says is done and told, in every combination of protocols.
func TestSharedLimit(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			o := &oracle{answer: passes}
			one := counted(t, "one", o, func(l *plan.RateLimit) {
				l.Tell = plan.TellAlways
				l.Entries = []plan.RateEntry{
					{Kind: plan.RateAll, Value: []byte("fixed")},
					{Kind: plan.RateField, Field: "x-tenant"},
					{Kind: plan.RateField, Field: "x-none"},
					{Kind: plan.RatePath},
					{Kind: plan.RateMethod},
					{Kind: plan.RateSourceIP},
					{Kind: plan.RateIdentity},
					{Kind: plan.RateRoute},
				}
			})
			local := hourly(t, "local", 10, func(l *plan.RateLimit) { l.Tell = plan.TellAlways })
			p := newPair(t, l, limits(one, local), describe, nil)
			res, got := p.must(t, "POST", "/a/b?c", strings.NewReader("body"), "X-Tenant", "acme")
			h := res.Header
			if res.StatusCode != 200 || h.Get("x-left") != "4" || h.Get("ratelimit-policy") != `"one";q=5;w=60, "local";q=10;w=3600` ||
				!strings.HasPrefix(h.Get("ratelimit"), `"one";r=4;t=2, "local";r=9;t=`) {
				t.Fatalf("status %d, %v: %s", res.StatusCode, h, got)
			}
			if asked, _ := o.heard(); !strings.HasPrefix(asked[0], "fixed|acme||/a/b|POST|127.0.0.1||") {
				t.Errorf("asked %q", asked)
			}
			o.say(refuses)
			res, got = p.must(t, "GET", "/", nil)
			h = res.Header
			if res.StatusCode != 429 || h.Get("retry-after") != "7" || h.Get("x-left") != "0" || h.Get("ratelimit") != `"one";r=0;t=7` ||
				h.Get("ratelimit-policy") != `"one";q=5;w=60` || !strings.Contains(got, "limit: one\n") {
				t.Fatalf("status %d, %v: %s", res.StatusCode, h, got)
			}
			// One that refuses and says no more.
			o.say(ratelimit.Answer{Partial: true})
			if res, got = p.must(t, "GET", "/", nil); res.StatusCode != 429 || res.Header.Get("retry-after")+res.Header.Get("ratelimit") != "" {
				t.Fatalf("status %d, %v: %s", res.StatusCode, res.Header, got)
			}
			if d := decisions(one); d != [3]uint64{1, 2, 0} || decisions(local) != [3]uint64{1, 0, 0} {
				t.Errorf("decisions %v, %v", d, decisions(local))
			}
			o.say(ratelimit.Answer{Known: true}) // which is no question
			if res, got = p.must(t, "GET", "/", nil); res.StatusCode != 429 {
				t.Fatalf("status %d: %s", res.StatusCode, got)
			}
			if d := one.Metrics.Times(); d.Count() != 3 || one.Metrics.Failures() != 0 {
				t.Errorf("%d questions, %d failures", d.Count(), one.Metrics.Failures())
			}
			p.wantReasons("ok", "rate_limited", "rate_limited", "rate_limited")
		})
	}
}

// Where who counts gives no answer the limit says what becomes of the request.
func TestSharedLimitUnknown(t *testing.T) {
	for _, c := range []struct {
		name   string
		shut   bool
		mode   guard.Mode
		status int
		want   [2]uint64
	}{
		{"allow", false, guard.Enforce, 200, [2]uint64{1, 0}},
		{"refuse", true, guard.Enforce, 503, [2]uint64{0, 1}},
		{"refuse, observed", true, guard.Observe, 200, [2]uint64{1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := &oracle{answer: ratelimit.Fail(ratelimit.Timeout, errors.New("grpc: no answer"))}
			l := counted(t, "one", o, func(l *plan.RateLimit) { l.FailShut, l.Mode = c.shut, c.mode })
			p := newPair(t, legs{}, limits(l), describe, nil)
			res, got := p.must(t, "GET", "/", nil)
			if res.StatusCode != c.status || unknown(l) != c.want || l.Metrics.Failures() != 1 || decisions(l) != [3]uint64{} {
				t.Errorf("status %d, %v, %d failures: %s", res.StatusCode, unknown(l), l.Metrics.Failures(), got)
			}
			if c.status == 503 {
				if !strings.Contains(got, "rate_unknown") || !strings.Contains(got, "cause: grpc: no answer") || res.Header.Get("retry-after") != "" {
					t.Errorf("%v: %s", res.Header, got)
				}
				p.wantReasons("rate_unknown")
			} else {
				p.wantReasons("ok")
			}
		})
	}
}

// A gRPC call is refused in gRPC's words, and is told of what let it pass.
func TestSharedLimitCall(t *testing.T) {
	o := &oracle{answer: passes}
	l := counted(t, "calls", o, func(l *plan.RateLimit) { l.Tell, l.FailShut = plan.TellAlways, true })
	p := newPair(t, legs{true, true}, limits(l), grpcOrigin, nil)
	if got, _, res := p.call(t, "/svc/0", ""); got != "0" || res.Header.Get("ratelimit") != `"calls";r=4;t=2` {
		t.Fatalf("status %s, %v", got, res.Header)
	}
	o.say(refuses)
	if got, _, res := p.call(t, "/svc/x", ""); got != "8" || res.Header.Get("ratelimit") != `"calls";r=0;t=7` {
		t.Errorf("status %s, %v", got, res.Header)
	}
	o.say(ratelimit.Fail(ratelimit.Unreachable, nil))
	if got, _, res := p.call(t, "/svc/x", ""); got != "14" || res.Header.Get("x-outrigger-reason") != "rate_unknown" {
		t.Errorf("status %s, %v", got, res.Header)
	}
	p.wantReasons("ok", "rate_limited", "rate_unknown")
}

// The deadline of the exchange bounds how long an answer may take.
func TestSharedLimitDeadline(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Hour} {
		o := &oracle{answer: passes}
		p := newPair(t, legs{}, func(s *setup) {
			s.policy.Timeout = timeout
			s.route.RateLimits = []*plan.RateLimit{counted(t, "one", o, nil)}
		}, describe, nil)
		p.must(t, "GET", "/", nil)
		_, within := o.heard()
		if w := within[0]; timeout == 0 && w != 0 || timeout > 0 && (w <= 0 || w > timeout) {
			t.Errorf("with a timeout of %s it may take %s", timeout, w)
		}
	}
}

// A route that answers itself tells of its limits, too.
func TestSharedLimitFixedReply(t *testing.T) {
	p := newPair(t, legs{}, func(s *setup) {
		s.route.RateLimits = []*plan.RateLimit{counted(t, "one", &oracle{answer: passes}, func(l *plan.RateLimit) { l.Tell = plan.TellAlways })}
		s.route.Reply = &plan.Reply{Status: 200, Reason: "OK", Body: []byte("yes\n"), Type: "text/plain"}
	}, func(http.ResponseWriter, *http.Request) { t.Error("forwarded") }, nil)
	if res, got := p.must(t, "GET", "/", nil); got != "yes\n" || res.Header.Get("ratelimit") != `"one";r=4;t=2` || res.Header.Get("x-left") != "4" {
		t.Errorf("%v: %s", res.Header, got)
	}
}

// What is told of a limit is as its tell says.
func TestTell(t *testing.T) {
	for tell, want := range map[plan.RateTell][2]bool{plan.TellRefused: {false, true}, plan.TellAlways: {true, true}, plan.TellNever: {false, false}} {
		l := hourly(t, "one", 1, func(l *plan.RateLimit) { l.Tell = tell })
		p := newPair(t, legs{}, limits(l), describe, nil)
		var got [2]bool
		for i, status := range []int{200, 429} {
			res, _ := p.must(t, "GET", "/", nil)
			got[i] = res.Header.Get("ratelimit") != "" && res.Header.Get("ratelimit-policy") != ""
			if res.StatusCode != status || (status == 429) != (res.Header.Get("retry-after") != "") {
				t.Errorf("tell %d: %d, %v", tell, res.StatusCode, res.Header)
			}
		}
		if got != want {
			t.Errorf("tell %d: %v, want %v", tell, got, want)
		}
	}
}

// A connection that is not HTTP is counted once, with what is known of it.
func TestSharedLimitTCP(t *testing.T) {
	o := &oracle{answer: passes}
	l := counted(t, "one", o, func(l *plan.RateLimit) {
		l.FailShut = true
		l.Entries = []plan.RateEntry{{Kind: plan.RateIdentity}, {Kind: plan.RateSourceIP}, {Value: []byte("v")}}
	})
	b := newBed(t, plain, func(s *setup) {
		s.tcp = true
		s.route.RateLimits = []*plan.RateLimit{l}
	})
	b.start(func(c *originConn) { _, _ = io.Copy(c, c.br) })
	c := b.dial()
	c.send("ping")
	c.expect("ping")
	_ = c.Conn.Close()
	for _, a := range []ratelimit.Answer{refuses, ratelimit.Fail(ratelimit.Busy, nil)} {
		o.say(a)
		b.dial().closed()
	}
	var reasons []string
	for _, r := range b.records() {
		reasons = append(reasons, r.Reason)
	}
	slices.Sort(reasons)
	if want := []string{"ok", "rate_limited", "rate_unknown"}; !slices.Equal(reasons, want) {
		t.Errorf("reasons %v, want %v", reasons, want)
	}
	if asked, _ := o.heard(); !slices.Equal(asked, []string{"|127.0.0.1|v", "|127.0.0.1|v", "|127.0.0.1|v"}) {
		t.Errorf("asked %q", asked)
	}
}
