package balance

import (
	"math"
	"slices"
)

const (
	// unitPoints are the points on the ring of an endpoint of weight 1.
	unitPoints = 128
	// slotsEach are the least slots in the table for an endpoint.
	slotsEach = 16
	// A word of the ring is the upper part of a point and the member's position.
	memberBits = 24
	memberMask = 1<<memberBits - 1
	// walkSteps bounds how far a pick walks on from its place before it looks
	// at the members themselves.
	walkSteps = 128
)

func (p *Picker) initKeyed(cfg Config) {
	total := 0.0
	for i := range p.members {
		total += float64(p.members[i].Weight)
	}
	p.bound = cfg.BoundedLoadPercent / 100 / max(total, 1)
	switch {
	case len(p.members) < 2:
	case p.algorithm == RingHash:
		p.ring = newRing(p.members, cfg.MinRingSize, cfg.MaxRingSize)
	default:
		p.slots = newSlots(p.members, cfg.MaglevTableSize)
	}
}

// commonWeight is the largest number that divides all weights, so that weights
// of 100 each are the same as 1 each.
func commonWeight(members []Member) uint64 {
	d := uint64(0)
	for i := range members {
		a, b := d, uint64(members[i].Weight)
		for b > 0 {
			a, b = b, a%b
		}
		d = a
	}
	return max(d, 1)
}

// newRing returns the points of all members in their order. How many a member
// has depends on its own weight alone while the ring is within its sizes, so that
// only the requests of a member that leaves move; beyond them the points are
// halved or doubled for all, which moves others too.
func newRing(members []Member, least, most int) []uint64 {
	unit, total := 1/float64(commonWeight(members)), 0.0
	for i := range members {
		total += float64(members[i].Weight) * unit
	}
	each := float64(unitPoints)
	for total*each < float64(least) {
		each *= 2
	}
	for total*each > float64(max(most, 1)) {
		each /= 2
	}
	ring := make([]uint64, 0, int(total*each)+len(members))
	for i := range members {
		m := &members[i]
		for k := range uint64(max(float64(m.Weight)*unit*each, 1)) {
			ring = append(ring, mix(m.Key+(k+1)*golden)&^memberMask|uint64(i)&memberMask)
		}
	}
	slices.Sort(ring)
	return ring
}

// newSlots returns the table of Maglev (Eisenbud and others, NSDI 2016, section
// 3.4): members take turns, each with the next free slot in an order of its
// own, until none is free. With weights, a member takes its k-th turn in the
// round ceil(k x greatest weight / own weight), so that turns are in proportion.
func newSlots(members []Member, least int) []uint32 {
	for least < slotsEach*len(members) {
		least *= 2
	}
	size := nextPrime(least)
	slots := make([]uint32, size)
	for i := range slots {
		slots[i] = free
	}
	walkers := make([]walker, len(members))
	greatest := uint64(0)
	for i := range members {
		walkers[i] = walker{
			at:   int(mix(members[i].Key) % uint64(size)),
			skip: int(mix(members[i].Key^golden)%uint64(size-1)) + 1,
		}
		greatest = max(greatest, uint64(members[i].Weight))
	}
	// take gives the member its next free slot.
	take := func(i int) {
		w := &walkers[i]
		for slots[w.at] != free {
			w.step(size)
		}
		slots[w.at] = uint32(i)
		w.step(size)
	}
	// The members whose turn comes in a round are a list, in the order in which
	// they came to it. There are no more rounds than slots: the member with the
	// greatest weight has a turn in each.
	first, last := make([]int32, size+1), make([]int32, size+1) // 0 none, else position + 1
	next, turns := make([]int32, len(members)), make([]uint64, len(members))
	queue := func(i int, round uint64) {
		if round > uint64(size) {
			return
		}
		if next[i] = 0; first[round] == 0 {
			first[round] = int32(i + 1)
		} else {
			next[last[round]-1] = int32(i + 1)
		}
		last[round] = int32(i + 1)
	}
	for i := range members {
		queue(i, 0)
	}
	for round, left := 0, size; ; round++ {
		for at := first[round]; at != 0; {
			i := int(at - 1)
			at = next[i]
			take(i)
			if left--; left == 0 {
				return slots
			}
			turns[i]++
			w := uint64(members[i].Weight)
			queue(i, (turns[i]*greatest+w-1)/w)
		}
	}
}

// walker is a member's place in its own order of the slots, which goes through
// all of them as their number is prime.
type walker struct{ at, skip int }

func (w *walker) step(size int) {
	if w.at += w.skip; w.at >= size {
		w.at -= size
	}
}

const free = math.MaxUint32

func nextPrime(n int) int {
	for ; ; n++ {
		prime := n > 1
		for d := 2; d*d <= n && prime; d++ {
			prime = n%d != 0
		}
		if prime {
			return n
		}
	}
}

// PickKey returns the position of the member to which requests with that key go,
// or -1 when there is none. key is a KeyOf what the request is known by. The
// picker must be one that picks by hash.
//
// A member whose Load is in avoid is passed over for the one that follows it for
// this key; only when all are, none is. So is a member that has its bounded load:
// BoundedLoadPercent of its share by weight of load, which is the number of
// requests in flight to all members and this one; spilled says that it was.
func (p *Picker) PickKey(key uint64, load int64, avoid []*Load) (i int, spilled bool) {
	n := len(p.members)
	if n < 2 {
		return n - 1, false
	}
	if t := p.tiers; t != nil {
		k := t.besides(t.at(mix(key^golden)), avoid)
		one := &t.list[k]
		i, spilled = one.picker.PickKey(key, int64(math.Ceil(float64(load)*t.share(k))), avoid)
		return one.from + i, spilled
	}
	at, last, want := p.place(key), -1, -1
	for range min(len(p.ring)+len(p.slots), walkSteps) {
		m := p.owner(at)
		if at++; at == len(p.ring)+len(p.slots) {
			at = 0
		}
		if m == last || isAvoided(avoid, p.members[m].Load) || p.shyOf(key, m) {
			continue
		}
		if !p.full(m, load) {
			return m, want >= 0 && want != m
		}
		if last = m; want < 0 {
			want = m
		}
	}
	// Nearly all are full or avoided, or one has nearly all points.
	m := int(key % uint64(n))
	for range n {
		switch l := p.members[m].Load; {
		case isAvoided(avoid, l):
		case !p.full(m, load):
			return m, want >= 0 && want != m
		case want < 0:
			want = m
		}
		if m++; m == n {
			m = 0
		}
	}
	if want < 0 {
		want = p.owner(p.place(key))
	}
	return want, false
}

// exactly keeps a share that is a whole number from being rounded up.
const exactly = 1 - 1e-12

// full reports whether m has its bounded load.
func (p *Picker) full(m int, load int64) bool {
	if p.bound == 0 || load <= 0 {
		return false
	}
	l := &p.members[m]
	return float64(l.Load.Inflight()) >= math.Ceil(p.bound*float64(load)*float64(l.Weight)*exactly)
}

// place is where the key stands on the ring or in the table.
func (p *Picker) place(key uint64) int {
	if p.slots != nil {
		return int(mix(key) % uint64(len(p.slots)))
	}
	low, high := 0, len(p.ring)
	key &^= memberMask
	for low < high {
		if mid := int(uint(low+high) / 2); p.ring[mid] < key {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == len(p.ring) {
		return 0
	}
	return low
}

func (p *Picker) owner(at int) int {
	if p.slots != nil {
		return int(p.slots[at])
	}
	return int(p.ring[at] & memberMask)
}
