package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
)

// pick chooses the endpoint of an attempt, as upstream.Cluster does: one on
// probation takes a single attempt.
func (c *Client) pick(now time.Duration, x *Exchange) *endpoint {
	if c.picker == nil || c.picker.Len() == 0 {
		return nil
	}
	avoid := x.tried[:x.nTried]
	var passed [maxTried]*balance.Load
	var last *endpoint
	for k := range maxTried {
		e := c.endpoints[c.picker.Member(c.pickOne(now, x, avoid)).Index]
		if c.panicking || e.usable(c.mode) {
			return e
		}
		if k == 0 {
			avoid = passed[:copy(passed[:], avoid)]
		}
		if len(avoid) < maxTried {
			avoid = append(avoid, &e.load)
		}
		last = e
	}
	n := c.picker.Len()
	from := int(c.random.Next() % uint64(n))
	for i := range n {
		if e := c.endpoints[c.picker.Member((from+i)%n).Index]; e.usable(c.mode) {
			return e
		}
	}
	if c.policy.Balance.PanicPercent > 0 {
		return last
	}
	return nil
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
