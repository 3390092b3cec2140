package outlier

import (
	"sync/atomic"
	"time"
)

// past is what an endpoint that has been used remembers of it. Most endpoints of a
// large mesh are never used by one caller, and would need it for nothing.
type past struct {
	window window
	recent recent
}

// remember returns e's past, which begins now if there is none.
func (e *Endpoint) remember() *past {
	if p := e.past.Load(); p != nil {
		return p
	}
	p := new(past)
	if e.past.CompareAndSwap(nil, p) {
		return p
	}
	return e.past.Load()
}

// Used reports whether a result of e was ever observed. Before that Sweep decides
// nothing about it.
func (e *Endpoint) Used() bool { return e.past.Load() != nil }

// reset forgets what the window holds; p may be nil.
func (p *past) reset() {
	if p != nil {
		p.window.reset()
	}
}

// buckets is how many parts a window has. The current part is filled while
// the nine before it are complete, so between 0.9 and 1.0 of the window counts.
const buckets = 10

// A bucket is one word: generation (8 bits), tick number (32), count (24).
// A word whose generation or tick is not the wanted one is empty, so nobody
// has to clear it when the window moves on.
const (
	countBits = 24
	countMask = 1<<countBits - 1
	tagMask   = ^uint64(countMask)
	// countFull is where counting stops; the headroom above it is for
	// goroutines that add at the same moment.
	countFull = countMask - 1<<20
	// lateTicks is how far behind the newest tick a late result may be and
	// still be counted (in the newer bucket of its slot) instead of
	// restarting that bucket.
	lateTicks = 1 << 20
)

// window counts the results of the recent past. Zero value ready; add is
// lock free. Totals and failures are apart so that a success writes one word.
type window struct {
	total, failed [buckets]atomic.Uint64
}

// tickAt returns the number of the tick that holds now.
func (s *settings) tickAt(now time.Duration) uint32 { return uint32(max(now, 0) / s.tick) }

func (s *settings) tag(tick uint32) uint64 {
	return uint64(s.gen)<<56 | uint64(tick)<<countBits
}

func (w *window) add(s *settings, now time.Duration, failed bool) {
	tick := s.tickAt(now)
	tag, slot := s.tag(tick), tick%buckets
	bump(&w.total[slot], tag)
	if failed {
		bump(&w.failed[slot], tag)
	}
}

func bump(word *atomic.Uint64, tag uint64) {
	for {
		v := word.Load()
		if v&tagMask == tag || newer(v, tag) {
			if v&countMask < countFull {
				word.Add(1)
			}
			return
		}
		if word.CompareAndSwap(v, tag|1) {
			return
		}
	}
}

// newer reports whether v is a bucket of the same generation as tag, a
// little later than it: the caller's clock reading is old.
func newer(v, tag uint64) bool {
	ahead := uint32(v>>countBits) - uint32(tag>>countBits)
	return v&countMask != 0 && v>>56 == tag>>56 && ahead != 0 && ahead < lateTicks
}

// sum returns how many results the window holds at now, and how many of them failed.
func (w *window) sum(s *settings, now time.Duration) (total, failed uint64) {
	tick := s.tickAt(now)
	for i := range buckets {
		total += s.live(w.total[i].Load(), tick)
		failed += s.live(w.failed[i].Load(), tick)
	}
	return total, min(failed, total)
}

// anyFailed is a cheaper sum for the common case that nothing failed.
func (w *window) anyFailed(s *settings, now time.Duration) bool {
	tick := s.tickAt(now)
	for i := range buckets {
		if s.live(w.failed[i].Load(), tick) != 0 {
			return true
		}
	}
	return false
}

// live returns the count of bucket v if it belongs to the window ending at tick.
func (s *settings) live(v uint64, tick uint32) uint64 {
	if uint8(v>>56) != s.gen || tick-uint32(v>>countBits) >= buckets {
		return 0
	}
	return v & countMask
}

func (w *window) reset() {
	for i := range buckets {
		w.total[i].Store(0)
		w.failed[i].Store(0)
	}
}
