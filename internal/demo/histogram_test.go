package demo

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramBuckets(t *testing.T) {
	last := -1
	for _, us := range []uint64{0, 1, 31, 32, 33, 63, 64, 65, 66, 1000, 4351, 1 << 20, 1 << 31, 1<<32 - 1} {
		b := bucketOf(us)
		if b < last {
			t.Errorf("%d µs: bucket %d after %d", us, b, last)
		}
		last = b
		if top := highest(b); top < us || float64(top) > float64(us)*(1+1.0/subBuckets) {
			t.Errorf("%d µs is told as %d", us, top)
		}
		if b > 0 && highest(b-1) >= us {
			t.Errorf("%d µs belongs to bucket %d", us, b-1)
		}
	}
}

// The reference sorts all values and takes the nearest rank.
func TestPercentileAgainstSort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var h histogram
		values := make([]time.Duration, 1+r.IntN(2000))
		for i := range values {
			values[i] = time.Duration(r.ExpFloat64()*8000) * time.Microsecond
			h.add(values[i])
		}
		slices.Sort(values)
		for _, p := range []float64{1, 50, 90, 99, 100} {
			rank := max(int((p/100*float64(len(values)))+0.999999), 1)
			want := values[rank-1]
			got := h.percentile(p)
			if got < want || float64(got) > float64(want)*(1+1.0/subBuckets)+float64(time.Microsecond) {
				t.Fatalf("p%v of %d: %v, sorted %v", p, len(values), got, want)
			}
		}
	}
}

func TestHistogramEdges(t *testing.T) {
	var h, sum histogram
	if h.percentile(99) != 0 {
		t.Error("an empty histogram has a percentile")
	}
	h.add(-time.Second)
	h.add(1000 * time.Hour)
	if h.percentile(50) != 0 {
		t.Errorf("a negative latency is %v", h.percentile(50))
	}
	if h.percentile(100) < time.Hour {
		t.Errorf("a huge latency is %v", h.percentile(100))
	}
	sum.merge(&h)
	sum.merge(&h)
	if sum.n != 4 || sum.percentile(100) != h.percentile(100) {
		t.Errorf("merged: %d, %v", sum.n, sum.percentile(100))
	}
}
