package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

var byHash = []Algorithm{RingHash, Maglev}

func eachByHash(t *testing.T, f func(t *testing.T, cfg Config)) {
	for _, a := range byHash {
		t.Run(a.String(), func(t *testing.T) { f(t, configured(a)) })
	}
}

// modelSlots builds a Maglev table as the paper says it, with every member's
// order of the slots written out, and who is next found by looking at all.
func modelSlots(members []Member, size int) []int {
	type state struct {
		order []int
		next  uint64 // round of its next turn
		came  int    // when it was put in line for it
		turns uint64
	}
	greatest := uint64(0)
	states := make([]state, len(members))
	for i, m := range members {
		offset, skip := mix(m.Key)%uint64(size), mix(m.Key^golden)%uint64(size-1)+1
		for j := range uint64(size) {
			states[i].order = append(states[i].order, int((offset+j*skip)%uint64(size)))
		}
		states[i].came = i
		greatest = max(greatest, uint64(m.Weight))
	}
	slots := slices.Repeat([]int{-1}, size)
	for came := len(members); slices.Contains(slots, -1); came++ {
		best := 0
		for i := range states {
			a, b := &states[i], &states[best]
			if a.next < b.next || a.next == b.next && a.came < b.came {
				best = i
			}
		}
		s := &states[best]
		j := slices.IndexFunc(s.order, func(slot int) bool { return slots[slot] < 0 })
		slots[s.order[j]] = best
		s.turns++
		s.next = uint64(math.Ceil(float64(s.turns) * float64(greatest) / float64(members[best].Weight)))
		s.came = came
	}
	return slots
}

func TestMaglevAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 9))
	for range 60 {
		n := 2 + rnd.IntN(12)
		members := fresh(n)
		for i := range members {
			members[i].Key, members[i].Weight = rnd.Uint64(), 1
			if rnd.IntN(2) == 0 {
				members[i].Weight = uint32(1 + rnd.IntN(40))
			}
		}
		size := nextPrime(slotsEach*n + rnd.IntN(300))
		got := newSlots(members, size)
		want := modelSlots(members, size)
		if len(got) != len(want) {
			t.Fatalf("%d slots, want %d", len(got), len(want))
		}
		for i := range got {
			if int(got[i]) != want[i] {
				t.Fatalf("%d members, %d slots: slot %d belongs to %d, the model says %d", n, size, i, got[i], want[i])
			}
		}
	}
}

// modelRing returns who a key belongs to, by looking at all points.
func modelRing(members []Member, each int, key uint64) int {
	best, owner := uint64(math.MaxUint64), 0
	for i, m := range members {
		for k := range uint64(m.Weight) * uint64(each) {
			// How far behind the key it is, without the bits that have no place in a word.
			d := mix(m.Key+(k+1)*golden)>>memberBits<<memberBits - key>>memberBits<<memberBits
			if d < best {
				best, owner = d, i
			}
		}
	}
	return owner
}

func TestRingAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 9))
	for range 40 {
		n := 2 + rnd.IntN(10)
		members := fresh(n)
		for i := range members {
			members[i].Key, members[i].Weight = rnd.Uint64(), uint32(1+rnd.IntN(4))
		}
		members[0].Weight = 1 // no common divisor
		cfg, each := configured(RingHash), unitPoints
		cfg.MinRingSize = rnd.IntN(20_000)
		for commonTotal(members)*each < cfg.MinRingSize {
			each *= 2
		}
		p := NewPicker(cfg, members)
		for range 200 {
			key := rnd.Uint64()
			if got, _ := p.PickKey(key, 0, nil); got != modelRing(members, each, key) {
				t.Fatalf("%d members: key %x goes to %d, the model says %d", n, key, got, modelRing(members, each, key))
			}
		}
	}
}

func commonTotal(members []Member) (total int) {
	for _, m := range members {
		total += int(m.Weight)
	}
	return total
}

// TestKeyShares: keys are divided by weight. Slots are, to within a turn each;
// points on a ring only on the average.
func TestKeyShares(t *testing.T) {
	for _, weights := range [][]uint32{{1, 1, 1}, {100, 100}, {1, 2, 3, 4}, {1, 1, 1, 1000}, {math.MaxUint32, math.MaxUint32 / 2}, slices.Repeat([]uint32{7}, 50)} {
		total := 0.0
		for _, w := range weights {
			total += float64(w)
		}
		p := NewPicker(configured(Maglev), weighted(weights...))
		counts := make([]int, len(weights))
		for _, i := range p.slots {
			counts[i]++
		}
		for i, w := range weights {
			if want := float64(w) / total * float64(len(p.slots)); math.Abs(float64(counts[i])-want) > 2+want*1e-3 {
				t.Errorf("weights %v: member %d has %d slots, want %.1f", weights, i, counts[i], want)
			}
		}
		ring := NewPicker(configured(RingHash), weighted(weights...))
		got := picks(ring, 50_000, 0, 3)
		for i, w := range weights {
			share, want := float64(got[i])/50_000, float64(w)/total
			if math.Abs(share-want) > 0.4*want+0.001 {
				t.Errorf("weights %v: member %d has %.4f of the ring, want %.4f", weights, i, share, want)
			}
		}
	}
}

