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
	// Index is the caller's own.
	Index int
}

// Picker picks among a fixed set of members. It is immutable apart from the
// cursor of weighted round robin, safe for concurrent use, and a Pick takes
// constant time, no lock and no memory. A change of the endpoints is a new
// Picker; their Loads live on.
type Picker struct {
	algorithm Algorithm
	members   []Member
	// table has the weights in a form drawn from in constant time; nil when
	// all weights are equal.
	table []column

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
	p := &Picker{algorithm: cfg.Algorithm, members: members}
	for i := range members {
		members[i].Weight = max(members[i].Weight, 1)
	}
	if p.algorithm != P2CEWMA {
		p.table = newTable(members)
	}
	p.initSlowStart(cfg)
	return p
}

// Len returns the number of members.
func (p *Picker) Len() int { return len(p.members) }

// Member returns the i-th member. It must not be changed.
func (p *Picker) Member(i int) *Member { return &p.members[i] }

// Pick returns the position of the member to send the next attempt to, or -1
// when there is none. r is a fresh random word. A member whose Load is in
// avoid is picked only when all are; avoid is meant to be short (the endpoints
// that earlier attempts went to).
func (p *Picker) Pick(now time.Duration, r uint64, avoid []*Load) int {
	n := len(p.members)
	switch n {
	case 0:
		return -1
	case 1:
		return 0
	}
	d := draws(r)
	if len(avoid) > 0 {
		if n <= fewMembers {
			return p.pickAmongFew(now, &d, avoid)
		}
		if p.allAvoided(avoid) {
			avoid = nil
		}
	}
	switch p.algorithm {
	case WeightedRoundRobin:
		return p.pickInTurn(now, &d, avoid)
	case LeastRequest:
		i := p.draw(now, &d, avoid, -1)
		return p.lessBusy(now, i, p.draw(now, &d, avoid, i))
	case Random:
		return p.draw(now, &d, avoid, -1)
	default:
		i := p.drawEvenly(&d, avoid, -1)
		return p.cheaper(now, i, p.drawEvenly(&d, avoid, i))
	}
}

// draws is a stream of random words (splitmix64) that begins with its seed.
type draws uint64

func (d *draws) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	z := uint64(*d)
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

// cheaper returns which of two members has the lower peak-EWMA load per
// weight; of equals the first.
func (p *Picker) cheaper(now time.Duration, i, j int) int {
	a, b := &p.members[i], &p.members[j]
	ca, cb := a.Load.cost(now), b.Load.cost(now)
	if ca*p.weight(now, b) <= cb*p.weight(now, a) {
		return i
	}
	return j
}

// lessBusy returns which of two members has fewer requests in flight per
// weight; of equals the first, which was drawn by weight.
func (p *Picker) lessBusy(now time.Duration, i, j int) int {
	a, b := &p.members[i], &p.members[j]
	la, lb := float64(max(a.Load.Inflight(), 0)), float64(max(b.Load.Inflight(), 0))
	if la*p.weight(now, b) <= lb*p.weight(now, a) {
		return i
	}
	return j
}

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
