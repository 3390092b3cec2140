package memory

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

const mib = 1 << 20

// bed is a budget of 100 MiB whose figures a test makes.
type bed struct {
	*Budget
	f         figures
	now       time.Duration
	log       bytes.Buffer
	collected int
	unloaded  int
	relieved  []Level
	goals     []int64
	onCollect func()
}

func newBed() *bed {
	b := &bed{}
	b.Budget = New(Options{
		Bytes: 100 * mib, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Relieve: func(l Level) { b.relieved = append(b.relieved, l) },
	})
	b.read = func() figures { return b.f }
	b.collect = func() {
		b.collected++
		if b.onCollect != nil {
			b.onCollect()
		}
	}
	b.unload = func() { b.unloaded++ }
	b.setGoal = func(n int64) { b.goals = append(b.goals, n) }
	return b
}

// use steps with so many MiB in use, all of them live.
func (b *bed) use(n int64) Level {
	b.f = figures{resident: n * mib, runtime: (n - 12) * mib, objects: (n - 20) * mib, live: (n - 20) * mib}
	b.now += readEvery
	b.step(b.now)
	return b.Level()
}

func TestLevelsRiseAtOnceAndFallOneByOne(t *testing.T) {
	b := newBed()
	for i, s := range []struct {
		used int64
		want Level
	}{
		{50, Easy},
		{74, Easy},
		{75, Trim},
		{71, Trim}, // hysteresis
		{69, Easy},
		{85, Narrow},
		{90, Refuse},
		{85, Refuse},
		{84, Narrow},
		{99, Shed},
		{150, Shed},
		{90, Shed},
		{89, Refuse},
		{50, Narrow},
		{50, Trim},
		{50, Easy},
		{95, Shed},
		{10, Refuse},
	} {
		if got := b.use(s.used); got != s.want {
			t.Fatalf("step %d, %d MiB: %v, want %v", i, s.used, got, s.want)
		}
		if b.Used() != s.used*mib {
			t.Fatalf("step %d: %d in use", i, b.Used())
		}
		for l := Easy; l <= Shed; l++ {
			if b.At(l) != (l <= s.want) {
				t.Fatalf("step %d: At(%v) is %v", i, l, b.At(l))
			}
		}
	}
	if got := fmt.Sprint(b.Entered(Trim), b.Entered(Narrow), b.Entered(Refuse), b.Entered(Shed)); got != "3 2 3 2" {
		t.Errorf("entered %s", got)
	}
	for _, line := range []string{"level=WARN msg=\"memory level\" event=memory_level level=trim before=easy used=78643200 pledged=0 budget=104857600", "level=INFO msg=\"memory level\" event=memory_level level=easy before=trim"} {
		if !strings.Contains(b.log.String(), line) {
			t.Errorf("%s\nis missing from\n%s", line, b.log.String())
		}
	}
}

func TestReliefComesAtOnceAndThenOnceASecond(t *testing.T) {
	b := newBed()
	b.use(50)
	for range 2 * time.Second / readEvery {
		b.use(75)
	}
	b.use(96)
	if got := fmt.Sprint(b.relieved); got != "[trim trim shed]" {
		t.Errorf("relieved %s", got)
	}
	b.use(10)
	b.use(10)
	b.use(10)
	b.use(10)
	n := len(b.relieved)
	for range 2 * time.Second / readEvery {
		b.use(10)
	}
	if len(b.relieved) != n {
		t.Error("relieved without need")
	}
}

