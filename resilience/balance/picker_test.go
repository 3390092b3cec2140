package balance

import (
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// oneGoroutine skips a long test that starts no goroutine under the race
// detector, which makes it many times as long and can find nothing in it.
func oneGoroutine(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("has one goroutine; runs without -race")
	}
}

func configured(a Algorithm) Config {
	cfg := Default()
	cfg.Algorithm = a
	return cfg
}

func everyAlgorithm(t *testing.T, f func(t *testing.T, cfg Config)) {
	for a := P2CEWMA; a <= Maglev; a++ {
		t.Run(a.String(), func(t *testing.T) { f(t, configured(a)) })
	}
}

// picks counts the picks of n idle tries.
func picks(p *Picker, n int, now time.Duration, seed uint64, avoid ...*Load) []int {
	rnd := rand.New(rand.NewPCG(seed, 0))
	counts := make([]int, p.Len())
	for range n {
		counts[p.Pick(now, rnd.Uint64(), avoid)]++
	}
	return counts
}

// fits is a chi-square test of counts against shares. The bound is five
// standard deviations above the mean of the distribution.
func fits(t *testing.T, counts []int, shares []float64) {
	t.Helper()
	total, sum := 0, 0.0
	for i := range counts {
		total += counts[i]
		sum += shares[i]
	}
	chi, degrees := 0.0, -1.0
	for i := range counts {
		want := float64(total) * shares[i] / sum
		if want == 0 {
			if counts[i] != 0 {
				t.Errorf("member %d picked %d times, want never", i, counts[i])
			}
			continue
		}
		d := float64(counts[i]) - want
		chi += d * d / want
		degrees++
	}
	if limit := degrees + 5*math.Sqrt(2*max(degrees, 1)); chi > limit {
		t.Errorf("chi-square %.1f above %.1f: %v for shares %v", chi, limit, counts, shares)
	}
}

func TestEmptyAndSingle(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, cfg Config) {
		if got := NewPicker(cfg, nil).Pick(0, 1, nil); got != -1 {
			t.Errorf("picked %d of none", got)
		}
		p := NewPicker(cfg, fresh(1))
		if got := p.Pick(0, 1, []*Load{p.Member(0).Load}); got != 0 || p.Len() != 1 {
			t.Errorf("picked %d of one", got)
		}
	})
}

// TestIdleShares: while nothing is in flight, the algorithms that go by weight
// give every member exactly its share.
func TestIdleShares(t *testing.T) {
	oneGoroutine(t)
	sets := [][]uint32{
		{1, 1},
		{1, 3},
		{5, 1, 1},
		{1000, 1, 1},
		{1, 2, 3, 4, 5, 6, 7, 8},
		{math.MaxUint32, math.MaxUint32 / 2, 1},
		{7, 7, 7, 7, 7},
	}
	large := make([]uint32, 200)
	for i := range large {
		large[i] = uint32(1 + i%17)
	}
	sets = append(sets, large)
	for _, a := range []Algorithm{WeightedRoundRobin, LeastRequest, Random} {
		for _, weights := range sets {
			p := NewPicker(configured(a), weighted(weights...))
			shares := make([]float64, len(weights))
			for i, w := range weights {
				shares[i] = float64(w)
			}
			fits(t, picks(p, 100_000, 0, 11), shares)
		}
	}
}

// TestP2CDividesByWeight: with equal latency, load in flight settles in
// proportion to the weights.
func TestP2CDividesByWeight(t *testing.T) {
	for _, a := range []Algorithm{P2CEWMA, LeastTime, LeastRequest} {
		p := NewPicker(configured(a), weighted(1, 2, 5))
		for i := range p.Len() {
			p.Member(i).Load.Begin(0)
			p.Member(i).Load.End(0, 10*time.Millisecond, false)
		}
		rnd := rand.New(rand.NewPCG(9, 9))
		for range 800 {
			p.Member(p.Pick(0, rnd.Uint64(), nil)).Load.Begin(0)
		}
		for i, want := range []int64{100, 200, 500} {
			if got := p.Member(i).Load.Inflight(); got < want-10 || got > want+10 {
				t.Errorf("%v: weight %d has %d in flight, want about %d", a, p.Member(i).Weight, got, want)
			}
		}
	}
}

// TestP2CEven: among idle, equal endpoints every one is drawn equally often.
func TestP2CEven(t *testing.T) {
	oneGoroutine(t)
	for _, n := range []int{2, 3, 10, 100} {
		p := NewPicker(configured(P2CEWMA), fresh(n))
		shares := make([]float64, n)
		for i := range shares {
			shares[i] = 1
		}
		fits(t, picks(p, 100_000, 0, 13), shares)
	}
}

