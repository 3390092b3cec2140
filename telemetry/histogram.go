package telemetry

import (
	"math"
	"slices"
	"time"
)

// bucketCount is the number of finite buckets; one more takes the rest.
const bucketCount = 21

// bounds are the inclusive upper bounds of the duration buckets: about a
// factor of 1.5 to 2.5 apart, and finest where services usually answer.
var bounds = [bucketCount]time.Duration{
	500 * time.Microsecond, 1 * time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond, 5 * time.Millisecond,
	7500 * time.Microsecond, 10 * time.Millisecond, 15 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	75 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, 60 * time.Second,
}

// histogram counts durations in fixed buckets.
type histogram struct {
	counts [bucketCount + 1]Counter
	nanos  Counter
}

func (h *histogram) observe(d time.Duration) {
	d = max(d, 0)
	lo, hi := 0, bucketCount
	for lo < hi {
		if mid := (lo + hi) / 2; d <= bounds[mid] {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	h.counts[lo].Inc()
	h.nanos.Add(uint64(d))
}

func (h *histogram) addTo(d *Distribution) {
	for i := range h.counts {
		d.counts[i] += h.counts[i].Value()
	}
	d.nanos += h.nanos.Value()
}

// Distribution is how durations were spread, as counted at one moment.
type Distribution struct {
	counts [bucketCount + 1]uint64
	nanos  uint64
}

// Count returns how many durations were counted.
func (d *Distribution) Count() uint64 {
	var n uint64
	for _, c := range d.counts {
		n += c
	}
	return n
}

// DistributionOf makes a Distribution, without a sum, of what Counts returned.
// Further counts are left out, missing ones 0.
func DistributionOf(counts []uint64) (d Distribution) {
	copy(d.counts[:], counts)
	return d
}

// Counts returns how many durations were counted in each bucket; the last one
// has no bound.
func (d *Distribution) Counts() []uint64 { return slices.Clone(d.counts[:]) }

// Since returns what was counted after earlier, an older state of the same
// durations.
func (d Distribution) Since(earlier Distribution) Distribution {
	for i := range d.counts {
		d.counts[i] -= min(earlier.counts[i], d.counts[i])
	}
	d.nanos -= min(earlier.nanos, d.nanos)
	return d
}

// Quantile returns an estimate of the q-quantile, 0 <= q <= 1, interpolated
// linearly within its bucket, as PromQL's histogram_quantile does. It is 0
// when nothing was counted and at most 60s.
func (d *Distribution) Quantile(q float64) time.Duration {
	total := d.Count()
	if total == 0 {
		return 0
	}
	rank := math.Min(math.Max(q, 0), 1) * float64(total)
	var below float64
	var lower time.Duration
	for i, bound := range bounds {
		n := float64(d.counts[i])
		if n > 0 && below+n >= rank {
			return lower + time.Duration(float64(bound-lower)*(rank-below)/n)
		}
		below += n
		lower = bound
	}
	return lower
}
