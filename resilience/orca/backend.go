package orca

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// Backend is what is remembered of an endpoint's reports. The zero value is one
// that has not reported. It is safe for concurrent use, but for Config.Weigh, which
// one goroutine calls at a time.
type Backend struct {
	weight atomic.Uint64 // bits of a float64
	// Times plus one, 0 for none: of the last report, and since when there have
	// been reports without a gap of WeightExpirationPeriod.
	last, since atomic.Int64
}

// Observe takes a report in. It returns false, and nothing changes, where the
// report says too little for a weight.
func (b *Backend) Observe(c *Config, now time.Duration, r *Report) bool {
	w := r.Weight(c.ErrorUtilizationPenalty)
	if w <= 0 {
		return false
	}
	at := int64(max(now, 0)) + 1
	b.weight.Store(math.Float64bits(w))
	b.last.Store(at)
	if b.since.Load() == 0 {
		b.since.CompareAndSwap(0, at)
	}
	return true
}

// Age is how long ago the last report came; negative without one.
func (b *Backend) Age(now time.Duration) time.Duration {
	last := b.last.Load()
	if last == 0 {
		return -1
	}
	return max(now-time.Duration(last-1), 0)
}

// State is how an endpoint's reports stand.
type State uint8

// The states.
const (
	Silent   State = iota // there are no reports
	Blackout              // there are, but not for long enough
	Counted               // the last one counts
	Expired               // the last one has just become too old
)

// String returns "silent", "blackout", "counted" or "expired".
func (s State) String() string {
	return [...]string{"silent", "blackout", "counted", "expired"}[min(s, Expired)]
}

// Weight returns the weight of the last report, and how it stands; 0 unless it
// counts.
func (b *Backend) Weight(c *Config, now time.Duration) (float64, State) {
	last, since := b.last.Load(), b.since.Load()
	switch {
	case since == 0:
		return 0, Silent
	case int64(now)+1-last >= int64(c.WeightExpirationPeriod):
		return 0, Expired
	case int64(now)+1-since < int64(c.BlackoutPeriod):
		return 0, Blackout
	}
	return math.Float64frombits(b.weight.Load()), Counted
}

// Weighed is one endpoint to be weighed, with what comes out of it.
type Weighed struct {
	Backend *Backend
	Weight  uint32 // of the catalog; 0 counts as 1
	// Factor is what Weight is to be multiplied by: 1 is the mean of those whose
	// reports count, which the others have.
	Factor float64
	State  State
}

// Weigh sets the factors of all. Products of weight and factor are in proportion to
// the reported weights, except that the weight for each unit of catalog weight is
// kept within MinWeightPercent and MaxWeightPercent of the (lower) median. The
// median and not the mean, which one wrong report moves as far as it likes. With
// fewer than two that report all factors are 1 (gRFC A58).
//
// A report that has become too old is told once, by State Expired.
func (c *Config) Weigh(now time.Duration, all []Weighed) {
	units := make([]float64, 0, len(all))
	for i := range all {
		a := &all[i]
		a.Factor = 1
		var w float64
		if w, a.State = a.Backend.Weight(c, now); a.State == Expired {
			a.Backend.since.Store(0) // reports begin anew, and with them the blackout
		}
		if a.State == Counted {
			a.Factor = w / float64(max(a.Weight, 1))
			units = append(units, a.Factor)
		}
	}
	if len(units) < 2 {
		for i := range all {
			all[i].Factor = 1
		}
		return
	}
	slices.Sort(units)
	median := units[(len(units)-1)/2]
	// Relative to the median nothing overflows.
	sum := 0.0
	for i := range all {
		if a := &all[i]; a.State == Counted {
			a.Factor = min(max(a.Factor/median, c.MinWeightPercent/100), c.MaxWeightPercent/100)
			sum += a.Factor
		}
	}
	mean := sum / float64(len(units))
	for i := range all {
		if a := &all[i]; a.State == Counted {
			a.Factor /= mean
		}
	}
}
