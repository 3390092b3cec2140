package demo

import (
	"math/bits"
	"time"
)

// histogram counts latencies in microseconds, in buckets that are at most
// 1/32 of their value wide, up to about an hour. Its zero value is ready.
type histogram struct {
	counts [subBuckets * (maxPower - subPower + 1)]uint32
	n      uint64
}

const (
	subPower   = 5
	subBuckets = 1 << subPower
	maxPower   = 32
)

func (h *histogram) add(d time.Duration) {
	us := uint64(max(d.Microseconds(), 0))
	h.counts[min(bucketOf(us), len(h.counts)-1)]++
	h.n++
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
}

// bucketOf is exact below subBuckets; above, the highest bits choose.
func bucketOf(us uint64) int {
	if us < subBuckets {
		return int(us)
	}
	shift := bits.Len64(us) - 1 - subPower
	return (shift+1)*subBuckets + int(us>>shift) - subBuckets
}

// highest returns the largest value of a bucket, in microseconds.
func highest(bucket int) uint64 {
	if bucket < subBuckets {
		return uint64(bucket)
	}
	shift := bucket/subBuckets - 1
	base := uint64(bucket%subBuckets + subBuckets)
	return (base+1)<<shift - 1
}

// percentile returns the value that p percent of the latencies are at or
// below (nearest rank), up to the width of a bucket; 0 of none.
func (h *histogram) percentile(p float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	exact := p / 100 * float64(h.n)
	rank := uint64(exact)
	if float64(rank) < exact {
		rank++
	}
	rank = min(max(rank, 1), h.n)
	var seen uint64
	for i, n := range h.counts {
		if seen += uint64(n); seen >= rank {
			return time.Duration(highest(i)) * time.Microsecond
		}
	}
	return 0
}
