package balance

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// within says whether got is want to a millionth.
func within(got time.Duration, want float64) bool {
	return math.Abs(float64(got)-want) <= 1e-6*want+1
}

func TestPeakEWMA(t *testing.T) {
	const ms = time.Millisecond
	var l Load
	if got := l.EWMA(time.Hour); got != 30*ms {
		t.Errorf("before the first observation %v, want the default 30ms", got)
	}
	l.Begin(0)
	l.End(0, 10*ms, false)
	if got := l.EWMA(0); got != 10*ms {
		t.Errorf("first observation gave %v, want 10ms", got)
	}
	l.Begin(time.Second)
	l.End(time.Second, 80*ms, false)
	if got := l.EWMA(time.Second); got != 80*ms {
		t.Errorf("a peak gave %v, want 80ms at once", got)
	}
	// 2 s later 20 ms are entered with weight 1-e^(-2/10).
	l.Begin(3 * time.Second)
	l.End(3*time.Second, 20*ms, false)
	w := math.Exp(-0.2)
	want := 80e6*w + 20e6*(1-w)
	if got := l.EWMA(3 * time.Second); !within(got, want) {
		t.Errorf("a lower latency gave %v, want %v", got, time.Duration(want))
	}
	// Left alone it decays, and reading does not change that.
	for range 5 {
		l.EWMA(7 * time.Second)
	}
	if got := l.EWMA(13 * time.Second); !within(got, want/math.E) {
		t.Errorf("10 s later %v, want %v", got, time.Duration(want/math.E))
	}
	if got := l.EWMA(10 * time.Hour); got != time.Microsecond {
		t.Errorf("hours later %v, want 1µs", got)
	}
	if l.Inflight() != 0 {
		t.Errorf("%d in flight", l.Inflight())
	}
}

// TestEWMAAgainstModel compares with the plain formula over random histories.
func TestEWMAAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		cfg := Default()
		cfg.Decay = time.Duration(1 + rnd.IntN(int(20*time.Second)))
		var l Load
		l.Init(cfg)
		now, at, model := time.Duration(0), time.Duration(0), 0.0
		for i := range 50 {
			now += time.Duration(rnd.IntN(int(time.Second)))
			rtt := time.Duration(1000 + rnd.IntN(int(200*time.Millisecond)))
			l.Begin(now)
			l.End(now, rtt, false)
			w := math.Exp(-float64(now-at) / float64(cfg.Decay))
			if i == 0 || float64(rtt) > model {
				model = float64(rtt)
			} else {
				model = model*w + float64(rtt)*(1-w)
			}
			at = now
			if got := l.EWMA(now); !within(got, model) {
				t.Fatalf("observation %d: %v, model %v", i, got, time.Duration(model))
			}
		}
	}
}

func TestFailures(t *testing.T) {
	const ms = time.Millisecond
	end := func(l *Load, now, rtt time.Duration, failed bool) {
		l.Begin(now)
		l.End(now, rtt, failed)
	}
	t.Run("a fast failure costs the penalty", func(t *testing.T) {
		var l Load
		end(&l, 0, 10*ms, false)
		end(&l, 0, ms, true)
		if got := l.EWMA(0); got != 5*time.Second {
			t.Errorf("%v, want 5s", got)
		}
		if got, want := l.EWMA(100*ms), 5e9/math.E; !within(got, want) {
			t.Errorf("after Decay/100 %v, want %v", got, time.Duration(want))
		}
		if got, want := l.EWMA(time.Second), 10e6*math.Exp(-0.1); !within(got, want) {
			t.Errorf("after a second %v, want the latency %v again", got, time.Duration(want))
		}
	})
	t.Run("a slow failure is a latency as well", func(t *testing.T) {
		var l Load
		end(&l, 0, 10*ms, false)
		end(&l, 0, 8*time.Second, true)
		if got := l.EWMA(0); got != 8*time.Second {
			t.Errorf("%v, want 8s", got)
		}
	})
	t.Run("fast failures do not make it look fast", func(t *testing.T) {
		cfg := Default()
		cfg.FailurePenalty = 0
		var l Load
		l.Init(cfg)
		end(&l, 0, 10*ms, false)
		end(&l, 5*time.Second, ms, true)
		if got, want := l.EWMA(5*time.Second), 10e6*math.Exp(-0.5); !within(got, want) {
			t.Errorf("%v, want %v", got, time.Duration(want))
		}
	})
	t.Run("cancelled attempts teach nothing", func(t *testing.T) {
		var l Load
		end(&l, 0, 10*ms, false)
		end(&l, 0, -1, false)
		if got := l.EWMA(0); got != 10*ms || l.Inflight() != 0 {
			t.Errorf("%v, %d in flight", got, l.Inflight())
		}
	})
}

// The series is the exponential function.
func TestDecayed(t *testing.T) {
	for x := 1e-12; x < 10; x *= 1.01 {
		if got, want := decayed(x), math.Exp(-x); math.Abs(got/want-1) > 1e-13 {
			t.Errorf("decayed(%v) = %v, want %v", x, got, want)
		}
	}
	if got := decayed(0); got != 1 {
		t.Errorf("decayed(0) = %v", got)
	}
}

func TestCost(t *testing.T) {
	const ms = time.Millisecond
	var l Load
	costs := func(want float64) {
		t.Helper()
		if got := l.cost(0); math.Abs(got-want) > 1 {
			t.Errorf("cost %v, want %v", got, want)
		}
	}
	costs(0) // to be measured
	l.Begin(0)
	costs(2 * 30e6)
	l.End(0, 4*ms, false)
	costs(4e6)
	l.Begin(0)
	l.Begin(0)
	costs(3 * 4e6)
}

// TestLoadUnderContention checks what must hold whatever the order: nobody in
// flight at the end, and an estimate inside the range of what was observed.
func TestLoadUnderContention(t *testing.T) {
	var l Load
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 0))
			for i := range 5000 {
				now := time.Duration(i) * time.Microsecond
				l.Begin(now)
				if got := l.EWMA(now); got > 30*time.Millisecond || got < time.Microsecond {
					t.Errorf("read %v", got)
				}
				l.End(now, time.Duration(10+rnd.IntN(10))*time.Millisecond, false)
			}
		})
	}
	wg.Wait()
	if got := l.EWMA(5 * time.Millisecond); got < 10*time.Millisecond || got >= 20*time.Millisecond {
		t.Errorf("estimate %v from observations of 10 to 20ms", got)
	}
	if l.Inflight() != 0 {
		t.Errorf("%d in flight", l.Inflight())
	}
}

// TestCut: an attempt that was given up tells how long it would have taken at least.
func TestCut(t *testing.T) {
	const ms = time.Millisecond
	var l Load
	l.Begin(0)
	l.End(0, 50*ms, false)
	for _, test := range []struct{ soFar, want time.Duration }{{10 * ms, 50 * ms}, {-1, 50 * ms}, {80 * ms, 80 * ms}} {
		l.Begin(0)
		l.Cut(0, test.soFar)
		if got := l.EWMA(0); got != test.want || l.Inflight() != 0 {
			t.Errorf("after %v: %v, want %v; %d in flight", test.soFar, got, test.want, l.Inflight())
		}
	}
}
