package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/resilience/verdict"
)

// try is an attempt under way.
type try struct {
	x       *Exchange
	ref     Ref
	next    *try // of the same exchange
	ep      *endpoint
	began   time.Duration
	number  int
	hedge   bool
	known   bool // fate is its end
	fate    Fate
	cut     time.Duration // when the client gives it up; 0 never
	cutFor  outcome.Reason
	by      *breaker.Breaker // that has let it pass; nil none
	ticket  breaker.Ticket
	broken  bool   // an open breaker was met
	note    uint64 // of the guard of attempts
	mark    uint64 // of the world
	request *Request
}

// attempt begins an attempt of x.
func (c *Client) attempt(now time.Duration, x *Exchange, hedge bool) {
	if x.deadline > 0 && now >= x.deadline {
		if !hedge { // else others are under way, and end now
			c.end(now, x, outcome.RequestTimeout, 0)
		}
		return
	}
	t, ref := c.tries.take()
	*t = try{x: x, ref: ref, began: now, hedge: hedge, request: &x.Request}
	if r := c.mayTry(now, t); r != outcome.OK {
		c.tries.retire(ref)
		c.tries.free(ref)
		if !hedge { // else others are under way
			c.end(now, x, r, 0)
		}
		return
	}
	x.attempts++
	x.under++
	x.last = t.ep.number
	n := c.Stats.count()
	n.Sent++
	if hedge {
		n.Hedges++
	} else if x.attempts > 1 {
		n.Retries++
	}
	t.ep.load.Begin(now)
	t.number, t.next, x.first = x.attempts, x.first, t
	t.cut, t.cutFor = x.deadline, outcome.RequestTimeout
	if p := c.retry(x); p != nil && p.PerTryTimeout > 0 && (t.cut == 0 || now+p.PerTryTimeout < t.cut) {
		t.cut, t.cutFor = now+p.PerTryTimeout, outcome.TryTimeout
	}
	fate, known := c.world.Begin(now, c.attemptOf(t))
	if c.tries.get(ref) != t {
		return // the world has answered already
	}
	t.fate, t.known = fate, known
	if known && fate.Head > 0 && t.cutFor == outcome.TryTimeout && now+fate.Head < t.cut {
		t.cut, t.cutFor = x.deadline, outcome.RequestTimeout // the answer has begun in time
	}
	if known && fate.Late {
		t.cut = max(t.cut, now+fate.Latency)
	}
	switch {
	case known && (t.cut == 0 || now+fate.Latency < t.cut):
		c.at(now+fate.Latency, fireTry, ref)
	case t.cut > 0:
		c.at(t.cut, fireTry, ref)
	}
	if c.hedger != nil {
		if wait, ok := c.hedger.After(now, x); ok {
			c.at(now+wait, fireHedge, ref)
		}
	}
}

// mayTry asks the guards of attempts and chooses the endpoint of t.
func (c *Client) mayTry(now time.Duration, t *try) outcome.Reason {
	if c.breaker != nil && !t.admit(now, c.breaker) {
		return outcome.BreakerOpen
	}
	r := outcome.OK
	if c.try != nil {
		r = c.try.Begin(now, t.x, &t.note)
	}
	if r == outcome.OK {
		if t.ep = c.pick(now, t); t.ep != nil {
			return outcome.OK
		}
		if r = outcome.NoEndpoints; t.broken {
			r = outcome.BreakerOpen
		}
		if c.try != nil {
			c.try.End(now, t.x, &t.note, 0, r)
		}
	}
	t.settle(now, breaker.Ignored)
	return r
}

// repeats reports whether this client may send r again after an endpoint may have
// processed it.
func (c *Client) repeats(r *Request, d guard.Draw) bool {
	p := c.policy.Retry
	return p != nil && p.Mode.Acts(d) && p.Attempts > 1 && (r.Idempotent || p.NonIdempotent)
}

func (c *Client) attemptOf(t *try) Attempt {
	return Attempt{Ref: t.ref, Request: t.request, Endpoint: t.ep.number, Number: t.number, Deadline: t.cut, Overall: t.x.deadline, Note: &t.mark, Repeated: t.x.Request.CallerRetries || c.repeats(t.request, t.x.draw), Hedge: t.hedge}
}

// due ends a try whose end was known, or whose time is over.
func (c *Client) due(now time.Duration, t *try) {
	if t.known && now >= t.began+t.fate.Latency {
		c.ended(now, t, t.fate)
		return
	}
	if t.cut == 0 || now < t.cut {
		return
	}
	c.world.Abandon(now, c.attemptOf(t))
	c.ended(now, t, Fate{Reason: t.cutFor})
}

