package balance

import (
	"math/bits"
	"time"
)

// pickAmongFew is Pick for up to fewMembers members of which some are to be
// avoided. It looks at each, so that the picks among the others keep exactly
// the proportions they would have without the avoided ones.
func (p *Picker) pickAmongFew(now time.Duration, d *draws, avoid []*Load, seen *Seen) int {
	allowed := p.allowed(avoid)
	if allowed == 0 {
		allowed = p.allowed(nil)
	}
	switch p.algorithm {
	case WeightedRoundRobin:
		return p.inTurnAmongFew(now, d, allowed)
	case Random:
		return p.drawShyAmongFew(now, d, allowed)
	}
	i := p.firstAmongFew(now, d, allowed)
	shy := p.shy(d, i)
	for range p.choices - 1 {
		if allowed &^= 1 << i; allowed == 0 {
			break
		}
		j := p.firstAmongFew(now, d, allowed)
		allowed &^= 1 << j
		i = p.vie(now, d, i, &shy, j, seen)
	}
	return i
}

// firstAmongFew draws an allowed member to compare with others.
func (p *Picker) firstAmongFew(now time.Duration, d *draws, allowed uint64) int {
	if p.algorithm == LeastRequest {
		return p.drawAmongFew(now, d, allowed)
	}
	return nth(allowed, d.below(bits.OnesCount64(allowed)))
}

// allowed returns the set of positions whose Load is not in avoid.
func (p *Picker) allowed(avoid []*Load) uint64 {
	set := ^uint64(0) >> (fewMembers - len(p.members))
	if len(avoid) == 0 {
		return set
	}
	for i := range p.members {
		if isAvoided(avoid, p.members[i].Load) {
			set &^= 1 << i
		}
	}
	return set
}

// inTurnAmongFew steps on to the next allowed member. Turns of the others are
// skipped; when too many of them come in a row one is drawn by weight.
func (p *Picker) inTurnAmongFew(now time.Duration, d *draws, allowed uint64) int {
	slow := p.slowStarting(now)
	for range 2 * len(p.members) {
		i := p.turn(d)
		if allowed&(1<<i) == 0 || slow && d.fraction() >= p.factor(now, &p.members[i]) || p.shy(d, i) {
			continue
		}
		return i
	}
	return p.drawAmongFew(now, d, allowed)
}

// drawAmongFew draws an allowed member by weight.
func (p *Picker) drawAmongFew(now time.Duration, d *draws, allowed uint64) int {
	total := 0.0
	for m := allowed; m != 0; m &= m - 1 {
		total += p.weight(now, &p.members[bits.TrailingZeros64(m)])
	}
	x := d.fraction() * total
	last := 0
	for m := allowed; m != 0; m &= m - 1 {
		last = bits.TrailingZeros64(m)
		if x -= p.weight(now, &p.members[last]); x < 0 {
			break
		}
	}
	return last
}

// nth returns the position of the k-th bit set in m, counted from 0.
func nth(m uint64, k int) int {
	for range k {
		m &= m - 1
	}
	return bits.TrailingZeros64(m)
}

// drawShyAmongFew is drawAmongFew in which members may pass up the pick.
func (p *Picker) drawShyAmongFew(now time.Duration, d *draws, allowed uint64) (i int) {
	for range drawTries {
		if i = p.drawAmongFew(now, d, allowed); !p.shy(d, i) {
			break
		}
	}
	return i
}
