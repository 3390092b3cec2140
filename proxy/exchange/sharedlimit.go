package exchange

import (
	"errors"
	"fmt"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// shared asks who counts a limit for several proxies, and waits for the answer.
// It returns OK when the request may go on.
func (x *exchange) shared(l *plan.RateLimit) outcome.Reason {
	x.values = x.values[:0]
	for i := range l.Entries {
		x.values = append(x.values, x.rateValue(&l.Entries[i]))
	}
	var within time.Duration
	if x.deadline > 0 {
		if within = x.deadline - x.at; within == 0 {
			within = -1
		}
	}
	before := x.at
	a := l.Shared.Take(before, within, x.values)
	took := x.now() - before
	r := sharedDecided(l, &a, took, x.tried.Draw, x.s.shard, x.cl.Metrics())
	switch r {
	case outcome.RateLimited:
		x.over, x.cause = rateSaid{l, a}, l.Refusal
	case outcome.RateUnknown:
		x.cause = unknownRate(l, &a)
	default:
		if a.OK {
			x.tell(l, &a)
		}
	}
	return r
}

func (x *exchange) rateValue(e *plan.RateEntry) []byte {
	switch e.Kind {
	case plan.RateIdentity:
		return []byte(x.s.peerID)
	case plan.RateSourceIP:
		return x.s.addr
	case plan.RateField:
		return plan.FieldValue(e.Field, &x.req, x.raw)
	case plan.RateRoute:
		return []byte(x.route.Name)
	case plan.RatePath:
		return plan.RatePathOf(&x.req, x.raw)
	case plan.RateMethod:
		return x.req.MethodSpan.Of(x.raw)
	}
	return e.Value
}

// shared is the same for a connection that is not HTTP.
func (t *tcpExchange) shared(l *plan.RateLimit, now time.Duration, shard uint32) outcome.Reason {
	values := make([][]byte, len(l.Entries))
	for i := range l.Entries {
		switch e := &l.Entries[i]; e.Kind {
		case plan.RateIdentity:
			if !t.peer.ID.IsZero() {
				values[i] = []byte(t.peer.ID.String())
			}
		case plan.RateSourceIP:
			values[i] = t.peer.Addr.Addr().AppendTo(nil)
		default:
			values[i] = e.Value
		}
	}
	a := l.Shared.Take(now, 0, values)
	r := sharedDecided(l, &a, t.srv.Sweeper.Now()-now, t.tried.Draw, shard, t.cl.Metrics())
	switch r {
	case outcome.RateLimited:
		t.cause = l.Refusal
	case outcome.RateUnknown:
		t.cause = unknownRate(l, &a)
	}
	return r
}

// sharedDecided counts what was answered for a limit and says what follows.
func sharedDecided(l *plan.RateLimit, a *ratelimit.Answer, took time.Duration, draw guard.Draw, shard uint32, m *telemetry.Cluster) outcome.Reason {
	if !a.Known {
		l.Metrics.Asked(telemetry.RateFailure(a.Failure), took)
	}
	switch {
	case a.Failure == ratelimit.NoFailure:
		if decided(l, &a.Decision, draw, shard, m) {
			return outcome.OK
		}
		return outcome.RateLimited
	case !l.FailShut:
		l.Metrics.Decided(shard, telemetry.RateUnknownPassed)
		return outcome.OK
	case !l.Mode.Acts(draw):
		l.Metrics.Decided(shard, telemetry.RateUnknownPassed)
		m.WouldHave(telemetry.WouldRateLimit)
		return outcome.OK
	}
	l.Metrics.Decided(shard, telemetry.RateUnknownRefused)
	return outcome.RateUnknown
}

// unknown is what the own application is told of why it was refused.
func (x *exchange) unknown(r outcome.Reason) error {
	if r == outcome.RateUnknown {
		return x.cause
	}
	return nil
}

// unknownRate says why a limit is not known, and ends as a Refusal does.
func unknownRate(l *plan.RateLimit, a *ratelimit.Answer) error {
	if a.Err == nil {
		return errors.New(a.Failure.String() + " at " + l.Refusal.Error())
	}
	return fmt.Errorf("%w: %w", a.Err, l.Refusal)
}
