package balance

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// What a pick says it compared is what it decided by, and telling it changes
// no pick.
func TestPickSeen(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, cfg Config) {
		for _, n := range []int{1, 2, 5, 100} {
			list := make([]Member, n)
			for i := range list {
				list[i] = Member{Load: new(Load), Weight: uint32(1 + i%3), Since: -1, Index: i}
				list[i].Load.Init(cfg)
				for range i % 4 {
					list[i].Load.Begin(0)
				}
			}
			p, twin := NewPicker(cfg, slices.Clone(list)), NewPicker(cfg, slices.Clone(list))
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			for try := range 500 {
				word := rnd.Uint64()
				avoid := []*Load{}
				if try%2 == 1 {
					avoid = append(avoid, list[try%n].Load)
				}
				var seen Seen
				i := p.PickSeen(0, word, avoid, &seen)
				if j := twin.Pick(0, word, avoid); j != i {
					t.Fatalf("%d members: picked %d, and %d without telling", n, i, j)
				}
				compares := 0
				if a := p.Algorithm(); !a.ByHash() && a != WeightedRoundRobin && a != Random && n-len(avoid) > 1 {
					compares = min(cfg.Choices, n-len(avoid))
				}
				if seen.Compared < compares || compares == 0 && seen.Compared > 0 {
					t.Fatalf("%d members, %d to avoid: compared %v, want %d", n, len(avoid), seen.Compared, compares)
				}
				if seen.Compared == 0 {
					continue
				}
				score := func(k int) float64 { return seen.Cost[k] / seen.Weight[k] }
				if seen.Position[0] != i || seen.Position[0] == seen.Position[1] || score(0) > score(1)*(1+1e-12) {
					t.Fatalf("picked %d having seen %+v", i, seen)
				}
			}
		}
	})
}
