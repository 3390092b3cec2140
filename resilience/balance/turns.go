package balance

import "time"

// golden is 2^64 divided by the golden ratio: multiples of it, modulo 2^64,
// are spread evenly at every length.
const golden = 0x9e3779b97f4a7c15

// turn returns whose turn it is in weighted round robin and steps on.
//
// It walks the columns of the alias table in order, one a step, and lets the
// two owners of a column alternate over the rounds as evenly as possible: in
// round g the column's own member has the turn when the fraction
// phase + g x primary falls below primary, as in Bresenham's line. A column's
// member so has its share to within one turn after any number of rounds, and
// no step searches. The phases differ from column to column by the golden
// ratio, so that the turns of a member that is in many columns do not bunch.
//
// The start is random, so that many proxies with the same endpoints do not
// march in step.
func (p *Picker) turn(d *draws) int {
	start := p.start.Load()
	if start == 0 {
		p.start.CompareAndSwap(0, max(d.next()>>1, 1))
		start = p.start.Load()
	}
	step := start + p.cursor.Add(1)
	n := uint64(len(p.members))
	round := step / n
	i := step - round*n
	if p.table == nil {
		return int(i)
	}
	if c := &p.table[i]; i*golden+round*c.primary >= c.primary {
		return int(c.other)
	}
	return int(i)
}

// Resume lets p, which takes old's place, go on in the order of turns where old
// is, so that a change of weights does not begin the round anew. Where they have
// not equally many members, p begins at random.
func (p *Picker) Resume(old *Picker) {
	if old == nil || len(p.members) != len(old.members) || (p.tiers == nil) != (old.tiers == nil) {
		return
	}
	p.start.Store(old.start.Load())
	p.cursor.Store(old.cursor.Load())
	if p.tiers == nil || len(p.tiers.list) != len(old.tiers.list) {
		return
	}
	for i := range p.tiers.list {
		p.tiers.list[i].picker.Resume(old.tiers.list[i].picker)
	}
}

// pickInTurn is Pick for weighted round robin. A member in slow start passes
// up part of its turns. Reached with avoid only among more than fewMembers.
func (p *Picker) pickInTurn(now time.Duration, d *draws, avoid []*Load) int {
	slow := p.slowStarting(now)
	if slow && len(p.members) <= fewMembers {
		return p.inTurnAmongFew(now, d, p.allowed(nil))
	}
	i := 0
	for range drawTries {
		i = p.turn(d)
		if isAvoided(avoid, p.members[i].Load) {
			continue
		}
		if slow && d.fraction() >= p.factor(now, &p.members[i]) || p.shy(d, i) {
			continue
		}
		return i
	}
	return p.nextAllowed(i, avoid, -1)
}
