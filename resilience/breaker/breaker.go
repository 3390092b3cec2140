package breaker

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// What gobreaker is told of a trial that did not succeed.
var (
	errFailed  = errors.New("breaker: the request failed")
	errIgnored = errors.New("breaker: the request does not count")
)

// alwaysOver is gobreaker's open time: the shortest that it takes. Since its
// clock may stand still for longer, it is asked up to mostAsked times in a row.
const (
	alwaysOver = 1
	mostAsked  = 1 << 12
)

// Breaker is the circuit breaker of one cluster. It is safe for concurrent use.
//
// While it is closed it counts results in a rolling window of its own, without
// a lock. When a threshold is crossed it drives a gobreaker two-step circuit
// breaker open; once OpenFor is over gobreaker decides who may pass, until it is
// closed again. All times are those that are passed: gobreaker, which reads the
// system's clock, has an open time that is always over, and is not asked before
// ours is.
//
// The change from open to half-open shows at the first Allow, State or Snapshot
// after OpenFor. When the time passed goes back, nothing lasts longer than it
// would from there on.
type Breaker struct {
	name     string
	cfg      Config
	onChange func(from, to State)

	phase     atomic.Pointer[phase]
	rejected  atomic.Uint64
	wouldHave atomic.Uint64

	mu      sync.Mutex // guards what follows and every call to machine
	machine *gobreaker.TwoStepCircuitBreaker[struct{}]
	now     time.Duration // of the call that is in machine
	trials  []trial       // let through while half-open, without a result
	numbers uint64        // given to trials so far
	since   time.Duration
	until   time.Duration
	opened  uint64
	cause   Cause
	tripped Counts
	changes []change // not yet told to onChange
	telling bool     // somebody is telling them
}

// phase is the time between two changes of state. Every phase has its own
// counts, so that a result can only reach those of the phase its request
// passed in.
type phase struct {
	state       State
	generation  uint64 // from 1 on
	window      window
	consecutive atomic.Uint32
}

// trial is one request let through while half-open.
type trial struct {
	number  uint64
	started time.Duration
	done    func(error)
}

type change struct{ from, to State }

// Ticket is the right to one request, to be handed back with Done. The zero
// Ticket belongs to a request that does not count.
type Ticket struct {
	generation uint64 // of the closed phase it was given in; 0 for none
	trial      uint64 // number of the trial; 0 for none
}

// Observed reports whether the request passed only because the breaker does not
// act.
func (t Ticket) Observed() bool { return t == Ticket{} }

// New returns a closed breaker. cfg must be valid. onChange, if not nil, is
// called after every change of state, in order, outside all locks, by whoever
// called the Breaker then; it may call the Breaker itself.
func New(name string, cfg Config, onChange func(from, to State)) *Breaker {
	b := &Breaker{name: name, cfg: cfg, onChange: onChange}
	b.phase.Store(b.newPhase(Closed, 1))
	b.machine = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        name,
		MaxRequests: cfg.HalfOpenRequests,
		Timeout:     alwaysOver,
		// While closed it hears of nothing but the failure that trips it.
		ReadyToTrip:   func(gobreaker.Counts) bool { return true },
		IsExcluded:    func(err error) bool { return errors.Is(err, errIgnored) },
		OnStateChange: func(_ string, from, to gobreaker.State) { b.changed(stateOf(from), stateOf(to)) },
	})
	return b
}

func (b *Breaker) newPhase(s State, generation uint64) *phase {
	return &phase{state: s, generation: generation, window: newWindow(b.cfg.Window)}
}

// Allow says whether a request of the exchange of d may pass now. If so, the
// caller owes one Done with the ticket. For an exchange that is only observed it
// always is true.
func (b *Breaker) Allow(now time.Duration, d guard.Draw) (Ticket, bool) {
	if ph := b.phase.Load(); ph.state == Closed {
		return Ticket{generation: ph.generation}, true
	}
	b.mu.Lock()
	b.now = now
	t, ok := b.ask(now)
	b.unlockAndTell()
	switch {
	case ok:
		return t, true
	case !b.cfg.Mode.Acts(d):
		b.wouldHave.Add(1)
		return Ticket{}, true
	default:
		b.rejected.Add(1)
		return Ticket{}, false
	}
}

// ask asks gobreaker. mu is held.
func (b *Breaker) ask(now time.Duration) (Ticket, bool) {
	if ph := b.phase.Load(); ph.state == Closed { // closed while waiting for mu
		return Ticket{generation: ph.generation}, true
	}
	if !b.look(now) {
		return Ticket{}, false
	}
	done, err := b.machine.Allow()
	if err != nil && b.dropOverdue(now) {
		done, err = b.machine.Allow()
	}
	if err != nil {
		return Ticket{}, false
	}
	b.numbers++
	b.trials = append(b.trials, trial{number: b.numbers, started: now, done: done})
	return Ticket{trial: b.numbers}, true
}

