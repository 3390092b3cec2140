package admission

import (
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// service accepts some requests a second and refuses the others at once.
type service struct {
	capacity, second, taken int
}

func (s *service) accepts(now time.Duration) bool {
	if n := int(now / time.Second); n != s.second {
		s.second, s.taken = n, 0
	}
	s.taken++
	return s.taken <= s.capacity
}

// run sends rate requests a second to a service for some seconds and returns,
// over the second half of it, how many reached it and were accepted a second.
func run(t *Throttle, s *service, rnd *rand.Rand, from, seconds, rate int) (reached, accepted float64) {
	for i := range seconds * rate {
		now := time.Duration(from)*time.Second + time.Duration(i)*time.Second/time.Duration(rate)
		if !t.Ask(now, rnd.Uint64(), 0).OK {
			continue
		}
		res := Refused
		if s.accepts(now) {
			res = Accepted
		}
		t.Done(now, res)
		if i >= seconds*rate/2 {
			reached++
			if res == Accepted {
				accepted++
			}
		}
	}
	half := float64(seconds) / 2
	return reached / half, accepted / half
}

// TestLoadFallsToMultiplier: whatever is offered, what reaches a service beyond
// its capacity falls to about multiplier times what it accepts, and it goes on
// to accept all that it can.
func TestLoadFallsToMultiplier(t *testing.T) {
	for _, c := range []struct {
		multiplier  float64
		rate        int
		reach, much float64 // wanted, and how far it may be off
	}{
		{2, 90, 90, 0},    // within the capacity of 100
		{2, 150, 150, 1},  // beyond it, and within twice
		{2, 200, 200, 8},  // half of it can be taken
		{2, 400, 200, 20}, // a quarter
		{2, 900, 200, 25},
		{1.25, 400, 125, 15},
		{1.05, 200, 105, 12},
		{4, 900, 400, 40},
	} {
		cfg := Default()
		cfg.Multiplier, cfg.MaxRejectionPercent = c.multiplier, 99
		th, s := New(cfg), &service{capacity: 100}
		reached, accepted := run(th, s, rand.New(rand.NewPCG(uint64(c.rate), 3)), 0, 240, c.rate)
		if math.Abs(reached-c.reach) > c.much {
			t.Errorf("multiplier %v, %d a second: %.1f reached the service, want %.0f", c.multiplier, c.rate, reached, c.reach)
		}
		if want := min(float64(c.rate), 100); accepted < want*0.93 {
			t.Errorf("multiplier %v, %d a second: %.1f were accepted, want %.0f", c.multiplier, c.rate, accepted, want)
		}
	}
}

// TestRecovers: once the service takes all, all is let through again within two
// windows, and MaxRejectionPercent bounds what is held back meanwhile.
func TestRecovers(t *testing.T) {
	cfg := Default()
	th, rnd := New(cfg), rand.New(rand.NewPCG(1, 2))
	reached, _ := run(th, &service{capacity: 0}, rnd, 0, 120, 100)
	if math.Abs(reached-20) > 3 {
		t.Errorf("%.1f of 100 reach a service that takes nothing, want a fifth", reached)
	}
	if _, accepted := run(th, &service{capacity: 1000}, rnd, 120, 120, 100); accepted != 100 {
		t.Errorf("after its recovery %.1f of 100 are accepted", accepted)
	}
}

// TestObserve lets everything through and counts.
func TestObserve(t *testing.T) {
	cfg := Default()
	cfg.Mode = guard.Observe
	th := New(cfg)
	reached, _ := run(th, &service{capacity: 10}, rand.New(rand.NewPCG(1, 2)), 0, 60, 100)
	if s := th.Snapshot(60 * time.Second); reached != 100 || s.Rejected != 0 || s.WouldHaveRejected == 0 || s.Rejection < 0.5 {
		t.Errorf("%v reached it, %+v", reached, s)
	}
}

func TestMinimumAndUnknown(t *testing.T) {
	th := New(Default())
	for range 19 {
		th.Done(0, Refused)
	}
	for range 100 {
		th.Done(0, Unknown)
	}
	if d := th.Ask(0, 0, 0); !d.OK || d.Rejection != 0 {
		t.Errorf("with 19 results: %+v", d)
	}
	th.Done(0, Refused)
	if d := th.Ask(0, 0, 0); d.OK || !d.Held || d.Rejection != 0.8 {
		t.Errorf("with 20: %+v", d)
	}
	if d := th.Ask(0, math.MaxUint64, 0); !d.OK || d.Held {
		t.Errorf("and luck: %+v", d)
	}
	if th.Patience() != 3*time.Second {
		t.Errorf("patience %v", th.Patience())
	}
}

// model keeps every request.
type model struct {
	cfg Config
	log []struct {
		tick int64
		ok   bool
	}
}

func (m *model) add(now time.Duration, ok bool) {
	m.log = append(m.log, struct {
		tick int64
		ok   bool
	}{int64(now / (m.cfg.Window / 10)), ok})
}

func (m *model) rejection(now time.Duration) float64 {
	requests, accepts := 0.0, 0.0
	for _, e := range m.log {
		if e.tick > int64(now/(m.cfg.Window/10))-10 {
			requests++
			if e.ok {
				accepts++
			}
		}
	}
	if requests < float64(m.cfg.MinimumRequests) {
		return 0
	}
	return min(max((requests-m.cfg.Multiplier*accepts)/(requests+1), 0), m.cfg.MaxRejectionPercent/100)
}

func TestAgainstModel(t *testing.T) {
	held := 0
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		cfg := Default()
		cfg.Mode = []guard.Mode{guard.Enforce, guard.Observe, guard.Percent(40)}[rnd.IntN(3)]
		cfg.Window = time.Duration(1+rnd.IntN(40)) * time.Second
		cfg.Multiplier = 1 + 2*rnd.Float64()
		cfg.MinimumRequests = uint32(1 + rnd.IntN(30))
		cfg.MaxRejectionPercent = 1 + 98*rnd.Float64()
		th, m := New(cfg), &model{cfg: cfg}
		now := time.Duration(0)
		good := 0.0
		for step := range 600 {
			if step%100 == 0 {
				good = rnd.Float64()
			}
			now += time.Duration(rnd.ExpFloat64() * float64(100*time.Millisecond))
			random := rnd.Uint64()
			want := m.rejection(now)
			draw := guard.DrawOf(rnd.Uint64())
			d := th.Ask(now, random, draw)
			isHeld := float64(random>>11)/(1<<53) < want
			if d.Rejection != want || d.Held != isHeld || d.OK == (isHeld && cfg.Mode.Acts(draw)) {
				t.Fatalf("seed %d step %d: %+v, the model rejects %v of all, this one: %v", seed, step, d, want, isHeld)
			}
			if isHeld {
				held++
			}
			if !d.OK {
				m.add(now, false)
				continue
			}
			res := Result(rnd.IntN(10) / 9 * 2) // now and then Unknown
			if res == Accepted && rnd.Float64() > good {
				res = Refused
			}
			th.Done(now, res)
			if res != Unknown {
				m.add(now, res == Accepted)
			}
		}
	}
	if held < 2000 {
		t.Errorf("%d were held back in all: too tame a test", held)
	}
}

