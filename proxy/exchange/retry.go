package exchange

import (
	"math/rand/v2"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/resilience/verdict"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// attempts tries endpoints until one answers or policy says to stop. The fixed
// nesting is deadline, budget, breaker, pick, per-try timeout, round trip,
// classify, observe.
func (x *exchange) attempts() outcome.Reason {
	m := x.cl.Metrics()
	budget := x.cl.Budget()
	if budget != nil {
		budget.Deposit(x.start)
	}
	x.wishes()
	for n := 1; ; n++ {
		began := x.at
		if n > 1 || x.late {
			began = x.now()
		}
		if x.deadline > 0 && began >= x.deadline {
			return outcome.RequestTimeout
		}
		if x.caller.gone.Load() {
			x.cause = x.st.Err()
			return outcome.DownstreamGone
		}
		if r := x.uploader.failed(); r != outcome.OK {
			x.cause = x.uploader.err
			return r
		}
		if !x.passesBreaker(began) {
			x.notes.refused = max(began-x.start, 1)
			return outcome.BreakerOpen
		}
		r, again := x.attempt(began)
		ended := x.at
		failure := x.passesAs(r)
		x.tried.Settle(ended, verdict.Breaker(x.judged(r)))
		if r == outcome.OK && !x.call.held || x.began || !again {
			return r
		}
		if x.call.held {
			failure = outcome.UpstreamError
		}
		d, ok := x.decide(n+x.hedged(), failure, ended-began, budget)
		if !ok {
			if x.status != 0 && r != outcome.FaultInjected {
				return x.forward(r)
			}
			return r
		}
		m.Retried(x.retried(r, failure))
		x.notes.attempted(x.s.srv.Ledger, &x.rec, &x.tried, x.at)
		if !x.unsent && failure.Row().Retryable != outcome.RetryUnsent {
			x.earlier++
		}
		x.discardResponse()
		x.tried.Add(x.ep)
		x.tried.Vacate()
		x.ep = nil
		x.pause(d)
	}
}

// pause waits before another attempt, for as long as the caller does.
func (x *exchange) pause(d time.Duration) {
	switch {
	case d <= 0:
		return
	case x.st == nil:
		time.Sleep(d)
		return
	}
	w := make(waiting, 1)
	x.caller.watch(w)
	defer x.caller.watch(nil)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w:
	case <-t.C:
	}
}

// waiting is an exchange between two attempts as its caller sees it.
type waiting chan struct{}

// Expire implements upstreamLeg.
func (w waiting) Expire() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// Canceled implements wire.Canceler.
func (w waiting) Canceled() { w.Expire() }

// SetDeadline implements upstreamLeg.
func (w waiting) SetDeadline(time.Duration) bool { return true }

// decide asks the retry machine about a failed attempt.
func (x *exchange) decide(n int, r outcome.Reason, took time.Duration, budget *retry.Budget) (time.Duration, bool) {
	if x.pol.Retry == nil || r == outcome.DownstreamGone {
		return 0, false
	}
	q := retry.Question{
		Attempt: n, Retryable: verdict.Class(r), Condition: verdict.Condition(r),
		Status: uint16(x.status), Idempotent: x.req.Method.Idempotent(), Elapsed: took,
		BodyReplayable: x.kept() && (x.sent == 0 || len(x.body) <= x.pol.Retry.MaxBodyBytes),
		GRPC:           x.callFailed(r), Pushback: x.call.pushback, RetryAfter: x.call.wait,
	}
	q.CallerRetries, q.Draw = x.hop.above, x.tried.Draw
	q.Limited = x.call.limited
	if x.unsent {
		q.Retryable, q.Refused = retry.IfUnsent, true
	}
	if x.deadline > 0 {
		if q.Deadline = x.deadline - x.now(); q.Deadline == 0 {
			q.Deadline = -1
		}
	}
	if x.status != 0 && q.Pushback == retry.NoPushback {
		q.RetryAfter, _ = x.retryAfter()
	}
	d := x.pol.Retry.Decide(q, budget, x.now(), rand.Uint64())
	x.notes.decided(d, budget, x.at)
	x.notes.answers.note(n, d)
	if d.Again {
		return d.Wait, true
	}
	switch d.Why {
	case retry.Observed:
		x.cl.Metrics().WouldHave(telemetry.WouldRetry)
	default:
		x.cl.Metrics().RetryWithheld(withheld(d.Why))
	}
	return 0, false
}

// retryAfter is for how long the answer's Retry-After asks to wait.
func (x *exchange) retryAfter() (time.Duration, bool) {
	v, ok := x.res.Get(http1.RetryAfter)
	if !ok {
		return 0, false
	}
	return retry.ParseRetryAfter(v.Of(x.answer()), time.Now())
}

func withheld(w retry.Why) telemetry.RetryWithheld {
	switch w {
	case retry.AttemptsSpent:
		return telemetry.RetryAttemptsSpent
	case retry.NotRetryable:
		return telemetry.RetryNotRetryable
	case retry.NotIdempotent:
		return telemetry.RetryNotIdempotent
	case retry.BodyNotKept:
		return telemetry.RetryBodyNotKept
	case retry.BudgetSpent:
		return telemetry.RetryBudgetSpent
	case retry.PushedBack:
		return telemetry.RetryPushedBack
	case retry.CallerRetries:
		return telemetry.RetryCallerRetries
	case retry.DeadlineTooNear, retry.RetryAfterTooLong:
		return telemetry.RetryDeadlineTooNear
	}
	return telemetry.RetryNotConfigured
}

// heedStatus notes whether an answer with r, whose head begins b, may be followed
// by another attempt although it is no failure of the endpoint's.
func (x *exchange) heedStatus(r outcome.Reason, b []byte) {
	p := x.pol.Retry
	if p == nil || x.status < 400 {
		return
	}
	if p.Listens() {
		_, x.call.limited = x.res.Lookup(b, limitedField)
	}
	x.call.held = x.call.held || r == outcome.OK && p.Asks(x.status, x.call.limited)
}

// limitedField is in answers of Envoy's that a rate limit has made.
const limitedField = "x-envoy-ratelimited"
