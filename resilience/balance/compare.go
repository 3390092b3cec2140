package balance

import "time"

// Seen is what a Pick compared.
type Seen struct {
	// Compared is how many members; 0 when the pick compared none.
	Compared int
	// Position are those of the best and, with Compared, of the second best.
	Position [2]int
	// Cost and Weight make their scores, the less the better: an expected cost
	// in nanoseconds, or with LeastRequest requests in flight, and what it is
	// divided by.
	Cost, Weight [2]float64
}

// Reset forgets what was compared.
func (s *Seen) Reset() { s.Compared = 0 }

// Algorithm returns how the picker picks.
func (p *Picker) Algorithm() Algorithm { return p.algorithm }

// better returns which of two members is to be taken, that with the lower cost
// per weight; of equals the first. i was taken by the comparisons in seen before.
func (p *Picker) better(now time.Duration, i, j int, seen *Seen) int {
	ci, cj := p.costOf(now, i), p.costOf(now, j)
	wi, wj := p.weight(now, &p.members[i]), p.weight(now, &p.members[j])
	if i == j {
		return i
	}
	if ci*wj > cj*wi {
		i, ci, wi, j, cj, wj = j, cj, wj, i, ci, wi
	}
	// Now i is the better one, and j may be the second best so far.
	if seen.Compared == 0 || cj*seen.Weight[1] < seen.Cost[1]*wj {
		seen.Cost[1], seen.Weight[1], seen.Position[1] = cj, wj, j
	}
	seen.Compared = max(seen.Compared, 1) + 1
	seen.Cost[0], seen.Weight[0], seen.Position[0] = ci, wi, i
	return i
}

// costOf is what a request to the i-th member is expected to cost: by its load,
// or the requests that it has.
func (p *Picker) costOf(now time.Duration, i int) float64 {
	l := p.members[i].Load
	if p.algorithm == LeastRequest {
		return float64(max(l.Inflight(), 0))
	}
	return l.cost(now)
}
