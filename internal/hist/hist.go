// Package hist counts durations in a histogram of logarithmic buckets and reads quantiles from it.
package hist

import (
	"math"
	"math/bits"
	"time"
)

const (
	subBits    = 7            // 128 buckets for every power of two
	subBuckets = 1 << subBits // so a bucket is at most 1/128 of its value wide
	maxBits    = 40           // longest duration told apart: 2^40 ns, about 18 minutes
	buckets    = (maxBits-subBits)*subBuckets + subBuckets
)

// Histogram counts durations. Values under 256 ns are exact, larger ones are
// kept within 1/256 (0.4 %) of their value; values above 18 minutes count as
// 18 minutes. The zero value is ready. It is not safe for concurrent use.
type Histogram struct {
	counts   [buckets]uint64
	total    uint64
	min, max time.Duration
	sum      float64 // of nanoseconds
}

// index maps a value to its bucket: the position of its highest bit and the
// subBits bits below it.
func index(v uint64) int {
	if v >= 1<<maxBits {
		return buckets - 1
	}
	shift := bits.Len64(v) - (subBits + 1)
	if shift < 0 {
		shift = 0
	}
	return shift*subBuckets + int(v>>uint(shift))
}

// middle is the value that stands for bucket i.
func middle(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i)
	}
	shift := uint(i/subBuckets - 1)
	low := uint64(i%subBuckets+subBuckets) << shift
	return low + (uint64(1)<<shift)/2
}

// Record counts one duration. A negative one counts as zero.
func (h *Histogram) Record(d time.Duration) {
	if d < 0 {
		d = 0
	}
	if h.total == 0 || d < h.min {
		h.min = d
	}
	if d > h.max {
		h.max = d
	}
	h.counts[index(uint64(d))]++
	h.total++
	h.sum += float64(d)
}

// Count is the number of durations recorded.
func (h *Histogram) Count() uint64 { return h.total }

// Min is the shortest duration recorded, exactly; 0 when there is none.
func (h *Histogram) Min() time.Duration { return h.min }

// Max is the longest duration recorded, exactly; 0 when there is none.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the mean of the durations recorded, but for rounding exactly; 0 when
// there is none.
func (h *Histogram) Mean() time.Duration {
	if h.total == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.total))
}

// Quantile returns the duration that a share q (0 to 1) of the recorded ones
// does not exceed: the one of rank ceil(q*n). 0 when nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(h.total)))
	rank = max(1, min(rank, h.total))
	var seen uint64
	for i, n := range h.counts {
		seen += n
		if seen >= rank {
			return max(h.min, min(time.Duration(middle(i)), h.max))
		}
	}
	return h.max
}

// Below is how many of the durations recorded are below d, as exactly as they
// are kept.
func (h *Histogram) Below(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	if d > h.max {
		return h.total
	}
	var n uint64
	for i := range index(uint64(d)) {
		n += h.counts[i]
	}
	return n
}

// Merge adds everything that other has counted.
func (h *Histogram) Merge(other *Histogram) {
	if other.total == 0 {
		return
	}
	if h.total == 0 || other.min < h.min {
		h.min = other.min
	}
	h.max = max(h.max, other.max)
	h.total += other.total
	h.sum += other.sum
	for i, n := range other.counts {
		h.counts[i] += n
	}
}

// Reset forgets everything.
func (h *Histogram) Reset() { *h = Histogram{} }
