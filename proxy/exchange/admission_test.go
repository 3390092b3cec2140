package exchange_test

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// holding is admission control that lets one in a hundred through once ten
// requests were refused.
func holding(s *setup) {
	c := admission.Default()
	c.MinimumRequests, c.MaxRejectionPercent = 10, 99
	s.policy.Admission = &c
}

// TestAdmission: a service that refuses all gets less and less; who is held back
// is told so, and when to come again.
func TestAdmission(t *testing.T) {
	run(t, []mode{plain, mtlsUp}, holding, func(t *testing.T, b *bed) {
		o := b.start(func(c *originConn) {
			for c.head() != "" {
				c.send(unavailable)
			}
		})
		c := b.dial()
		for range 10 {
			c.get("/")
			c.expect(unavailable)
		}
		for held := 0; held < 100; {
			before := o.heads.Load()
			c.get("/")
			if head, _ := c.br.Peek(12); string(head) != "HTTP/1.1 503" {
				t.Fatalf("answered %q", head)
			}
			if o.heads.Load() > before {
				c.expect(unavailable)
				if before > 60 {
					t.Fatalf("after %d requests that it refused the service gets more, %d were held back", before, held)
				}
				continue
			}
			held++
			head, _ := c.reply(503, "throttled")
			if !strings.Contains(head, "retry-after: 3\r\n") || !strings.Contains(head, "error=destination_unavailable") ||
				!strings.Contains(head, `details="the service accepted too few of the last requests"`) {
				t.Fatalf("told %q", head)
			}
		}
		if e := b.kept(outcome.Throttled); !strings.Contains(e.Detail, "too few") || e.AttemptCount != 0 {
			t.Errorf("the ledger has %q, %d attempts", e.Detail, e.AttemptCount)
		}
	})
}

// TestAdmissionGRPC: a call that is held back is told when to come again, too.
func TestAdmissionGRPC(t *testing.T) {
	runLegs(t, []legs{{true, true}, {true, false}}, holding, grpcOrigin, func(t *testing.T, p *pair) {
		for range 1000 { // of which about one in a hundred goes on
			got, alone, res := p.call(t, "/svc/only14", "m")
			if res.Header.Get("x-outrigger-reason") != "throttled" {
				continue
			}
			if got != "14" || !alone || res.StatusCode != 200 || res.Header.Get("retry-after") != "3" {
				t.Errorf("status %q, headers only: %v, %d %v", got, alone, res.StatusCode, res.Header)
			}
			return
		}
		t.Error("none was held back")
	})
}

// TestAdmissionObserved lets all through and counts what would have been.
func TestAdmissionObserved(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { holding(s); s.policy.Admission.Mode = guard.Observe })
	b.start(func(c *originConn) {
		for c.head() != "" {
			c.send(unavailable)
		}
	})
	c := b.dial()
	for range 100 {
		c.get("/")
		c.expect(unavailable)
	}
	if n := b.cluster.Metrics().WouldHaveDone(telemetry.WouldThrottle); n < 50 || n > 90 {
		t.Errorf("%d of 90 would have been held back", n)
	}
}

// TestAdmissionByRoute: the refusals of one route hold nothing of another back,
// and errors of the application hold nothing back at all.
func TestAdmissionByRoute(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { holding(s); s.policy.Admission.Scope = admission.ScopeRoute })
	failed := "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
	b.start(func(c *originConn) {
		for {
			head := c.head()
			switch {
			case head == "":
				return
			case strings.HasPrefix(head, "GET /pay"):
				c.send(unavailable)
			default:
				c.send(failed)
			}
		}
	})
	list := b.cluster.KeepThrottles([]string{"test/pay", "test/rest"})
	b.plan.Load().Route.Throttle = list[1]
	b.routes(false, &plan.Route{Name: "pay", Match: path(plan.Exact, "/pay"), Throttle: list[0]})
	c := b.dial()
	for range 10 {
		c.get("/pay")
		c.expect(unavailable)
	}
	now := b.sweeper.Now()
	eventually(t, "all have been counted", func() bool { return list[0].Snapshot(now).Requests == 10 })
	for range 50 {
		c.get("/")
		c.expect(failed)
	}
	if s := list[0].Snapshot(now); s.Rejection < 0.9 {
		t.Errorf("of the one: %+v", s)
	}
	if s := list[1].Snapshot(b.sweeper.Now()); s.Rejection != 0 || s.Accepts < 49 {
		t.Errorf("of the other: %+v", s)
	}
	if again := b.cluster.KeepThrottles([]string{"test/rest", "test/pay"}); again[1] != list[0] || again[0] != list[1] {
		t.Error("a reload has made new ones")
	}
	b.apply(func(p *upstream.Policy) { a := *p.Admission; a.Multiplier = 3; p.Admission = &a })
	if again := b.cluster.KeepThrottles([]string{"test/pay"}); again[0] == list[0] {
		t.Error("new settings are not in force")
	}
	b.apply(func(p *upstream.Policy) { p.Admission = nil })
	if b.cluster.KeepThrottles([]string{"test/pay"}) != nil || b.cluster.Throttle() != nil {
		t.Error("still on")
	}
}

// TestAdmissionTCP: connections that cannot be made count as refused.
func TestAdmissionTCP(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { s.tcp = true; holding(s) })
	gone := b.another(func(*originConn) {})
	gone.stop()
	b.to(gone)
	eventually(t, "a connection is held back", func() bool {
		b.dial().closed()
		return len(b.server.Ledger.Last(1, false)) > 0 && b.server.Ledger.Last(1, false)[0].Reason == outcome.Throttled
	})
}
