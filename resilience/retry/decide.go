package retry

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Question is a failed attempt, about which Decide is asked.
type Question struct {
	Attempt   int       // the number of the attempt that failed, from 1
	Retryable Class     // how safe another attempt is
	Condition Condition // what failed; NoCondition to derive it from Retryable and Status
	Status    uint16    // the status the endpoint answered with, 0 if it did not answer

	Draw guard.Draw // of the exchange

	Idempotent     bool // the request's method is idempotent
	BodyReplayable bool // the request has no body, or all of it can be sent again

	Refused bool // the endpoint says that it has not processed the request
	Limited bool // the answer says that a rate limit has refused the request

	// CallerRetries: the caller's sidecar has said that it repeats requests.
	CallerRetries bool

	GRPC     GRPCStatus // how the attempt of a gRPC call ended, 0 for other requests
	Pushback Pushback   // what the endpoint says about another attempt of the call

	RetryAfter time.Duration // the endpoint's Retry-After, or the time of PushbackWait; 0 if none
	Elapsed    time.Duration // how long the attempt took
	Deadline   time.Duration // what remains for the whole request; 0 if unbounded, negative if it has passed
}

// Decision is the answer.
type Decision struct {
	Again bool          // make another attempt
	Wait  time.Duration // after this time; 0 unless Again
	Why   Why
}

// Decide says whether another attempt follows the one in q and counts the
// answer in b. When the answer is Again or Observed, it has withdrawn one retry
// from b, so it is to be asked once for each failed attempt. A nil b is a
// budget without bounds. r is a fresh uniformly random word. Decide does not
// allocate.
func (c *Config) Decide(q Question, b *Budget, now time.Duration, r uint64) Decision {
	d := c.decide(q, b, now, r)
	if b != nil {
		b.decisions[d.Why].Add(1)
	}
	return d
}

func (c *Config) decide(q Question, b *Budget, now time.Duration, r uint64) Decision {
	if q.Limited && c.Listens() {
		q.Retryable = IfUnsent // it has not been processed
	}
	switch {
	case q.Retryable == Never:
		return Decision{Why: NotRetryable}
	case c.Attempts <= 1 || !c.covers(q) && !c.invited(q):
		return Decision{Why: NotConfigured}
	case q.CallerRetries && c.Layer == Outermost && q.Retryable != IfUnsent && q.Condition != StaleConnection:
		return Decision{Why: CallerRetries}
	case q.Pushback == PushbackStop:
		return Decision{Why: PushedBack}
	case q.Attempt >= c.Attempts:
		return Decision{Why: AttemptsSpent}
	case q.Retryable != IfUnsent && !q.Idempotent && !c.NonIdempotent && !c.invited(q):
		return Decision{Why: NotIdempotent}
	case !q.BodyReplayable:
		return Decision{Why: BodyNotKept}
	case q.RetryAfter > c.RetryAfterMax:
		return Decision{Why: RetryAfterTooLong}
	}
	wait := c.backoff(q.Attempt, r)
	switch {
	case q.Pushback == PushbackWait:
		wait = q.RetryAfter // exactly: the endpoint can spread its callers itself
	case q.RetryAfter > 0:
		// The jitter stays, as others were told the same time.
		wait += min(q.RetryAfter, math.MaxInt64-wait)
	}
	if q.Deadline != 0 && !fits(q, wait) {
		return Decision{Why: DeadlineTooNear}
	}
	// Last, so that only what is really tried is withdrawn.
	if b != nil && !b.Withdraw(now) {
		return Decision{Why: BudgetSpent}
	}
	if !c.Mode.Acts(q.Draw) {
		return Decision{Why: Observed}
	}
	return Decision{Again: true, Wait: wait, Why: Again}
}

// fits reports whether an attempt begun after wait can finish before the
// deadline. An endpoint that answered shows how long an answer takes; a
// failure without an answer says nothing about the time the next one needs.
func fits(q Question, wait time.Duration) bool {
	if q.Deadline < 0 {
		return false
	}
	left := q.Deadline - wait
	if q.Status != 0 {
		return left > max(q.Elapsed, 0)
	}
	return left > 0
}

// invited reports whether the status in q allows another attempt of any request:
// by the configuration, or, of a call, because the endpoint says when it may come.
func (c *Config) invited(q Question) bool {
	switch {
	case q.Status != 0 && slices.Contains(c.Statuses, int(q.Status)):
		return true
	case q.GRPC == 0:
		return false
	case q.Pushback == PushbackWait && (q.GRPC == GRPCUnavailable || q.GRPC == GRPCResourceExhausted) && slices.Contains(c.On, Unavailable):
		return true
	}
	return slices.Contains(c.GRPCStatuses, q.GRPC)
}

// covers reports whether the failure in q is listed in On.
func (c *Config) covers(q Question) bool {
	k := q.Condition
	if k == NoCondition {
		switch {
		case q.Status != 0:
			k = ServerError
		case q.Retryable == IfUnsent:
			k = ConnectFailure
		default:
			k = Reset
		}
	}
	for _, on := range c.On {
		switch on {
		case RefusedStream:
			if q.Refused {
				return true
			}
		case RateLimited:
			if q.Limited {
				return true
			}
		case Unavailable:
			if k == Unavailable || k == ServerError && q.Status >= 502 && q.Status <= 504 {
				return true
			}
		case ServerError:
			if k == Unavailable || k == ServerError && (q.Status == 0 || q.Status >= 500 && q.Status <= 599) {
				return true
			}
		default:
			if k == on {
				return true
			}
		}
	}
	return false
}

// backoff returns the wait after failed attempt n: uniform in [0, bound(n)).
func (c *Config) backoff(n int, r uint64) time.Duration {
	bound := c.bound(n)
	if bound <= 0 {
		return 0
	}
	wait, _ := bits.Mul64(r, uint64(bound))
	return time.Duration(wait)
}

// bound is min(BackoffMax, BackoffBase*2^(n-1)).
func (c *Config) bound(n int) time.Duration {
	// Compared by shifting down, which cannot overflow.
	if shift := max(n-1, 0); shift < 63 && c.BackoffBase < c.BackoffMax>>shift {
		return c.BackoffBase << shift
	}
	return c.BackoffMax
}

// MostWait is the longest wait that may follow failed attempt n: the bound of its
// back-off, or a Retry-After or pushback that is heeded.
func (c *Config) MostWait(n int) time.Duration { return max(c.bound(n), c.RetryAfterMax) }
