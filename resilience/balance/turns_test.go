package balance

import (
	"math/rand/v2"
	"testing"
)

// model is the smooth weighted round robin that nginx made known: everybody
// earns its weight each time, and the richest is picked and pays the total.
type model struct {
	weights, current []int64
}

func (m *model) pick() int {
	best, total := 0, int64(0)
	for i, w := range m.weights {
		total += w
		m.current[i] += w
		if m.current[i] > m.current[best] {
			best = i
		}
	}
	m.current[best] -= total
	return best
}

// TestTurnsAgainstModel: after any number of picks every member has been
// picked as often as by the slow model, give or take the turns that are under
// way in the columns it is in, and after a whole cycle exactly as often.
func TestTurnsAgainstModel(t *testing.T) {
	oneGoroutine(t)
	rnd := rand.New(rand.NewPCG(43, 47))
	for range 300 {
		n := 2 + rnd.IntN(12)
		weights := make([]uint32, n)
		slow := &model{weights: make([]int64, n), current: make([]int64, n)}
		total := 0
		for i := range weights {
			weights[i] = uint32(1 + rnd.IntN(1+rnd.IntN(20)))
			slow.weights[i] = int64(weights[i])
			total += int(weights[i])
		}
		p := NewPicker(configured(WeightedRoundRobin), weighted(weights...))
		columns := make([]int, n) // how many each member is in
		for i := range n {
			columns[i]++
			if p.table != nil && int(p.table[i].other) != i {
				columns[p.table[i].other]++
			}
		}
		seed := rnd.Uint64()
		got, want := make([]int, n), make([]int, n)
		for k := 1; k <= 3*n*total; k++ {
			got[p.Pick(0, seed, nil)]++
			want[slow.pick()]++
			for i := range n {
				if d := got[i] - want[i]; d > columns[i]+2 || -d > columns[i]+2 {
					t.Fatalf("weights %v: after %d picks %v, model %v", weights, k, got, want)
				}
			}
			if k%(n*total) != 0 {
				continue
			}
			for i := range n {
				// The binary fraction of a third is not a third: the turn at the
				// seam of a cycle may fall on either side.
				if d := got[i] - want[i]; d > columns[i] || -d > columns[i] {
					t.Fatalf("weights %v: after %d cycles %v, model %v", weights, k/(n*total), got, want)
				}
			}
		}
	}
}

// TestTurnsAreSpread: the time between two turns of a member stays near its
// mean, total/weight, also for one that outweighs thousands of others.
func TestTurnsAreSpread(t *testing.T) {
	heavy := make([]uint32, 1000)
	for i := range heavy {
		heavy[i] = 1
	}
	heavy[500] = 1000
	for _, c := range []struct {
		weights []uint32
		member  int
		longest int
	}{
		{[]uint32{5, 1, 1}, 0, 3},  // mean 1.4
		{[]uint32{5, 1, 1}, 1, 12}, // mean 7
		{[]uint32{1, 1, 1, 1}, 2, 4},
		{heavy, 500, 4}, // mean 2
	} {
		p := NewPicker(configured(WeightedRoundRobin), weighted(c.weights...))
		last, longest := 0, 0
		for k := range 20_000 {
			if p.Pick(0, 12345, nil) == c.member {
				longest = max(longest, k-last)
				last = k
			}
		}
		if longest > c.longest || longest == 0 {
			t.Errorf("%d members, weight %d: %d picks between two turns, want at most %d",
				len(c.weights), c.weights[c.member], longest, c.longest)
		}
	}
}

// TestProxiesDoNotMarchInStep: the first picks of many proxies are spread.
func TestProxiesDoNotMarchInStep(t *testing.T) {
	const n, proxies = 10, 10_000
	rnd := rand.New(rand.NewPCG(53, 59))
	counts := make([]int, n)
	shares := make([]float64, n)
	for range proxies {
		counts[NewPicker(configured(WeightedRoundRobin), fresh(n)).Pick(0, rnd.Uint64(), nil)]++
	}
	for i := range shares {
		shares[i] = 1
	}
	fits(t, counts, shares)
}

// TestTable: the parts of every member's columns sum up to its share.
func TestTable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(61, 67))
	for _, n := range []int{1, 2, 3, 10, 1000} {
		members := fresh(n)
		total := 0.0
		for i := range members {
			members[i].Weight = 1 + rnd.Uint32N(1<<rnd.IntN(32))
			total += float64(members[i].Weight)
		}
		table := newTable(members)
		if table == nil {
			if n > 1 {
				t.Errorf("%d members: no table", n)
			}
			continue
		}
		parts := make([]float64, n)
		for i, c := range table {
			part := float64(c.primary) / (1 << 64)
			parts[i] += part
			parts[c.other] += 1 - part
		}
		for i := range parts {
			want := float64(members[i].Weight) / total * float64(n)
			if d := parts[i] - want; d > 1e-9*float64(n) || -d > 1e-9*float64(n) {
				t.Errorf("%d members: member %d has %v columns, want %v", n, i, parts[i], want)
			}
		}
	}
	if newTable(fresh(5)) != nil {
		t.Error("a table for equal weights")
	}
}

// TestResume: pickers that take each other's place after every few picks keep
// turns as even as one alone does; with other members p begins anew.
func TestResume(t *testing.T) {
	cfg := Default()
	cfg.Algorithm, cfg.SlowStart = WeightedRoundRobin, 0
	weights := []uint32{1, 2, 3, 4}
	members := func(n int) (list []Member) {
		for i := range n {
			list = append(list, Member{Load: new(Load), Weight: weights[i], Since: -1})
		}
		return list
	}
	p := NewPicker(cfg, members(4))
	counts := make([]int, 4)
	for i := range 1000 {
		counts[p.Pick(0, uint64(i)*golden, nil)]++
		next := NewPicker(cfg, members(4))
		next.Resume(p)
		p = next
	}
	for i, n := range counts {
		if want := 100 * int(weights[i]); n < want-4 || n > want+4 {
			t.Fatalf("%v picks", counts)
		}
	}
	other := NewPicker(cfg, members(3))
	other.Resume(p)
	other.Resume(nil)
	if other.start.Load() != 0 || other.cursor.Load() != 0 {
		t.Error("a picker of other members goes on")
	}
	tiered := func() *Picker {
		all := make([]Candidate, 4)
		for i, m := range members(4) {
			m.Level = uint16(i / 2)
			all[i] = Candidate{Member: m, Healthy: true}
		}
		p, _ := NewTiered(cfg, all, nil)
		return p
	}
	old, next := tiered(), tiered()
	for i := range 5 {
		old.Pick(0, uint64(i), nil)
	}
	next.Resume(old)
	a, b := old.tiers.list[0].picker, next.tiers.list[0].picker
	if a.cursor.Load() != 5 || b.cursor.Load() != 5 || a.start.Load() != b.start.Load() {
		t.Errorf("the first level is at %d and %d", a.cursor.Load(), b.cursor.Load())
	}
}