// TestRingSizes: the ring keeps to its sizes, but for one point each.
func TestRingSizes(t *testing.T) {
	for _, c := range []struct {
		members     []Member
		least, most int
		want        int
	}{
		{fresh(3), 0, 1 << 20, 3 * unitPoints},
		{fresh(3), 1024, 1 << 20, 3 * 4 * unitPoints},
		{weighted(100, 200), 1, 1 << 20, 3 * unitPoints},
		{fresh(100), 1, 1000, 800},
		{fresh(100), 1, 50, 100},
		{weighted(1, math.MaxUint32), 1, 1024, 1024},
	} {
		for i := range c.members {
			c.members[i].Weight = max(c.members[i].Weight, 1)
		}
		if got := len(newRing(c.members, c.least, c.most)); got < c.want || got > c.want+1 {
			t.Errorf("%d members, %d to %d points: %d, want %d", len(c.members), c.least, c.most, got, c.want)
		}
	}
}

// TestLittleMoves: when one of many members leaves, its keys move, and of the
// others none on a ring and few in a table; and the same when it comes back.
func TestLittleMoves(t *testing.T) {
	for _, c := range []struct {
		algorithm Algorithm
		most      float64 // share of the others' keys that may move
	}{{RingHash, 0}, {Maglev, 0.03}} {
		for _, n := range []int{5, 30, 100} {
			members := fresh(n)
			for i := range members {
				members[i].Weight = uint32(1 + i%3)
			}
			before := NewPicker(configured(c.algorithm), members)
			gone := n / 2
			after := NewPicker(configured(c.algorithm), slices.Delete(slices.Clone(members), gone, gone+1))
			rnd := rand.New(rand.NewPCG(uint64(n), 3))
			others, moved, left := 0.0, 0.0, 0
			to := map[int]int{}
			for range 20_000 {
				key := rnd.Uint64()
				i, _ := before.PickKey(key, 0, nil)
				j, _ := after.PickKey(key, 0, nil)
				switch was, is := before.Member(i).Index, after.Member(j).Index; {
				case was == gone:
					left++
					to[is]++
				case was != is:
					moved++
					others++
				default:
					others++
				}
			}
			if share := moved / others; share > c.most {
				t.Errorf("%v of %d: %.4f of the others' keys moved, want at most %.4f", c.algorithm, n, share, c.most)
			}
			if left == 0 || len(to) < min(n-1, 4) {
				t.Errorf("%v of %d: the %d keys of the one that left went to %d others only", c.algorithm, n, left, len(to))
			}
		}
	}
}

// TestOneKeyOneMember: two proxies with the same endpoints agree on every key.
func TestOneKeyOneMember(t *testing.T) {
	eachByHash(t, func(t *testing.T, cfg Config) {
		one, two := NewPicker(cfg, fresh(40)), NewPicker(cfg, fresh(40))
		for k := range uint64(1000) {
			i, _ := one.PickKey(KeyOf(fmt.Sprint(k)), 0, nil)
			j, _ := two.PickKey(KeyOf([]byte(fmt.Sprint(k))), 0, nil)
			if i != j {
				t.Fatalf("key %d goes to %d and %d", k, i, j)
			}
		}
	})
}

// modelPick walks the ring or table without end for a key.
func modelPick(p *Picker, key uint64, load int64, percent float64, avoid []*Load) (int, bool) {
	total := 0.0
	for i := range p.members {
		total += float64(p.members[i].Weight)
	}
	want := -1
	for at, n := p.place(key), 0; n < len(p.ring)+len(p.slots); at, n = (at+1)%(len(p.ring)+len(p.slots)), n+1 {
		m := p.owner(at)
		l := &p.members[m]
		if slices.Contains(avoid, l.Load) {
			continue
		}
		if want < 0 {
			want = m
		}
		fair := float64(load) * float64(l.Weight) / total
		if percent == 0 || float64(l.Load.Inflight()+1) <= math.Ceil(fair*percent/100*exactly) {
			return m, m != want
		}
	}
	return max(want, p.owner(p.place(key))), false
}

