package ratelimit

import "time"

// Answer is what one who counts for several proxies says of a request.
type Answer struct {
	Decision
	// Failure is why there is no decision; NoFailure where there is one.
	Failure Failure
	// Err says more of the failure, for people; nil without one.
	Err error
	// Known says that it was known without a question.
	Known bool
	// Partial says that only OK was told: Remaining and Wait are not known.
	Partial bool
	// Policy is the quota as told, where that is not the limit's own: so many
	// requests in such a time. Without Requests it was not told.
	Policy Config
	// Fields are lines for the head of the answer to the caller, each after the
	// end of the line before. They are sound.
	Fields []byte
}

// Failure is why there is no decision.
type Failure uint8

// The failures.
const (
	NoFailure Failure = iota
	// Timeout: no answer came in time.
	Timeout
	// Unreachable: no connection could be made, or it was lost.
	Unreachable
	// Refused: the answer is an error.
	Refused
	// Malformed: the answer makes no sense.
	Malformed
	// Open: it failed so often of late that it is not asked for a while.
	Open
	// Busy: as many questions are under way as may be.
	Busy

	failureCount
)

// Failures is how many there are, NoFailure among them.
const Failures = int(failureCount)

var failureNames = [Failures]string{"none", "timeout", "unreachable", "refused", "malformed", "open", "busy"}

// String returns the word for metrics and logs.
func (f Failure) String() string { return failureNames[min(int(f), Failures-1)] }

// Fail returns the answer that is none.
func Fail(f Failure, err error) Answer { return Answer{Failure: f, Err: err} }

// MaxWait bounds what an answer says of a time to wait.
const MaxWait = 24 * time.Hour
