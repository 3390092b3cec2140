package exchange_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
)

// kept waits for the entry of an exchange that ended for reason.
func (b *bed) kept(reason outcome.Reason) (e ledger.Entry) {
	b.t.Helper()
	eventually(b.t, "the exchange is in the ledger", func() bool {
		list := b.server.Ledger.Last(1, false)
		if len(list) == 1 {
			e = list[0]
		}
		return len(list) == 1 && e.Reason == reason
	})
	return e
}

// An exchange that is tried again leaves both attempts, what was compared for
// each, and the answers about further ones.
func TestLedgerOfRetries(t *testing.T) {
	run(t, []mode{plain}, func(s *setup) {
		s.policy.Retry, s.policy.Timeout = retrying(2), time.Hour
		c := breaker.Default()
		s.policy.Breaker = &c
		s.route.Path, s.route.Why = "outbound.upstreams[0].routes[1]", "path /pay"
	}, func(t *testing.T, b *bed) {
		busy := func(c *originConn) { c.message(); c.send(unavailable) }
		one, two := b.another(busy), b.another(busy)
		b.to(one, two)
		c := b.dial()
		c.send("GET /pay?card=4711 HTTP/1.1\r\nHost: shop\r\nX-Request-Id: this\r\n\r\n")
		c.expect(strings.ReplaceAll(unavailable, "Content-Length", "Content-Length"))
		e := b.kept(outcome.UpstreamError)
		if got := fmt.Sprintf("%s %s %s %s %s %d", e.ID, e.Method, e.Authority, e.Path, e.Protocol, e.Status); got != "this GET shop /pay HTTP/1.1 503" {
			t.Errorf("what came: %s", got)
		}
		if e.RoutePath != "outbound.upstreams[0].routes[1]" || e.RouteWhy != "path /pay" || e.Cluster != "api" || e.Listener != "test" {
			t.Errorf("where it went: %+v", e)
		}
		if e.DeadlineBy != ledger.PolicyDeadline || e.Deadline != time.Hour || e.MaxAttempts != 2 || e.ConnectTimeout != 2*time.Second {
			t.Errorf("in force: %v by %v, %d attempts, %v", e.Deadline, e.DeadlineBy, e.MaxAttempts, e.ConnectTimeout)
		}
		if !e.HasBreaker || e.Breaker != breaker.Closed || e.Usable != 2 || e.Total != 2 || e.AttemptCount != 2 || len(e.Attempts) != 2 {
			t.Fatalf("state: %+v", e)
		}
		first, last := &e.Attempts[0], &e.Attempts[1]
		if first.Endpoint == last.Endpoint || !first.Asked || first.Why != retry.Again || !first.HasBudget || first.Connect == 0 || first.Status != 503 {
			t.Errorf("the first attempt: %+v", first)
		}
		if first.Compared != 2 || first.Algorithm != "p2c_ewma" {
			t.Errorf("the first pick: %+v", first)
		}
		for _, cand := range first.Candidates {
			if cand.Address != one.addr.String() && cand.Address != two.addr.String() || cand.State == "" {
				t.Errorf("a candidate: %+v", cand)
			}
		}
		if !last.Asked || last.Why != retry.AttemptsSpent || last.Offset < first.Offset+first.Duration || last.Reason != outcome.UpstreamError {
			t.Errorf("the last attempt: %+v", last)
		}
	})
}

