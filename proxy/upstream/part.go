package upstream

import "github.com/outrigger-mesh/outrigger/resilience/guard"

// bound is one limit on the exchanges that are in a gate.
type bound struct {
	n    int64 // 0 unlimited
	mode guard.Mode
}

// bounds is how many others may be in when the exchange of d comes, and how many
// might be if what is only observed of it were enforced; 0 is no limit.
func bounds(parts *[2]bound, d guard.Draw) (most, would int64) {
	for _, b := range parts {
		if b.mode.Acts(d) {
			most = fewer(most, b.n)
		} else {
			would = fewer(would, b.n)
		}
	}
	return most, would
}

// bounds is the same of the limits now in force.
func (g *Gate) bounds(d guard.Draw) (most, would int64) {
	if parts := g.parts.Load(); parts != nil {
		return bounds(parts, d)
	}
	return g.most.Load(), g.would.Load()
}

// Partial reports whether some guard of p acts for a percentage of the exchanges
// only. A nil p has none.
func (p *Policy) Partial() bool {
	return p != nil && (p.Limits.Mode.Partial() ||
		p.Retry != nil && p.Retry.Mode.Partial() ||
		p.Hedge != nil && p.Hedge.Mode.Partial() ||
		p.Breaker != nil && p.Breaker.Mode.Partial() ||
		p.Admission != nil && p.Admission.Mode.Partial() ||
		p.Adaptive != nil && p.Adaptive.Mode.Partial())
}
