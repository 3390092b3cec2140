package exchange_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// half is a mode that acts for one exchange in two. Of 600 between 220 and 380
// are six and a half standard deviations.
var half = guard.Percent(50)

const (
	drawn       = 600
	least, most = 220, 380
)

// nobodyBut lets half of those pass whom no rule allows.
func nobodyBut(t *testing.T, m guard.Mode) *authz.Policy {
	t.Helper()
	p, err := authz.Compile(authz.Config{Mode: m, Rules: []authz.Rule{{Name: "far", From: []string{clientID}}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// answers sends requests and counts the answers by the proxy's reason, "" for
// those of the endpoint.
func (b *bed) answers(n int) map[string]int {
	b.t.Helper()
	got := map[string]int{}
	c := b.dial()
	for range n {
		c.get("/")
		head := c.head()
		reason := ""
		if _, after, ok := strings.Cut(head, "x-outrigger-reason: "); ok {
			reason, _, _ = strings.Cut(after, "\r")
		}
		_, after, _ := strings.Cut(strings.ToLower(head), "content-length: ")
		length, _, _ := strings.Cut(after, "\r")
		var size int64
		for _, d := range length {
			size = size*10 + int64(d-'0')
		}
		if _, err := io.CopyN(io.Discard, c.br, size); err != nil {
			b.t.Fatal(err)
		}
		got[reason]++
	}
	return got
}

func (b *bed) within(what string, n uint64) {
	b.t.Helper()
	if n < least || n > most {
		b.t.Errorf("%s: %d of %d, which is not one in two", what, n, drawn)
	}
}

// Every guard refuses its share of those whom it would refuse, and says of each
// of the others that it would have.
func TestPercent(t *testing.T) {
	var over *plan.RateLimit
	for name, c := range map[string]struct {
		change func(*testing.T, *setup)
		before func(*bed) // what makes the guard refuse
		reason string
		would  telemetry.Guard
	}{
		"authorization": {
			change: func(t *testing.T, s *setup) { s.route.Authz = nobodyBut(t, half) },
			reason: "denied", would: telemetry.WouldDeny,
		},
		"rate limit": {
			change: func(t *testing.T, s *setup) {
				over = hourly(t, "over", 1, func(l *plan.RateLimit) { l.Mode = half })
				s.route.RateLimits = []*plan.RateLimit{over}
			},
			before: func(b *bed) { b.answers(1) },
			reason: "rate_limited", would: telemetry.WouldRateLimit,
		},
		"limit": {
			change: func(_ *testing.T, s *setup) { s.policy.Limits.MaxRequests, s.policy.Limits.Mode = 1, half },
			before: func(b *bed) {
				if !b.cluster.Gate.TryEnter(guard.Strictest) {
					b.t.Fatal("no room at first")
				}
				b.t.Cleanup(func() { b.cluster.Gate.Leave(0) })
			},
			reason: "limit_requests", would: telemetry.WouldLimit,
		},
		"breaker": {
			change: func(_ *testing.T, s *setup) {
				s.policy.Breaker = breaking(breaker.ScopeCluster)
				s.policy.Breaker.Mode = half
			},
			before: func(b *bed) {
				tk, _ := b.cluster.Breaker().Allow(0, 0)
				b.cluster.Breaker().Done(tk, 0, breaker.Failure)
			},
			reason: "breaker_open", would: telemetry.WouldBreak,
		},
		"breaker of an endpoint": {
			change: func(_ *testing.T, s *setup) {
				s.policy.Breaker = breaking(breaker.ScopeEndpoint)
				s.policy.Breaker.Mode = half
			},
			before: func(b *bed) { b.answers(1) },
			reason: "breaker_open", would: telemetry.WouldBreak,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, plain, func(s *setup) {
				s.route.Partial, s.quiet = true, true
				c.change(t, s)
			})
			answer := okResponse
			if name == "breaker of an endpoint" {
				answer = unavailable
			}
			b.start(steadyOrigin(answer))
			if c.before != nil {
				c.before(b)
			}
			got := b.answers(drawn)
			b.within(name, uint64(got[c.reason]))
			if got[""]+got[c.reason] != drawn {
				t.Errorf("answers: %v", got)
			}
			if n := b.cluster.Metrics().WouldHaveDone(c.would); n != uint64(got[""]) {
				t.Errorf("%d would have been refused; %d were let through", n, got[""])
			}
		})
	}
	if d := decisions(over); d[0] != 1 || d[1]+d[2] != drawn {
		t.Errorf("the rate limit decided %v", d)
	}
}

// Admission control holds back part of its share, and says what it would have
// done to the others.
func TestPercentAdmission(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		holding(s)
		s.policy.Admission.Mode, s.route.Partial = half, true
	})
	b.start(steadyOrigin(unavailable))
	for range 100 {
		b.cluster.Throttle().Done(b.sweeper.Now(), admission.Refused)
	}
	got := b.answers(drawn)
	would := b.cluster.Metrics().WouldHaveDone(telemetry.WouldThrottle)
	b.within("held back", uint64(got["throttled"])) // of 100 some 99 are
	b.within("would have been", would)
	if n := uint64(got["throttled"]) + would; n < drawn*95/100 {
		t.Errorf("%d of %d were to be held back", n, drawn)
	}
}