// Each deadline is told with who set it.
func TestLedgerDeadlines(t *testing.T) {
	for _, c := range []struct {
		timeout time.Duration
		field   string
		by      ledger.Deadline
		want    time.Duration
	}{
		{0, "", ledger.NoDeadline, 0},
		{time.Hour, "", ledger.PolicyDeadline, time.Hour},
		{time.Hour, "X-Outrigger-Deadline: 60000\r\n", ledger.CallerDeadline, time.Minute},
		{time.Second, "X-Outrigger-Deadline: 60000\r\n", ledger.PolicyDeadline, time.Second},
		{time.Hour, "Content-Type: application/grpc\r\nGrpc-Timeout: 30S\r\n", ledger.GRPCDeadline, 30 * time.Second},
		{0, "Content-Type: application/grpc\r\nGrpc-Timeout: 30S\r\nX-Outrigger-Deadline: 60000\r\n", ledger.GRPCDeadline, 30 * time.Second},
	} {
		t.Run(fmt.Sprint(c.timeout, c.field), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plain, func(s *setup) { s.policy.Timeout = c.timeout })
			b.start(answering(okResponse))
			cl := b.dial()
			cl.send("GET / HTTP/1.1\r\nHost: a\r\n" + c.field + "\r\n")
			cl.head()
			if e := b.kept(outcome.OK); e.DeadlineBy != c.by || e.Deadline != c.want {
				t.Errorf("%v by %v, want %v by %v", e.Deadline, e.DeadlineBy, c.want, c.by)
			}
		})
	}
}

// A TCP connection leaves its attempts too.
func TestLedgerOfTCP(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.tcp = true
		s.policy.Retry = retrying(3)
	})
	gone := b.another(nil)
	gone.stop()
	b.to(gone)
	b.dial().closed()
	e := b.kept(outcome.ConnectFailed)
	if e.Protocol != "tcp" || e.AttemptCount != 3 || len(e.Attempts) != 3 || e.StreamIdle != 10*time.Second || e.Detail == "" {
		t.Fatalf("%+v", e)
	}
	for i, want := range []retry.Why{retry.Again, retry.Again, retry.AttemptsSpent} {
		if a := &e.Attempts[i]; a.Endpoint != gone.addr.String() || !a.Asked || a.Why != want || a.Reason != outcome.ConnectFailed {
			t.Errorf("attempt %d: %+v", i+1, a)
		}
	}
}

// A cluster without endpoints has no attempt to tell of.
func TestLedgerWithoutEndpoints(t *testing.T) {
	b := newBed(t, plain, nil)
	b.cluster.SetLocal([]upstream.EndpointSpec{})
	c := b.dial()
	c.get("/")
	c.reply(503, "no_endpoints")
	if e := b.kept(outcome.NoEndpoints); len(e.Attempts) != 0 || e.Total != 0 || e.MaxAttempts != 1 {
		t.Errorf("%+v", e)
	}
}

// Local replies say by RFC 9209 what failed, and what exactly to the own
// application only.
func TestProxyStatus(t *testing.T) {
	for _, c := range []struct {
		dir            telemetry.Direction
		request, want  string
		status         int
		reason, absent string
	}{
		{telemetry.Outbound, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", `outrigger; error=connection_refused; next-hop="127.0.0.1:1"; details="connect_failed: connect 127.0.0.1:1: `, 503, "connect_failed", ""},
		{telemetry.Inbound, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "outrigger; error=connection_refused\r\n", 503, "connect_failed", "127.0.0.1:1"},
		{telemetry.Inbound, "GET / HTTP/1.1\r\nHost : a\r\n\r\n", `outrigger; error=http_request_error; details="`, 400, "bad_request", "next-hop"},
	} {
		t.Run(c.dir.String()+" "+c.reason, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plain, func(s *setup) { s.dir = c.dir })
			b.cluster.SetLocal([]upstream.EndpointSpec{{Address: netip.MustParseAddrPort("127.0.0.1:1"), Weight: 1, Healthy: true}})
			cl := b.dial()
			cl.send(c.request)
			head, body := cl.reply(c.status, c.reason)
			_, got, _ := strings.Cut(head, "\r\nproxy-status: ")
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("%q, want %q", head, c.want)
			}
			if !strings.Contains(head, "\r\nx-request-id: ") || !strings.Contains(body, "request-id: ") {
				t.Errorf("no request id in %q, %q", head, body)
			}
			if c.absent != "" && strings.Contains(head, c.absent) {
				t.Errorf("%q tells %q", head, c.absent)
			}
		})
	}
}
