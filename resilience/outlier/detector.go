package outlier

import (
	"sync"
	"sync/atomic"
	"time"
)

// Detector judges the endpoints of one cluster. Every method may be called
// from any goroutine. All times are since one arbitrary moment; they should
// not run backwards.
type Detector struct {
	settings atomic.Pointer[settings]

	ejections  [causeCount]atomic.Uint64
	wouldEject [causeCount]atomic.Uint64
	capped     atomic.Uint64
	out        atomic.Int64

	mu         sync.Mutex // held by Sweep, Release and SetConfig
	candidates []candidate
	rates      []rate
	swept      time.Duration // now of the last Sweep
}

// New returns a Detector. It does not validate cfg; values that
// Config.Validate refuses are brought into range.
func New(cfg Config) *Detector {
	d := &Detector{}
	d.settings.Store(compile(cfg, 0))
	return d
}

// SetConfig changes the policy from the next Observe and Sweep on. States,
// levels and counts in a row stay; a changed Window starts its counts anew.
func (d *Detector) SetConfig(cfg Config) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.settings.Load()
	s := compile(cfg, old.gen)
	if s.tick != old.tick {
		s.gen++
	}
	d.settings.Store(s)
}

// Config returns the policy in force.
func (d *Detector) Config() Config { return d.settings.Load().Config }

// Observe records how a request to e ended; status is the endpoint's HTTP
// status, or 0. It reports whether e crossed a threshold or its probe was
// decided, so that Sweep should run now instead of at its next turn. It never
// locks, and allocates for the first result of e only.
//
// On probation, the first result observed after TryProbe decides, whichever
// request it belongs to.
func (d *Detector) Observe(e *Endpoint, now time.Duration, res Result, status uint16) (event bool) {
	past := e.remember()
	past.recent.add(now, res, status)
	switch e.State() {
	case Ejected: // the late result of a request sent before
		return false
	case Probation:
		return e.settle(res)
	}
	s := d.settings.Load()
	switch res {
	case Success:
		zero(&e.consecutive)
		zero(&e.consecutiveLocal)
		past.window.add(s, now, false)
		return false
	case Failure, LocalFailure:
		past.window.add(s, now, true)
	default:
		return false
	}

	if res == LocalFailure && s.SplitOrigins {
		increment(&e.consecutiveLocal)
	} else {
		increment(&e.consecutive)
		if s.SplitOrigins {
			zero(&e.consecutiveLocal) // an answer, even a bad one, came over a working connection
		}
	}
	if e.quiet.Load() || e.alarm.Load() {
		return false
	}
	if cause, _ := e.judge(s, now); cause == NoCause {
		return false
	}
	return e.alarm.CompareAndSwap(false, true)
}

// judge returns the rule that e breaks by itself, if any, and the share of
// failures in its window when that is the rule.
func (e *Endpoint) judge(s *settings, now time.Duration) (Cause, float64) {
	if s.ConsecutiveFailures > 0 && e.consecutive.Load() >= s.ConsecutiveFailures {
		return ConsecutiveFailures, 1
	}
	if s.SplitOrigins && s.ConsecutiveLocalFailures > 0 && e.consecutiveLocal.Load() >= s.ConsecutiveLocalFailures {
		return ConsecutiveLocalFailures, 1
	}
	if past := e.past.Load(); past != nil && s.FailurePercent > 0 && past.window.anyFailed(s, now) {
		total, failed := past.window.sum(s, now)
		if total >= uint64(s.MinimumRequests) && float64(failed)*100 >= s.FailurePercent*float64(total) {
			return FailurePercent, float64(failed) / float64(total)
		}
	}
	return NoCause, 0
}

// zero avoids the write, and with it the cache miss of others, when it can.
func zero(c *atomic.Uint32) {
	if c.Load() != 0 {
		c.Store(0)
	}
}

// increment stops far enough below the limit for any number of concurrent callers.
func increment(c *atomic.Uint32) {
	if c.Load() < 1<<31 {
		c.Add(1)
	}
}

// Release takes e back at once, forgets its ejections' effect on the next
// one, and reports whether it was out. Its evidence dates the change to the
// last Sweep. Nothing keeps it from being ejected again.
func (d *Detector) Release(e *Endpoint) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.State() != Healthy
	if out {
		e.enter(Healthy, Released, d.swept)
		d.out.Add(-1)
	}
	if e.shadow {
		e.endShadow(d.swept)
	}
	e.level = 0
	return out
}

// Out returns how many of the endpoints given to the last Sweep are ejected
// or on probation.
func (d *Detector) Out() int { return int(max(d.out.Load(), 0)) }

// Ejections returns how many times endpoints were ejected for cause.
func (d *Detector) Ejections(cause Cause) uint64 { return count(&d.ejections, cause) }

// WouldEject returns how many times, in observe mode, endpoints would have
// been ejected for cause.
func (d *Detector) WouldEject(cause Cause) uint64 { return count(&d.wouldEject, cause) }

// CapReached returns how many times an endpoint that should have been ejected
// was not, because of MaxEjectedPercent or KeepEndpoints.
func (d *Detector) CapReached() uint64 { return d.capped.Load() }

func count(counts *[causeCount]atomic.Uint64, cause Cause) uint64 {
	if cause >= causeCount {
		return 0
	}
	return counts[cause].Load()
}
