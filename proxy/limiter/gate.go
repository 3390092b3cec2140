package limiter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

// Why a limiter is not even asked.
var (
	errOpen = errors.New("it has failed of late and is not asked for a while")
	errBusy = errors.New("too many questions are under way")
	errLate = errors.New("no time is left to ask")
)

// gate bounds what a limiter can cost: how many questions are under way, how
// long each may take, and that one which is dead is not waited for.
type gate struct {
	kind     string // for the log: grpc or redis
	timeout  time.Duration
	max      int64
	inFlight atomic.Int64
	breaker  *breaker.Breaker
	now      func() time.Duration
}

func newGate(kind, address string, timeout time.Duration, most int, b breaker.Config, now func() time.Duration, log *slog.Logger) gate {
	return gate{
		kind: kind, timeout: timeout, max: int64(most), now: now,
		breaker: breaker.New(kind, b, func(from, to breaker.State) {
			level := slog.LevelInfo
			if to == breaker.Open {
				level = slog.LevelWarn
			}
			log.Log(context.Background(), level, "the breaker of a rate limiter has changed", "event", "rate_limiter", "kind", kind, "address", address, "state", to.String(), "before", from.String())
		}),
	}
}

// pass is the right to ask once.
type pass struct {
	ticket breaker.Ticket
	short  bool // the caller has less time than an answer may take
	within time.Duration
}

// enter asks whether a question may be put. If so, leave is owed. within is how
// long the caller can wait, 0 as long as it takes.
func (g *gate) enter(now, within time.Duration) (p pass, refused ratelimit.Answer, ok bool) {
	p.within = g.timeout
	if within != 0 && within < g.timeout {
		if within < 0 {
			return p, g.fail(ratelimit.Timeout, errLate), false
		}
		p.within, p.short = within, true
	}
	if g.inFlight.Add(1) > g.max {
		g.inFlight.Add(-1)
		return p, g.fail(ratelimit.Busy, errBusy), false
	}
	if p.ticket, ok = g.breaker.Allow(now, guard.Strictest); !ok {
		g.inFlight.Add(-1)
		return p, g.fail(ratelimit.Open, errOpen), false
	}
	return p, ratelimit.Answer{}, true
}

// leave tells what has become of the question.
func (g *gate) leave(p pass, f ratelimit.Failure) {
	g.inFlight.Add(-1)
	res := breaker.Success
	switch f {
	case ratelimit.NoFailure:
	case ratelimit.Timeout, ratelimit.Unreachable:
		if res = breaker.Failure; p.short {
			res = breaker.Ignored // it was not given the time that it may take
		}
	default:
		// It is there. A caller whose requests it does not like must not keep it
		// from being asked about others.
		res = breaker.Ignored
	}
	g.breaker.Done(p.ticket, g.now(), res)
}

func (g *gate) fail(f ratelimit.Failure, err error) ratelimit.Answer {
	return ratelimit.Fail(f, fmt.Errorf("%s: %w", g.kind, err))
}
