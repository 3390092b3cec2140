package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

// limiter finds a limit on active requests by itself: adaptive.Limiter.
type limiter interface {
	Limit() int64
	Mode() guard.Mode
	Observe(now, took time.Duration, active int64) bool
}

// gate is the limit on active requests as a guard, with its queue: what
// upstream.Gate does for a proxy.
type gate struct {
	c        *Client
	id       ActorID
	queue    *queue.Queue // nil without one
	adaptive limiter      // nil without one
	waiters  pool[waiter]
	entering *waiter // asks at present
	most     int64   // that may be in, by all that acts for anybody; 0 unlimited

	counted *Stats // that count the limit, as shown
	shown   int64
}

// waiter is an exchange in the queue.
type waiter struct {
	queue.Waiter
	x   Ref
	ref Ref
	out bool
}

func newGate(c *Client) *gate {
	g := &gate{c: c}
	if cfg := c.policy.Limits.Queue; cfg != nil {
		g.queue = queue.New(*cfg)
		g.id = c.engine.Add(g)
	}
	if cfg := c.policy.Adaptive; cfg != nil {
		g.adaptive = adaptive.New(*cfg)
	}
	g.settle(c.engine.now)
	return g
}

// settle works out the limit and lets in whom it leaves room for.
func (g *gate) settle(now time.Duration) {
	g.most, _ = g.bounds(guard.Strictest)
	if s := g.c.Stats; g.counted != s {
		g.counted, g.shown = s, 0
	}
	g.counted.now.Limit += g.most - g.shown
	g.shown = g.most
	g.dispatch(now)
}

// bounds is how many others may be in when the exchange of d comes, and how many
// might be if what is only observed of it were enforced; 0 is no limit.
func (g *gate) bounds(d guard.Draw) (most, would int64) {
	least := func(n int64, m guard.Mode) {
		to := &would
		if m.Acts(d) {
			to = &most
		}
		if n > 0 && (*to == 0 || n < *to) {
			*to = n
		}
	}
	least(g.c.policy.Limits.MaxRequests, g.c.policy.Limits.Mode)
	if g.adaptive != nil {
		least(g.adaptive.Limit(), g.adaptive.Mode())
	}
	return most, would
}

// Enter implements Guard.
func (g *gate) Enter(now time.Duration, x *Exchange, note *uint64) (Answer, outcome.Reason) {
	requests := &g.c.limits.Requests
	most, would := g.bounds(x.draw)
	if (most <= 0 || g.queue == nil || g.queue.Len() == 0) && requests.Acquire(most) {
		if would > 0 && requests.Value() > would {
			g.c.limits.WouldRefuse(limit.Requests)
		}
		return Pass, outcome.OK
	}
	if g.queue == nil {
		g.c.limits.Refuse(limit.Requests)
		return Refuse, outcome.LimitRequests
	}
	wait := g.queue.Config().MaxWait
	if x.deadline > 0 && x.deadline-now < wait {
		wait = x.deadline - now // its own deadline ends it
	}
	if wait <= 0 {
		return Refuse, outcome.RequestTimeout
	}
	w, ref := g.waiters.take()
	wake := w.Wake
	if wake == nil { // its first use
		wake = func() { g.woken(w) }
	}
	*w = waiter{x: x.ref, ref: ref}
	w.Wake, w.Caller = wake, x.Request.Caller
	g.shed(now)
	g.entering = w
	ok, displaced := g.queue.Push(now, &w.Waiter)
	if displaced != nil {
		displaced.Wake()
	}
	g.dispatch(now)
	g.entering = nil
	switch {
	case !ok:
		g.free(w)
		g.c.limits.Refuse(limit.Requests)
		return Refuse, outcome.LimitRequests
	case w.out:
		r := refusal(w.Result())
		g.free(w)
		if r != outcome.OK {
			g.c.limits.Refuse(limit.Requests)
			return Refuse, r
		}
		return Pass, outcome.OK
	}
	*note = uint64(ref)
	g.c.engine.At(now+wait, g.id, uint64(ref))
	return Wait, outcome.OK
}

// Leave implements Guard.
func (g *gate) Leave(now time.Duration, _ *Exchange, note *uint64, waiting bool, _ outcome.Reason) {
	if waiting {
		if w := g.waiters.get(Ref(*note)); w != nil && g.queue.Remove(&w.Waiter, queue.TooLate) {
			g.free(w)
		}
		return
	}
	g.c.limits.Release(limit.Requests)
	g.dispatch(now)
}

// Fire implements Actor: somebody may have waited for as long as one may.
func (g *gate) Fire(now time.Duration, arg uint64) {
	w := g.waiters.get(Ref(arg))
	if w == nil {
		return
	}
	if x := g.c.exchanges.get(w.x); x != nil && x.deadline > 0 && x.deadline <= now {
		return // its deadline is an event of its own
	}
	if g.queue.Remove(&w.Waiter, queue.WaitedOut) {
		g.turnAway(w, outcome.QueueTimeout)
	}
}

// dispatch turns away who has waited too long and lets in whom there is room for.
func (g *gate) dispatch(now time.Duration) {
	if g.queue == nil {
		return
	}
	g.shed(now)
	for g.queue.Len() > 0 && g.c.limits.Requests.Acquire(g.most) {
		g.queue.Pop(now).Wake()
	}
}

func (g *gate) shed(now time.Duration) {
	for w := g.queue.Shed(now); w != nil; w = g.queue.Shed(now) {
		w.Wake()
	}
}

// woken is told that w is out of the queue.
func (g *gate) woken(w *waiter) {
	if w == g.entering {
		w.out = true // Enter tells it
		return
	}
	if r := refusal(w.Result()); r != outcome.OK {
		g.turnAway(w, r)
		return
	}
	ref := w.x
	g.free(w)
	g.c.Resume(ref, outcome.OK)
}

func (g *gate) turnAway(w *waiter, r outcome.Reason) {
	ref := w.x
	g.free(w)
	g.c.limits.Refuse(limit.Requests)
	g.c.Resume(ref, r)
}

func (g *gate) free(w *waiter) {
	g.waiters.retire(w.ref)
	g.waiters.free(w.ref)
}

// took tells the adaptive limit how an attempt went: one that was answered well,
// or in vain waited for. Others say nothing of how long work takes, nor do those
// that are not HTTP, which have no status.
func (g *gate) took(now, rtt time.Duration, r outcome.Reason, status uint16) {
	if g.adaptive == nil || (r != outcome.OK || status == 0) && r != outcome.RequestTimeout && r != outcome.TryTimeout {
		return
	}
	if g.adaptive.Observe(now, rtt, g.c.limits.Requests.Value()) {
		g.settle(now)
	}
}

// refusal is what follows from what the queue says.
func refusal(why queue.Result) outcome.Reason {
	switch why {
	case queue.Entered:
		return outcome.OK
	case queue.Delayed, queue.WaitedOut:
		return outcome.QueueTimeout
	case queue.TooLate:
		return outcome.RequestTimeout
	}
	return outcome.LimitRequests
}
