package upstream

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

func adapting(b *bed, change func(*adaptive.Config)) (*Cluster, *Endpoint) {
	c := b.r.Acquire(spec(func(s *Spec) {
		a := adaptive.Default()
		if change != nil {
			change(&a)
		}
		s.Policy.Adaptive = &a
	}), 0)
	c.SetLocal(numbered(1))
	return c, c.list()[0]
}

// answer ends n attempts, one a millisecond, that took so long each.
func (c *Cluster) answer(e *Endpoint, now *time.Duration, n int, took time.Duration, r outcome.Reason, status int) {
	for range n {
		*now += time.Millisecond
		c.Begin(e, *now)
		c.Finish(e, *now, took, r, status)
	}
}

// The limit follows what answers take, and lets in whoever waits as it rises.
func TestAdaptiveLimitFollows(t *testing.T) {
	b := newBed(t)
	c, e := adapting(b, nil)
	now := time.Duration(0)
	first := c.Gate.Most()
	if first == 0 {
		t.Fatal("there is no limit")
	}
	for range first {
		if !c.Gate.TryEnter(0) {
			t.Fatal("no room")
		}
	}
	if c.Gate.ask(Ask{}) != queue.Full {
		t.Fatal("the limit is not enforced")
	}
	c.answer(e, &now, 1000, 10*time.Millisecond, outcome.OK, 200)
	high := c.Gate.Most()
	if high <= first || !c.Gate.TryEnter(0) {
		t.Errorf("the limit went from %d to %d", first, high)
	}
	for c.Gate.TryEnter(0) { // all of it is used
	}
	c.answer(e, &now, 3000, 100*time.Millisecond, outcome.OK, 200)
	low := c.Gate.Most()
	if low >= high {
		t.Errorf("the limit went from %d to %d though answers took ten times as long", high, low)
	}
	// What failed at once, or is no answer, says nothing.
	before, _ := c.Gate.adapted()
	c.answer(e, &now, 1000, time.Microsecond, outcome.UpstreamError, 503)
	c.answer(e, &now, 1000, time.Microsecond, outcome.OK, 0)
	c.answer(e, &now, 1000, time.Microsecond, outcome.ConnectFailed, 0)
	if after, _ := c.Gate.adapted(); after != before {
		t.Errorf("%+v became %+v", before, after)
	}
}

// The lower of two limits counts; a reload takes the adaptive one away.
func TestAdaptiveBesideStatic(t *testing.T) {
	b := newBed(t)
	c, _ := adapting(b, func(a *adaptive.Config) { a.MinLimit = 8; a.MaxLimit = 8 })
	if c.Gate.Most() != 8 {
		t.Errorf("limit %d", c.Gate.Most())
	}
	apply := func(change func(*Spec)) {
		b.r.Acquire(spec(change), 0)
		b.r.Release(c)
	}
	a := adaptive.Default()
	a.MinLimit, a.MaxLimit = 8, 8
	apply(func(s *Spec) { s.Policy.Adaptive, s.Policy.Limits.MaxRequests = &a, 5 })
	if c.Gate.Most() != 5 {
		t.Errorf("limit %d, want 5", c.Gate.Most())
	}
	a.Mode = guard.Observe
	apply(func(s *Spec) { s.Policy.Adaptive = &a })
	for range 9 {
		if !c.Gate.TryEnter(0) {
			t.Fatal("an observed limit refused")
		}
	}
	if c.Gate.Most() != 0 || c.Limits.WouldHaveRejected(limit.Requests) != 1 {
		t.Errorf("limit %d, would have refused %d", c.Gate.Most(), c.Limits.WouldHaveRejected(limit.Requests))
	}
	apply(nil)
	if _, ok := c.Gate.adapted(); ok {
		t.Error("it is still there")
	}
}
