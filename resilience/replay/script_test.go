package replay

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// script names endpoints by attempt.
type script struct {
	endpoints []int
	wait      time.Duration
	turns     bool
}

func (s *script) Endpoint(_ time.Duration, _ *Request, n int) (int, bool) {
	if n > len(s.endpoints) {
		return 0, false
	}
	return s.endpoints[n-1], true
}
func (s *script) Wait(*Request, int) (time.Duration, bool) { return s.wait, s.wait > 0 }
func (s *script) Word(now time.Duration) (uint64, bool)    { return 0, now == 3*time.Millisecond }
func (s *script) Turns() bool                              { return s.turns }
func failing(r outcome.Reason, status uint16) (p Policy, f Fate) {
	c := retry.Default()
	c.Attempts = 3
	return Policy{Balance: balance.Default(), Retry: &c}, Fate{Latency: time.Millisecond, Reason: r, Status: status}
}

// A script decides whom attempts go to and how long a pause is, as long as the
// machines let it.
func TestFollow(t *testing.T) {
	p, f := failing(outcome.UpstreamError, 503)
	e := New(1)
	var l ends
	c := NewClient(e, p, fixed(f), &l)
	c.SetEndpoints(endpoints(5))
	c.Follow(&script{endpoints: []int{3, 1, 4}, wait: 10 * time.Millisecond})
	c.Offer(Request{ID: 1, Idempotent: true, Replayable: true})
	e.Run(time.Second)
	if want := "23ms #1 upstream_error 503 after 23ms, 3 attempts, endpoint 4"; len(l) != 1 || l[0] != want {
		t.Errorf("%v, want %s", l, want)
	}
	c.SetHealthy(3, false)
	c.Offer(Request{ID: 2})
	e.Run(2 * time.Second)
	if len(l) != 2 || strings.HasSuffix(l[1], "endpoint 3") {
		t.Errorf("an endpoint that is not healthy is followed to: %v", l)
	}
	c.Follow(&script{endpoints: []int{99}})
	c.Offer(Request{ID: 3})
	e.Run(3 * time.Second)
	if len(l) != 3 {
		t.Errorf("%v", l)
	}
}

// What a route changes holds for its requests, and the time before the first attempt
// counts.
func TestOverrideAndArrived(t *testing.T) {
	p, _ := failing(outcome.OK, 200)
	e := New(1)
	var l ends
	c := NewClient(e, p, fixed(Fate{Latency: 50 * time.Millisecond, Reason: outcome.UpstreamError, Status: 500}), &l)
	c.SetEndpoints(endpoints(2))
	e.Run(time.Second)
	c.Offer(Request{ID: 1, Arrived: time.Second - 30*time.Millisecond, Override: &Override{Timeout: 60 * time.Millisecond}})
	e.Run(2 * time.Second)
	if want := "1.03s #1 request_timeout 0 after 60ms, 1 attempts"; len(l) != 1 || !strings.HasPrefix(l[0], want) {
		t.Errorf("%v, want %s", l, want)
	}
}

// A per-try timeout does not end an answer that has begun, and one that is late is as
// late as was told.
func TestHeadAndLate(t *testing.T) {
	r := retry.Default()
	r.Attempts, r.PerTryTimeout = 1, 20*time.Millisecond
	e := New(1)
	var l ends
	fate := Fate{Latency: 50 * time.Millisecond, Head: 10 * time.Millisecond, Reason: outcome.OK, Status: 200}
	c := NewClient(e, Policy{Retry: &r, Timeout: time.Second}, world{begin: func(time.Duration, Attempt) (Fate, bool) { return fate, true }}, &l)
	c.SetEndpoints(endpoints(1))
	c.Offer(Request{ID: 1})
	e.Run(100 * time.Millisecond)
	fate = Fate{Latency: 24 * time.Millisecond, Reason: outcome.TryTimeout, Late: true}
	c.Offer(Request{ID: 2})
	e.Run(time.Second)
	fate = Fate{Latency: 24 * time.Millisecond, Reason: outcome.OK}
	c.Offer(Request{ID: 3})
	e.Run(2 * time.Second)
	for i, want := range []string{"50ms #1 ok 200 after 50ms", "124ms #2 try_timeout 0 after 24ms", "1.02s #3 try_timeout 0 after 20ms"} {
		if i >= len(l) || !strings.HasPrefix(l[i], want) {
			t.Errorf("%v, want %s", l, want)
		}
	}
}

