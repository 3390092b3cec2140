package balance

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// fewMembers is the size up to which a Pick with endpoints to avoid looks
	// at all members and is exact. It is the number of bits in a word.
	fewMembers = 64
	// drawTries bounds the redraws of a Pick among more members than that.
	drawTries = 8
)

// Member is one endpoint that may be picked.
type Member struct {
	// Load is what is known about the endpoint's load; no two members of a
	// picker share one.
	Load *Load
	// Weight is the endpoint's share relative to the others; 0 counts as 1.
	Weight uint32
	// Since is when the endpoint joined, for slow start; negative for one
	// that is not in slow start.
	Since time.Duration
	// Key stands for the endpoint where picks go by hash. It is to be the same
	// in every proxy, such as KeyOf its address, and another for each member.
	Key uint64
	// Index is the caller's own.
	Index int
	// Level is its priority, 0 the first, and Far how far away it is; see NewTiered.
	Level uint16
	Far   Far
}

// Picker picks among a fixed set of members. It is immutable apart from the
// cursor of weighted round robin, safe for concurrent use, and a Pick takes
// constant time, no lock and no memory, apart from large Choices and RingHash
// (the logarithm of the ring's size). A change of the endpoints is a new
// Picker; their Loads live on.
type Picker struct {
	algorithm Algorithm
	members   []Member
	// table has the weights in a form drawn from in constant time; nil when
	// all weights are equal.
	table []column
	// ring or slots, where picks go by hash; see keyed.go.
	ring  []uint64
	slots []uint32
	bound float64 // requests in flight for each unit of weight and of the whole; 0 no bound

	tiers *tiers // nil unless attempts are divided among groups of the members

	choices  int
	window   float64       // SlowStart in nanoseconds
	least    float64       // SlowStartMinPercent as a fraction
	slowFrom time.Duration // from here on some member is not new, ...
	slowTill time.Duration // ... and from here on none is new

	_ [64]byte
	// start is where weighted round robin begins, from the first Pick's random
	// word, 0 before that; cursor counts its steps.
	start  atomic.Uint64
	cursor atomic.Uint64
	_      [64]byte
}

// NewPicker returns a picker over members, which it takes over. It takes time
// in proportion to their number.
func NewPicker(cfg Config, members []Member) *Picker {
	p := &Picker{algorithm: cfg.Algorithm, members: members, choices: cfg.Choices}
	for i := range members {
		members[i].Weight = max(members[i].Weight, 1)
	}
	switch p.algorithm {
	case WeightedRoundRobin, LeastRequest, Random:
		p.table = newTable(members)
	case RingHash, Maglev:
		p.initKeyed(cfg)
	}
	p.initSlowStart(cfg)
	return p
}

// Len returns the number of members.
func (p *Picker) Len() int { return len(p.members) }

// ByHash reports whether p picks by a hash of the request.
func (p *Picker) ByHash() bool { return p.algorithm.ByHash() }

// Member returns the i-th member. It must not be changed.
func (p *Picker) Member(i int) *Member { return &p.members[i] }

// Pick returns the position of the member to send the next attempt to, or -1
// when there is none. r is a fresh random word. A member whose Load is in
// avoid is picked only when all are; avoid is meant to be short (the endpoints
// that earlier attempts went to).
func (p *Picker) Pick(now time.Duration, r uint64, avoid []*Load) int {
	var seen Seen
	return p.PickSeen(now, r, avoid, &seen)
}

// PickSeen is Pick that leaves in seen what it compared.
func (p *Picker) PickSeen(now time.Duration, r uint64, avoid []*Load, seen *Seen) int {
	seen.Reset()
	n := len(p.members)
	switch n {
	case 0:
		return -1
	case 1:
		return 0
	}
	d := draws(r)
	if t := p.tiers; t != nil {
		one := &t.list[t.besides(t.at(d.next()), avoid)]
		i := one.picker.PickSeen(now, d.next(), avoid, seen)
		seen.Position[0] += one.from
		seen.Position[1] += one.from
		return one.from + i
	}
	if p.algorithm.ByHash() {
		i, _ := p.PickKey(r, 0, avoid)
		return i
	}
	if len(avoid) > 0 {
		if n <= fewMembers {
			return p.pickAmongFew(now, &d, avoid, seen)
		}
		if p.allAvoided(avoid) {
			avoid = nil
		}
	}
	switch p.algorithm {
	case WeightedRoundRobin:
		return p.pickInTurn(now, &d, avoid)
	case Random:
		return p.draw(now, &d, avoid, -1)
	}
	if p.choices >= n {
		return p.best(now, &d, avoid, seen)
	}
	i := p.first(now, &d, avoid, -1)
	shy := p.shy(&d, i)
	for range p.choices - 1 {
		i = p.vie(now, &d, i, &shy, p.first(now, &d, avoid, i), seen)
	}
	return i
}

