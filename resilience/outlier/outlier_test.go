package outlier

import (
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

func TestValidate(t *testing.T) {
	set := func(change func(*Config)) Config {
		c := Default()
		change(&c)
		return c
	}
	tests := []struct {
		name string
		cfg  Config
		want []string
	}{
		{"default", Default(), nil},
		{"zero", Config{}, []string{"window", "minimum_requests", "base_ejection", "max_ejected_percent"}},
		{"mode", set(func(c *Config) { c.Mode = guard.Percent(25) }), []string{"mode"}},
		{"observe", set(func(c *Config) { c.Mode = guard.Observe }), nil},
		{"long window", set(func(c *Config) { c.Window = 2 * time.Hour }), []string{"window"}},
		{"percent", set(func(c *Config) { c.FailurePercent = 100.5; c.MaxEjectedPercent = -1 }), []string{"failure_percent", "max_ejected_percent"}},
		{"not a number", set(func(c *Config) { c.FailurePercent, c.SuccessRateStdev, c.Jitter = math.NaN(), math.NaN(), math.NaN() }), []string{"failure_percent", "success_rate_stdev", "jitter"}},
		{"stdev alone", set(func(c *Config) { c.SuccessRateStdev = 1.9; c.SuccessRateMinimumEndpoints = 1 }), []string{"success_rate_minimum_endpoints"}},
		{"max below base", set(func(c *Config) { c.BaseEjection = 2 * time.Minute }), []string{"max_ejection"}},
		{"long ejections", set(func(c *Config) { c.BaseEjection, c.MaxEjection = 25*time.Hour, 25*time.Hour }), []string{"base_ejection", "max_ejection"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			tt.cfg.Validate(func(field, problem string) {
				if problem == "" {
					t.Errorf("%s: no problem given", field)
				}
				got = append(got, field)
			})
			if !slices.Equal(got, tt.want) {
				t.Errorf("mistakes in %v, want %v", got, tt.want)
			}
		})
	}
}

// TestCompileTames checks that a Config that was never validated does no harm.
func TestCompileTames(t *testing.T) {
	wild := Config{
		ConsecutiveFailures: 1, Window: -5, FailurePercent: math.Inf(1), SuccessRateStdev: math.NaN(),
		BaseEjection: math.MaxInt64, MaxEjection: -1, Jitter: math.Inf(1), MaxEjectedPercent: math.NaN(),
	}
	d := New(wild)
	e := &Endpoint{}
	if !d.Observe(e, math.MaxInt64-1, Failure, 500) {
		t.Fatal("the threshold of 1 was not crossed")
	}
	events := d.Sweep(math.MaxInt64-1, math.MaxUint64, []*Endpoint{e})
	if len(events) != 1 || events[0].Until != math.MaxInt64 {
		t.Errorf("events %+v, want one ejection until the end of time", events)
	}
}

func TestNames(t *testing.T) {
	var words []string
	for v := range uint8(12) {
		for _, x := range []interface{ MarshalText() ([]byte, error) }{Result(v), State(v), Cause(v), Kind(v)} {
			b, err := x.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			words = append(words, string(b))
		}
	}
	want := "success healthy none ejected " +
		"failure ejected consecutive_failures probation " +
		"local_failure probation consecutive_local_failures readmitted " +
		"ignored unknown failure_percent would_eject " +
		"unknown unknown success_rate cap_reached " +
		"unknown unknown probe_failed unknown " +
		"unknown unknown probe_passed unknown " +
		"unknown unknown too_few_left unknown " +
		"unknown unknown observe_mode unknown " +
		"unknown unknown released unknown"
	if got := strings.Join(words, " "); !strings.HasPrefix(got, want) {
		t.Errorf("names\n%s\nwant\n%s", got, want)
	}
	d := New(Default())
	if d.Ejections(200) != 0 || d.WouldEject(causeCount) != 0 {
		t.Error("an unknown cause has a count")
	}
}

// TestGrowth checks the length of ejections and their jitter against the formula.
func TestGrowth(t *testing.T) {
	cfg := Default()
	s := compile(cfg, 0)
	for _, r := range []uint64{0, 1 << 63, math.MaxUint64} {
		e := &Endpoint{}
		for n := 1; n <= 80; n++ {
			base := min(float64(time.Second)*math.Pow(2, float64(n-1)), float64(time.Minute))
			want := base * (1 + 0.5*float64(r)/math.MaxUint64)
			got := e.sentence(s, r)
			if math.Abs(float64(got)-want) > 1000 {
				t.Errorf("ejection %d with r %x lasts %s, want %s", n, r, got, time.Duration(want))
			}
		}
		if e.level != 7 {
			t.Errorf("level %d, want 7: 2^6 s is beyond the minute", e.level)
		}
	}
}

// TestJitterDiffers checks that endpoints ejected by one Sweep return at different times.
func TestJitterDiffers(t *testing.T) {
	cfg := Default()
	cfg.MaxEjectedPercent = 100
	d := New(cfg)
	all := make([]*Endpoint, 20)
	for i := range all {
		all[i] = &Endpoint{}
		for range 5 {
			d.Observe(all[i], 0, LocalFailure, 0)
		}
	}
	seen := map[time.Duration]bool{}
	for _, ev := range d.Sweep(0, 12345, all) {
		if ev.Kind != KindEjected {
			continue
		}
		if ev.Until < time.Second || ev.Until > 1500*time.Millisecond {
			t.Errorf("until %s, want 1s to 1.5s", ev.Until)
		}
		seen[ev.Until] = true
	}
	if len(seen) != 18 || d.Out() != 18 {
		t.Errorf("%d different times, %d out; want 18 of 20", len(seen), d.Out())
	}
}

func TestCountersAtTheirLimits(t *testing.T) {
	s := compile(Default(), 255)
	t.Run("window", func(t *testing.T) {
		var w window
		for i := range buckets {
			w.total[i].Store(s.tag(uint32(i)) | countMask)
			w.failed[i].Store(s.tag(uint32(i)) | countMask)
		}
		for range 100 {
			w.add(s, 9*time.Second, true)
		}
		total, failed := w.sum(s, 9*time.Second)
		if total != buckets*countMask || failed != total {
			t.Errorf("sum %d/%d after the limit, want %d", failed, total, buckets*countMask)
		}
		if total, _ := w.sum(s, 10*time.Second); total != 9*countMask {
			t.Errorf("%d one tenth later, want %d", total, 9*countMask)
		}
	})
	t.Run("rows", func(t *testing.T) {
		d, e := New(Default()), &Endpoint{}
		e.consecutive.Store(1 << 31)
		d.Observe(e, 0, Failure, 500)
		if got := e.consecutive.Load(); got != 1<<31 {
			t.Errorf("row %d, want it to stay at its limit", got)
		}
		if d.Sweep(0, 0, []*Endpoint{e, {}, {}}); e.State() != Ejected {
			t.Errorf("state %s, want ejected", e.State())
		}
	})
	t.Run("ring", func(t *testing.T) {
		var r recent
		r.next.Store(recentSize * 1e17)
		for i := range uint16(30) {
			r.add(math.MaxInt64, Ignored, math.MaxUint16-i)
		}
		got := r.list(math.MaxInt64)
		if len(got) != recentSize || got[0] != (Outcome{Ignored, math.MaxUint16 - 29, 0}) {
			t.Errorf("outcomes %v", got)
		}
	})
	t.Run("probe sequence", func(t *testing.T) {
		d, e := New(Default()), &Endpoint{}
		e.state.Store(uint32(Probation))
		e.probe.Store(^uint32(0) &^ probeMask)
		if !e.TryProbe() || e.TryProbe() {
			t.Error("not exactly one probe")
		}
		if !d.Observe(e, 0, Success, 200) {
			t.Error("the probe's success decides nothing")
		}
	})
	t.Run("generation", func(t *testing.T) {
		d := New(Default())
		for i := range 600 {
			cfg := Default()
			cfg.Window += time.Duration(i%2) * time.Second
			d.SetConfig(cfg)
		}
		if got := d.Config().Window; got != 11*time.Second {
			t.Errorf("window %s", got)
		}
	})
}

// TestClock checks late, negative and wrapping times.
func TestClock(t *testing.T) {
	s := compile(Default(), 0)
	var w window
	w.add(s, 25*time.Second, false)
	w.add(s, 15*time.Second, true) // late by a whole window: same slot, counted in the newer bucket
	if total, failed := w.sum(s, 25*time.Second); total != 2 || failed != 0 {
		t.Errorf("sum %d/%d, want 0/2: the late failure has no bucket of failures of its own age left", failed, total)
	}
	w.add(s, -time.Hour, true)
	if total, _ := w.sum(s, 36*time.Second); total != 0 {
		t.Errorf("%d left after the window", total)
	}
	// The tick number wraps at 2^32.
	var wrap window
	last := time.Duration(1<<32-1) * s.tick
	wrap.add(s, last, true)
	wrap.add(s, last+s.tick, true)
	if total, failed := wrap.sum(s, last+s.tick); total != 2 || failed != 2 {
		t.Errorf("sum %d/%d across the wrap, want 2/2", failed, total)
	}
	if got := later(math.MaxInt64-5, 10); got != math.MaxInt64 {
		t.Errorf("later overflows: %d", got)
	}
	if got := portion(math.MaxFloat64, math.MaxUint64); got != math.MaxInt64 {
		t.Errorf("portion overflows: %d", got)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are counted without -race")
	}
	d, e := New(Default()), &Endpoint{}
	all := []*Endpoint{e, {}, {}}
	now := time.Duration(0)
	for _, res := range []Result{Success, Failure, LocalFailure, Ignored} {
		if n := testing.AllocsPerRun(1000, func() {
			now += time.Millisecond
			d.Observe(e, now, res, 503)
			e.State()
			e.TryProbe()
		}); n != 0 {
			t.Errorf("%s: %v allocations", res, n)
		}
	}
	e = &Endpoint{}
	all[0] = e
	if n := testing.AllocsPerRun(100, func() { d.Sweep(now, 1, all) }); n != 0 {
		t.Errorf("a sweep without an event: %v allocations", n)
	}
}

// TestConcurrent lets everything happen at once; with -race it finds
// unguarded access, without it the invariants are checked.
func TestConcurrent(t *testing.T) {
	const workers, rounds, n = 8, 3000, 10
	cfg := Default()
	cfg.BaseEjection = time.Millisecond
	cfg.MaxEjection = 4 * time.Millisecond
	cfg.Window = time.Second
	d := New(cfg)
	all := make([]*Endpoint, n)
	for i := range all {
		all[i] = &Endpoint{}
	}
	var clock sync.Mutex
	var ticks time.Duration
	now := func() time.Duration {
		clock.Lock()
		defer clock.Unlock()
		ticks += 10 * time.Microsecond
		return ticks
	}
	var wg sync.WaitGroup
	counts := make([]map[Kind]uint64, workers)
	for w := range workers {
		wg.Go(func() {
			mine := map[Kind]uint64{}
			counts[w] = mine
			for i := range rounds {
				at, e := now(), all[(i*7+w)%n]
				res := Success
				if (i*7+w)%n < 4 && i%16 != 0 {
					res = LocalFailure
				}
				switch e.State() {
				case Ejected:
				case Probation:
					if !e.TryProbe() {
						break
					}
					fallthrough
				default:
					if !d.Observe(e, at, res, 200) && i%50 != 0 {
						break
					}
					for _, ev := range d.Sweep(at, uint64(i), all) {
						mine[ev.Kind]++
					}
				}
				if i%100 == 0 {
					e.Evidence(at)
					_ = d.Out()
				}
				if i%500 == 499 {
					d.Release(e)
					d.SetConfig(cfg)
				}
			}
		})
	}
	wg.Wait()
	d.Sweep(now(), 0, all)
	out := 0
	for _, e := range all {
		if e.State() != Healthy {
			out++
		}
	}
	if out != d.Out() || out > 3 {
		t.Errorf("%d out, Out says %d, at most 3 of 10 may be", out, d.Out())
	}
	var ejected, seen uint64
	for _, c := range EjectionCauses() {
		ejected += d.Ejections(c)
	}
	for _, mine := range counts {
		seen += mine[KindEjected]
	}
	if ejected < seen || ejected > seen+n || seen == 0 {
		t.Errorf("%d ejections counted, %d in events", ejected, seen)
	}
}

// TestOneProbe checks that many callers at once get one probe.
func TestOneProbe(t *testing.T) {
	for range 200 {
		e := &Endpoint{}
		e.state.Store(uint32(Probation))
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := 0
		for range 4 {
			wg.Go(func() {
				if e.TryProbe() {
					mu.Lock()
					got++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if got != 1 {
			t.Fatalf("%d probes", got)
		}
	}
}

func BenchmarkObserveSuccess(b *testing.B) {
	d, e := New(Default()), &Endpoint{}
	b.ReportAllocs()
	for i := range b.N {
		d.Observe(e, time.Duration(i)*time.Microsecond, Success, 200)
	}
}

func BenchmarkSweep10000(b *testing.B) {
	cfg := Default()
	cfg.SuccessRateStdev = 1.9
	d := New(cfg)
	all := make([]*Endpoint, 10_000)
	for i := range all {
		all[i] = &Endpoint{}
		for k := range 30 {
			d.Observe(all[i], 0, Result(i*k%50/49), 200)
		}
	}
	b.ReportAllocs()
	for range b.N {
		d.Sweep(0, 1, all)
	}
}
