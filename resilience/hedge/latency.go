package hedge

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// The buckets of a Latency: eight for each doubling, from 16 µs to some 70 s.
// A quantile is the upper edge of its bucket, so at most an eighth too long.
const (
	floorBits  = 14 // 2^14 ns
	stepBits   = 3
	steps      = 1 << stepBits
	octaves    = 22
	bucketsAll = octaves*steps + 2 // with what is below and what is above
)

// Window is for how long latencies count: those of the present window and of the
// one before do, so that nothing is older than two and no fewer than one are
// looked back on.
const Window = 15 * time.Second

// refresh is for how long a quantile is given without looking at the counts again.
const refresh = 100 * time.Millisecond

// Latency is a histogram of recent latencies. Lock free and bounded; the zero
// value is ready. Times are since one arbitrary moment.
type Latency struct {
	// A count is one word: the number of its window (32 bits) and the count (32
	// bits). One of another window than the two that are looked at is empty, so
	// nobody has to clear it.
	counts [2][bucketsAll]atomic.Uint64

	looked atomic.Int64 // when found was made, plus one
	// found is the last quantile: which (16 bits, in hundredths of a percent) and
	// how long it is (48 bits, nanoseconds; 0: too few samples).
	found atomic.Uint64
	least atomic.Int64 // the samples that found was made with
}

const (
	countMask = math.MaxUint32
	countFull = countMask - 1<<20 // room for goroutines that add at the same moment
	foundBits = 48
	foundMask = 1<<foundBits - 1
)

func windowAt(now time.Duration) uint32 { return uint32(max(now, 0) / Window) }

func bucketOf(d time.Duration) int {
	if d < 1<<floorBits {
		return 0
	}
	exp := bits.Len64(uint64(d)) - 1
	if exp >= floorBits+octaves {
		return bucketsAll - 1
	}
	step := int(d>>(exp-stepBits)) & (steps - 1)
	return 1 + (exp-floorBits)*steps + step
}

// edge is the upper end of a bucket.
func edge(bucket int) time.Duration {
	if bucket == 0 {
		return 1 << floorBits
	}
	bucket = min(bucket, bucketsAll-2) - 1
	exp := floorBits + bucket/steps
	return time.Duration(steps+bucket%steps+1) << (exp - stepBits)
}

// Observe counts a latency, or at least how long an answer was waited for.
func (l *Latency) Observe(now, d time.Duration) {
	w := windowAt(now)
	slot := &l.counts[w%2][bucketOf(d)]
	for {
		v := slot.Load()
		switch of := uint32(v >> 32); {
		case of == w && v != 0:
			if v&countMask < countFull {
				slot.Add(1)
			}
			return
		case of > w:
			return // the caller's clock reading is as old as what is forgotten
		}
		if slot.CompareAndSwap(v, uint64(w)<<32|1) {
			return
		}
	}
}

// Quantile returns the latency below which the share p of the recent ones was,
// as of the last 100 ms. It reports false where fewer than enough are known.
func (l *Latency) Quantile(now time.Duration, p Percentile, enough int) (time.Duration, bool) {
	which := uint64(p * 100)
	looked, found := l.looked.Load(), l.found.Load()
	fresh := looked > 0 && int64(now)-(looked-1) < int64(refresh) && found>>foundBits == which && l.least.Load() == int64(enough)
	if !fresh && l.looked.CompareAndSwap(looked, int64(max(now, 0))+1) {
		found = which<<foundBits | uint64(min(l.quantile(windowAt(now), p, enough), foundMask))
		l.found.Store(found)
		l.least.Store(int64(enough))
	}
	if found>>foundBits != which || found&foundMask == 0 {
		return 0, false // of another percentile: whoever looks now has it soon
	}
	return time.Duration(found & foundMask), true
}

func (l *Latency) quantile(w uint32, p Percentile, enough int) time.Duration {
	var sum uint64
	var each [bucketsAll]uint64
	for i := range each {
		for k := range l.counts {
			v := l.counts[k][i].Load()
			if of := uint32(v >> 32); of == w || of+1 == w {
				each[i] += v & countMask
			}
		}
		sum += each[i]
	}
	if sum < uint64(max(enough, 1)) {
		return 0
	}
	rank := uint64(math.Ceil(float64(p) / 100 * float64(sum)))
	for i, n := range each {
		if rank <= n {
			return edge(i)
		}
		rank -= n
	}
	return edge(bucketsAll - 1)
}

// enough is how many samples it takes for the percentile of c: five beyond it.
func (c *Config) enough() int {
	return max(c.MinSamples, int(math.Ceil(5/(1-float64(c.Percentile)/100)-1e-6)))
}