// Whom a limit only observes is not retried where a retry policy has the same
// percentage, and who is retried is so every time.
func TestPercentRetry(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.policy.Retry = retrying(2)
		s.policy.Retry.BudgetPercent, s.policy.Retry.Mode = 100, half
		s.policy.Retry.BudgetMinPerSecond = 1e6
		s.route.Partial = true
	})
	o := b.start(func(c *originConn) {
		for c.head() != "" {
			c.send(unavailable)
		}
	})
	b.answers(drawn)
	again := uint64(o.heads.Load()) - drawn
	b.within("retried", again)
	if n := b.cluster.Metrics().WouldHaveDone(telemetry.WouldRetry); again+n != drawn {
		t.Errorf("%d retried and %d would have been", again, n)
	}
}

// All guards go by the same draw: who is let through by one is by all that act
// for as many or fewer.
func TestPercentAgrees(t *testing.T) {
	limit := hourly(t, "none", 1, func(l *plan.RateLimit) { l.Mode = guard.Percent(40) })
	b := newBed(t, plain, func(s *setup) {
		s.route.Partial, s.quiet = true, true
		s.route.Authz = nobodyBut(t, half)
		s.route.RateLimits = []*plan.RateLimit{limit}
		s.policy.Breaker = breaking(breaker.ScopeCluster)
		s.policy.Breaker.Mode = guard.Percent(30)
	})
	b.start(steadyOrigin(okResponse))
	tk, _ := b.cluster.Breaker().Allow(0, 0)
	b.cluster.Breaker().Done(tk, 0, breaker.Failure)
	got := b.answers(drawn)
	b.within("denied", uint64(got["denied"]))
	if got[""]+got["denied"] != drawn {
		t.Errorf("answers: %v", got)
	}
	m := b.cluster.Metrics()
	if d := decisions(limit); d != [3]uint64{1, 0, uint64(got[""]) - 1} || m.WouldHaveDone(telemetry.WouldBreak) != uint64(got[""]) {
		t.Errorf("the rate limit decided %v, of %d the breaker would have refused %d", d, got[""], m.WouldHaveDone(telemetry.WouldBreak))
	}
}

// Where no guard of a route has a percentage nothing is drawn, and a guard that
// gets one with the next configuration only observes what is under way.
func TestPercentNotDrawn(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { s.route.Authz, s.quiet = nobodyBut(t, guard.Percent(99.99)), true })
	b.start(steadyOrigin(okResponse))
	if got := b.answers(100); got[""] != 100 {
		t.Errorf("answers: %v", got)
	}
}

// A connection that is not HTTP has one draw, too.
func TestPercentTCP(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.tcp, s.route.Partial, s.quiet = true, true, true
		s.route.Authz = nobodyBut(t, half)
	})
	b.start(func(c *originConn) { _, _ = io.Copy(c, c.br) })
	refused := uint64(0)
	for range drawn / 4 {
		c := b.dial()
		_, _ = io.WriteString(c.Conn, "ping")
		got := make([]byte, 4)
		_ = c.Conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(c.br, got); err != nil {
			refused++
		}
		_ = c.Conn.Close()
	}
	if refused < 35 || refused > 115 { // 75 of 150, six and a half standard deviations
		t.Errorf("%d of %d were refused", refused, drawn/4)
	}
	if n := b.cluster.Metrics().WouldHaveDone(telemetry.WouldDeny); n+refused != drawn/4 {
		t.Errorf("%d were refused, %d would have been", refused, n)
	}
}

// Neither the draw nor what goes by it allocates.
func TestPercentDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	if n := mallocs(t, plain, 0, func(b *bed) {
		l := *b.plan.Load()
		l.Route.Partial = true
		l.Route.Authz = nobodyBut(t, guard.Percent(0.01))
		l.Route.RateLimits = append(l.Route.RateLimits, hourly(t, "over", 1, func(r *plan.RateLimit) { r.Mode = guard.Percent(0.01) }))
		b.plan.Store(&l)
	}); n > 0.15 { // one in 10,000 ends with an answer that takes memory
		t.Errorf("%v objects an exchange", n)
	}
}

// Who is of the percentage is hedged. All but one in 10,000 are; that three in a
// row are not is left out of account.
func TestPercentHedge(t *testing.T) {
	s := newSeveral(t, legs{}, 2, func(s *setup) {
		s.policy.Hedge.Mode, s.route.Partial = guard.Percent(99.99), true
	})
	for range 3 {
		got := s.send(t.Context(), "GET", "")
		first := s.next(t)
		select {
		case second := <-s.asked:
			second.answer <- says(200, "good")
			if g := <-got; g.err != nil || g.body != "good" {
				t.Errorf("got %+v", g)
			}
			first.calledOff(t)
			return
		case <-time.After(5 * time.Second): // of the one in 10,000
			first.answer <- says(200, "good")
			<-got
		}
	}
	t.Error("nobody was hedged")
}
