package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
)

// pick chooses the endpoint of an attempt, as upstream.Cluster does: one on
// probation takes a single attempt, and one whose breaker is open none.
func (c *Client) pick(now time.Duration, t *try) *endpoint {
	x := t.x
	if c.picker == nil || c.picker.Len() == 0 {
		return nil
	}
	if c.script != nil {
		if e := c.scripted(now, x); e != nil {
			return e
		}
	}
	avoid := x.tried[:x.nTried]
	var passed [maxTried]*balance.Load
	for k := range maxTried {
		e := c.endpoints[c.picker.Member(c.pickOne(now, x, avoid)).Index]
		if c.takes(now, t, e) {
			return e
		}
		if k == 0 {
			avoid = passed[:copy(passed[:], avoid)]
		}
		if len(avoid) < maxTried {
			avoid = append(avoid, &e.load)
		}
	}
	n := c.picker.Len()
	from := int(c.random.Next() % uint64(n))
	for i := range n {
		if e := c.endpoints[c.picker.Member((from+i)%n).Index]; c.takes(now, t, e) {
			return e
		}
	}
	if c.policy.Balance.PanicPercent <= 0 {
		return nil
	}
	for i := range n {
		if e := c.endpoints[c.picker.Member((from+i)%n).Index]; e.breaker == nil || t.admit(now, e.breaker) {
			return e
		}
	}
	return nil
}

// takes reports whether an attempt may go to e now.
func (c *Client) takes(now time.Duration, t *try, e *endpoint) bool {
	if e.breaker != nil && !t.admit(now, e.breaker) {
		t.broken = true
		return false
	}
	if c.panicking || e.usable(c.mode) {
		return true
	}
	if e.breaker != nil { // else the leave is the client's
		t.settle(now, breaker.Ignored)
	}
	return false
}

// admit asks b whether the attempt may be made; settle is owed if so.
func (t *try) admit(now time.Duration, b *breaker.Breaker) bool {
	ticket, ok := b.Allow(now, t.x.draw)
	if ok {
		t.by, t.ticket = b, ticket
	}
	return ok
}

// settle tells the breaker that has let the attempt pass how it went.
func (t *try) settle(now time.Duration, r breaker.Result) {
	if b := t.by; b != nil {
		t.by = nil
		b.Done(t.ticket, now, r)
	}
}

func (c *Client) pickOne(now time.Duration, x *Exchange, avoid []*balance.Load) int {
	if x.Request.Keyed && c.picker.ByHash() {
		i, _ := c.picker.PickKey(x.Request.Key, c.limits.Requests.Value(), avoid)
		return i
	}
	return c.picker.Pick(now, c.random.Next(), avoid)
}

func (e *endpoint) usable(mode guard.Mode) bool {
	return mode == guard.Observe || e.state.State() != outlier.Probation || e.state.TryProbe()
}
