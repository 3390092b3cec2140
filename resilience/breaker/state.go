package breaker

import (
	"fmt"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// State is whether requests pass.
type State uint8

const (
	// Closed lets all requests pass and counts their results.
	Closed State = iota
	// Open refuses all requests.
	Open
	// HalfOpen lets some requests pass on trial and refuses the others.
	HalfOpen
)

// String returns the name used in metrics and on the admin API.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

func stateOf(s gobreaker.State) State {
	switch s {
	case gobreaker.StateOpen:
		return Open
	case gobreaker.StateHalfOpen:
		return HalfOpen
	}
	return Closed
}

// Result is how a request ended, as far as the breaker cares.
type Result uint8

const (
	// Success counts for the cluster.
	Success Result = iota
	// Failure counts against the cluster.
	Failure
	// Ignored says nothing about the cluster, as when the client cancelled.
	// A trial that ends so gives its place to another request.
	Ignored
)

// Cause is why a breaker last opened.
type Cause uint8

const (
	// None: it never opened.
	None Cause = iota
	// FailurePercent: too large a part of the window's results were failures.
	FailurePercent
	// ConsecutiveFailures: too many failures came without a success between.
	ConsecutiveFailures
	// TrialFailed: a request let through while half-open failed.
	TrialFailed
)

// String returns the name used on the admin API.
func (c Cause) String() string {
	switch c {
	case None:
		return "none"
	case FailurePercent:
		return "failure_percent"
	case ConsecutiveFailures:
		return "consecutive_failures"
	case TrialFailed:
		return "trial_failed"
	}
	return fmt.Sprintf("cause(%d)", uint8(c))
}

// Counts are results counted while closed.
type Counts struct {
	Successes, Failures uint64 // over the window
	Consecutive         uint32 // failures since the last success
}

// Snapshot is the evidence a breaker shows on the admin API. Times are on the
// scale of the times the breaker is passed.
type Snapshot struct {
	Name  string
	Mode  guard.Mode
	State State
	// Since is when State began; 0 for a breaker that never opened.
	Since time.Duration
	// Until is when an open breaker lets the first trial through; 0 otherwise.
	Until time.Duration
	// Counts are the present ones, all 0 unless closed.
	Counts Counts
	// Trials is how many requests on trial have no result yet.
	Trials int
	// Opened is how many times the breaker opened, after failed trials included.
	Opened uint64
	// Cause is why it last opened.
	Cause Cause
	// Tripped are the counts that it last opened on from closed.
	Tripped Counts
	// Rejected is how many requests were refused.
	Rejected uint64
	// WouldHaveRejected is how many requests passed in observe mode that
	// enforce mode would have refused.
	WouldHaveRejected uint64
}

// Snapshot returns what is known about the breaker at present.
func (b *Breaker) Snapshot(now time.Duration) Snapshot {
	b.mu.Lock()
	b.look(now)
	ph := b.phase.Load()
	until := b.until
	s := Snapshot{
		Name:              b.name,
		Mode:              b.cfg.Mode,
		State:             ph.state,
		Since:             b.since,
		Trials:            len(b.trials),
		Opened:            b.opened,
		Cause:             b.cause,
		Tripped:           b.tripped,
		Rejected:          b.rejected.Load(),
		WouldHaveRejected: b.wouldHave.Load(),
	}
	b.unlockAndTell()
	switch ph.state {
	case Open:
		s.Until = until
	case Closed:
		s.Counts.Successes, s.Counts.Failures = ph.window.counts(now)
		s.Counts.Consecutive = ph.consecutive.Load()
	}
	return s
}
