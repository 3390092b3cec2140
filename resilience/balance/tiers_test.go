package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// group is n candidates of a level and distance, of which so many are available.
func group(level uint16, far Far, n, available int) (list []Candidate) {
	for i := range n {
		list = append(list, Candidate{
			Member:  Member{Load: &Load{}, Weight: 1, Since: -1, Key: KeyOf(fmt.Sprint(level, far, i)), Level: level, Far: far},
			Healthy: i < available,
		})
	}
	return list
}

func groups(parts ...[]Candidate) (all []Candidate) {
	for _, p := range parts {
		all = append(all, p...)
	}
	for i := range all {
		all[i].Index = i
	}
	return all
}

func nearby(algorithm Algorithm) Config {
	c := Default()
	c.Algorithm, c.SlowStart, c.Zones.Prefer = algorithm, 0, true
	return c
}

// TestShares: how attempts are divided, by hand.
func TestShares(t *testing.T) {
	for _, tt := range []struct {
		name  string
		all   []Candidate
		want  string // level/far members share of each tier
		panic bool
	}{
		{"one zone", groups(group(0, Near, 3, 3)), "", false},
		{"another zone", groups(group(0, Away, 3, 3)), "", false},
		{"all near", groups(group(0, Near, 3, 3), group(0, Around, 5, 5), group(0, Away, 9, 9)), "0/zone 3 100, 0/region 5 0, 0/elsewhere 9 0", false},
		{"half of the near are away", groups(group(0, Near, 4, 2), group(0, Away, 4, 4)), "0/zone 2 70, 0/elsewhere 4 30", false},
		{"no near", groups(group(0, Near, 2, 0), group(0, Around, 2, 1), group(0, Away, 4, 4)), "0/region 1 70, 0/elsewhere 4 30", false},
		{"nine of ten suffice", groups(group(0, Near, 10, 9), group(0, Away, 4, 4)), "0/zone 9 100, 0/elsewhere 4 0", false},
		{"panic", groups(group(0, Near, 3, 0), group(0, Away, 4, 1)), "0/zone 3 100, 0/elsewhere 4 0", true},
		{"two levels", groups(group(0, Near, 2, 2), group(1, Near, 2, 2)), "0/zone 2 100, 1/zone 2 0", false},
		{"failover", groups(group(0, Near, 4, 2), group(1, Near, 4, 4)), "0/zone 2 70, 1/zone 4 30", false},
		{"failover of all", groups(group(3, Near, 4, 0), group(7, Near, 4, 3)), "7/zone 3 100", false},
		{"three levels", groups(group(0, Near, 10, 2), group(1, Near, 10, 2), group(2, Near, 10, 10)), "0/zone 2 28, 1/zone 2 28, 2/zone 10 44", false},
		// Envoy normalizes 28 and 28 to a half each, and panics where fewer than 30 % are available.
		{"too few in all", groups(group(0, Near, 10, 2), group(1, Near, 10, 4)), "0/zone 10 33, 1/zone 4 67", true},
		{"none at all", groups(group(0, Near, 2, 0), group(1, Near, 2, 0)), "0/zone 2 100, 1/zone 2 0", true},
		{"levels and zones", groups(group(0, Near, 4, 1), group(0, Away, 4, 3), group(1, Around, 4, 4)), "0/zone 1 24, 0/elsewhere 3 45, 1/region 4 30", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, panicking := NewTiered(nearby(Random), tt.all, nil)
			got := ""
			for i, s := range p.Tiers() {
				if i > 0 {
					got += ", "
				}
				got += fmt.Sprintf("%d/%v %d %.0f", s.Level, s.Far, s.Members, 100*s.Share)
			}
			if got != tt.want || panicking != tt.panic {
				t.Errorf("got  %s (panic %v)\nwant %s (panic %v)", got, panicking, tt.want, tt.panic)
			}
		})
	}
}

