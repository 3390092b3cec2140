package health

import (
	"math"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Endpoint is what the checks of one endpoint have said. Start makes it ready.
// Its methods must not be called at the same time. All times are since one
// arbitrary moment; they should not run backwards.
type Endpoint struct {
	state   State
	due     time.Duration
	since   time.Duration
	at      time.Duration // of the last result
	run     uint32        // results in a row that speak against the state
	backoff uint32        // failures in a row of an unhealthy endpoint
	checks  uint64
	changes uint64
	last    Result
	cause   Result // of the last change
}

// Start forgets all that was known; the first check is due at a random moment
// within FastInterval. r is a fresh random word, here and below.
func (e *Endpoint) Start(cfg *Config, now time.Duration, r uint64) {
	*e = Endpoint{due: later(now, portion(cfg.FastInterval, r))}
}

// Restart begins to check in another way: the state stays until results change
// it, and the next check is due as after Start.
func (e *Endpoint) Restart(cfg *Config, now time.Duration, r uint64) {
	e.run, e.backoff = 0, 0
	e.due = later(now, portion(cfg.FastInterval, r))
}

// State returns where e stands.
func (e *Endpoint) State() State { return e.state }

// Due returns when the next check is due.
func (e *Endpoint) Due() time.Duration { return e.due }

// Fit reports whether the checks have nothing against traffic to e.
func (e *Endpoint) Fit(cfg *Config) bool {
	if cfg.Mode == guard.Observe {
		return true
	}
	return e.state == Healthy || e.state == Unknown && cfg.Initial == InitialHealthy
}

// Observe takes the result of a check that ended at now, decides when the next
// one is due and reports whether the state changed.
//
// The first result decides at once. After that it takes as many results in a
// row as the thresholds say, so that a single one never does; only the
// endpoint's own word that it is not serving is taken at once, as it is not an
// accident of the way there.
func (e *Endpoint) Observe(cfg *Config, now time.Duration, r uint64, res Result) (changed bool) {
	e.checks++
	e.at = now
	if res.Cause != Local {
		changed = e.judge(cfg, now, res)
	}
	e.last = res
	pause := e.pause(cfg)
	e.due = later(now, later(pause, portion(time.Duration(cfg.Jitter*float64(pause)), r)))
	return changed
}

func (e *Endpoint) judge(cfg *Config, now time.Duration, res Result) (changed bool) {
	pass := res.Cause == Passed
	if e.state == Unhealthy && !pass && e.backoff < math.MaxUint32 {
		e.backoff++
	}
	if pass == (e.state == Healthy) && e.state != Unknown {
		e.run = 0
		return false
	}
	e.run++
	need, to := uint32(1), Unhealthy
	if pass {
		to = Healthy
	}
	switch {
	case e.state == Unknown || res.Cause == NotServing:
	case pass:
		need = cfg.HealthyThreshold
	default:
		need = cfg.UnhealthyThreshold
	}
	if pass {
		e.backoff = 0
	}
	if e.run < need {
		return false
	}
	e.state, e.since, e.cause = to, now, res
	e.run, e.backoff = 0, 0
	e.changes++
	return true
}

// pause is the time to the next check, without jitter.
func (e *Endpoint) pause(cfg *Config) time.Duration {
	switch {
	case e.state == Healthy && e.run == 0:
		return cfg.Interval
	case e.state == Unhealthy && e.run == 0:
		// Compared by shifting down, which cannot overflow.
		if cfg.FastInterval > cfg.Interval>>min(e.backoff, 63) {
			return cfg.Interval
		}
		return cfg.FastInterval << e.backoff
	}
	return cfg.FastInterval
}

// Snapshot is what is known about an endpoint, for people.
type Snapshot struct {
	State   State
	Since   time.Duration // when State began; 0 while it is Unknown
	Cause   Result        // the result that made State what it is
	Last    Result        // the last result
	At      time.Duration // when that came; 0 for never
	Due     time.Duration // when the next check is due
	Against uint32        // results in a row that speak against State
	Checks  uint64        // results so far
	Changes uint64        // of State
}

// Snapshot returns what is known about e.
func (e *Endpoint) Snapshot() Snapshot {
	return Snapshot{
		State: e.state, Since: e.since, Cause: e.cause, Last: e.last, At: e.at, Due: e.due,
		Against: e.run, Checks: e.checks, Changes: e.changes,
	}
}

// portion returns a uniformly random duration in [0, of).
func portion(of time.Duration, r uint64) time.Duration {
	return time.Duration(float64(max(of, 0)) * (float64(r>>11) / (1 << 53)))
}

// later adds without overflow; d is not negative.
func later(t, d time.Duration) time.Duration {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}
