package replay

import (
	"reflect"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Script says what chance decided when something was recorded, so that a client
// decides the same wherever its machines allow it.
type Script interface {
	// Endpoint is the number of the endpoint that attempt n of r, counted from 1, went to.
	Endpoint(now time.Duration, r *Request, n int) (number int, ok bool)
	// Wait is the pause after the failed attempt n of r.
	Wait(r *Request, n int) (wait time.Duration, ok bool)
	// Word is the random word that a review of ejections at this time was given.
	Word(now time.Duration) (word uint64, ok bool)
	// Turns reports whether ejections are reviewed at the times when a client does
	// so in turn. Else they are only at the ends of attempts and by Client.Review.
	Turns() bool
}

// Follow lets the client do as s says where it can.
func (c *Client) Follow(s Script) { c.script = s }

// scripted returns the endpoint that the script names for the next attempt of x,
// if it may be used.
func (c *Client) scripted(now time.Duration, x *Exchange) *endpoint {
	n, ok := c.script.Endpoint(now, &x.Request, x.attempts+1)
	if !ok || n < 0 || n >= len(c.endpoints) {
		return nil
	}
	e := c.endpoints[n]
	switch {
	case c.panicking:
		return e
	case !e.Healthy, c.mode == guard.Enforce && e.state.State() == outlier.Ejected, !e.usable(c.mode):
		return nil
	}
	return e
}

// word is the random word for a review of ejections.
func (c *Client) word(now time.Duration) uint64 {
	if c.script != nil {
		if w, ok := c.script.Word(now); ok {
			return w
		}
	}
	return c.random.Next()
}

// Review lets outlier detection act now, beside its turns.
func (c *Client) Review() {
	if c.detector != nil && len(c.states) > 0 {
		c.Stats.advance(c.engine.now)
		c.sweep(c.engine.now)
	}
}

// Override is what the route of a request changes in the policy.
type Override struct {
	Timeout time.Duration // the whole exchange; 0 none
	Retry   *retry.Config // nil is off
}

// retry is the retry policy of x.
func (c *Client) retry(x *Exchange) *retry.Config {
	if o := x.Request.Override; o != nil {
		return o.Retry
	}
	return c.policy.Retry
}

// timeout is how long an exchange of r may take.
func (c *Client) timeout(r *Request) time.Duration {
	if o := r.Override; o != nil {
		return o.Timeout
	}
	return c.policy.Timeout
}

// SetPolicy changes the policy, as a reload does: ejections, load and what is
// under way stay; a breaker or budget whose settings change begins anew.
func (c *Client) SetPolicy(p Policy) {
	if p.Balance.IsZero() {
		p.Balance = balance.Default()
	}
	old := c.policy
	c.policy, c.partial = p, p.partial()
	if p.Breaker == nil || old.Breaker == nil || *old.Breaker != *p.Breaker {
		c.breaker = c.newBreaker(&p, false)
		for _, e := range c.endpoints {
			e.breaker = c.newBreaker(&p, true)
		}
	}
	c.throttle.configure(p.Admission, c.engine)
	had, was := hedge.BudgetOf(old.Retry, old.Hedge)
	switch now, on := hedge.BudgetOf(p.Retry, p.Hedge); {
	case !on:
		c.budget = nil
	case !was || had.BudgetPercent != now.BudgetPercent || had.BudgetMinPerSecond != now.BudgetMinPerSecond:
		c.budget = retry.NewBudget(now)
	}
	switch {
	case p.Hedge == nil && old.Hedge != nil:
		c.hedger = nil
	case p.Hedge != nil && (old.Hedge == nil || !reflect.DeepEqual(*old.Hedge, *p.Hedge)):
		c.hedger = &hedger{c: c, cfg: p.Hedge}
	}
	switch {
	case p.Outlier == nil:
		c.detector, c.mode = nil, guard.Observe
	case c.detector == nil:
		c.detector, c.mode = outlier.New(*p.Outlier), p.Outlier.Mode
		if !c.reviewed {
			c.reviewed = true
			c.engine.At(c.engine.now+sweepInterval, c.id, fireSweep)
		}
	default:
		c.detector.SetConfig(*p.Outlier)
		c.mode = p.Outlier.Mode
	}
	if c.gate.queue == nil || c.gate.queue.Len() == 0 {
		c.gate = newGate(c)
		c.guards[0] = c.gate
	} else {
		c.gate.settle(c.engine.now) // those who wait do so by the rules of the time
	}
	for _, e := range c.endpoints {
		e.load.Init(p.Balance)
		e.load.Measure(c.caution() != nil)
	}
	if len(c.endpoints) > 0 {
		c.rebuild()
	}
}

// StatsFrom returns stats whose time series begins at that time.
func StatsFrom(at, interval time.Duration) *Stats {
	s := &Stats{Interval: interval}
	s.now.At = at
	return s
}
