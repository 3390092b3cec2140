package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Exchange is one request with its attempts.
type Exchange struct {
	// Request is what was offered.
	Request Request

	ref      Ref
	start    time.Duration
	deadline time.Duration // 0 none
	attempts int
	under    int // attempts under way
	first    *try
	last     int // endpoint of the last attempt
	passed   int // guards that let it pass
	status   uint16
	waiting  bool
	tried    [maxTried]*balance.Load
	nTried   int
	notes    [maxGuards]uint64
	draw     guard.Draw
}

// Start returns when the exchange began.
func (x *Exchange) Start() time.Duration { return x.start }

// Deadline returns when the exchange ends at the latest; 0 for never.
func (x *Exchange) Deadline() time.Duration { return x.deadline }

// Attempts returns how many attempts have begun.
func (x *Exchange) Attempts() int { return x.attempts }

// Offer begins an exchange now. It returns its Ref, which names it to Cancel
// and Resume; it may have ended already.
func (c *Client) Offer(r Request) Ref {
	now := c.engine.now
	c.Stats.advance(now)
	c.Stats.began(now)
	x, ref := c.exchanges.take()
	*x = Exchange{Request: r, ref: ref, start: now, last: -1}
	if r.Arrived > 0 {
		x.start = r.Arrived
	}
	if t := c.timeout(&r); t > 0 {
		x.deadline = x.start + t
	}
	x.deadline = sooner(x.deadline, r.Deadline)
	if c.partial {
		x.draw = guard.DrawOf(c.random.Next())
	}
	c.enter(now, x)
	return ref
}

// enter asks the guards that x has not passed yet.
func (c *Client) enter(now time.Duration, x *Exchange) {
	for x.passed < len(c.guards) {
		i := x.passed
		switch a, r := c.guards[i].Enter(now, x, &x.notes[i]); a {
		case Pass:
			x.passed++
		case Wait:
			x.waiting = true
			if x.deadline > 0 {
				c.at(x.deadline, fireLate, x.ref)
			}
			return
		default:
			c.end(now, x, r, 0)
			return
		}
	}
	if c.budget != nil {
		c.budget.Deposit(x.start)
	}
	c.attempt(now, x, false)
}

// Resume lets an exchange go on that waits at a guard: it has passed there, or
// with another reason than OK it is refused. A Ref that names none is ignored.
func (c *Client) Resume(ref Ref, r outcome.Reason) {
	x := c.exchanges.get(ref)
	if x == nil || !x.waiting {
		return
	}
	now := c.engine.now
	c.Stats.advance(now)
	x.waiting = false
	if r != outcome.OK {
		c.end(now, x, r, 0)
		return
	}
	x.passed++
	c.enter(now, x)
}

// Ref returns the name of the exchange for Client.Resume.
func (x *Exchange) Ref() Ref { return x.ref }

// Cancel ends an exchange whose caller has gone.
func (c *Client) Cancel(ref Ref) {
	if x := c.exchanges.get(ref); x != nil {
		now := c.engine.now
		c.Stats.advance(now)
		c.abandonAll(now, x, outcome.DownstreamGone)
		c.end(now, x, outcome.DownstreamGone, 0)
	}
}

// end ends x: the guards are left in reverse, and its caller is told.
func (c *Client) end(now time.Duration, x *Exchange, r outcome.Reason, status uint16) {
	x.status = status
	if x.waiting {
		i := x.passed
		c.guards[i].Leave(now, x, &x.notes[i], true, r)
	}
	for i := x.passed - 1; i >= 0; i-- {
		c.guards[i].Leave(now, x, &x.notes[i], false, r)
	}
	e := End{Reason: r, Status: status, Latency: now - x.start, Attempts: x.attempts, Endpoint: x.last}
	c.Stats.ended(x.start, e)
	c.exchanges.retire(x.ref)
	if c.caller != nil {
		c.caller.Ended(now, &x.Request, e)
	}
	c.exchanges.free(x.ref)
}

// sooner returns the earlier of two times of which each is 0 if there is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
