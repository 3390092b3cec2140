package admission

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Result is what became of a request that was let through.
type Result uint8

const (
	// Accepted: the service took it, whatever it answered.
	Accepted Result = iota
	// Refused: the service did not take it.
	Refused
	// Unknown says nothing about the service, as when the client cancelled.
	Unknown
)

// Decision is the answer to one request.
type Decision struct {
	// OK lets the request through.
	OK bool
	// Held says that it would have been held back, whatever the mode.
	Held bool
	// Rejection is the share of requests that are held back now, from 0 to 1.
	Rejection float64
}

// Throttle holds back requests to one destination. It is safe for concurrent
// use and takes no lock.
type Throttle struct {
	cfg    Config
	window window

	rejected  atomic.Uint64
	wouldHave atomic.Uint64
}

// New returns a throttle that has seen nothing. cfg must be valid.
func New(cfg Config) *Throttle {
	return &Throttle{cfg: cfg, window: window{width: max(cfg.Window/slots, 1)}}
}

// Config returns the configuration. It must not be changed.
func (t *Throttle) Config() *Config { return &t.cfg }

// Ask decides about a request of the exchange of draw; random is a fresh
// uniformly random word, which has nothing to do with the draw. One that
// is let through is to be told of by Done when it has ended; only then does it
// count. One that is held back counts at once as not accepted, so that more are
// held back the more are sent.
func (t *Throttle) Ask(now time.Duration, random uint64, draw guard.Draw) Decision {
	d := Decision{OK: true, Rejection: t.rejection(now)}
	// 53 bits are what a float64 holds.
	if d.Rejection == 0 || float64(random>>11)/(1<<53) >= d.Rejection {
		return d
	}
	d.Held = true
	if !t.cfg.Mode.Acts(draw) {
		t.wouldHave.Add(1)
		return d
	}
	t.rejected.Add(1)
	t.window.add(now, false)
	d.OK = false
	return d
}

// Done tells what became of a request that Ask let through.
func (t *Throttle) Done(now time.Duration, res Result) {
	if res != Unknown {
		t.window.add(now, res == Accepted)
	}
}

// rejection is the probability with which a request is held back:
// max(0, (requests - multiplier x accepts) / (requests + 1)).
func (t *Throttle) rejection(now time.Duration) float64 {
	requests, accepts := t.window.counts(now)
	if requests < uint64(t.cfg.MinimumRequests) {
		return 0
	}
	p := (float64(requests) - t.cfg.Multiplier*float64(accepts)) / (float64(requests) + 1)
	return min(max(p, 0), t.cfg.MaxRejectionPercent/100)
}

// Patience is how long who was held back had better wait: until the next tenth
// of the window begins at the latest.
func (t *Throttle) Patience() time.Duration { return t.window.width }

// Snapshot is the evidence that a throttle shows on the admin API.
type Snapshot struct {
	Mode              guard.Mode
	Scope             Scope
	Requests, Accepts uint64  // over the window
	Rejection         float64 // the share that is held back now, from 0 to 1
	Rejected          uint64  // held back so far
	WouldHaveRejected uint64  // let through, as they were only observed
}

// Snapshot returns what is known at present.
func (t *Throttle) Snapshot(now time.Duration) Snapshot {
	s := Snapshot{Mode: t.cfg.Mode, Scope: t.cfg.Scope, Rejection: t.rejection(now), Rejected: t.rejected.Load(), WouldHaveRejected: t.wouldHave.Load()}
	s.Requests, s.Accepts = t.window.counts(now)
	return s
}

// slots is how many parts the rolling window has.
const slots = 10

// A slot is one word: the number of the tick it counts (22 bits), requests and
// accepts (21 bits each). When requests are full both are halved, which keeps
// their proportion. The tick comes round after some five days at the shortest
// window; a slot that was not touched for exactly so long would count once more.
const (
	countBits = 21
	countMask = 1<<countBits - 1
	// turn is after how many ticks their numbers begin again.
	turn = (1<<(64-2*countBits) - 1) / slots * slots
)

// window counts requests and accepts over its length in slots of a tenth. A slot
// is recycled and counted in by the same compare-and-swap.
type window struct {
	width time.Duration
	slot  [slots]atomic.Uint64
}

// tick is the number of the tick that now is in, never 0.
func (w *window) tick(now time.Duration) uint64 { return uint64(max(now, 0)/w.width)%turn + 1 }

func (w *window) add(now time.Duration, accepted bool) {
	tick := w.tick(now)
	s := &w.slot[tick%slots]
	for {
		old := s.Load()
		requests, accepts := old>>countBits&countMask, old&countMask
		if old>>(2*countBits) != tick {
			requests, accepts = 0, 0
		}
		if requests == countMask {
			requests, accepts = requests/2, accepts/2
		}
		requests++
		if accepted {
			accepts++
		}
		if s.CompareAndSwap(old, tick<<(2*countBits)|requests<<countBits|accepts) {
			return
		}
	}
}

// counts returns what the last slots ticks hold, the present one included.
func (w *window) counts(now time.Duration) (requests, accepts uint64) {
	tick := w.tick(now)
	for i := range w.slot {
		word := w.slot[i].Load()
		at := word >> (2 * countBits)
		if at == 0 || age(tick, at) >= slots {
			continue
		}
		requests += word >> countBits & countMask
		accepts += word & countMask
	}
	return requests, accepts
}

// age is how many ticks ago at was; a tick to come is as good as one long ago.
func age(tick, at uint64) uint64 {
	if at > tick {
		if wrapped := tick + turn - at; wrapped < slots {
			return wrapped
		}
		return math.MaxUint64
	}
	return tick - at
}
