package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// Answer is what a guard says to an exchange.
type Answer uint8

// The answers.
const (
	// Pass lets the exchange go on.
	Pass Answer = iota
	// Refuse ends it.
	Refuse
	// Wait lets it rest until the guard calls Client.Resume for it, or its
	// deadline comes.
	Wait
)

// Guard stands before the attempts of the exchanges of a client, as limits,
// queues and admission do. A machine becomes one by a few lines that call it.
// Guards are asked in the order in which they were given to the client.
type Guard interface {
	// Enter decides about x. With Refuse, reason is what x ends with. note is
	// the guard's own word about x, 0 at first and kept until Leave.
	Enter(now time.Duration, x *Exchange, note *uint64) (Answer, outcome.Reason)
	// Leave is told that x, which the guard let pass or which still waits there
	// (waiting), has ended for that reason. It is not told of one that it refused.
	Leave(now time.Duration, x *Exchange, note *uint64, waiting bool, r outcome.Reason)
}

// TryGuard stands before every single attempt, as a breaker does.
type TryGuard interface {
	// Begin decides about an attempt of x: OK lets it pass, with another reason x
	// ends. note is the guard's own word about the attempt, kept until End.
	Begin(now time.Duration, x *Exchange, note *uint64) outcome.Reason
	// End is told how an attempt that was let pass ended, after how long. One
	// that was given up for another has the reason DownstreamGone.
	End(now time.Duration, x *Exchange, note *uint64, took time.Duration, r outcome.Reason)
}

// Hedger says when an attempt is started beside one that is still waited for.
type Hedger interface {
	// After is how long after the beginning of an attempt of x, now, another one
	// is considered; ok is false when there is to be none.
	After(now time.Duration, x *Exchange) (wait time.Duration, ok bool)
	// May is asked when that time has come and the attempt is still waited for.
	May(now time.Duration, x *Exchange) bool
	// Observe is told how the first attempt of an exchange ended, after how long.
	Observe(now, took time.Duration, r outcome.Reason)
}

// maxGuards bounds the guards of a client: an exchange has a note for each.
const maxGuards = 8
