package upstream

import (
	"math/rand/v2"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/verdict"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Tried holds the endpoints that earlier attempts of an exchange went to, so
// that another is preferred.
type Tried struct {
	// Draw says for which guards with a percentage the exchange is among those
	// that they act for.
	Draw  guard.Draw
	loads [maxTried]*balance.Load
	n     int
	set   *endpointSet // of the last pick
	seen  balance.Seen // what the last pick compared
	held  bool         // the last pick followed the session's affinity
	// broken: the last pick found an open breaker.
	broken bool
	leave  leave     // for the attempt under way
	placed *Endpoint // where the attempt under way has one of max_requests_per_endpoint
	full   bool      // the last pick found an endpoint that has all of them

	// Where the cluster has failover: whose endpoint the last pick has found, and
	// whose earlier attempts went to, as bits.
	source source
	failed uint16
}

const maxTried = 8

// Add remembers e.
func (t *Tried) Add(e *Endpoint) {
	if t.n < maxTried {
		t.loads[t.n] = &e.Load
		t.n++
	}
	if t.source != noSource {
		t.failed |= 1 << t.source
	}
}

// Reset forgets all.
func (t *Tried) Reset() { *t = Tried{} }

// Pick chooses an endpoint for an attempt, or nil when the cluster has none
// that may be used. The exchange counts among the cluster's active requests.
func (c *Cluster) Pick(now time.Duration, w *Wish, tried *Tried) *Endpoint {
	if w.Only.IsValid() {
		return c.pickOnly(now, w, tried)
	}
	if over := c.failover.Load(); over != nil {
		return c.pickOver(now, w, tried, *over)
	}
	return c.pickFrom(now, w, tried, false)
}

// pickFrom picks among the cluster's own endpoints; with strict only where some
// are available, and without the panic rule.
func (c *Cluster) pickFrom(now time.Duration, w *Wish, tried *Tried, strict bool) *Endpoint {
	s := c.set.Load()
	if w.Subset != nil {
		if s = w.Subset.set.Load(); s != nil && s.fallback {
			w.Subset.metrics.Fallbacks.Inc()
		}
	}
	s = s.strictly(strict)
	tried.set, tried.held, tried.broken, tried.full = s, false, false, false
	tried.seen.Reset()
	if s == nil || s.picker.Len() == 0 {
		return nil
	}
	mode := guard.Observe
	if p := c.policy.Load().Outlier; p != nil {
		mode = p.Mode
	}
	if s.affinity != nil && w.Held != nil && tried.n == 0 {
		if e := s.affinity.find(w.Held); e != nil && c.takes(s, e, mode, now, tried) {
			c.metrics.Affinity(telemetry.AffinityKept)
			tried.held = true
			return e
		}
		c.metrics.Affinity(telemetry.AffinityLost)
	}
	var passed Tried
	avoid := tried
	for range maxTried {
		i := c.pick(s.picker, now, w, avoid.loads[:avoid.n], &tried.seen)
		e := s.endpoints[s.picker.Member(i).Index]
		if c.takes(s, e, mode, now, tried) {
			if s.tiered {
				c.placed(s.picker, i)
			}
			return e
		}
		// On probation, and its one probe is under way; or its breaker is open.
		if avoid != &passed {
			passed = *tried
			avoid = &passed
		}
		passed.Add(e)
	}
	tried.seen.Reset()
	for range maxTried {
		if e := c.pickOther(s, mode, now, tried, strict); e != nil || !tried.full || tried.broken {
			return e
		}
		// There is room somewhere, but it moved while it was looked for.
	}
	return nil
}

// pick asks the picker, which is not empty, for a member's position.
func (c *Cluster) pick(p *balance.Picker, now time.Duration, w *Wish, avoid []*balance.Load, seen *balance.Seen) int {
	if !w.Keyed || !p.ByHash() { // a reload may have come in between
		return p.PickSeen(now, rand.Uint64(), avoid, seen)
	}
	i, spilled := p.PickKey(w.Key, c.Limits.Requests.Value(), avoid)
	if spilled {
		c.metrics.Spilled.Inc()
	}
	return i
}

// takes reports whether an attempt may go to e now: its breaker, if it has one,
// lets it pass, and it is not on probation with its probe under way. In panic
// the latter does not count.
func (c *Cluster) takes(s *endpointSet, e *Endpoint, mode guard.Mode, now time.Duration, tried *Tried) bool {
	if !tried.place(e, s) {
		return false
	}
	b := e.breaker.Load()
	if tried.leave.by != nil {
		b = nil // one breaker an attempt: that of the cluster which this one is failover of
	}
	if b != nil && !c.Admit(b, now, tried) {
		tried.broken = true
		tried.Vacate()
		return false
	}
	if s.panicking || e.usable(mode) {
		return true
	}
	if b != nil { // else the leave is the cluster's
		tried.Settle(now, breaker.Ignored)
	}
	tried.Vacate()
	return false
}

// pickOther looks at all endpoints in turn after Pick has met several that may
// not be used. Where every one of them is on probation, the panic rule holds as
// if they were ejected: any whose breaker lets it pass is used.
func (c *Cluster) pickOther(s *endpointSet, mode guard.Mode, now time.Duration, tried *Tried, strict bool) *Endpoint {
	n := s.picker.Len()
	from := rand.IntN(n)
	for i := range n {
		if e := s.endpoints[s.picker.Member((from+i)%n).Index]; c.takes(s, e, mode, now, tried) {
			return e
		}
	}
	if strict || !s.pinned && c.policy.Load().Balance.PanicPercent <= 0 {
		return nil
	}
	for i := range n {
		e := s.endpoints[s.picker.Member((from+i)%n).Index]
		if !tried.place(e, s) {
			continue
		}
		if b := e.breaker.Load(); b == nil || tried.leave.by != nil || c.Admit(b, now, tried) {
			return e
		}
		tried.Vacate()
	}
	return nil
}

// Begin counts the start of an attempt at e.
func (c *Cluster) Begin(e *Endpoint, now time.Duration) {
	e.Load.Begin(now)
}

// HoldOff keeps e at the full penalty of a failure for d, for which it has asked
// (Retry-After), as far as the policy listens.
func (c *Cluster) HoldOff(e *Endpoint, now, d time.Duration) {
	if d = min(d, e.cluster.policy.Load().Balance.RetryAfterMax); d > 0 {
		e.Load.HoldOff(now + d)
	}
}

// Finish counts the end of an attempt at e that took rtt: the time to the
// response head, or until it failed. An end for which the endpoint is not to
// blame, such as the caller's going away, says nothing about it.
func (c *Cluster) Finish(e *Endpoint, now, rtt time.Duration, reason outcome.Reason, status int) {
	c.Gate.took(now, rtt, reason, status)
	res := verdict.Outlier(reason)
	if res == outlier.Ignored {
		rtt = -1
	}
	e.Load.End(now, rtt, res == outlier.Failure || res == outlier.LocalFailure)
	e.metrics.Attempt(telemetry.Result(res))
	if d := e.cluster.detectorNow(); d != nil && d.Observe(&e.Outlier, now, res, uint16(status)) {
		e.cluster.sweep(now)
	}
}