// TestTwoChoices: the more expensive of two is never picked, and of n the most
// expensive never, the next only when paired with that one, and so on.
func TestTwoChoices(t *testing.T) {
	oneGoroutine(t)
	for _, a := range []Algorithm{P2CEWMA, LeastTime, LeastRequest} {
		for _, n := range []int{2, 3, 5, 20} {
			p := NewPicker(configured(a), fresh(n))
			shares := make([]float64, n)
			for i := range n {
				l := p.Member(i).Load
				l.Begin(0)
				l.End(0, 10*time.Millisecond, false)
				for range i {
					l.Begin(0)
				}
				shares[i] = float64(n - 1 - i)
			}
			fits(t, picks(p, 50_000, 0, 17), shares)
		}
	}
}

func TestAvoid(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, cfg Config) {
		for _, n := range []int{2, 3, 10, 64, 65, 300} {
			weights := make([]uint32, n)
			for i := range weights {
				weights[i] = uint32(1 + i%3)
			}
			weights[0] = 100_000 // the avoided one would get nearly everything
			p := NewPicker(cfg, weighted(weights...))
			avoid := []*Load{p.Member(0).Load}
			if n > 2 {
				avoid = append(avoid, p.Member(2).Load)
			}
			counts := picks(p, 2000, 0, 19, avoid...)
			if counts[0] > 0 || n > 2 && counts[2] > 0 {
				t.Errorf("of %d: picked the avoided ones %d and %d times", n, counts[0], counts[min(2, n-1)])
			}
			// All but one: that one, always.
			if n > fewMembers {
				continue
			}
			var rest []*Load
			for i := range n - 1 {
				rest = append(rest, p.Member(i).Load)
			}
			if got := picks(p, 100, 0, 23, rest...)[n-1]; got != 100 {
				t.Errorf("of %d: the only one left was picked %d of 100 times", n, got)
			}
			// All: as if none were to be avoided.
			rest = append(rest, p.Member(n-1).Load)
			for range 20 {
				if i := p.Pick(0, rand.New(rand.NewPCG(29, 0)).Uint64(), rest); i < 0 || i >= n {
					t.Errorf("of %d, all avoided: picked %d", n, i)
				}
			}
		}
	})
}

// TestAvoidKeepsProportions: the share of an avoided member goes to the others
// by their weights, not to its neighbour.
func TestAvoidKeepsProportions(t *testing.T) {
	oneGoroutine(t)
	for _, a := range []Algorithm{LeastRequest, Random, WeightedRoundRobin} {
		p := NewPicker(configured(a), weighted(1, 50, 2, 3, 4))
		counts := picks(p, 50_000, 0, 31, p.Member(1).Load)
		fits(t, counts, []float64{1, 0, 2, 3, 4})
	}
	p := NewPicker(configured(P2CEWMA), fresh(5))
	fits(t, picks(p, 50_000, 0, 37, p.Member(1).Load), []float64{1, 0, 1, 1, 1})
}

func TestSlowStart(t *testing.T) {
	oneGoroutine(t)
	for _, a := range []Algorithm{WeightedRoundRobin, LeastRequest, Random} {
		for _, c := range []struct {
			now  time.Duration
			want float64 // factor of the new one
		}{
			{100 * time.Second, 0.10},
			{102500 * time.Millisecond, 0.325},
			{105 * time.Second, 0.55},
			{109 * time.Second, 0.91},
			{110 * time.Second, 1},
			{90 * time.Second, 0.10}, // a clock a little behind
		} {
			members := weighted(1, 2, 1)
			members[2].Since = 100 * time.Second
			p := NewPicker(configured(a), members)
			fits(t, picks(p, 100_000, c.now, 41), []float64{1, 2, c.want})
		}
	}
}

// TestSlowStartP2C: the new one has a tenth of the requests in flight.
func TestSlowStartP2C(t *testing.T) {
	members := fresh(2)
	members[1].Since = 100 * time.Second
	p := NewPicker(configured(P2CEWMA), members)
	now := 100 * time.Second
	for i := range 2 {
		p.Member(i).Load.Begin(now)
		p.Member(i).Load.End(now, 10*time.Millisecond, false)
	}
	for range 1100 {
		p.Member(p.Pick(now, 1, nil)).Load.Begin(now)
	}
	if got := p.Member(1).Load.Inflight(); got < 95 || got > 105 {
		t.Errorf("%d of 1100 in flight at the new one, want 100", got)
	}
}

func TestNoSlowStartWhenAllAreNew(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, cfg Config) {
		members := fresh(4)
		for i := range members {
			members[i].Since = time.Duration(100+i) * time.Second
		}
		p := NewPicker(cfg, members)
		for _, now := range []time.Duration{100 * time.Second, 109999 * time.Millisecond, 113 * time.Second} {
			if p.slowStarting(now) {
				t.Errorf("slow start at %v, when all or none are new", now)
			}
		}
		if !p.slowStarting(110 * time.Second) {
			t.Error("no slow start once the first is through")
		}
		cfg.SlowStart = 0
		if NewPicker(cfg, members).slowStarting(110 * time.Second) {
			t.Error("slow start though switched off")
		}
	})
}