// Answer ends an attempt now. A Ref that names none any more is ignored.
func (c *Client) Answer(ref Ref, f Fate) {
	if t := c.tries.get(ref); t != nil {
		c.Stats.advance(c.engine.now)
		c.ended(c.engine.now, t, f)
	}
}

// ended lets the machines learn from the end of a try and decides what follows.
func (c *Client) ended(now time.Duration, t *try, f Fate) {
	x, took := t.x, now-t.began
	ep, hedge := t.ep, t.hedge
	number := t.number
	if f.RetryAfter > 0 {
		if d := min(f.RetryAfter, c.policy.Balance.RetryAfterMax); d > 0 {
			ep.load.HoldOff(now + d)
		}
	}
	rtt := took
	if f.RTT > 0 {
		rtt = f.RTT
	}
	c.learn(now, t, rtt, f.Reason, f.Status)
	if f.Reason == outcome.OK {
		if hedge {
			c.Stats.count().HedgesWon++
		}
		x.last = ep.number
		c.abandonAll(now, x, outcome.Superseded)
		c.end(now, x, outcome.OK, f.Status)
		return
	}
	if x.nTried < maxTried {
		x.tried[x.nTried] = &ep.load
		x.nTried++
	}
	if x.under > 0 && f.Reason != outcome.RequestTimeout {
		return // another attempt may still succeed
	}
	d := c.decide(now, x, number, took, f)
	if !d.Again {
		c.abandonAll(now, x, outcome.DownstreamGone)
		c.end(now, x, f.Reason, f.Status)
		return
	}
	if c.script != nil {
		if w, ok := c.script.Wait(&x.Request, number); ok {
			d.Wait = w
		}
	}
	c.at(now+d.Wait, fireRetry, x.ref)
}

// learn takes t out of its exchange and gives what it taught to the machines.
func (c *Client) learn(now time.Duration, t *try, took time.Duration, r outcome.Reason, status uint16) {
	x, ep := t.x, t.ep
	for p := &x.first; *p != nil; p = &(*p).next {
		if *p == t {
			*p = t.next
			break
		}
	}
	x.under--
	res := verdict.Outlier(r)
	switch {
	case r == outcome.Superseded:
		ep.load.Cut(now, took)
	case res == outlier.Ignored:
		ep.load.End(now, -1, false)
	default:
		ep.load.End(now, took, res != outlier.Success)
	}
	if c.hedger != nil && t.number == 1 {
		c.hedger.Observe(now, took, r)
	}
	if c.detector != nil && c.detector.Observe(&ep.state, now, res, status) {
		c.sweep(now)
	}
	t.settle(now, verdict.Breaker(r))
	if c.try != nil {
		c.try.End(now, x, &t.note, took, r)
	}
	c.tries.retire(t.ref)
	c.tries.free(t.ref)
	c.gate.took(now, took, r, status)
}

// abandonAll gives up the attempts of x that are under way.
func (c *Client) abandonAll(now time.Duration, x *Exchange, r outcome.Reason) {
	for t := x.first; t != nil; t = x.first {
		c.world.Abandon(now, c.attemptOf(t))
		c.learn(now, t, now-t.began, r, 0)
	}
}

// decide asks the retry machine.
func (c *Client) decide(now time.Duration, x *Exchange, number int, took time.Duration, f Fate) retry.Decision {
	p := c.retry(x)
	if p == nil || f.Reason == outcome.DownstreamGone {
		return retry.Decision{Why: retry.NotConfigured}
	}
	q := retry.Question{
		Attempt: number, Retryable: verdict.Class(f.Reason), Condition: verdict.Condition(f.Reason),
		Status: f.Status, Draw: x.draw, Idempotent: x.Request.Idempotent, BodyReplayable: x.Request.Replayable,
		CallerRetries: x.Request.CallerRetries, RetryAfter: f.RetryAfter, Elapsed: took,
	}
	if f.Unsent {
		q.Retryable = retry.IfUnsent
	}
	if x.deadline > 0 {
		if q.Deadline = x.deadline - now; q.Deadline <= 0 {
			q.Deadline = -1
		}
	}
	d := p.Decide(q, c.budget, now, c.random.Next())
	c.Stats.Withheld[d.Why]++
	return d
}

// hedge begins an attempt beside those under way, if it still may.
func (c *Client) hedge(now time.Duration, x *Exchange) {
	// The others' endpoints are avoided, without forgetting that they have not
	// failed.
	had := x.nTried
	for t := x.first; t != nil && x.nTried < maxTried; t = t.next {
		x.tried[x.nTried] = &t.ep.load
		x.nTried++
	}
	if ref := x.ref; c.hedger != nil && c.hedger.May(now, x) {
		c.attempt(now, x, true)
		if c.exchanges.get(ref) != x {
			return // it has ended
		}
	}
	x.nTried = min(had, x.nTried)
}
