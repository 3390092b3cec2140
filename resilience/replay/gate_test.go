package replay

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

// TestQueueLetsWait: those beyond the limit wait for their turn, and no longer
// than they may.
func TestQueueLetsWait(t *testing.T) {
	e := New(1)
	q := queue.Default()
	q.Size, q.Order, q.MaxWait, q.Target = 3, queue.FIFO, 250*time.Millisecond, 0
	p := Policy{Timeout: 10 * time.Second}
	p.Limits.MaxRequests, p.Limits.Queue = 1, &q
	var got ends
	cl := NewClient(e, p, fixed(Fate{Latency: 100 * time.Millisecond}), &got)
	cl.SetEndpoints(endpoints(1))
	for i := range 6 {
		cl.Offer(Request{ID: uint64(i)})
	}
	e.Run(time.Second)
	want := ends{
		"0s #4 limit_requests 0 after 0s, 0 attempts, endpoint -1",
		"0s #5 limit_requests 0 after 0s, 0 attempts, endpoint -1",
		"100ms #0 ok 0 after 100ms, 1 attempts, endpoint 0",
		"200ms #1 ok 0 after 200ms, 1 attempts, endpoint 0",
		"250ms #3 queue_timeout 0 after 250ms, 0 attempts, endpoint -1",
		"300ms #2 ok 0 after 300ms, 1 attempts, endpoint 0",
	}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s\nwant %s", got[i], want[i])
		}
	}
	if cl.gate.waiters.used() != 0 || cl.limits.Requests.Value() != 0 || cl.limits.Rejected(2) != 3 {
		t.Errorf("%d waiters, %d active, %d refused", cl.gate.waiters.used(), cl.limits.Requests.Value(), cl.limits.Rejected(2))
	}
}

// TestQueueAndDeadline: one whose own time is over leaves the queue.
func TestQueueAndDeadline(t *testing.T) {
	e := New(1)
	q := queue.Default()
	q.Target = 0
	p := Policy{Timeout: 150 * time.Millisecond}
	p.Limits.MaxRequests, p.Limits.Queue = 1, &q
	cl := NewClient(e, p, fixed(Fate{Latency: 100 * time.Millisecond}), nil)
	cl.SetEndpoints(endpoints(1))
	for range 4 {
		cl.Offer(Request{})
	}
	last := cl.Offer(Request{})
	cl.Cancel(last)
	e.Run(time.Second)
	if r := cl.Stats.Reasons; r[outcome.OK] != 1 || r[outcome.RequestTimeout] != 3 || r[outcome.DownstreamGone] != 1 || cl.gate.queue.Len() != 0 || cl.gate.waiters.used() != 0 {
		t.Errorf("%v, %d wait", r, cl.gate.queue.Len())
	}
}

// TestQueueUnderChaos: with a queue too everything ends once.
func TestQueueUnderChaos(t *testing.T) {
	for seed := range uint64(6) {
		e := New(seed)
		w := &chaos{e: e, r: e.Fork(), pending: map[Ref]bool{}}
		w.id = e.Add(w)
		q := queue.Default()
		q.Size, q.Order, q.MaxWait = 20, queue.Order(seed%3), 100*time.Millisecond
		p := Policy{Timeout: 120 * time.Millisecond}
		p.Limits.MaxRequests, p.Limits.Queue = 30, &q
		seen := map[uint64]int{}
		c := NewClient(e, p, w, counter(seen))
		w.c = c
		c.SetEndpoints(endpoints(3))
		s := offer(e, c, time.Millisecond, 10*time.Second, true)
		s.callers = 5
		e.Run(12 * time.Second)
		n := c.Stats.Total()
		if n.Offered != n.Ended() || len(seen) != int(s.n) || c.gate.waiters.used() != 0 || c.limits.Requests.Value() != 0 {
			t.Errorf("seed %d: %+v, %d seen, %d waiters, %d active", seed, n, len(seen), c.gate.waiters.used(), c.limits.Requests.Value())
		}
		if c.Stats.Reasons[outcome.QueueTimeout] == 0 && c.Stats.Reasons[outcome.LimitRequests] == 0 {
			t.Errorf("seed %d: nobody had to wait too long: %v", seed, c.Stats.Reasons)
		}
	}
}

// TestAdmission: while a service refuses, what reaches it falls, and comes back
// with it.
func TestAdmission(t *testing.T) {
	e := New(1)
	a := admission.Default()
	a.Window = 5 * time.Second
	cl := NewClient(e, Policy{Admission: &a}, world{begin: func(now time.Duration, _ Attempt) (Fate, bool) {
		if now >= 10*time.Second && now < 40*time.Second {
			return Fate{Latency: time.Millisecond, Reason: outcome.UpstreamError, Status: 503}, true
		}
		return Fate{Latency: time.Millisecond, Status: 200}, true
	}}, nil)
	cl.SetEndpoints(endpoints(2))
	before, during, after := cl.Stats.Watch(0, 10*time.Second), cl.Stats.Watch(30*time.Second, 40*time.Second), cl.Stats.Watch(60*time.Second, 80*time.Second)
	offer(e, cl, 2*time.Millisecond, 80*time.Second, true)
	e.Run(81 * time.Second)
	if before.Refused != 0 || after.Refused != 0 {
		t.Errorf("%d and %d are held back while all is well", before.Refused, after.Refused)
	}
	if share := float64(during.Refused) / float64(during.Began); share < .7 || share > .9 {
		t.Errorf("%.2f are held back while all are refused", share)
	}
	if cl.Stats.Reasons[outcome.Throttled] == 0 {
		t.Errorf("%v", cl.Stats.Reasons)
	}
}

// alternating is a limiter that changes its mind.
type alternating struct{ n int64 }

func (a *alternating) Limit() int64     { return 1 + a.n%3 }
func (a *alternating) Mode() guard.Mode { return guard.Enforce }
func (a *alternating) Observe(_, _ time.Duration, _ int64) bool {
	a.n++
	return true
}

// TestLimiterIsFollowed: the limit is what the limiter says, as it changes.
func TestLimiterIsFollowed(t *testing.T) {
	e := New(1)
	q := queue.Default()
	q.Target, q.Size, q.MaxWait = 0, 4096, time.Hour
	p := Policy{}
	p.Limits.Queue = &q
	most := int64(0)
	var cl *Client
	cl = NewClient(e, p, world{begin: func(time.Duration, Attempt) (Fate, bool) {
		most = max(most, cl.limits.Requests.Value())
		return Fate{Latency: time.Millisecond, Status: 200}, true
	}}, nil)
	cl.gate.adaptive = &alternating{}
	cl.gate.settle(0)
	cl.SetEndpoints(endpoints(1))
	for range 1000 {
		cl.Offer(Request{})
	}
	e.Run(time.Minute)
	if n := cl.Stats.Total(); n.Good != 1000 || most != 3 {
		t.Errorf("%+v, at most %d at a time", n, most)
	}
}
