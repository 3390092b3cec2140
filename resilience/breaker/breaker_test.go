package breaker

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// bench is a breaker on a virtual clock.
type bench struct {
	cfg   Config
	b     *Breaker
	clock time.Duration
	held  map[string]Ticket
	told  []string
}

func newBench(cfg Config) *bench {
	w := &bench{cfg: cfg, held: map[string]Ticket{}}
	w.build()
	return w
}

func (w *bench) build() {
	w.b = New("api", w.cfg, func(from, to State) {
		w.told = append(w.told, fmt.Sprintf("%v: %v -> %v", w.now(), from, to))
	})
}

func (w *bench) now() time.Duration { return w.clock }

// request is one request from Allow to Done in no time.
func (w *bench) request(res Result) bool {
	t, ok := w.b.Allow(w.now(), 0)
	if ok {
		w.b.Done(t, w.now(), res)
	}
	return ok
}

func TestScripts(t *testing.T) {
	for _, path := range scripts(t) {
		t.Run(path, func(t *testing.T) {
			w := newBench(Default())
			runScript(t, path, w.step)
		})
	}
}

func result(c command) Result {
	switch {
	case c.has("success"):
		return Success
	case c.has("failure"):
		return Failure
	case c.has("ignored"):
		return Ignored
	}
	c.unknown()
	return 0
}

func (w *bench) step(c command) string {
	var out strings.Builder
	switch c.name {
	case "config": // a new breaker
		w.configure(c)
	case "result": // result failure x3: whole requests
		passed := 0
		for range c.count {
			if w.request(result(c)) {
				passed++
			}
		}
		if passed < c.count {
			fmt.Fprintf(&out, "%d of %d refused\n", c.count-passed, c.count)
		}
	case "begin": // begin NAME: a request that stays under way
		ticket, ok := w.b.Allow(w.now(), 0)
		w.held[c.words[0]] = ticket
		if !ok {
			out.WriteString("refused\n")
		}
	case "end": // end NAME failure
		w.b.Done(w.held[c.words[0]], w.now(), result(c))
	case "advance":
		w.clock += c.duration(c.words[0])
	case "state":
		fmt.Fprintln(&out, w.b.State(w.now()))
	case "show":
		s := w.b.Snapshot(w.now())
		fmt.Fprintf(&out, "%s %s, %s since %v", s.Name, s.Mode, s.State, s.Since)
		if s.Until != 0 {
			fmt.Fprintf(&out, " until %v", s.Until)
		}
		fmt.Fprintf(&out, "; successes %d, failures %d, consecutive %d; trials %d\n", s.Counts.Successes, s.Counts.Failures, s.Counts.Consecutive, s.Trials)
		fmt.Fprintf(&out, "opened %d, last by %s, from closed on %+v; rejected %d, would have rejected %d\n",
			s.Opened, s.Cause, s.Tripped, s.Rejected, s.WouldHaveRejected)
	default:
		c.unknown()
	}
	for _, line := range w.told {
		fmt.Fprintln(&out, line)
	}
	w.told = nil
	return out.String()
}

func (w *bench) configure(c command) {
	for k, v := range c.keys {
		switch k {
		case "mode":
			if err := w.cfg.Mode.UnmarshalText([]byte(v)); err != nil {
				c.t.Fatal(err)
			}
		case "window":
			w.cfg.Window = c.duration(v)
		case "minimum_requests":
			w.cfg.MinimumRequests = uint32(c.number(v))
		case "failure_percent":
			w.cfg.FailurePercent = c.number(v)
		case "consecutive_failures":
			w.cfg.ConsecutiveFailures = uint32(c.number(v))
		case "open_for":
			w.cfg.OpenFor = c.duration(v)
		case "half_open_requests":
			w.cfg.HalfOpenRequests = uint32(c.number(v))
		default:
			c.unknown()
		}
	}
	w.build()
}

