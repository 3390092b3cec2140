package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// Request is an exchange that a caller asks of a client.
type Request struct {
	// ID is the caller's own; the world sees it too.
	ID uint64
	// Key is the hash of what the request is known by, with Keyed (see
	// balance.KeyOf).
	Key   uint64
	Keyed bool
	// Deadline is when the caller gives up, beside the policy's timeout; 0 never.
	Deadline time.Duration
	// Arrived is when the exchange began where that was earlier than its first
	// attempt may; 0 for the time of Offer.
	Arrived time.Duration
	// Override is what its route changes in the policy; nil nothing.
	Override *Override
	// Idempotent says that the method is, and Replayable that the body can be
	// sent again: what retries ask.
	Idempotent, Replayable bool
	// CallerRetries says that a proxy before this one repeats the request.
	CallerRetries bool
	// Caller is whose request it is, for queues in which callers take turns.
	Caller uint64
}

// Attempt is one try of an exchange against one endpoint, as a world sees it.
type Attempt struct {
	// Ref names the attempt to Client.Answer.
	Ref Ref
	// Request is the exchange's. It must not be kept.
	Request *Request
	// Endpoint is the number of the endpoint in Client.SetEndpoints.
	Endpoint int
	// Number counts the attempts of the exchange from 1.
	Number int
	// Deadline is when the client gives the attempt up, and Overall when it gives
	// the exchange up, which is what it tells the endpoint; 0 never.
	Deadline, Overall time.Duration
	// Note is the world's own word about the attempt, kept to its end.
	Note *uint64
	// Repeated says that this client, or one before it, repeats the request.
	Repeated bool
	// Hedge says that it runs beside an earlier attempt.
	Hedge bool
}

// Fate is how an attempt ends if the client waits for it.
type Fate struct {
	// Latency is the time from its beginning; a fate given to Client.Answer has
	// no use for it.
	Latency time.Duration
	// Head is the time from its beginning to the head of the answer, after which no
	// per-try timeout ends it; 0: Latency.
	Head time.Duration
	// RTT is what the endpoint's latency is taken to be; 0: Latency.
	RTT time.Duration
	// Late says that the attempt ends after Latency although its time was over
	// before: timers are not exact.
	Late bool
	// Reason is OK or why the attempt failed.
	Reason outcome.Reason
	// Status is the endpoint's, 0 when it did not answer.
	Status uint16
	// Unsent says that the endpoint did not process the request.
	Unsent bool
	// RetryAfter is for how long the endpoint asks to be left alone; 0 not.
	RetryAfter time.Duration
}

// World answers attempts: with what was recorded, or by a model.
type World interface {
	// Begin is told of an attempt. With true it ends with the fate; with false
	// its end is not known yet, and Client.Answer will tell, unless Abandon
	// comes first.
	Begin(now time.Duration, a Attempt) (Fate, bool)
	// Abandon is told that the client waits no longer for an attempt, before the
	// end that its fate has or would have had: its time is over, another was
	// faster, the caller has gone.
	Abandon(now time.Duration, a Attempt)
}

// Caller is told how its exchanges ended.
type Caller interface {
	// Ended is called once for every exchange. r must not be kept.
	Ended(now time.Duration, r *Request, e End)
}

// End is how an exchange ended.
type End struct {
	Reason   outcome.Reason
	Status   uint16 // of the answer that was passed on, 0 when there was none
	Latency  time.Duration
	Attempts int
	// Endpoint is where the last attempt went, -1 when there was none.
	Endpoint int
}

// Ref names an attempt or an exchange as long as it lasts; later it names
// nothing. The zero Ref names nothing.
type Ref uint64

func refOf(index, generation uint32) Ref { return Ref(generation)<<32 | Ref(index) }

func (r Ref) parts() (index, generation uint32) { return uint32(r), uint32(r >> 32) }
