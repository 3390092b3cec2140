package balance

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestShareOfPicks: a member with a part of its share gets that part of what it
// would get, with every algorithm, in small and large pools; nobody else loses.
func TestShareOfPicks(t *testing.T) {
	const n = 20_000
	for algorithm := range algorithms {
		for _, size := range []int{2, 3, 5, 100} {
			for _, choices := range []int{2, 1000} {
				if size*choices > 10_000 {
					continue // slow, and no other than with few
				}
				cfg := Default()
				cfg.Algorithm, cfg.SlowStart, cfg.Choices = Algorithm(algorithm), 0, choices
				all := groups(group(0, Near, size, size))
				for i := range all {
					all[i].Load.Init(cfg)
					all[i].Load.Begin(0) // all cost the same
					all[i].Load.observe(all[i].Load.rules(), 0, 1e6, false)
				}
				p := NewPicker(cfg, members(all, size, func(*Candidate) bool { return true }))
				rnd := rand.New(rand.NewPCG(6, uint64(algorithm*1000+size)))
				picks := func() float64 {
					hit := 0
					for range n {
						var i int
						if cfg.Algorithm.ByHash() {
							i, _ = p.PickKey(rnd.Uint64(), 0, nil)
						} else {
							i = p.Pick(time.Millisecond, rnd.Uint64(), nil)
						}
						if i == 0 {
							hit++
						}
					}
					return float64(hit)
				}
				full := picks()
				all[0].Load.SetShare(0.4)
				got := picks()
				// Where a pick that it passes up is drawn anew it may come back to it, as
				// with a weight of 0.4.
				noise := 6 * math.Sqrt(full)
				if low, high := 0.4*full, max(0.4*full, n*0.4/(float64(size)-0.6)); got < low-noise || got > high+noise {
					t.Errorf("%v of %d, choices %d: %v picks with 40 %% of the share, %v with all", cfg.Algorithm, size, choices, got, full)
				}
				all[0].Load.SetShare(1)
				if again := picks(); math.Abs(again-full) > 6*math.Sqrt(2*full)+1 {
					t.Errorf("%v of %d: %v picks afterwards, %v before", cfg.Algorithm, size, again, full)
				}
			}
		}
	}
}

// TestSharesOfAll: when all pass up something nobody is preferred, and someone is
// picked.
func TestSharesOfAll(t *testing.T) {
	for algorithm := range algorithms {
		cfg := Default()
		cfg.Algorithm, cfg.SlowStart = Algorithm(algorithm), 0
		all := groups(group(0, Near, 4, 4))
		for i := range all {
			all[i].Load.SetShare(0.05)
		}
		p := NewPicker(cfg, members(all, 4, func(*Candidate) bool { return true }))
		hit := map[int]bool{}
		for r := range uint64(200) {
			hit[p.Pick(0, mix(r), nil)] = true
		}
		if hit[-1] || len(hit) < 2 {
			t.Errorf("%v: picked %v", cfg.Algorithm, hit)
		}
	}
	var l Load
	for _, x := range []float64{-1, 0, 0.1, 0.5, 1, 2} {
		l.SetShare(x)
		if got := l.Share(); math.Abs(got-min(max(x, 0), 1)) > 1e-4 {
			t.Errorf("a share of %v is %v", x, got)
		}
	}
}

// TestRolled: what was counted since the last Roll.
func TestRolled(t *testing.T) {
	var l Load
	l.Begin(0)
	l.End(1, time.Second, false) // not measured
	l.Measure(true)
	for i := range 5 {
		l.Begin(0)
		l.End(1, time.Duration(i)*time.Millisecond, i == 4)
	}
	l.Begin(0)
	l.End(1, -1, false) // says nothing
	l.Roll()
	if ended, failed, took := l.Rolled(); ended != 5 || failed != 1 || took != 6*time.Millisecond {
		t.Errorf("%d ended, %d failed, %v", ended, failed, took)
	}
	l.Roll()
	if ended, failed, took := l.Rolled(); ended+failed != 0 || took != 0 {
		t.Errorf("%d ended, %d failed, %v after nothing", ended, failed, took)
	}
}
