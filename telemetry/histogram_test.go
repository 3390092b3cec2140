package telemetry

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// bucketOf is the slow reference: the bucket that d belongs to.
func bucketOf(d time.Duration) int {
	for i, b := range bounds {
		if d <= b {
			return i
		}
	}
	return bucketCount
}

func distribution(ds ...time.Duration) Distribution {
	var h histogram
	for _, d := range ds {
		h.observe(d)
	}
	var d Distribution
	h.addTo(&d)
	return d
}

func TestBoundsAscend(t *testing.T) {
	if !slices.IsSorted(bounds[:]) || len(slices.Compact(slices.Clone(bounds[:]))) != bucketCount {
		t.Error("the bounds do not ascend")
	}
}

func TestObserveFindsTheBucket(t *testing.T) {
	cases := []time.Duration{-time.Second, 0, 1, math.MaxInt64}
	for _, b := range bounds {
		cases = append(cases, b-1, b, b+1)
	}
	for _, c := range cases {
		d := distribution(c)
		if want := bucketOf(c); d.counts[want] != 1 || d.Count() != 1 {
			t.Errorf("%v: not in bucket %d: %v", c, want, d.counts)
		}
		if want := uint64(max(c, 0)); d.nanos != want {
			t.Errorf("%v: sum %d, want %d", c, d.nanos, want)
		}
	}
}

func TestQuantileTable(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name string
		in   []time.Duration
		q    float64
		want time.Duration
	}{
		{"nothing counted", nil, 0.5, 0},
		{"one: its bucket's upper end", []time.Duration{4 * ms}, 1, 5 * ms},
		{"one: its bucket's middle", []time.Duration{4 * ms}, 0.5, 4 * ms},
		{"one: its bucket's lower end", []time.Duration{4 * ms}, 0, 3 * ms},
		{"below 0 is 0", []time.Duration{4 * ms}, -1, 3 * ms},
		{"over 1 is 1", []time.Duration{4 * ms}, 2, 5 * ms},
		{"the first bucket begins at 0", []time.Duration{100 * time.Microsecond}, 0.5, 250 * time.Microsecond},
		{"an even split ends with the lower half", []time.Duration{ms, 20 * ms}, 0.5, ms},
		{"linear within the bucket", []time.Duration{20 * ms, 20 * ms, 20 * ms, 20 * ms}, 0.75, 22500 * time.Microsecond},
		{"beyond the last bound", []time.Duration{time.Hour}, 0.5, time.Minute},
	} {
		d := distribution(c.in...)
		if got := d.Quantile(c.q); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// The estimate is always in the same bucket as the exact quantile.
func TestQuantileIsWithinABucketOfTheExactOne(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		n := 1 + r.IntN(500)
		ds := make([]time.Duration, n)
		for i := range ds {
			// log-normal around 8ms
			ds[i] = time.Duration(8e6 * math.Exp(1.5*r.NormFloat64()))
		}
		d := distribution(ds...)
		slices.Sort(ds)
		last := time.Duration(0)
		for _, q := range []float64{0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1} {
			exact := ds[max(int(math.Ceil(q*float64(n))), 1)-1]
			i := bucketOf(exact)
			lower, upper := time.Duration(0), bounds[min(i, bucketCount-1)]
			if i > 0 {
				lower = bounds[i-1]
			}
			got := d.Quantile(q)
			if got < lower || got > upper {
				t.Fatalf("round %d: q%v of %d: %v, but the exact %v is between %v and %v", round, q, n, got, exact, lower, upper)
			}
			if got < last {
				t.Fatalf("round %d: q%v is %v, less than %v of a smaller q", round, q, got, last)
			}
			last = got
		}
	}
}

func TestSince(t *testing.T) {
	var h histogram
	var before, after Distribution
	h.observe(time.Millisecond)
	h.addTo(&before)
	h.observe(20 * time.Millisecond)
	h.observe(20 * time.Millisecond)
	h.addTo(&after)
	d := after.Since(before)
	if d.Count() != 2 || d.nanos != 40e6 {
		t.Errorf("count %d, sum %d", d.Count(), d.nanos)
	}
	if got := d.Quantile(0); got != 15*time.Millisecond {
		t.Errorf("the earlier duration is still there: %v", got)
	}
	if after.Count() != 3 {
		t.Error("Since changed its receiver")
	}
	// A handle that was made anew in between counts from zero again.
	if d := before.Since(after); d.Count() != 0 || d.nanos != 0 {
		t.Errorf("less than nothing: %d", d.Count())
	}
}
