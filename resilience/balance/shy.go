package balance

import "time"

// fullShare is the part of a Load's share that is all of it.
const fullShare = 1 << 16

// SetShare gives the endpoint part of the attempts that it would have otherwise,
// from 0 to 1; the zero value of a Load is 1. Members whose share is less pass up
// the rest of their picks by chance, or by the key, at no cost to others.
func (l *Load) SetShare(part float64) {
	l.withheld.Store(uint32((1 - min(max(part, 0), 1)) * fullShare))
}

// Share returns what SetShare has set.
func (l *Load) Share() float64 { return 1 - float64(l.withheld.Load())/fullShare }

// shy reports by chance whether the i-th member passes up this pick.
func (p *Picker) shy(d *draws, i int) bool {
	w := p.members[i].Load.withheld.Load()
	return w != 0 && uint32(d.next()>>48) < w
}

// shyOf is the same for a key, always the same way.
func (p *Picker) shyOf(key uint64, i int) bool {
	m := &p.members[i]
	w := m.Load.withheld.Load()
	return w != 0 && uint32(mix(key^m.Key)>>48) < w
}

// vie lets the member at j, drawn to be compared, take the place of the one at i
// if it is better. One that passes up the pick loses against one that does not.
func (p *Picker) vie(now time.Duration, d *draws, i int, shy *bool, j int, seen *Seen) int {
	switch s := p.shy(d, j); {
	case s == *shy:
		return p.better(now, i, j, seen)
	case *shy:
		*shy = false
		return j
	}
	return i
}

// Measure makes the Load count its attempts for Roll, whatever its Config says.
func (l *Load) Measure(on bool) { l.watched.Store(on) }

// Rolled is what the last Roll has taken in: attempts that ended, those of them
// that failed, and how long the others took together.
func (l *Load) Rolled() (ended, failed uint64, took time.Duration) {
	r := l.measured()
	return r.ended, r.failed, r.took - r.tookFailed
}