// A change of policy keeps what is known of endpoints, and begins a breaker anew only
// when it is another.
func TestSetPolicy(t *testing.T) {
	o, b := outlier.Default(), breaker.Default()
	o.ConsecutiveFailures, o.BaseEjection, o.MaxEjection = 2, time.Minute, time.Minute
	b.ConsecutiveFailures, b.FailurePercent = 15, 0
	e := New(1)
	bad := Fate{Latency: time.Millisecond, Reason: outcome.ConnectFailed}
	c := NewClient(e, Policy{}, fixed(bad), nil)
	c.SetEndpoints(endpoints(6))
	ask := func(n int) Counts {
		for range n {
			c.Offer(Request{})
			e.Run(e.Now() + 2*time.Millisecond)
		}
		return c.Stats.Total()
	}
	if n := ask(20); n.Ejections != 0 || n.Refused != 0 || n.Failed != 20 {
		t.Fatalf("without guards: %+v", n)
	}
	p := Policy{Outlier: &o, Breaker: &b}
	c.SetPolicy(p)
	n := ask(40)
	if n.Ejections == 0 || n.BreakerOpened != 1 || n.Refused == 0 {
		t.Fatalf("with both: %+v", n)
	}
	before := n
	other := o
	other.Window *= 2
	p.Outlier = &other
	c.SetPolicy(p)
	if n = ask(5); n.Refused != before.Refused+5 {
		t.Errorf("the breaker was closed by a change of something else: %+v", n)
	}
	if c.detector.Out() == 0 {
		t.Error("the ejections were forgotten")
	}
	c.SetPolicy(Policy{})
	if m := ask(5); m.Refused != n.Refused || m.Failed != n.Failed+5 {
		t.Errorf("guards that were taken away act: %+v", m)
	}
}

// StatsFrom begins the series where it is told.
func TestStatsFrom(t *testing.T) {
	e := New(1)
	e.Run(time.Hour)
	c := NewClient(e, Policy{}, fixed(Fate{Latency: time.Millisecond, Reason: outcome.OK}), nil)
	c.Stats = StatsFrom(time.Hour, time.Minute)
	c.SetEndpoints(endpoints(1))
	c.Offer(Request{})
	e.Run(time.Hour + 3*time.Minute)
	c.Stats.Close(e.Now())
	if len(c.Stats.Points) != 3 || c.Stats.Points[0].At != time.Hour || c.Stats.Points[0].Good != 1 {
		t.Errorf("%+v", c.Stats.Points)
	}
}

// A script may say that ejections are not reviewed in turn: their ends then wait for
// who asks for a review.
func TestTurns(t *testing.T) {
	o := outlier.Default()
	o.ConsecutiveFailures, o.BaseEjection, o.MaxEjection = 2, time.Second, time.Second
	for _, turns := range []bool{false, true} {
		e := New(1)
		c := NewClient(e, Policy{Outlier: &o}, fixed(Fate{Latency: time.Millisecond, Reason: outcome.ConnectFailed}), nil)
		c.SetEndpoints(endpoints(3))
		c.Follow(&script{endpoints: []int{0}, turns: turns})
		for range 2 {
			c.Offer(Request{})
			e.Run(e.Now() + time.Millisecond)
		}
		state := &c.endpoints[0].state
		if state.State() != outlier.Ejected {
			t.Fatalf("%v", state.State())
		}
		e.Run(10 * time.Second)
		if got, want := state.State(), map[bool]outlier.State{false: outlier.Ejected, true: outlier.Probation}[turns]; got != want {
			t.Errorf("with turns %v the endpoint is %v, want %v", turns, got, want)
		}
		if c.Review(); state.State() != outlier.Probation {
			t.Errorf("after a review the endpoint is %v", state.State())
		}
	}
}

// A review may be asked for, with its own word.
func TestReview(t *testing.T) {
	o := outlier.Default()
	o.ConsecutiveFailures, o.BaseEjection, o.MaxEjection = 2, time.Second, time.Second
	e := New(1)
	c := NewClient(e, Policy{Outlier: &o}, fixed(Fate{Latency: time.Millisecond, Reason: outcome.ConnectFailed}), nil)
	c.SetEndpoints(endpoints(3))
	c.Follow(&script{endpoints: []int{0}})
	for range 3 {
		c.Offer(Request{})
		e.Run(e.Now() + time.Millisecond)
	}
	if c.Stats.Total().Ejections != 1 {
		t.Fatalf("%+v", c.Stats.Total())
	}
	c.Review()
	(&Client{}).Review() // without outlier detection nothing happens
	if c.detector.Out() != 1 {
		t.Error("a review took an endpoint back")
	}
}
