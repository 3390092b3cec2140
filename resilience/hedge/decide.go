package hedge

import (
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Why is the reason of a decision about another attempt beside one under way.
type Why uint8

// The reasons. Only with Started is there another attempt.
const (
	// Started: another attempt is to be made.
	Started Why = iota
	// AttemptsSpent: the request has had all its attempts.
	AttemptsSpent
	// TooFewSamples: not enough answers are known to tell what is slow.
	TooFewSamples
	// NoOther: there is no endpoint that has not been tried.
	NoOther
	// Queueing: requests wait for a connection.
	Queueing
	// Ejections: endpoints are ejected, or so few are left that all are used.
	Ejections
	// BreakerNotClosed: the circuit breaker is open or half-open.
	BreakerNotClosed
	// MemoryShort: the proxy is short of memory.
	MemoryShort
	// PushedBack: an endpoint asks for no further attempt of the gRPC call.
	PushedBack
	// BudgetSpent: the budget, which hedges share with retries, is empty.
	BudgetSpent
	// Observed: another attempt would be made, but the mode is observe.
	Observed

	whyCount
)

var whyNames = [whyCount]string{
	"started", "attempts_spent", "too_few_samples", "no_other", "queueing", "ejections", "breaker_not_closed", "memory_short", "pushed_back",
	"budget_spent", "observed",
}

// String returns the word used in metrics and the admin API.
func (w Why) String() string {
	if w < whyCount {
		return whyNames[w]
	}
	return "unknown"
}

// Whys returns every reason in the order of its value, for metrics.
func Whys() []Why {
	all := make([]Why, whyCount)
	for i := range all {
		all[i] = Why(i)
	}
	return all
}

// Hedges reports whether a request may be hedged at all: one that is idempotent,
// or any where that is configured, before it has had all its attempts.
func (c *Config) Hedges(idempotent bool, attempts int) bool {
	return (idempotent || c.NonIdempotent) && attempts < c.MaxAttempts
}

// Fatal reports whether a gRPC call that an attempt ended with that status is
// answered with it at once, although other attempts are under way.
func (c *Config) Fatal(status uint8) bool {
	return !slices.Contains(c.NonFatalStatuses, retry.GRPCStatus(status))
}

// Wait returns after what time without an answer Decide is to be asked. lats are
// what the request's latency can be told from, the most particular first; nil
// ones are passed over. It reports false as long as too little is known. It does
// not allocate.
func (c *Config) Wait(now time.Duration, lats ...*Latency) (time.Duration, bool) {
	if c.Delay > 0 {
		return c.Delay, true
	}
	for _, l := range lats {
		if l == nil {
			continue
		}
		if d, ok := l.Quantile(now, c.Percentile, c.enough()); ok {
			return max(d, c.MinDelay), true
		}
	}
	return 0, false
}

// Question is an attempt that has not been answered within Wait.
type Question struct {
	Draw      guard.Draw // of the exchange
	Attempts  int        // that the request has had, those under way included
	Others    int        // endpoints that could be picked and were not tried
	Waiting   int64      // requests that wait for a connection to the destination
	Ejected   int        // endpoints of the destination that are ejected
	Panicking bool       // so few are left that all are used
	Broken    bool       // the breaker is not closed
	Short     bool       // of memory
	Pushback  retry.Pushback
}

// Decide says whether another attempt is started now beside those under way. When
// the answer is Started it has withdrawn one from b, the budget of retries; a nil
// b has no bounds. Whatever looks like rising load says no: what is slow because
// there is too much of it does not become faster by more. Decide does not
// allocate.
func (c *Config) Decide(q Question, b *retry.Budget, now time.Duration) Why {
	switch {
	case q.Attempts >= c.MaxAttempts:
		return AttemptsSpent
	case q.Pushback == retry.PushbackStop:
		return PushedBack
	case q.Others <= 0:
		return NoOther
	case q.Short:
		return MemoryShort
	case q.Broken:
		return BreakerNotClosed
	case q.Panicking || q.Ejected > 0:
		return Ejections
	case q.Waiting > 0:
		return Queueing
	case !c.Mode.Acts(q.Draw):
		if b != nil && b.Balance(now) < 1 {
			return BudgetSpent
		}
		return Observed
	}
	// Last, so that only what is really started is withdrawn.
	if b != nil && !b.Withdraw(now) {
		return BudgetSpent
	}
	return Started
}

// BudgetOf is what the one budget of retries and hedges goes by: that of retries,
// else the default where there are hedges. It reports false without either.
func BudgetOf(r *retry.Config, h *Config) (retry.Config, bool) {
	switch {
	case r != nil:
		return *r, true
	case h != nil:
		return retry.Default(), true
	}
	return retry.Config{}, false
}