// TestOnChangeOutsideLocks: the callback may use the breaker.
func TestOnChangeOutsideLocks(t *testing.T) {
	cfg := Default()
	cfg.ConsecutiveFailures = 1
	now := time.Duration(0)
	var b *Breaker
	var seen []string
	b = New("api", cfg, func(from, to State) {
		seen = append(seen, fmt.Sprint(from, ">", to, " now ", b.State(now), " ", b.Snapshot(now).Opened))
		if to == Open {
			if _, ok := b.Allow(now, 0); ok {
				t.Error("open, and a request passed")
			}
		}
	})
	ticket, _ := b.Allow(0, 0)
	b.Done(ticket, 0, Failure)
	now = cfg.OpenFor
	ticket, ok := b.Allow(now, 0)
	if !ok {
		t.Fatal("no trial after OpenFor")
	}
	b.Done(ticket, now, Success)
	want := "closed>open now open 1, open>half-open now half-open 1, half-open>closed now closed 1"
	if got := strings.Join(seen, ", "); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestOnlyTheTimePassedCounts: an hour of openings and closings on a clock that
// no system has, and twice the same.
func TestOnlyTheTimePassedCounts(t *testing.T) {
	run := func() []string {
		w := newBench(Default())
		for i := range 3600 {
			w.clock = time.Duration(i) * time.Second
			for range 30 {
				w.request(Result(i / 100 % 2))
			}
		}
		return w.told
	}
	first, second := run(), run()
	if strings.Join(first, "\n") != strings.Join(second, "\n") {
		t.Errorf("the same hour twice:\n%s\n\n%s", strings.Join(first, "\n"), strings.Join(second, "\n"))
	}
	opened := 0
	for _, line := range first {
		if strings.HasSuffix(line, "-> open") {
			opened++
		}
	}
	if opened < 18*15 { // eighteen bad hundreds of seconds, one trial in five seconds
		t.Errorf("opened %d times in an hour of which half is bad", opened)
	}
}

// TestClockGoesBack: nothing lasts longer than it does from the new time on.
func TestClockGoesBack(t *testing.T) {
	cfg := Default()
	cfg.ConsecutiveFailures = 1
	w := newBench(cfg)
	w.clock = time.Hour
	w.request(Failure)
	w.clock = time.Second
	if w.request(Success) {
		t.Error("open, and a request passed")
	}
	w.clock += cfg.OpenFor - 1
	if w.request(Success) {
		t.Error("passed before its time")
	}
	w.clock++
	if _, ok := w.b.Allow(w.clock, 0); !ok {
		t.Fatalf("no trial %v after the clock went back", cfg.OpenFor)
	}
	w.clock = 0 // under the trial, which hangs
	if w.request(Success) {
		t.Error("two trials at once")
	}
	w.clock = cfg.OpenFor
	if !w.request(Success) || w.b.State(w.clock) != Closed {
		t.Errorf("a trial from the future is not given up: %+v", w.b.Snapshot(w.clock))
	}
	w.clock = -time.Hour
	w.request(Failure)
	if s := w.b.Snapshot(w.clock); s.State != Open || s.Until != cfg.OpenFor-time.Hour {
		t.Errorf("before the beginning: %+v", s)
	}
}

// TestLimits: the largest numbers do no harm.
func TestLimits(t *testing.T) {
	cfg := Default()
	cfg.OpenFor, cfg.MinimumRequests, cfg.ConsecutiveFailures = math.MaxInt64, math.MaxUint32, math.MaxUint32
	w := newBench(cfg)
	w.clock = time.Hour
	w.b.phase.Load().consecutive.Store(math.MaxUint32 - 2)
	w.request(Failure)
	if s := w.b.State(w.clock); s != Closed {
		t.Errorf("%v one failure before the last", s)
	}
	w.request(Failure)
	if s := w.b.Snapshot(w.clock); s.State != Open || s.Until != math.MaxInt64 || s.Tripped.Consecutive != math.MaxUint32 {
		t.Errorf("after the last: %+v", s)
	}
	cfg = Default()
	w = newBench(cfg)
	w.b.phase.Load().consecutive.Store(math.MaxUint32)
	w.request(Failure)
	if n := w.b.Snapshot(0).Counts.Consecutive; n != math.MaxUint32 {
		t.Errorf("%d failures in a row after the counter was full", n)
	}
}

// TestConcurrent checks under -race what holds in any order: changes are told
// in order, one trial at a time passes, and the counters add up.
func TestConcurrent(t *testing.T) {
	for _, mode := range []guard.Mode{guard.Enforce, guard.Observe} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := Default()
				cfg.Mode, cfg.MinimumRequests, cfg.OpenFor = mode, 5, time.Second
				var last atomic.Uint32 // the state told last
				b := New("api", cfg, func(from, to State) {
					if State(last.Swap(uint32(to))) != from {
						t.Errorf("told of %v -> %v out of order", from, to)
					}
				})
				epoch := time.Now()
				var passed, refused, trials atomic.Int64
				var wg sync.WaitGroup
				for g := range 8 {
					wg.Go(func() {
						for i := range 400 {
							now := time.Since(epoch)
							ticket, ok := b.Allow(now, 0)
							if ticket.trial != 0 {
								if n := trials.Add(1); n > 1 {
									t.Errorf("%d trials at once", n)
								}
							}
							if !ok {
								refused.Add(1)
							} else {
								passed.Add(1)
								time.Sleep(time.Millisecond)
								if ticket.trial != 0 {
									trials.Add(-1)
								}
								b.Done(ticket, time.Since(epoch), Result((g+i/100)%2))
							}
							time.Sleep(5 * time.Millisecond)
						}
					})
				}
				wg.Wait()
				s := b.Snapshot(time.Since(epoch))
				if s.Opened == 0 {
					t.Error("never opened")
				}
				if mode == guard.Observe && (refused.Load() != 0 || s.WouldHaveRejected == 0 || s.Rejected != 0) {
					t.Errorf("observe mode refused %d, %+v", refused.Load(), s)
				}
				if mode == guard.Enforce && (uint64(refused.Load()) != s.Rejected || s.Rejected == 0 || s.WouldHaveRejected != 0) {
					t.Errorf("enforce mode refused %d, %+v", refused.Load(), s)
				}
				if passed.Load()+refused.Load() != 3200 {
					t.Errorf("%d passed, %d refused", passed.Load(), refused.Load())
				}
			})
		})
	}
}

