package outlier

import (
	"sync/atomic"
	"time"
)

// recentSize is how many outcomes an endpoint remembers.
const recentSize = 20

// recent is a ring of the last outcomes, each in one word: valid (1 bit),
// result (3), status (16), milliseconds since the epoch of now (44).
// Writers never wait; a reader may miss an outcome that is being written.
type recent struct {
	next  atomic.Uint64
	words [recentSize]atomic.Uint64
}

const (
	recentValid = 1 << 63
	millisBits  = 44
	millisMask  = 1<<millisBits - 1
)

func (r *recent) add(now time.Duration, res Result, status uint16) {
	millis := uint64(max(now, 0)/time.Millisecond) & millisMask
	i := (r.next.Add(1) - 1) % recentSize
	r.words[i].Store(recentValid | uint64(res&7)<<60 | uint64(status)<<millisBits | millis)
}

// list returns the outcomes, the newest first.
func (r *recent) list(now time.Duration) []Outcome {
	out := make([]Outcome, 0, recentSize)
	next := r.next.Load()
	for k := uint64(1); k <= min(next, recentSize); k++ {
		v := r.words[(next-k)%recentSize].Load()
		if v&recentValid == 0 {
			continue
		}
		at := time.Duration(v&millisMask) * time.Millisecond
		out = append(out, Outcome{
			Result: Result(v >> 60 & 7),
			Status: uint16(v >> millisBits),
			Age:    max(now.Truncate(time.Millisecond)-at, 0),
		})
	}
	return out
}

// Outcome is one remembered result.
type Outcome struct {
	Result Result
	Status uint16        // as passed to Observe; 0 when there was none
	Age    time.Duration // in whole milliseconds
}

// Evidence is what is known about an endpoint, for people.
type Evidence struct {
	State  State
	Cause  Cause         // of the last change of State or would-be ejection; NoCause if there was none
	Since  time.Duration // when State began; 0 if it never changed
	Until  time.Duration // end of the ejection, or of the would-be ejection in observe mode; else 0
	Shadow bool          // in observe mode, would be ejected now

	Ejections  uint64 // how many times it has been ejected
	Level      uint32 // how many ejections lengthen the next one; falls with healthy time
	WouldEject uint64 // how many times it would have been ejected in observe mode
	Capped     bool   // should be ejected, but too many others are out

	Probing bool // on probation, the one request is under way

	Consecutive      uint32 // failures in a row, local ones only without SplitOrigins
	ConsecutiveLocal uint32 // local failures in a row, with SplitOrigins

	// Requests and Failures are the counts in the window, known from the
	// first Sweep on. Ejection and readmission start them again from 0.
	Requests, Failures uint64

	Recent []Outcome // the last 20, the newest first; kept through ejections
}

// Evidence returns what is known about e. It allocates; it is for the admin
// API, not for the path of requests.
func (e *Endpoint) Evidence(now time.Duration) Evidence {
	e.mu.Lock()
	v := Evidence{
		State:      e.State(),
		Cause:      e.cause,
		Since:      e.since,
		Until:      e.until,
		Shadow:     e.shadow,
		Ejections:  e.ejections,
		Level:      e.level,
		WouldEject: e.wouldEject,
		Capped:     e.capped,
	}
	s := e.swept
	e.mu.Unlock()

	v.Probing = v.State == Probation && e.probe.Load()&probeMask != probeFree
	v.Consecutive, v.ConsecutiveLocal = e.consecutive.Load(), e.consecutiveLocal.Load()
	past := e.past.Load()
	if past == nil {
		v.Recent = []Outcome{}
		return v
	}
	if s != nil {
		v.Requests, v.Failures = past.window.sum(s, now)
	}
	v.Recent = past.recent.list(now)
	return v
}