// TestClockGoesBack: what lies in the future does not count, and nothing lasts
// longer than a window.
func TestClockGoesBack(t *testing.T) {
	th := New(Default())
	for range 100 {
		th.Done(time.Hour, Refused)
	}
	if r, _ := th.window.counts(time.Second); r != 0 {
		t.Errorf("%d results of the future count", r)
	}
	for range 30 {
		th.Done(time.Second, Accepted)
	}
	if r, a := th.window.counts(2 * time.Second); r != 30 || a != 30 {
		t.Errorf("%d of %d", a, r)
	}
	th.Done(-time.Hour, Accepted)
	if r, _ := th.window.counts(-time.Minute); r < 1 {
		t.Error("before the beginning nothing counts")
	}
}

// TestFullCounters keep the proportion, and the number of the tick comes round.
func TestFullCounters(t *testing.T) {
	th := New(Default())
	for i := range 5_000_000 {
		th.window.add(0, i%4 != 0)
	}
	r, a := th.window.counts(0)
	if share := float64(a) / float64(r); r < 1<<20 || math.Abs(share-0.75) > 0.0001 {
		t.Errorf("%d of %d", a, r)
	}
	th = New(Default())
	round := turn * th.window.width
	for i := range time.Duration(20) {
		th.window.add(round+(i-10)*th.window.width, true)
		if r, _ := th.window.counts(round + (i-10)*th.window.width); r != uint64(min(i+1, 10)) {
			t.Errorf("%d ticks from the turn: %d requests, want %d", i-10, r, min(i+1, 10))
		}
	}
}