// look turns an open breaker half-open when it is time, and reports whether
// gobreaker is to be asked. mu is held.
func (b *Breaker) look(now time.Duration) bool {
	for i := range b.trials {
		b.trials[i].started = min(b.trials[i].started, now)
	}
	if b.phase.Load().state != Open {
		return true
	}
	if end := b.end(now); b.until > end { // the clock went back
		b.since, b.until = now, end
	}
	if now < b.until {
		return false
	}
	b.now = now
	for range mostAsked {
		if b.machine.State() != gobreaker.StateOpen {
			return true
		}
	}
	return false
}

// end is when a breaker that opens now lets the first trial through.
func (b *Breaker) end(now time.Duration) time.Duration {
	if now > math.MaxInt64-b.cfg.OpenFor {
		return math.MaxInt64
	}
	return now + b.cfg.OpenFor
}

// dropOverdue gives up trials that have had no result for OpenFor, so that one
// request that hangs does not keep the breaker half-open for as long. It says
// whether there were any. mu is held.
func (b *Breaker) dropOverdue(now time.Duration) bool {
	dropped := false
	kept := b.trials[:0]
	for _, t := range b.trials {
		if now-t.started >= b.cfg.OpenFor {
			t.done(errIgnored)
			dropped = true
		} else {
			kept = append(kept, t)
		}
	}
	clear(b.trials[len(kept):])
	b.trials = kept
	return dropped
}

// Done reports the result of a request that Allow let pass. It is to be called
// once a ticket. A result counts only in the phase its ticket is from, so not
// after a change of state, nor for a trial that was replaced because its
// result did not come within OpenFor.
func (b *Breaker) Done(t Ticket, now time.Duration, res Result) {
	if t.trial != 0 {
		b.doneTrial(t.trial, now, res)
		return
	}
	ph := b.phase.Load()
	if res == Ignored || ph.generation != t.generation {
		return
	}
	if res == Success {
		ph.window.add(now, false)
		if ph.consecutive.Load() != 0 {
			ph.consecutive.Store(0)
		}
		return
	}
	ph.window.add(now, true)
	n := ph.consecutive.Load()
	if n < math.MaxUint32 {
		n = ph.consecutive.Add(1)
	}
	b.judge(ph, now, n)
}

// judge opens the breaker when the failure just counted crosses a threshold.
func (b *Breaker) judge(ph *phase, now time.Duration, consecutive uint32) {
	successes, failures := ph.window.counts(now)
	var cause Cause
	switch total := successes + failures; {
	case b.cfg.ConsecutiveFailures > 0 && consecutive >= b.cfg.ConsecutiveFailures:
		cause = ConsecutiveFailures
	case b.cfg.FailurePercent > 0 && total >= uint64(b.cfg.MinimumRequests) &&
		float64(failures)*100 >= b.cfg.FailurePercent*float64(total):
		cause = FailurePercent
	default:
		return
	}
	b.mu.Lock()
	if b.phase.Load() == ph { // nobody was faster
		b.now = now
		b.cause = cause
		b.tripped = Counts{Successes: successes, Failures: failures, Consecutive: consecutive}
		if done, err := b.machine.Allow(); err == nil {
			done(errFailed)
		}
	}
	b.unlockAndTell()
}

func (b *Breaker) doneTrial(number uint64, now time.Duration, res Result) {
	b.mu.Lock()
	b.now = now
	for i, t := range b.trials {
		if t.number != number {
			continue
		}
		b.trials = append(b.trials[:i], b.trials[i+1:]...)
		switch res {
		case Success:
			t.done(nil)
		case Failure:
			t.done(errFailed)
		default:
			t.done(errIgnored)
		}
		break
	}
	b.unlockAndTell()
}

// changed is gobreaker's hook. It runs under gobreaker's lock and under mu.
func (b *Breaker) changed(from, to State) {
	switch to {
	case Open:
		b.since, b.until = b.now, b.end(b.now)
		b.opened++
		if from == HalfOpen {
			b.cause = TrialFailed
		}
	case HalfOpen:
		b.since = b.until // since then trials were possible
	default:
		b.since = b.now
	}
	b.trials = nil
	b.phase.Store(b.newPhase(to, b.phase.Load().generation+1))
	if b.onChange != nil {
		b.changes = append(b.changes, change{from, to})
	}
}

// unlockAndTell unlocks mu and tells onChange what has changed. One caller at
// a time does the telling, for the others too, so that the order holds.
func (b *Breaker) unlockAndTell() {
	if b.telling {
		b.mu.Unlock()
		return
	}
	b.telling = true
	for len(b.changes) > 0 {
		c := b.changes[0]
		b.changes = b.changes[1:]
		b.mu.Unlock()
		b.onChange(c.from, c.to)
		b.mu.Lock()
	}
	b.changes = nil
	b.telling = false
	b.mu.Unlock()
}

// State returns the present state.
func (b *Breaker) State(now time.Duration) State {
	if s := b.phase.Load().state; s == Closed {
		return s
	}
	b.mu.Lock()
	b.look(now)
	s := b.phase.Load().state
	b.unlockAndTell()
	return s
}