// first draws a member to compare with others; not is at another position.
func (p *Picker) first(now time.Duration, d *draws, avoid []*Load, not int) int {
	if p.algorithm == LeastRequest {
		return p.draw(now, d, avoid, not)
	}
	return p.drawEvenly(d, avoid, not)
}

// best compares all members that are not in avoid. Of equals it takes one that
// was drawn, else the next one behind a random position.
func (p *Picker) best(now time.Duration, d *draws, avoid []*Load, seen *Seen) int {
	i := p.first(now, d, avoid, -1)
	shy := p.shy(d, i)
	j := d.below(len(p.members))
	for range p.members {
		if j != i && !isAvoided(avoid, p.members[j].Load) {
			i = p.vie(now, d, i, &shy, j, seen)
		}
		if j++; j == len(p.members) {
			j = 0
		}
	}
	return i
}

// draws is a stream of random words (splitmix64) that begins with its seed.
type draws uint64

func (d *draws) next() uint64 {
	*d += golden
	return mix(uint64(*d))
}

// mix spreads a number over all 64 bits.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number from 0 to n-1.
func (d *draws) below(n int) int {
	hi, _ := bits.Mul64(d.next(), uint64(n))
	return int(hi)
}

// fraction returns a number in [0, 1).
func (d *draws) fraction() float64 { return float64(d.next()>>11) / (1 << 53) }

// draw draws a member by weight that is neither in avoid nor at position not.
// Among more than fewMembers the proportions hold as far as drawTries reach.
func (p *Picker) draw(now time.Duration, d *draws, avoid []*Load, not int) int {
	slow := p.slowStarting(now)
	for range drawTries {
		i := p.byWeight(d)
		if i == not || isAvoided(avoid, p.members[i].Load) {
			continue
		}
		if slow && d.fraction() >= p.factor(now, &p.members[i]) {
			continue
		}
		if p.algorithm == Random && p.shy(d, i) {
			continue
		}
		return i
	}
	if len(p.members) <= fewMembers {
		allowed := p.allowed(avoid)
		if not >= 0 {
			allowed &^= 1 << not
		}
		return p.drawAmongFew(now, d, allowed)
	}
	return p.nextAllowed(d.below(len(p.members)), avoid, not)
}

// drawEvenly is draw without weights.
func (p *Picker) drawEvenly(d *draws, avoid []*Load, not int) int {
	for range drawTries {
		var i int
		if not < 0 {
			i = d.below(len(p.members))
		} else if i = d.below(len(p.members) - 1); i >= not {
			i++
		}
		if !isAvoided(avoid, p.members[i].Load) {
			return i
		}
	}
	return p.nextAllowed(d.below(len(p.members)), avoid, not)
}

// nextAllowed returns the first position from i on that is neither in avoid
// nor not. As Loads differ it is at most len(avoid)+1 steps away. It returns
// not itself when nothing else is left.
func (p *Picker) nextAllowed(i int, avoid []*Load, not int) int {
	for range p.members {
		if i != not && !isAvoided(avoid, p.members[i].Load) {
			return i
		}
		if i++; i == len(p.members) {
			i = 0
		}
	}
	return max(not, 0)
}

// allAvoided says whether avoid leaves no member. It stops at the first that
// is left, so after at most len(avoid)+1 steps.
func (p *Picker) allAvoided(avoid []*Load) bool {
	for i := range p.members {
		if !isAvoided(avoid, p.members[i].Load) {
			return false
		}
	}
	return true
}

func isAvoided(avoid []*Load, l *Load) bool {
	for _, a := range avoid {
		if a == l {
			return true
		}
	}
	return false
}