func TestConcurrent(t *testing.T) {
	th := New(Default())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 5000 {
				th.Done(time.Duration(i/1000)*3*time.Second, Result(i%2))
			}
		})
	}
	wg.Wait()
	if r, a := th.window.counts(12 * time.Second); r > 20_000 || r < 19_000 || a > r {
		t.Errorf("%d of %d", a, r)
	}
}

func TestNoAllocation(t *testing.T) {
	th := New(Default())
	now := time.Duration(0)
	if n := testing.AllocsPerRun(500, func() {
		if th.Ask(now, uint64(now)<<20, 0).OK {
			th.Done(now, Refused)
		}
		now += 50 * time.Millisecond
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConfig(t *testing.T) {
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
		{Config{}, "multiplier window minimum_requests max_rejection_percent"},
		{set(func(c *Config) { c.Mode, c.Scope = guard.Observe+1, 2 }), "mode scope"},
		{set(func(c *Config) { c.Multiplier, c.MaxRejectionPercent = math.NaN(), 100 }), "multiplier max_rejection_percent"},
		{set(func(c *Config) { c.Statuses, c.GRPCStatuses = []int{200}, []retry.GRPCStatus{0} }), "statuses grpc_statuses"},
		{set(func(c *Config) { c.Statuses, c.GRPCStatuses = nil, nil }), ""},
	} {
		var got []string
		c.cfg.Validate(func(field, _ string) { got = append(got, field) })
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: mistakes in %q, want %q", c.cfg, s, c.want)
		}
	}
	d := Default()
	for _, c := range []struct {
		status int
		grpc   retry.GRPCStatus
		want   bool
	}{{200, 0, false}, {500, 0, false}, {503, 0, true}, {200, 14, true}, {200, 13, false}, {429, 0, true}} {
		if got := d.Refused(c.status, c.grpc); got != c.want {
			t.Errorf("%d, %d: %v", c.status, c.grpc, got)
		}
	}
	e := Default()
	if !d.Equal(&e) || d.Equal(nil) || (*Config)(nil).Equal(&d) || !(*Config)(nil).Equal(nil) {
		t.Error("equal")
	}
	e.Statuses = e.Statuses[1:]
	if d.Equal(&e) {
		t.Error("not equal")
	}
	for word, want := range map[string]Scope{"": ScopeCluster, "cluster": ScopeCluster, "route": ScopeRoute} {
		s := Scope(9)
		if err := s.UnmarshalText([]byte(word)); err != nil || s != want {
			t.Errorf("%q: %v, %v", word, s, err)
		}
		if text, _ := s.MarshalText(); word != "" && string(text) != word {
			t.Errorf("%v is written %s", s, text)
		}
	}
	var s Scope
	if s.UnmarshalText([]byte("endpoint")) == nil || Scope(9).String() != "scope(9)" {
		t.Error("a wrong scope")
	}
}

func BenchmarkAsk(b *testing.B) {
	th := New(Default())
	b.ReportAllocs()
	for i := range b.N {
		now := time.Duration(i) * time.Microsecond
		if th.Ask(now, uint64(i), 0).OK {
			th.Done(now, Accepted)
		}
	}
}