// What begins between two readings counts at once, and until it must have shown
// in what is read.
func TestPledges(t *testing.T) {
	b := newBed()
	b.use(50)
	for range 25 {
		b.Pledge(mib)
	}
	if b.Level() != Trim {
		t.Errorf("level %v with 50 in use and 25 pledged", b.Level())
	}
	b.Pledge(20 * mib)
	if b.Level() != Shed || len(b.relieved) != 0 {
		t.Errorf("level %v, relieved %v", b.Level(), b.relieved)
	}
	if b.use(50); fmt.Sprint(b.relieved) != "[shed]" {
		t.Errorf("relieved %v", b.relieved)
	}
	for range settleSteps {
		b.use(60) // what was pledged has settled
	}
	for range levels {
		b.use(60)
	}
	if b.Level() != Easy {
		t.Errorf("level %v, though all that was pledged is in what is read", b.Level())
	}
	// What ends makes room for what begins.
	for range 1000 {
		b.Redeem(mib)
		b.Pledge(mib)
	}
	if b.Level() != Easy {
		t.Errorf("level %v by what came and went", b.Level())
	}
	b.Pledge(35 * mib)
	b.Redeem(35 * mib)
	for range levels {
		b.use(60)
	}
	if b.Level() != Easy {
		t.Errorf("level %v after the end", b.Level())
	}
}

func TestPledgesOfMany(t *testing.T) {
	b := newBed()
	b.use(50)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				b.Pledge(mib / 100)
				b.Redeem(mib / 100)
				b.Pledge(mib / 100)
			}
		})
	}
	all.Wait()
	if b.Level() != Shed || b.Entered(Shed) != 1 {
		t.Errorf("level %v, entered %d times", b.Level(), b.Entered(Shed))
	}
}

// Garbage is not use, and is told from it by a collection, though not by many.
func TestGarbageIsNotUse(t *testing.T) {
	b := newBed()
	b.onCollect = func() { b.f.resident -= b.f.objects - b.f.live; b.f.objects = b.f.live }
	for range 2 * tidyEvery / readEvery {
		b.f = figures{resident: 80 * mib, runtime: 70 * mib, objects: 60 * mib, live: 20 * mib}
		b.now += readEvery
		b.step(b.now)
		if b.Level() != Easy {
			t.Fatalf("level %v with %d MiB in use", b.Level(), b.Used()/mib)
		}
	}
	if b.collected != 2 {
		t.Errorf("%d collections, want 2", b.collected)
	}
	// And the other way round: what is new may turn out to live.
	b = newBed()
	b.onCollect = func() { b.f.live = b.f.objects }
	b.f = figures{resident: 97 * mib, runtime: 85 * mib, objects: 70 * mib, live: 10 * mib}
	b.step(time.Second)
	if b.Level() != Shed {
		t.Errorf("level %v", b.Level())
	}
}

func TestFreeMemoryIsReturned(t *testing.T) {
	b := newBed()
	b.onCollect = func() { b.f.resident -= b.f.free; b.f.free = 0 }
	b.f = figures{resident: 75 * mib, runtime: 60 * mib, free: 30 * mib, objects: 20 * mib, live: 20 * mib}
	b.step(time.Second)
	if b.collected != 1 || b.f.resident != 45*mib || b.Level() != Easy {
		t.Errorf("%d collections, %d resident, level %v", b.collected, b.f.resident, b.Level())
	}
}

// The collector's goal leaves room for what the process has besides.
func TestTheCollectorIsPaced(t *testing.T) {
	b := newBed()
	b.use(30)
	b.use(31)
	if got := fmt.Sprint(b.goals); got != fmt.Sprint([]int64{70 * mib}) {
		t.Errorf("goals %s", got)
	}
	b.f = figures{resident: 99 * mib, runtime: 1 * mib}
	b.step(b.now)
	if got := b.goals[len(b.goals)-1]; got != 25*mib {
		t.Errorf("goal %d: it may not strangle the program", got)
	}
}

func TestRestingConnectionsAreTidiedAfter(t *testing.T) {
	rested, collected := uint64(0), 0
	b := New(Options{Rested: func() uint64 { return rested }})
	b.collect = func() { collected++ }
	for i, s := range []struct {
		rested uint64
		want   int
	}{
		{499, 0},
		{499, 0}, // few are not worth it
		{500, 1},
		{999, 1}, // too early, and more follow
		{1000, 2},
		{1000, 2}, // too early
		{1000, 3}, // the last ones
		{1000, 3},
		{1000, 3},
		{1200, 3},
		{1200, 3},
		{1500, 4},
		{1501, 4},
		{1502, 4}, // more follow
		{1502, 5},
		{1502, 5},
	} {
		rested = s.rested
		b.step(time.Duration(i) * restLook)
		if collected != s.want {
			t.Errorf("step %d: %d collections, want %d", i, collected, s.want)
		}
	}
	if b.Level() != Easy {
		t.Error("a level without a budget")
	}
}

