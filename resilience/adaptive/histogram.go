package adaptive

import (
	"math/bits"
	"time"
)

// The histogram has 16 buckets for each doubling of the time, from a
// microsecond to some minutes: what it says is at most 3 % off.
const (
	perOctave = 4 // bits
	octaves   = 28
	buckets   = octaves << perOctave
)

type histogram struct {
	n      int
	counts [buckets]uint32
}

func (h *histogram) reset() { *h = histogram{} }

// add counts d, which is above 0.
func (h *histogram) add(d time.Duration) {
	h.n++
	h.counts[bucket(d)]++
}

func bucket(d time.Duration) int {
	us := max(uint64(d)*2/125, 1<<perOctave) // in sixteenths; what is below 1 µs counts as that
	octave := bits.Len64(us) - 1 - perOctave
	i := octave<<perOctave + int(us>>octave)&(1<<perOctave-1)
	return min(i, buckets-1)
}

// middle is the time in ns for which a bucket stands.
func middle(i int) float64 {
	octave := i >> perOctave
	low := float64(uint64(1<<perOctave+i&(1<<perOctave-1)) << octave)
	return (low + float64(uint64(1)<<octave)/2) / (1 << perOctave) * float64(time.Microsecond)
}

// quantile returns the time in ns below which the share q of those counted are.
func (h *histogram) quantile(q float64) float64 {
	rank, below := q*float64(h.n), 0.0
	for i, c := range h.counts {
		if below += float64(c); c > 0 && below >= rank {
			return middle(i)
		}
	}
	return middle(buckets - 1)
}
