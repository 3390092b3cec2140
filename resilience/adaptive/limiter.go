package adaptive

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// What the limit is moved by. The gradient is that of Netflix's concurrency
// limits; the baseline is found otherwise, see dive.
const (
	first    = 10               // the limit at the start
	samples  = 20               // that a window needs
	longest  = 10 * time.Second // of a window that does not get them
	smooth   = 0.2              // how much of the way to a new limit is gone at once
	steepest = 0.5              // what is left of the limit at least
	swift    = 1.5              // growth of the limit until it meets its first resistance
	dipTo    = 0.75             // of what the baseline says is in work
	deepest  = 0.5              // of the limit
	soon     = 2 * time.Second  // between two dips at first and after a change
	changed  = 0.2              // of the baseline
)

// Limiter is the limit of one destination. It is safe for concurrent use.
type Limiter struct {
	limit atomic.Int64 // in force
	mode  atomic.Uint32

	mu     sync.Mutex // below
	cfg    Config
	window histogram
	opened time.Duration // when the window was
	peak   int64         // most that were active in it

	want    float64 // the limit apart from a dip
	base    float64 // ns; 0 before it is known
	latency float64 // of the last window, ns
	least   float64 // of the windows since the baseline was learnt, or since a dip began
	rising  bool    // the limit has met no resistance yet
	spacing time.Duration
	next    time.Duration // when the next dip is due
	early   time.Duration // before which none begins, however much seems wrong
	dip     dip
	dips    uint64
}

// dip is a time in which the limit is lowered, to learn the baseline.
type dip struct {
	on      bool
	began   time.Duration
	windows int
}

// New returns a limiter that has seen nothing.
func New(cfg Config) *Limiter {
	l := &Limiter{want: first, rising: true, least: math.Inf(1), spacing: min(soon, cfg.Relearn)}
	l.SetConfig(cfg)
	return l
}

// SetConfig changes how the limit is found; what is known stays.
func (l *Limiter) SetConfig(cfg Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg = cfg
	l.spacing = min(l.spacing, cfg.Relearn)
	l.mode.Store(uint32(cfg.Mode))
	l.set(l.want)
}

// Limit returns how many may be active.
func (l *Limiter) Limit() int64 { return l.limit.Load() }

// Mode returns whether the limit is enforced.
func (l *Limiter) Mode() guard.Mode { return guard.Mode(l.mode.Load()) }

// Snapshot is what a limiter knows.
type Snapshot struct {
	Mode     guard.Mode
	Limit    int64
	Baseline time.Duration // 0: not known yet
	Latency  time.Duration // the percentile of the last interval
	Dips     uint64        // how often the limit was lowered to learn the baseline
	Learning bool          // it is at present
}

// Snapshot returns what is known.
func (l *Limiter) Snapshot() Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Snapshot{
		Mode: l.cfg.Mode, Limit: l.limit.Load(), Baseline: time.Duration(l.base), Latency: time.Duration(l.latency),
		Dips: l.dips, Learning: l.dip.on,
	}
}

// Observe tells of one that has ended well at now and took so long, when so many
// were active. It reports whether the limit has changed. Those that failed
// quickly say nothing about how long work takes: leave them out.
func (l *Limiter) Observe(now, took time.Duration, active int64) bool {
	if took <= 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now < l.opened || now-l.opened > longest { // there was no traffic, or the clock has jumped
		l.open(now)
		if l.next > now+l.spacing || now < l.early-l.spacing {
			l.next, l.early = now+l.spacing, now+l.spacing/4
		}
		l.dip.began = min(l.dip.began, now)
	}
	l.window.add(took)
	l.peak = max(l.peak, active)
	if l.window.n < samples || now-l.opened < l.cfg.Interval {
		return false
	}
	before := l.limit.Load()
	q := l.window.quantile(l.cfg.Percentile / 100)
	peak := float64(l.peak)
	l.open(now)
	l.judge(now, q, peak)
	return l.limit.Load() != before
}

func (l *Limiter) open(now time.Duration) {
	l.window.reset()
	l.opened, l.peak = now, 0
}

// judge takes the result of a window.
func (l *Limiter) judge(now time.Duration, q, peak float64) {
	l.latency = q
	if l.base == 0 {
		l.base, l.next, l.early = q, now+l.spacing, now+l.spacing/4
	}
	if l.dip.on {
		l.inDip(now, q)
		return
	}
	free := peak <= l.want/2
	switch {
	case free: // a lull: nobody waits for another
		l.base += 0.3 * (q - l.base)
		l.next = now + l.spacing
	case q < 0.9*l.base:
		l.base += 0.2 * (q - l.base)
	}
	g := min(max((1+l.cfg.TolerancePercent/100)*l.base/q, steepest), 1)
	allowance := l.cfg.Allowance
	if allowance == 0 {
		allowance = math.Sqrt(l.want)
	}
	to := l.want*g + allowance
	switch {
	case g < 1:
		l.rising = false
	case free:
		to = min(to, l.want) // what is not used is not known to be bearable
	}
	if l.rising && !free {
		l.set(l.want * swift)
	} else {
		l.set(l.want + smooth*(to-l.want))
	}
	// Times that stay long although the limit falls are no matter of the limit.
	l.least = min(l.least, q)
	switch {
	case free || now < l.next && (g >= 0.7 || now < l.early):
	case l.cfg.Mode != guard.Enforce:
		l.learn(now, min(l.least, 1.1*l.base))
	default:
		l.dive(now, q)
	}
}

// set makes x the limit, as far as it may be.
func (l *Limiter) set(x float64) {
	l.want = min(max(x, float64(l.cfg.MinLimit)), float64(l.cfg.MaxLimit))
	if !l.dip.on {
		l.limit.Store(int64(l.want))
	}
}

// dive begins a dip: fewer are let in than the destination works on at a time,
// which by Little's law is the limit times the baseline's part of what they take
// now. What they take once it has finished those that wait is the baseline.
func (l *Limiter) dive(now time.Duration, q float64) {
	l.dip = dip{on: true, began: now}
	l.least = math.Inf(1)
	l.dips++
	to := max(dipTo*l.want*min(l.base/q, 1), deepest*l.want, float64(l.cfg.MinLimit), 1)
	l.limit.Store(int64(to))
}

// inDip takes the result of a window during a dip.
func (l *Limiter) inDip(now time.Duration, q float64) {
	l.dip.windows++
	l.least = min(l.least, q)
	since, took := now-l.dip.began, time.Duration(q)
	if (l.dip.windows < 3 || since < 3*took) && since < soon+10*took {
		return
	}
	l.dip.on = false
	l.learn(now, min(l.least, 2*l.base)) // a rise is believed in steps
	l.set(l.want)
}

// learn makes base the baseline and sets when it is learnt next. Where the limit
// is not enforced for all nothing is lowered to see what times would be without
// others: the least that was seen counts, and rises slowly.
func (l *Limiter) learn(now time.Duration, base float64) {
	before := l.base
	l.base, l.least = base, math.Inf(1)
	if math.Abs(l.base-before) > changed*before {
		l.spacing = min(soon, l.cfg.Relearn)
	} else {
		l.spacing = min(2*l.spacing, l.cfg.Relearn)
	}
	l.next, l.early = now+l.spacing, now+l.spacing/4
}
