package outlier

import "time"

// Result is how one request to an endpoint ended, as far as the endpoint is
// to blame.
type Result uint8

// The results.
const (
	// Success: the endpoint did its part, whatever the status.
	Success Result = iota
	// Failure: the endpoint answered, with an error of its own (5xx).
	Failure
	// LocalFailure: this proxy saw it fail: connect, handshake, reset, timeout.
	LocalFailure
	// Ignored: says nothing about the endpoint, such as a cancelled request.
	Ignored
)

// String returns the word used in the admin API.
func (r Result) String() string {
	return word(r, "success", "failure", "local_failure", "ignored")
}

// MarshalText implements encoding.TextMarshaler.
func (r Result) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// State is where an endpoint stands.
type State uint8

// The states.
const (
	// Healthy: it takes its share of the traffic.
	Healthy State = iota
	// Ejected: it takes no traffic until its time is over.
	Ejected
	// Probation: it takes one request, whose result decides; see TryProbe.
	Probation
)

// String returns the word used in metrics and the admin API.
func (s State) String() string { return word(s, "healthy", "ejected", "probation") }

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Cause is the rule behind an event.
type Cause uint8

// The causes. The first five after NoCause eject, the others take back.
const (
	// NoCause: the endpoint has never been judged.
	NoCause Cause = iota
	// ConsecutiveFailures: as many failures in a row as configured.
	ConsecutiveFailures
	// ConsecutiveLocalFailures: the same for failures seen only by this proxy.
	ConsecutiveLocalFailures
	// FailurePercent: too large a share of failures in the window.
	FailurePercent
	// SuccessRate: a success rate far below that of the cluster.
	SuccessRate
	// ProbeFailed: the one request of the probation failed.
	ProbeFailed
	// ProbePassed: the one request of the probation succeeded.
	ProbePassed
	// TooFewLeft: taken back early, because fewer than KeepEndpoints were left.
	TooFewLeft
	// ObserveMode: taken back because the mode was changed to observe.
	ObserveMode
	// Released: taken back by Release.
	Released

	causeCount
)

// String returns the word used in metrics and the admin API.
func (c Cause) String() string {
	return word(c, "none", "consecutive_failures", "consecutive_local_failures", "failure_percent", "success_rate",
		"probe_failed", "probe_passed", "too_few_left", "observe_mode", "released")
}

// MarshalText implements encoding.TextMarshaler.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// EjectionCauses returns the causes that Ejections and WouldEject count, in
// the order of their values.
func EjectionCauses() []Cause {
	return []Cause{ConsecutiveFailures, ConsecutiveLocalFailures, FailurePercent, SuccessRate, ProbeFailed}
}

// Kind is what an Event reports.
type Kind uint8

// The kinds of event. KindEjected and KindProbation carry the prefix because
// the states have the same names.
const (
	// KindEjected: the endpoint takes no traffic until Until.
	KindEjected Kind = iota
	// KindProbation: the ejection is over; one request will decide.
	KindProbation
	// KindReadmitted: the endpoint takes its share again.
	KindReadmitted
	// KindWouldEject: in observe mode, the endpoint would have been ejected until Until.
	KindWouldEject
	// KindCapReached: the endpoint should be ejected, but too many are out already.
	// Reported once until it is ejected or recovers.
	KindCapReached
)

// String returns the word used in logs and the admin API.
func (k Kind) String() string {
	return word(k, "ejected", "probation", "readmitted", "would_eject", "cap_reached")
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Event is one decision of Sweep.
type Event struct {
	Endpoint *Endpoint
	Kind     Kind
	Cause    Cause
	At       time.Duration // the Sweep's now
	Until    time.Duration // end of the (would-be) ejection; 0 for other kinds
}

func word[T ~uint8](v T, words ...string) string {
	if int(v) < len(words) {
		return words[v]
	}
	return "unknown"
}
