package breaker

import (
	"sync/atomic"
	"time"
)

// slots is how many parts the rolling window has.
const slots = 10

// A slot is one word: the number of the tick it counts (28 bits, so that it
// comes round after more than 31 days at the shortest window), successes and
// failures (18 bits each). When one of the two is full both are halved, which
// keeps their proportion.
const (
	countBits = 18
	countMask = 1<<countBits - 1
	tickMask  = 1<<(64-2*countBits) - 1
)

// window counts results over the last Window, in slots of a tenth of it. It is
// lock free, and its counts are exact: a slot is recycled and counted in by
// the same compare-and-swap.
type window struct {
	width time.Duration
	slot  [slots]atomic.Uint64
}

func newWindow(length time.Duration) window {
	return window{width: max(length/slots, 1)}
}

// tick returns the number of the tick that now is in, from 1 on so that an
// empty slot belongs to none.
func (w *window) tick(now time.Duration) uint64 { return uint64(max(now, 0)/w.width) + 1 }

// add counts one result.
func (w *window) add(now time.Duration, failed bool) {
	tick := w.tick(now)
	s := &w.slot[tick%slots]
	for {
		old := s.Load()
		successes, failures := old>>countBits&countMask, old&countMask
		if at := old >> (2 * countBits); at != tick&tickMask {
			if behind(at, tick) {
				return // a later result has taken the slot already
			}
			successes, failures = 0, 0
		}
		if successes == countMask || failures == countMask {
			successes, failures = successes/2, failures/2
		}
		if failed {
			failures++
		} else {
			successes++
		}
		if s.CompareAndSwap(old, (tick&tickMask)<<(2*countBits)|successes<<countBits|failures) {
			return
		}
	}
}

// behind says whether tick lies before the slot's tick at, in a circle of
// tickMask+1, as happens to a result whose time was taken just before a
// concurrent one's.
func behind(at, tick uint64) bool {
	return at != 0 && (at-tick)&tickMask <= slots
}

// counts returns the results of the last slots ticks, the present one
// included.
func (w *window) counts(now time.Duration) (successes, failures uint64) {
	tick := w.tick(now)
	for i := range w.slot {
		word := w.slot[i].Load()
		if at := word >> (2 * countBits); at == 0 || (tick-at)&tickMask >= slots {
			continue
		}
		successes += word >> countBits & countMask
		failures += word & countMask
	}
	return successes, failures
}
