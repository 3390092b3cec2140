package adaptive

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// The histogram says what a sorted list says, within its buckets.
func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		var h histogram
		list := make([]time.Duration, 1+r.IntN(500))
		scale := math.Pow(10, 4+5*r.Float64())
		for i := range list {
			list[i] = time.Duration(scale*r.ExpFloat64()) + 2*time.Microsecond
			h.add(list[i])
		}
		slices.Sort(list)
		for _, q := range []float64{0.1, 0.5, 0.9, 0.99} {
			want := float64(list[int(math.Ceil(q*float64(len(list))))-1])
			if got := h.quantile(q); math.Abs(got-want) > 0.033*want {
				t.Fatalf("quantile %v of %d: %v, want %v", q, len(list), time.Duration(got), time.Duration(want))
			}
		}
	}
	for _, d := range []time.Duration{1, time.Microsecond, time.Hour, math.MaxInt64} {
		var h histogram
		h.add(d)
		if got := h.quantile(0.5); got <= 0 || math.IsInf(got, 0) {
			t.Errorf("%s: %v", d, got)
		}
	}
	last := -1
	for d := time.Microsecond; d < time.Hour; d += d/50 + 1 {
		if b := bucket(d); b < last || b >= buckets {
			t.Fatalf("%s is in bucket %d, behind %d", d, b, last)
		} else {
			last = b
		}
	}
}

// Whatever comes, with a clock that goes where it wants: the limit keeps to its
// bounds and what is known stays a number.
func hold(t *testing.T, ops []byte) {
	if len(ops) < 4 {
		return
	}
	cfg := Default()
	cfg.MinLimit = 1 + int64(ops[0]%20)
	cfg.MaxLimit = cfg.MinLimit + int64(ops[1])
	cfg.Mode = guard.Enforce
	if ops[2]&1 == 1 {
		cfg.Mode = guard.Observe
	}
	l := New(cfg)
	now := time.Duration(0)
	for i := 3; i+2 < len(ops); i += 3 {
		switch a, b, c := ops[i], ops[i+1], ops[i+2]; a % 8 {
		case 0:
			now += time.Duration(b) * time.Second
		case 1:
			now -= time.Duration(b) * time.Minute
		case 2:
			now += time.Duration(b) * 1000 * time.Hour
		case 3:
			l.Observe(now, -time.Duration(b), int64(c))
		default:
			for range 1 + int(c)%50 {
				now += time.Duration(b) * 100 * time.Microsecond
				l.Observe(now, time.Duration(1+int(a)*int(a)*int(b))*time.Duration(1+c)*time.Microsecond, int64(c))
			}
		}
		s := l.Snapshot()
		if s.Limit < min(cfg.MinLimit, cfg.MaxLimit) && !s.Learning || s.Limit < 1 || s.Limit > cfg.MaxLimit || s.Baseline < 0 || s.Latency < 0 {
			t.Fatalf("%d: %+v", i, s)
		}
		if math.IsNaN(l.want) || math.IsInf(l.want, 0) || math.IsNaN(l.base) || math.IsInf(l.base, 0) {
			t.Fatalf("%d: limit %v, baseline %v", i, l.want, l.base)
		}
	}
}

func TestHoldsItsBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 500 {
		ops := make([]byte, 4+r.IntN(300))
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		hold(t, ops)
	}
}

func FuzzLimiter(f *testing.F) {
	f.Add([]byte{3, 100, 0, 5, 10, 40, 5, 10, 40, 6, 200, 50, 0, 60, 1, 7, 3, 50})
	f.Add([]byte{0, 0, 1, 4, 255, 255, 2, 255, 0, 5, 1, 1, 1, 255, 0, 6, 7, 8})
	f.Fuzz(hold)
}

// Neither silence nor a clock that jumps changes what is known, and the limit
// goes on to follow.
func TestSilenceAndJumps(t *testing.T) {
	settle := func(l *Limiter, from time.Duration) time.Duration {
		w := &world{l: l, slots: 10, service: always(10 * ms), every: poisson(rand.New(rand.NewPCG(8, 1)), 3000), now: from}
		w.run(from + 30*time.Second)
		return w.now
	}
	l := New(Default())
	now := settle(l, 0)
	for name, jump := range map[string]time.Duration{"silence": time.Hour, "ahead": 10_000 * time.Hour, "back": -10 * time.Second} {
		before := l.Snapshot()
		now += jump
		l.Observe(now, 10*ms, 1)
		if s := l.Snapshot(); s.Baseline != before.Baseline || s.Limit != before.Limit {
			t.Errorf("%s: %+v became %+v", name, before, s)
		}
		now = settle(l, now)
		if s := l.Snapshot(); s.Limit < 7 || s.Limit > 17 || s.Dips == before.Dips {
			t.Errorf("after %s: %+v", name, s)
		}
	}
}

// A dip ends also when hardly anything ends in it.
func TestDipEnds(t *testing.T) {
	l := New(Default())
	now := time.Duration(0)
	for !l.Snapshot().Learning {
		now += 10 * ms
		l.Observe(now, 10*ms, l.Limit())
		if now > time.Minute {
			t.Fatal("no dip")
		}
	}
	low := l.Limit()
	for range 500 {
		now += 200 * ms
		l.Observe(now, 10*ms, l.Limit())
	}
	if s := l.Snapshot(); s.Learning && s.Dips == 1 || l.Limit() <= low {
		t.Errorf("%+v", s)
	}
}

func TestSetConfig(t *testing.T) {
	l := New(Default())
	if l.Limit() != first || l.Mode() != guard.Enforce {
		t.Errorf("at first the limit is %d", l.Limit())
	}
	cfg := Default()
	cfg.MinLimit, cfg.Mode = 50, guard.Observe
	l.SetConfig(cfg)
	if l.Limit() != 50 || l.Mode() != guard.Observe {
		t.Errorf("the limit is %d, at least 50", l.Limit())
	}
	cfg.MinLimit, cfg.MaxLimit = 1, 5
	l.SetConfig(cfg)
	if l.Limit() != 5 {
		t.Errorf("the limit is %d, at most 5", l.Limit())
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.MinLimit = 0 }, "min_limit"},
		{func(c *Config) { c.MinLimit = 2000 }, "min_limit"},
		{func(c *Config) { c.MaxLimit = highest + 1 }, "max_limit"},
		{func(c *Config) { c.Percentile = 100 }, "percentile"},
		{func(c *Config) { c.TolerancePercent = math.NaN() }, "tolerance_percent"},
		{func(c *Config) { c.Allowance = -1 }, "allowance"},
		{func(c *Config) { c.Interval = time.Minute }, "interval"},
		{func(c *Config) { c.Relearn = ms }, "relearn"},
		{func(c *Config) { c.Mode = guard.Observe + 1 }, "mode"},
	} {
		cfg := Default()
		c.change(&cfg)
		var got []string
		cfg.Validate(func(field, _ string) { got = append(got, field) })
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: mistakes in %q, want %q", cfg, s, c.want)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l := New(Default())
	now := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += 5 * ms
		l.Observe(now, 10*ms, 20)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	l := New(Default())
	now := time.Duration(0)
	for b.Loop() {
		now += 100 * time.Microsecond
		l.Observe(now, 10*ms, 20)
	}
}
