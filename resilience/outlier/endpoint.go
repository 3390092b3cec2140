package outlier

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Endpoint is what a Detector remembers about one endpoint. Its zero value is
// a healthy endpoint without history, ready to use; it must not be copied
// after first use. It belongs to one Detector at a time.
type Endpoint struct {
	// Written by Observe without a lock.
	state            atomic.Uint32 // State; written only under mu
	consecutive      atomic.Uint32
	consecutiveLocal atomic.Uint32
	probe            atomic.Uint32        // sequence number <<2 | probeFree...
	alarm            atomic.Bool          // Observe has asked for a Sweep
	quiet            atomic.Bool          // Sweep knows already; Observe need not ask
	past             atomic.Pointer[past] // nil before the first result

	// Written under mu and by the Detector only, which holds its own lock too.
	mu         sync.Mutex
	cause      Cause
	capped     bool
	shadow     bool // observe mode: would be out now
	breaks     bool // broke a rule at the last Sweep
	level      uint32
	since      time.Duration
	until      time.Duration // Ejected: its end. Healthy with shadow: the end of the would-be ejection
	healthy    time.Duration // from when on healthy time lowers level
	ejections  uint64
	wouldEject uint64
	probeSeen  time.Duration // when Sweep first saw the probe probeSeq under way
	probeSeq   uint32
	swept      *settings
}

// State returns where e stands.
func (e *Endpoint) State() State { return State(e.state.Load()) }

// The low bits of Endpoint.probe.
const (
	probeFree uint32 = iota // no probe under way
	probeOut                // one caller has it
	probePassed
	probeFailed
	probeMask = 3
)

// TryProbe reports whether the caller may send the one request of e's
// probation. It returns true to one caller; the next gets its chance when the
// result of that request was Ignored or has not been observed for a window.
// Outside Probation it returns false.
func (e *Endpoint) TryProbe() bool {
	if e.State() != Probation {
		return false
	}
	v := e.probe.Load()
	// The sequence number tells this probe from an earlier one for Sweep.
	return v&probeMask == probeFree && e.probe.CompareAndSwap(v, v+4|probeOut)
}

// settle takes the result of the probe under way, if there is one, and
// reports whether it decides the probation.
func (e *Endpoint) settle(res Result) bool {
	v := e.probe.Load()
	if v&probeMask != probeOut {
		return false
	}
	next := v &^ probeMask
	switch res {
	case Success:
		next |= probePassed
	case Failure, LocalFailure:
		next |= probeFailed
	default:
		next |= probeFree
	}
	return e.probe.CompareAndSwap(v, next) && next&probeMask != probeFree
}

// The methods below need mu held.

// enter changes the state and clears what was counted in the one before.
func (e *Endpoint) enter(to State, cause Cause, now time.Duration) {
	e.cause, e.since = cause, now
	e.capped, e.shadow = false, false
	e.quiet.Store(false)
	if to == Healthy {
		e.healthy = now
	}
	e.clear()
	e.probe.Store(e.probe.Load() &^ probeMask)
	e.state.Store(uint32(to))
	if to != Ejected {
		e.until = 0
	}
}

// endShadow ends what observe mode took for an ejection.
func (e *Endpoint) endShadow(now time.Duration) {
	e.shadow, e.until, e.healthy = false, 0, now
	e.quiet.Store(false)
}

func (e *Endpoint) clear() {
	e.consecutive.Store(0)
	e.consecutiveLocal.Store(0)
	e.past.Load().reset()
}

// sentence returns how long the next ejection lasts. It raises the level as
// long as that lengthens ejections, so that no more healthy time than needed
// brings it down again.
func (e *Endpoint) sentence(s *settings, r uint64) time.Duration {
	if e.level == 0 || doubled(s, e.level-1) < s.MaxEjection {
		e.level++
	}
	d := doubled(s, e.level-1)
	return later(d, portion(s.Jitter*float64(d), r))
}

// doubled returns BaseEjection doubled so many times, at most MaxEjection.
func doubled(s *settings, times uint32) time.Duration {
	// Compared by shifting down, which cannot overflow.
	if s.BaseEjection > s.MaxEjection>>min(times, 63) {
		return s.MaxEjection
	}
	return s.BaseEjection << times
}

// portion returns a uniformly random duration in [0, of].
func portion(of float64, r uint64) time.Duration {
	const random53 = 1 << 53
	d := of * (float64(r>>11) / (random53 - 1))
	if d >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(d)
}

// later adds without overflow; d is not negative.
func later(t, d time.Duration) time.Duration {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}

// decay lowers the level by one for every window of healthy time.
func (e *Endpoint) decay(s *settings, now time.Duration) {
	if e.level == 0 {
		return
	}
	if now < e.healthy {
		return
	}
	steps := (now - e.healthy) / s.Window
	e.level -= uint32(min(steps, time.Duration(e.level)))
	e.healthy += steps * s.Window
}