// TestWindowExactUnderContention: no count is lost or counted twice while
// slots are recycled.
func TestWindowExactUnderContention(t *testing.T) {
	w := newWindow(10 * time.Second)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 5000 {
				w.add(time.Duration(20+i/1000)*time.Second, (g+i)%4 == 0)
			}
		})
	}
	wg.Wait()
	if s, f := w.counts(24 * time.Second); s != 15_000 || f != 5_000 {
		t.Errorf("%d successes and %d failures, want 15000 and 5000", s, f)
	}
	if s, f := w.counts(30 * time.Second); s != 12_000 || f != 4_000 {
		t.Errorf("later %d and %d, want 12000 and 4000", s, f)
	}
}

// TestWindowFull: a slot that is full keeps the proportion.
func TestWindowFull(t *testing.T) {
	w := newWindow(10 * time.Second)
	for i := range 1_000_000 {
		w.add(0, i%4 == 0)
	}
	s, f := w.counts(0)
	if share := float64(f) / float64(s+f); s+f < 1<<17 || share < 0.2499 || share > 0.2501 {
		t.Errorf("%d successes, %d failures: share %.5f, want 0.25", s, f, share)
	}
}

func TestWindowLateResult(t *testing.T) {
	w := newWindow(10 * time.Second)
	w.add(12*time.Second, true)
	w.add(11*time.Second, true) // a slot back, still in the window
	w.add(2*time.Second, true)  // its slot belongs to second 12 by now
	if _, f := w.counts(12 * time.Second); f != 2 {
		t.Errorf("%d failures, want 2", f)
	}
}

func TestNoAllocationWhileClosed(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := New("api", Default(), nil)
	now := time.Duration(0)
	if n := testing.AllocsPerRun(500, func() {
		ticket, _ := b.Allow(now, 0)
		b.Done(ticket, now, Success)
		ticket, _ = b.Allow(now, 0)
		b.Done(ticket, now, Success)
		ticket, _ = b.Allow(now, 0)
		b.Done(ticket, now, Failure)
		now += 100 * time.Millisecond
	}); n != 0 || b.State(now) != Closed {
		t.Errorf("%v allocations, %v", n, b.State(now))
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Closed.String() + Open.String() + HalfOpen.String() + State(9).String(), "closedopenhalf-openstate(9)"},
		{None.String() + FailurePercent.String(), "nonefailure_percent"},
		{ConsecutiveFailures.String() + TrialFailed.String() + Cause(9).String(), "consecutive_failurestrial_failedcause(9)"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestScopes(t *testing.T) {
	for word, want := range map[string]Scope{"": ScopeCluster, "cluster": ScopeCluster, "route": ScopeRoute, "endpoint": ScopeEndpoint} {
		s := Scope(9)
		if err := s.UnmarshalText([]byte(word)); err != nil || s != want {
			t.Errorf("%q: %v, %v", word, s, err)
		}
		if text, err := s.MarshalText(); err != nil || word != "" && string(text) != word {
			t.Errorf("%v is written %q, %v", s, text, err)
		}
	}
	var s Scope
	if err := s.UnmarshalText([]byte("host")); err == nil || !strings.Contains(err.Error(), "cluster, route or endpoint") || Scope(9).String() != "scope(9)" {
		t.Errorf("%v", err)
	}
	if !(Open.Severity() > HalfOpen.Severity() && HalfOpen.Severity() > Closed.Severity()) {
		t.Error("the states are not in order")
	}
}

func TestValidate(t *testing.T) {
	set := func(f func(*Config)) Config {
		c := Default()
		f(&c)
		return c
	}
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Default(), ""},
		{set(func(c *Config) { c.FailurePercent, c.ConsecutiveFailures = 0, 3 }), ""},
		{Config{}, "window minimum_requests consecutive_failures open_for half_open_requests"},
		{set(func(c *Config) { c.Mode, c.FailurePercent = guard.Observe+1, 100.5 }), "mode failure_percent"},
		{set(func(c *Config) { c.Scope = ScopeEndpoint }), ""},
		{set(func(c *Config) { c.Scope = 3 }), "scope"},
		{set(func(c *Config) { c.HalfOpenRequests, c.OpenFor = 1001, -1 }), "open_for half_open_requests"},
	} {
		var got []string
		c.cfg.Validate(func(field, _ string) { got = append(got, field) })
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: mistakes in %q, want %q", c.cfg, s, c.want)
		}
	}
}

func BenchmarkClosed(b *testing.B) {
	br := New("api", Default(), nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := time.Duration(0)
		for pb.Next() {
			ticket, _ := br.Allow(now, 0)
			br.Done(ticket, now, Success)
			now += time.Microsecond
		}
	})
}