func TestNoAllocation(t *testing.T) {
	oneGoroutine(t) // and the detector allocates
	everyAlgorithm(t, func(t *testing.T, cfg Config) {
		for _, n := range []int{3, 1000} {
			members := fresh(n)
			members[0].Weight = 5
			members[1].Since = 0
			p := NewPicker(cfg, members)
			avoid := []*Load{members[2].Load}
			rnd := rand.New(rand.NewPCG(1, 1))
			now := time.Second
			if got := testing.AllocsPerRun(200, func() {
				l := p.Member(p.Pick(now, rnd.Uint64(), avoid)).Load
				l.Begin(now)
				l.End(now, time.Millisecond, now%2 == 0)
				p.Pick(now, rnd.Uint64(), nil)
				now += 1001 * time.Microsecond
			}); got != 0 {
				t.Errorf("of %d: %v allocations", n, got)
			}
		}
	})
}

func TestConcurrentPicks(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, cfg Config) {
		p := NewPicker(cfg, weighted(1, 2, 3, 4))
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(g), 1))
				for i := range 2000 {
					now := time.Duration(i) * time.Millisecond
					l := p.Member(p.Pick(now, rnd.Uint64(), nil)).Load
					l.Begin(now)
					l.End(now, time.Millisecond, false)
				}
			})
		}
		wg.Wait()
		for i := range p.Len() {
			if n := p.Member(i).Load.Inflight(); n != 0 {
				t.Errorf("member %d: %d in flight", i, n)
			}
		}
	})
}

func TestAlgorithmText(t *testing.T) {
	for a := P2CEWMA; a <= Maglev; a++ {
		text, err := a.MarshalText()
		var back Algorithm
		if err != nil || back.UnmarshalText(text) != nil || back != a {
			t.Errorf("%v does not survive as text: %q %v", a, text, err)
		}
	}
	a := Maglev
	if err := a.UnmarshalText(nil); err != nil || a != P2CEWMA {
		t.Errorf("the empty text gave %v, %v", a, err)
	}
	if err := a.UnmarshalText([]byte("round_robin")); err == nil || !strings.Contains(err.Error(), "weighted_round_robin") {
		t.Errorf("an unknown name gave %v", err)
	}
	if _, err := Algorithm(9).MarshalText(); err == nil || Algorithm(9).String() != "algorithm(9)" {
		t.Errorf("%v: %v", Algorithm(9), err)
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
		{set(func(c *Config) { c.SlowStart, c.PanicPercent, c.FailurePenalty = 0, 0, 0 }), ""},
		{set(func(c *Config) { c.PanicPercent, c.SlowStartMinPercent = 100, 100 }), ""},
		{Config{}, "choices max_ring_size maglev_table_size default_rtt decay slow_start_min_percent overprovisioning_percent zones.spill_latency_percent"},
		{set(func(c *Config) { c.Algorithm = 7 }), "algorithm"},
		{set(func(c *Config) { c.PanicPercent, c.SlowStartMinPercent = math.NaN(), math.NaN() }), "slow_start_min_percent panic_percent"},
		{set(func(c *Config) { c.PanicPercent, c.SlowStartMinPercent = 101, 100.1 }), "slow_start_min_percent panic_percent"},
		{set(func(c *Config) { c.SlowStart, c.FailurePenalty, c.RetryAfterMax = -1, -1, -1 }), "slow_start failure_penalty retry_after_max"},
		{set(func(c *Config) { c.Choices = maxChoices + 1 }), "choices"},
		{set(func(c *Config) { c.Algorithm = Maglev }), "hash"},
		{set(func(c *Config) { c.Algorithm, c.Hash = RingHash, []HashOn{{SourceIP: true}} }), ""},
		{set(func(c *Config) { c.Algorithm, c.Hash = RingHash, make([]HashOn, maxHash+1) }), "hash"},
		{set(func(c *Config) { c.Hash, c.BoundedLoadPercent = []HashOn{{SourceIP: true}}, 150 }), "hash bounded_load_percent"},
		{set(func(c *Config) { c.BoundedLoadPercent = math.NaN() }), "bounded_load_percent"},
		{set(func(c *Config) { c.BoundedLoadPercent = 99 }), "bounded_load_percent"},
		{set(func(c *Config) { c.MinRingSize, c.MaxRingSize = 10, 9 }), "max_ring_size"},
		{set(func(c *Config) { c.MaxRingSize, c.MaglevTableSize = maxSlots+1, maxSlots+1 }), "max_ring_size maglev_table_size"},
	} {
		var got []string
		c.cfg.Validate(func(field, _ string) { got = append(got, field) })
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: mistakes in %q, want %q", c.cfg, s, c.want)
		}
	}
}
