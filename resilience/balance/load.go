package balance

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// penaltyHaste is how many times faster than latency a failure penalty is
	// forgotten. With the defaults an endpoint that answered in a millisecond
	// is left alone for some 0.9 s after a failure: long enough that a broken
	// one gets about one request a second, short enough that one stray error
	// does not starve it, and that outlier detection still gets its evidence.
	penaltyHaste = 100
	// leastEWMA in nanoseconds is the lowest estimate there is. The decay of an
	// idle endpoint's latency ends here, so that requests in flight still tell
	// endpoints apart after a long silence.
	leastEWMA = float64(time.Microsecond)
	// readTries and writeTries bound the work under contention.
	readTries  = 4
	writeTries = 32
)

// Load is what is known about one endpoint's load: requests in flight, its
// peak-EWMA latency and its last failure. It outlives pickers, is safe for
// concurrent use, and its zero value is ready, with the durations of Default.
//
// It fills a cache line and keeps the next one free. Whoever has one among other
// things puts it first, so that nothing stands before it on its own line.
type Load struct {
	inflight atomic.Int64
	// The estimate is the pair ewma, stamp, guarded by seq: odd while the two
	// are being stored, 0 while nothing has been measured.
	seq   atomic.Uint64
	ewma  atomic.Uint64 // bits of a float64, nanoseconds
	stamp atomic.Int64  // when ewma was true
	// failedAt is the time of the last failure plus one, 0 for none.
	failedAt atomic.Int64
	settings atomic.Pointer[settings] // nil means those of Default
	tally    atomic.Pointer[tally]    // nil before the first attempt that is counted for Roll
	watched  atomic.Bool
	withheld atomic.Uint32 // of its share, in parts of fullShare

	_ [64]byte
}

// tally is what Roll needs.
type tally struct {
	// Attempts that ended since the last Roll.
	ended, failed    atomic.Uint64
	took, tookFailed atomic.Int64
	rolled           measured // of whoever calls Roll
}

// settings are the durations of Config that a Load needs, in nanoseconds.
type settings struct {
	defaultRTT, decay, penalty float64

	mean  bool // the estimate follows latency up as slowly as down
	count bool // attempts are counted for Roll
}

func newSettings(cfg Config) settings {
	return settings{
		defaultRTT: float64(cfg.DefaultRTT),
		decay:      float64(cfg.Decay),
		penalty:    float64(cfg.FailurePenalty),
		mean:       cfg.Algorithm == LeastTime,
		count:      cfg.Zones.Prefer,
	}
}

// Init makes l go by cfg's Algorithm, DefaultRTT, Decay and FailurePenalty from now on.
// What was measured so far is kept, so it also serves for a reload.
func (l *Load) Init(cfg Config) {
	s := newSettings(cfg)
	l.settings.Store(&s)
}

func (l *Load) rules() settings {
	if s := l.settings.Load(); s != nil {
		return *s
	}
	return newSettings(Default())
}

// Begin counts one more attempt in flight.
func (l *Load) Begin(time.Duration) { l.inflight.Add(1) }

// End counts one attempt in flight less and learns from it. rtt is how long
// the attempt took; a negative one (as of a cancelled attempt) teaches nothing.
//
// A latency above the present estimate replaces it at once; one below it
// counts with the weight 1-e^(-dt/Decay), dt being the time since the last
// observation (Finagle's and linkerd's peak-EWMA). With LeastTime all count so.
//
// A failed attempt can raise the estimate but not lower it: to fail fast is
// not to be fast. On top of that the endpoint's latency is taken to be at
// least FailurePenalty x e^(-100 dt/Decay), dt being the time since the last
// failure.
func (l *Load) End(now, rtt time.Duration, failed bool) {
	l.inflight.Add(-1)
	if failed {
		l.fail(now)
	}
	if rtt >= 0 {
		s := l.rules()
		l.observe(s, now, float64(rtt), failed)
		if s.count || l.watched.Load() {
			l.count(rtt, failed)
		}
	}
}

// Cut counts one attempt in flight less that was given up after so long without
// an answer, through no fault of the endpoint's. As that is the least that the
// answer would have taken, it can raise the estimate but not lower it.
func (l *Load) Cut(now, soFar time.Duration) {
	l.inflight.Add(-1)
	if soFar >= 0 {
		l.observe(l.rules(), now, float64(soFar), true)
	}
}

