package fault

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Cause is why a fault has stopped.
type Cause uint8

// The causes. The first ones are found by a Guard.
const (
	Runs    Cause = iota // it has not
	Errors               // too many exchanges fail that met no fault
	Success              // too few exchanges end well
	Slow                 // too many exchanges take too long
	Ejected              // endpoints were ejected
	Opened               // the breaker opened
	Panic                // so few endpoints are available that all are used
	TimeOver
	ByHand
	Removed // from the configuration, or no longer allowed
	Drained // the proxy stops

	Causes int = iota
)

// String returns the word of the admin API.
func (c Cause) String() string {
	return [...]string{"running", "errors", "success", "p99", "ejections", "breaker", "panic", "time_over", "by_hand", "removed", "drain"}[c]
}

// Words says it for people.
func (c Cause) Words() string {
	return [...]string{
		"it runs", "too many exchanges that met no fault failed", "too few exchanges ended well", "too many exchanges took too long",
		"endpoints were ejected", "the circuit breaker opened", "so few endpoints were available that all were used",
		"its time was over", "it was stopped by hand", "the configuration has it no more", "the proxy stopped",
	}[c]
}

// Sample is what a cluster has counted up to a moment.
type Sample struct {
	Exchanges uint64 // that ended
	Good      uint64 // of them, with outcome ok
	Failures  uint64 // of them, that failed and not by the caller's doing
	Met       uint64 // of Exchanges, that met a fault
	MetFailed uint64 // of Failures, the same
	Slow      uint64 // of Exchanges, that took longer than Stop.P99
	Ejections uint64
	Openings  uint64 // of the breaker
	Panicking bool   // at that moment
}

// steps is how many parts a window has: samples that come closer are left out.
const steps = 20

// Guard looks at samples of the cluster that a fault is made in, and says when
// it must stop. It is not safe for concurrent use.
type Guard struct {
	cfg   Stop
	marks [steps + 2]mark // a ring
	first int
	n     int
	would Cause // what observe mode has let pass
}

type mark struct {
	at time.Duration
	s  Sample
}

// NewGuard returns the guard of a fault that starts at now, where the cluster
// has counted s.
func NewGuard(cfg Stop, now time.Duration, s Sample) *Guard {
	g := &Guard{cfg: cfg, n: 1}
	s.Panicking = false
	g.marks[0] = mark{now, s}
	return g
}

// Would returns what would have stopped the fault, were its mode not observe.
func (g *Guard) Would() Cause { return g.would }

// Look takes a sample, no older than the one before, and returns why the fault
// must stop; Runs while it need not.
func (g *Guard) Look(now time.Duration, s Sample) Cause {
	for g.n > 1 && g.at(1).at+g.cfg.Window <= now {
		g.first = (g.first + 1) % len(g.marks)
		g.n--
	}
	c := g.judge(g.at(0).s, s)
	if last := g.at(g.n - 1); now-last.at >= g.cfg.Window/steps && g.n < len(g.marks) {
		g.n++
		*g.at(g.n - 1) = mark{now, s}
	}
	if c != Runs && g.cfg.Mode == guard.Observe {
		g.would = c
		return Runs
	}
	return c
}

func (g *Guard) at(i int) *mark { return &g.marks[(g.first+i)%len(g.marks)] }

// judge looks at what was counted between two samples.
func (g *Guard) judge(old, s Sample) Cause {
	c := &g.cfg
	all := less(s.Exchanges, old.Exchanges)
	clean := less(all, less(s.Met, old.Met))
	failed := less(less(s.Failures, old.Failures), less(s.MetFailed, old.MetFailed))
	switch {
	case c.ErrorsPercent > 0 && clean >= c.MinRequests && above(failed, clean, c.ErrorsPercent):
		return Errors
	case c.SuccessPercent > 0 && all >= c.MinRequests && above(less(all, less(s.Good, old.Good)), all, 100-c.SuccessPercent):
		return Success
	case c.P99 > 0 && all >= c.MinRequests && above(less(s.Slow, old.Slow), all, 1):
		return Slow
	case c.Ejections > 0 && less(s.Ejections, old.Ejections) >= uint64(c.Ejections):
		return Ejected
	case c.Breaker && s.Openings > old.Openings:
		return Opened
	case c.Panic && s.Panicking:
		return Panic
	}
	return Runs
}

// less is a - b, and 0 where the counters are not of one moment.
func less(a, b uint64) uint64 { return a - min(a, b) }

// above reports whether part is more than percent of whole.
func above(part, whole uint64, percent float64) bool {
	return float64(part)*100 > percent*float64(whole)
}
