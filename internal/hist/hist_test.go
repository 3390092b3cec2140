package hist

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// exact is the reference: the value of rank ceil(q*n) in the sorted list.
func exact(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(1, min(rank, len(sorted)))-1]
}

func near(got, want time.Duration) bool {
	if want < 256 {
		return got == want
	}
	return math.Abs(float64(got-want)) <= float64(want)/256+1
}

var quantiles = []float64{0, 0.001, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1}

func check(t *testing.T, values []time.Duration) {
	t.Helper()
	var h Histogram
	for _, v := range values {
		h.Record(v)
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	if h.Count() != uint64(len(values)) {
		t.Fatalf("count %d, want %d", h.Count(), len(values))
	}
	for _, q := range quantiles {
		if got, want := h.Quantile(q), exact(sorted, q); !near(got, want) {
			t.Errorf("%d values, quantile %v: got %d ns, want %d ns", len(values), q, got, want)
		}
	}
	if len(values) > 0 && (h.Min() != sorted[0] || h.Max() != sorted[len(sorted)-1]) {
		t.Errorf("min %d max %d, want %d %d", h.Min(), h.Max(), sorted[0], sorted[len(sorted)-1])
	}
}

func TestQuantilesAgainstSortedList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	shapes := map[string]func() time.Duration{
		"uniform":     func() time.Duration { return time.Duration(rng.Int64N(int64(time.Second))) },
		"exponential": func() time.Duration { return time.Duration(rng.ExpFloat64() * 50_000) },
		"log-uniform": func() time.Duration { return time.Duration(math.Exp(rng.Float64() * 27)) },
		"constant":    func() time.Duration { return 123_457 },
		"tiny":        func() time.Duration { return time.Duration(rng.Int64N(300)) },
	}
	for name, draw := range shapes {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3, 10, 1000, 20_000} {
				values := make([]time.Duration, n)
				for i := range values {
					values[i] = draw()
				}
				check(t, values)
			}
		})
	}
}

func TestEmptyHistogramAnswersZero(t *testing.T) {
	check(t, nil)
}

func TestBucketsFollowEachOther(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<14; v++ {
		i := index(v)
		if i != last && i != last+1 {
			t.Fatalf("value %d falls into bucket %d after bucket %d", v, i, last)
		}
		last = i
	}
	for i := range buckets {
		if got := index(middle(i)); got != i {
			t.Fatalf("bucket %d: its middle %d falls into bucket %d", i, middle(i), got)
		}
	}
}

func TestOutOfRange(t *testing.T) {
	var h Histogram
	h.Record(-5)
	h.Record(math.MaxInt64)
	if h.Min() != 0 || h.Max() != math.MaxInt64 || h.Count() != 2 {
		t.Fatalf("min %d max %d count %d", h.Min(), h.Max(), h.Count())
	}
	if got := h.Quantile(1); got < 1<<39 {
		t.Fatalf("a duration past the range reads as %d", got)
	}
}

func TestMergeEqualsRecordingAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var one, two, all, empty Histogram
	for i := range 5000 {
		v := time.Duration(rng.ExpFloat64() * 1e6)
		all.Record(v)
		if i%3 == 0 {
			one.Record(v)
		} else {
			two.Record(v)
		}
	}
	one.Merge(&two)
	one.Merge(&empty)
	if one != all {
		t.Fatal("merged histogram differs from the one that saw every value")
	}
	empty.Merge(&all)
	if empty != all {
		t.Fatal("merging into an empty histogram lost something")
	}
	one.Reset()
	if one != (Histogram{}) {
		t.Fatal("reset left something behind")
	}
}

func FuzzQuantiles(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0, 255, 255, 0})
	f.Add([]byte{255, 0, 0, 0, 0, 1, 0, 0, 0, 0, 128, 0, 0, 0, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		var values []time.Duration
		for len(data) >= 5 && len(values) < 500 {
			// 40 bits a value: the whole range that is told apart.
			v := uint64(binary.BigEndian.Uint32(data))<<8 | uint64(data[4])
			values = append(values, time.Duration(v))
			data = data[5:]
		}
		check(t, values)
	})
}

func TestRecordDoesNotAllocate(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Record(12345) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