// TestBoundedLoad compares with the model while load comes and goes, and holds
// nobody above the bound.
func TestBoundedLoad(t *testing.T) {
	eachByHash(t, func(t *testing.T, cfg Config) {
		rnd := rand.New(rand.NewPCG(5, 5))
		spills := 0
		for _, percent := range []float64{100, 125, 200, 10_000} {
			cfg.BoundedLoadPercent = percent
			members := fresh(12)
			for i := range members {
				members[i].Weight = uint32(1 + i%4)
			}
			p := NewPicker(cfg, members)
			var running []int
			total := float64(commonTotal(members))
			for range 4000 {
				if len(running) > 0 && rnd.IntN(100) < len(running)/2 {
					k := rnd.IntN(len(running))
					p.Member(running[k]).Load.End(0, -1, false)
					running = slices.Delete(running, k, k+1)
				}
				key := KeyOf(fmt.Sprint(rnd.IntN(5))) // few keys, much load each
				load := int64(len(running) + 1)
				i, spilled := p.PickKey(key, load, nil)
				if want, also := modelPick(p, key, load, percent, nil); i != want || spilled != also {
					t.Fatalf("bound %v, load %d: %d (spilled %v), the model says %d (%v)", percent, load, i, spilled, want, also)
				}
				if spilled {
					spills++
				}
				m := p.Member(i)
				m.Load.Begin(0)
				running = append(running, i)
				if bound := math.Ceil(percent / 100 * float64(load) * float64(m.Weight) / total); float64(m.Load.Inflight()) > bound {
					t.Fatalf("bound %v: %d in flight where %v are allowed", percent, m.Load.Inflight(), bound)
				}
			}
		}
		if spills < 100 {
			t.Errorf("%d spills only; the test shows little", spills)
		}
	})
}

// TestAvoidedByHash: a second attempt goes to another endpoint, the same for the
// same key; the keys of the one avoided are spread over many.
func TestAvoidedByHash(t *testing.T) {
	eachByHash(t, func(t *testing.T, cfg Config) {
		p := NewPicker(cfg, fresh(20))
		avoid := []*Load{p.Member(3).Load, p.Member(4).Load}
		seen := map[int]int{}
		for k := range uint64(3000) {
			first, _ := p.PickKey(mix(k), 0, nil)
			second, spilled := p.PickKey(mix(k), 0, avoid)
			again, _ := p.PickKey(mix(k), 0, avoid)
			switch {
			case second != again || spilled:
				t.Fatalf("key %d goes to %d, then to %d", k, second, again)
			case first != 3 && first != 4 && second != first:
				t.Fatalf("key %d of %d goes to %d as others are avoided", k, first, second)
			case second == 3 || second == 4:
				t.Fatalf("key %d goes to one that is avoided", k)
			case first == 3:
				seen[second]++
			}
		}
		if len(seen) < 8 {
			t.Errorf("the keys of the avoided one went to %d others", len(seen))
		}
	})
}

// TestOneHasAll: where one member has nearly the whole ring or table, another is
// found when it is avoided or full.
func TestOneHasAll(t *testing.T) {
	eachByHash(t, func(t *testing.T, cfg Config) {
		cfg.BoundedLoadPercent, cfg.MaxRingSize = 100, 4096
		weights := append([]uint32{math.MaxUint32}, slices.Repeat([]uint32{1}, 70)...)
		p := NewPicker(cfg, weighted(weights...))
		seen := map[int]bool{}
		for k := range uint64(300) {
			i, _ := p.PickKey(mix(k), 1, []*Load{p.Member(0).Load})
			seen[i] = true
		}
		if seen[0] || len(seen) < 10 {
			t.Errorf("without the one that has all, keys went to %d of 70, or to itself: %v", len(seen), seen[0])
		}
		p.Member(0).Load.Begin(0)
		if i, spilled := p.PickKey(1, 1, nil); i == 0 || !spilled {
			t.Errorf("the full one was picked: %d, spilled %v", i, spilled)
		}
		for i := range p.Len() {
			p.Member(i).Load.Begin(0)
		}
		if _, spilled := p.PickKey(1, 1, nil); spilled {
			t.Error("spilled although all are full")
		}
	})
}

func TestNoAllocationByHash(t *testing.T) {
	oneGoroutine(t)
	eachByHash(t, func(t *testing.T, cfg Config) {
		cfg.BoundedLoadPercent = 110
		p := NewPicker(cfg, fresh(1000))
		avoid := []*Load{p.Member(7).Load}
		value := []byte("7f9c24e8-3b1a")
		key := uint64(0)
		if got := testing.AllocsPerRun(500, func() {
			key += KeyOf(value)
			i, _ := p.PickKey(key, 20, avoid)
			p.Member(i).Load.Begin(0)
		}); got != 0 {
			t.Errorf("%v allocations", got)
		}
	})
}

func TestNextPrime(t *testing.T) {
	for n, want := range map[int]int{2: 2, 4: 5, 90: 97, 65537: 65537, 65538: 65539, 131074: 131101} {
		if got := nextPrime(n); got != want {
			t.Errorf("the next prime from %d is %d, want %d", n, got, want)
		}
	}
}

// TestManyMembers: the table grows with the members, and all have a part.
func TestManyMembers(t *testing.T) {
	oneGoroutine(t)
	p := NewPicker(configured(Maglev), fresh(10_000))
	counts := make([]int, p.Len())
	for _, i := range p.slots {
		counts[i]++
	}
	if least := slices.Min(counts); least < slotsEach-1 {
		t.Errorf("somebody has %d of %d slots", least, len(p.slots))
	}
}