// TestTieredPicks: picks keep to the shares, whatever the algorithm, and a
// position is that of the member which was compared.
func TestTieredPicks(t *testing.T) {
	const n = 40_000
	for algorithm := range algorithms {
		cfg := nearby(Algorithm(algorithm))
		p, _ := NewTiered(cfg, groups(group(0, Near, 10, 5), group(0, Around, 10, 5), group(1, Away, 10, 10)), nil)
		rnd := rand.New(rand.NewPCG(5, uint64(algorithm)))
		counts := map[TierState]int{}
		for range n {
			var i int
			if cfg.Algorithm.ByHash() {
				i, _ = p.PickKey(rnd.Uint64(), 0, nil)
			} else {
				var seen Seen
				i = p.PickSeen(0, rnd.Uint64(), nil, &seen)
				if seen.Compared > 0 && seen.Position[0] != i {
					t.Fatalf("%v: picked %d, seen %+v", cfg.Algorithm, i, seen)
				}
			}
			m := p.Member(i)
			counts[TierState{Level: m.Level, Far: m.Far}]++
		}
		for _, s := range p.Tiers() {
			got, want := float64(counts[TierState{Level: s.Level, Far: s.Far}]), s.Share*n
			if sigma := math.Sqrt(want * (1 - s.Share)); math.Abs(got-want) > 5*sigma+1 {
				t.Errorf("%v: %v of level %d had %v attempts, want %v", cfg.Algorithm, s.Far, s.Level, got, want)
			}
		}
	}
}

// TestTieredAgainstModel: whatever the endpoints, shares add up, only what the
// panic rule leaves is a member, each once, and a near endpoint never has less
// than a far one of its level.
func TestTieredAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 8))
	for round := range 3000 {
		var parts [][]Candidate
		for level := range uint16(1 + rnd.IntN(3)) {
			for far := range Far(farCount) {
				if n := rnd.IntN(5); n > 0 {
					parts = append(parts, group(level*uint16(1+rnd.IntN(4)), far, n, rnd.IntN(n+1)))
				}
			}
		}
		all := groups(parts...)
		cfg := nearby(Random)
		cfg.PanicPercent = []float64{0, 30, 60}[round%3]
		cfg.Zones.Prefer = rnd.IntN(4) > 0
		p, panicking := NewTiered(cfg, all, nil)
		available := 0
		for i := range all {
			if all[i].available() {
				available++
			}
		}
		used := map[int]bool{}
		for i := range p.Len() {
			m := p.Member(i)
			if used[m.Index] || !panicking && !all[m.Index].available() {
				t.Fatalf("%d is a member: twice, or it is not available and there is no panic", m.Index)
			}
			used[m.Index] = true
		}
		if len(used) < available {
			t.Fatalf("%d members of %d available", len(used), available)
		}
		sum := 0.0
		states := p.Tiers()
		for i, s := range states {
			sum += s.Share
			if s.Share < -1e-9 || i > 0 && states[i-1].Level > s.Level {
				t.Fatalf("%+v", states)
			}
		}
		if len(states) > 0 && math.Abs(sum-1) > 1e-9 {
			t.Fatalf("shares add up to %v: %+v", sum, states)
		}
		// A pick that avoids all but one finds that one.
		if n := p.Len(); n > 1 && n <= 9 {
			left := rnd.IntN(n)
			var avoid []*Load
			for i := range n {
				if i != left {
					avoid = append(avoid, p.Member(i).Load)
				}
			}
			if got := p.Pick(0, rnd.Uint64(), avoid); got != left {
				t.Fatalf("picked %d although only %d is not to be avoided", got, left)
			}
		}
	}
}

// TestTieredKeys: the same key goes to the same endpoint.
func TestTieredKeys(t *testing.T) {
	all := groups(group(0, Near, 4, 2), group(0, Away, 4, 4))
	p, _ := NewTiered(nearby(Maglev), all, nil)
	q, _ := NewTiered(nearby(Maglev), all, nil)
	for key := range uint64(1000) {
		i, _ := p.PickKey(mix(key), 0, nil)
		if j, _ := q.PickKey(mix(key), 5, nil); i != j {
			t.Fatalf("key %d goes to %d and to %d", key, i, j)
		}
	}
}

func TestTieredPickDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p, _ := NewTiered(nearby(P2CEWMA), groups(group(0, Near, 90, 50), group(0, Away, 90, 90), group(1, Near, 5, 5)), nil)
	r := uint64(0)
	avoid := []*Load{p.Member(3).Load}
	if n := testing.AllocsPerRun(1000, func() { r += golden; p.Pick(time.Second, r, avoid) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTieredPick(b *testing.B) {
	p, _ := NewTiered(nearby(P2CEWMA), groups(group(0, Near, 300, 150), group(0, Around, 300, 300), group(0, Away, 400, 400)), nil)
	r := uint64(0)
	for b.Loop() {
		r += golden
		p.Pick(time.Second, r, nil)
	}
}