// HoldOff takes the endpoint, which has asked for it, to be failing until it has
// passed: it has the full penalty until then.
func (l *Load) HoldOff(until time.Duration) { l.fail(until) }

// fail notes a failure at that time, unless a later one is known.
func (l *Load) fail(at time.Duration) {
	next := int64(max(at, 0)) + 1
	for range writeTries {
		old := l.failedAt.Load()
		if old >= next || l.failedAt.CompareAndSwap(old, next) {
			return
		}
	}
}

// observe is an optimistic update: compute from a consistent pair, then take
// the pair over unless another did so first. After writeTries losses in a row
// the observation is dropped: others of the same moment went in.
func (l *Load) observe(s settings, now time.Duration, rtt float64, failed bool) {
	for range writeTries {
		seq := l.seq.Load()
		if seq&1 != 0 {
			continue
		}
		next, stamp := rtt, int64(now)
		if seq == 0 {
			if failed && rtt < s.defaultRTT {
				return
			}
		} else {
			old := math.Float64frombits(l.ewma.Load())
			before := l.stamp.Load()
			stamp = max(stamp, before)
			if failed && rtt <= old {
				return
			}
			if s.mean || rtt <= old {
				w := decayed(float64(stamp-before) / s.decay)
				next = old*w + rtt*(1-w)
			}
		}
		if !l.seq.CompareAndSwap(seq, seq+1) {
			continue
		}
		l.ewma.Store(math.Float64bits(max(next, leastEWMA)))
		l.stamp.Store(stamp)
		l.seq.Store(seq + 2)
		return
	}
}

// decayed returns e^-x for x >= 0. Between two requests to a busy endpoint so
// little is forgotten that the series says it as exactly for a fraction of the work.
func decayed(x float64) float64 {
	if x < 1.0/1024 {
		return 1 - x*(1-x*(1.0/2-x*(1.0/6)))
	}
	return math.Exp(-x)
}

// Inflight returns the number of attempts that have begun and not ended.
func (l *Load) Inflight() int64 { return l.inflight.Load() }

// EWMA returns the latency that is to be expected of the endpoint: the
// peak-EWMA, which decays with e^(-dt/Decay) while nothing is observed, so
// that an endpoint once slow is tried again; DefaultRTT before the first
// observation; and at least what is left of
// the failure penalty. It is never below 1 µs.
func (l *Load) EWMA(now time.Duration) time.Duration {
	s := l.rules()
	latency, _ := l.latency(s, now)
	return time.Duration(max(latency, l.penalty(s, now)))
}

// latency returns the peak-EWMA in nanoseconds and whether it was measured.
func (l *Load) latency(s settings, now time.Duration) (ns float64, measured bool) {
	ns = s.defaultRTT
	for range readTries {
		seq := l.seq.Load()
		if seq == 0 {
			break
		}
		value, stamp := math.Float64frombits(l.ewma.Load()), l.stamp.Load()
		if value == 0 { // the first observation is just being stored
			break
		}
		ns, measured = value, true
		if dt := int64(now) - stamp; dt > 0 {
			ns = max(value*decayed(float64(dt)/s.decay), leastEWMA)
		}
		if seq&1 == 0 && l.seq.Load() == seq {
			break
		}
	}
	return ns, measured
}

// penalty returns in nanoseconds what is left of the last failure's penalty.
func (l *Load) penalty(s settings, now time.Duration) float64 {
	at := l.failedAt.Load()
	if at == 0 {
		return 0
	}
	age := float64(max(int64(now)-(at-1), 0))
	x := penaltyHaste * age / s.decay
	if x > 40 { // nothing is left of any penalty
		return 0
	}
	return s.penalty * math.Exp(-x)
}

// cost is the peak-EWMA load: latency x (in flight + 1). An endpoint whose
// latency was never measured costs nothing while it is idle, a failure's
// penalty excepted, so that its first request goes out soon and measures it;
// until that one is back further ones cost DefaultRTT each (Finagle's rule for
// hosts without history).
func (l *Load) cost(now time.Duration) float64 {
	s := l.rules()
	latency, measured := l.latency(s, now)
	inflight := float64(max(l.inflight.Load(), 0))
	if !measured && inflight == 0 {
		latency = 0
	}
	return max(latency, l.penalty(s, now)) * (inflight + 1)
}
