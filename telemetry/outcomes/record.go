// Package outcomes keeps a compact log of how exchanges and their attempts ended and of what changed meanwhile, and reads it.
//
// A file is a head and then blocks. A block is by itself: it begins with a mark
// that is found again after damage, has its length and a checksum, the process
// and the time it is from, and the texts that its records name. So a file that is
// cut off, or damaged anywhere, loses the blocks that are hit and no others.
package outcomes

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// MaxAttempts is how many attempts of an exchange are kept: the first and the last.
const MaxAttempts = 8

// Exchange is how one request, or one TCP connection, went. Times of the day are
// on the clock of the process that wrote it, from that process's start.
type Exchange struct {
	At       time.Duration // when it came
	Duration time.Duration
	Refused  time.Duration // from At: when this proxy refused another attempt, or the first; 0 it did not
	Waited   time.Duration // for its turn, under the limit on active requests
	Deadline time.Duration // from At, where the caller set one; 0 none
	Key      uint64        // by which it was balanced, with Keyed
	Cluster  string
	Route    string
	Method   string // of HTTP
	Active   uint32 // requests of the cluster in flight when it came, without it
	Status   uint16 // sent downstream; 0 none
	Reason   outcome.Reason
	GRPC     uint8 // the status of a gRPC call, with IsGRPC
	Marks    Marks
	Attempts int // made in all
}

// Marks are what is said of an exchange by yes or no.
type Marks uint8

// The marks of an exchange.
const (
	Inbound    Marks = 1 << iota // to the own service
	Idempotent                   // by its method
	IsGRPC
	IsTCP
	Keyed      // balanced by Key
	Replayable // its body could have been sent again
	WouldDeny  // a rule that is only observed would have refused it
)

// Attempt is one try against one endpoint.
type Attempt struct {
	Endpoint string
	Offset   time.Duration // from the exchange's At
	Duration time.Duration // to the end of the answer, or until it failed
	First    time.Duration // from the attempt's start to its first byte; 0 without an answer
	Sent     time.Duration // from the attempt's start to when the request was sent; 0 at once, or never
	Wait     time.Duration // that was decided after it, with Asked and Why Again
	Status   uint16
	Reason   outcome.Reason
	Why      retry.Why // the answer to whether another may follow, with Asked
	Marks    AttemptMarks
}

// AttemptMarks are what is said of an attempt by yes or no.
type AttemptMarks uint8

// The marks of an attempt.
const (
	Asked     AttemptMarks = 1 << iota // the policy was asked for another attempt after it
	Hedge                              // made while another one was still under way
	Panicking                          // the cluster had too few endpoints and used all
	Repeated                           // its kept connection was stale; it was sent again on a new one
)

// Kind is what an Event is about.
type Kind uint8

// The kinds of event.
const (
	// Began: a process begins to keep outcomes. Text is its version.
	Began Kind = iota
	// Configured: Text is the whole configuration in force, as of Version.
	Configured
	// Endpoints: List are all endpoints of the cluster from now on.
	Endpoints
	// Judged: outlier detection has decided about Endpoint.
	Judged
	// Breaker: the cluster's breaker went from From to To.
	Breaker
	// Panic: the cluster uses all its endpoints, as too few are available; with To 0 no longer.
	Panic
	// Ended: the process stops, in order.
	Ended

	kindCount
)

// String returns the word that is printed.
func (k Kind) String() string {
	if k < kindCount {
		return [...]string{"began", "configured", "endpoints", "judged", "breaker", "panic", "ended"}[k]
	}
	return "unknown"
}

// Event is a change of state.
type Event struct {
	Kind    Kind
	At      time.Duration
	Inbound bool
	Cluster string
	Version uint64 // of the plan
	Text    string
	List    []Endpoint

	Endpoint string        // of Judged
	Verdict  outlier.Kind  // of Judged
	Cause    outlier.Cause // of Judged
	Until    time.Duration // of Judged: the end of the ejection; 0 none
	Random   uint64        // of Judged: the random word that the sweep was given
	From, To breaker.State // of Breaker; To of Panic is 1 or 0
}

// Endpoint is an endpoint of a cluster at a moment.
type Endpoint struct {
	Address string
	Weight  uint32
	Usable  bool          // discovery and checks have nothing against it
	State   outlier.State // of its ejection
	Until   time.Duration // the end of an ejection; 0 none
}

// Answered reports whether the endpoint answered the attempt.
func (a *Attempt) Answered() bool { return a.Status != 0 }

// RTT is what the endpoint's latency was taken to be: from the moment at which the
// request was sent to the head of the answer, or until it failed.
func (a *Attempt) RTT() time.Duration {
	if a.Answered() {
		return a.First - a.Sent
	}
	return a.Duration - a.Sent
}