func TestWithoutABudget(t *testing.T) {
	var b *Budget
	b.Gave(Streams)
	b.Pledge(1 << 50)
	b.Redeem(1)
	none := New(Options{})
	none.Pledge(1 << 50)
	if none.Level() != Easy || none.pledged.Load() != 0 {
		t.Error("a budget of nothing counts")
	}
	if b.At(Trim) || b.Level() != Easy || b.Idle(time.Minute) != time.Minute {
		t.Error("nil gives something up")
	}
}

func TestIdle(t *testing.T) {
	b := newBed()
	b.use(75)
	for t0, want := range map[time.Duration]time.Duration{0: TrimIdle, time.Minute: TrimIdle, time.Second: time.Second} {
		if got := b.Idle(t0); got != want {
			t.Errorf("%v becomes %v, want %v", t0, got, want)
		}
	}
}

func TestRunReadsWithTheTicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed()
		b.f = figures{resident: 96 * mib, live: 1}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		time.Sleep(2 * readEvery)
		synctest.Wait()
		if b.Level() != Shed {
			t.Errorf("level %v", b.Level())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The runtime knows the figures by their names, and they make sense together.
func TestRealFigures(t *testing.T) {
	runtime.GC()
	keep := bytes.Repeat([]byte("x"), 8*mib)
	f := reader()()
	runtime.GC()
	after := reader()()
	if f.resident < mib || f.runtime < 8*mib || after.live < 8*mib || after.objects < after.live-mib {
		t.Errorf("%+v, then %+v", f, after)
	}
	if f.inUse() <= 0 || f.inUse() > f.resident {
		t.Errorf("%d in use of %d", f.inUse(), f.resident)
	}
	runtime.KeepAlive(keep)
}

func TestGoverningCostsNothing(t *testing.T) {
	b := newBed()
	if n := testing.AllocsPerRun(100, func() { _ = b.At(Refuse); b.Gave(Bodies); b.Pledge(1); b.Redeem(1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"": 0, "48MiB": 48 << 20, "48 MiB": 48 << 20, "1GiB": 1 << 30, "50000kB": 50e6, "64MB": 64e6, "2GB": 2e9, "40000KiB": 40000 << 10, "33554432B": 32 << 20,
	} {
		if got, err := ParseSize(s); got != want || err != nil {
			t.Errorf("%q is %d, %v; want %d", s, got, err, want)
		}
		bad := 0
		Config{Budget: s}.Validate(func(string, string) { bad++ })
		if bad != 0 || (Config{Budget: s}).Bytes() != want {
			t.Errorf("%q is refused", s)
		}
	}
	for s, part := range map[string]string{
		"48": "unit", "MiB": "unit", "-1MiB": "unit", "1.5GiB": "unit", "48mib": "unit", "10MiB": "least", "31MiB": "least", "0B": "least",
		"9223372036854775807GiB": "more than there can be", "99999999999999999999MiB": "unit",
	} {
		if n, err := ParseSize(s); err == nil || !strings.Contains(err.Error(), part) || n != 0 {
			t.Errorf("%q: %d, %v; want %q", s, n, err, part)
		}
		said := ""
		Config{Budget: s}.Validate(func(field, problem string) { said = field + " " + problem })
		if !strings.HasPrefix(said, "budget is ") {
			t.Errorf("%q: %q", s, said)
		}
	}
}

func TestWords(t *testing.T) {
	seen := map[string]bool{}
	for l := Easy; l <= Shed; l++ {
		seen[l.String()] = true
	}
	for g := range Gifts {
		seen[g.String()] = true
	}
	if len(seen) != levels+int(Gifts) {
		t.Errorf("%v", seen)
	}
}
