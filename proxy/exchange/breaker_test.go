package exchange_test

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// breaking is a breaker that opens at the first failure, for an hour.
func breaking(scope breaker.Scope) *breaker.Config {
	c := breaker.Default()
	c.Scope, c.ConsecutiveFailures, c.OpenFor = scope, 1, time.Hour
	return &c
}

// TestEndpointBreaker: the attempt goes elsewhere, and when all are open the
// exchange is refused for that reason.
func TestEndpointBreaker(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { s.policy.Breaker, s.policy.Retry = breaking(breaker.ScopeEndpoint), retrying(2) })
	bad := b.another(func(c *originConn) {
		for c.head() != "" {
			c.send(unavailable)
		}
	})
	good := b.another(answering(okResponse))
	b.to(bad)
	c := b.dial()
	c.get("/") // the second attempt has nowhere to go
	c.reply(503, "breaker_open")
	b.to(bad, good)
	for range 20 {
		c.get("/")
		c.expect(okResponse)
	}
	if n := bad.heads.Load(); n != 1 {
		t.Errorf("the failing endpoint got %d attempts", n)
	}
	b.to(bad)
	c.get("/")
	c.reply(503, "breaker_open")
	e := b.kept(outcome.BreakerOpen)
	if !strings.Contains(e.Detail, "all endpoints") || e.AttemptCount != 0 {
		t.Errorf("the ledger has %q, %d attempts", e.Detail, e.AttemptCount)
	}
}

// TestRouteBreaker: the failures of one route leave another alone.
func TestRouteBreaker(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { s.policy.Breaker = breaking(breaker.ScopeRoute) })
	b.start(func(c *originConn) {
		for {
			head := c.head()
			switch {
			case head == "":
				return
			case strings.HasPrefix(head, "GET /pay"):
				c.send(unavailable)
			default:
				c.send(okResponse)
			}
		}
	})
	list := b.cluster.KeepBreakers([]string{"test/pay", "test/rest"})
	b.plan.Load().Route.Breaker = list[1]
	b.routes(false, &plan.Route{Name: "pay", Match: path(plan.Exact, "/pay"), Breaker: list[0]})
	c := b.dial()
	c.get("/pay")
	c.expect(unavailable)
	c.get("/pay")
	if head, _ := c.reply(503, "breaker_open"); !strings.Contains(head, `details="the breaker of the route test/pay is open"`) {
		t.Errorf("Proxy-Status does not say which: %s", head)
	}
	if e := b.kept(outcome.BreakerOpen); !e.HasBreaker || e.Breaker != breaker.Open || !strings.Contains(e.Detail, "test/pay") {
		t.Errorf("the ledger has %v %v %q", e.HasBreaker, e.Breaker, e.Detail)
	}
	c.get("/else")
	c.expect(okResponse)
}

// TestEndpointBreakerTCP: a connection is made elsewhere, and not at all when
// all breakers are open.
func TestEndpointBreakerTCP(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.tcp = true
		s.policy.Breaker = breaking(breaker.ScopeEndpoint)
	})
	gone := b.another(func(*originConn) {})
	gone.stop()
	b.to(gone)
	for range 2 {
		c := b.dial()
		c.closed()
	}
	b.wantReasons("connect_failed", "breaker_open")
}

// TestObservedBreakerIsCounted among what guards would have done.
func TestObservedBreakerIsCounted(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.policy.Breaker = breaking(breaker.ScopeCluster)
		_ = s.policy.Breaker.Mode.UnmarshalText([]byte("observe"))
	})
	b.start(func(c *originConn) {
		for c.head() != "" {
			c.send(unavailable)
		}
	})
	c := b.dial()
	for range 3 {
		c.get("/")
		c.expect(unavailable)
	}
	if n := b.cluster.Metrics().WouldHaveDone(telemetry.WouldBreak); n != 2 {
		t.Errorf("counted %d, want 2", n)
	}
}
