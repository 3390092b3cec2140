package balance

import (
	"math"
	"time"
)

// initSlowStart notes between which times slow start has a say.
func (p *Picker) initSlowStart(cfg Config) {
	p.window = float64(cfg.SlowStart)
	p.least = cfg.SlowStartMinPercent / 100
	p.slowFrom = math.MaxInt64
	p.slowTill = math.MinInt64
	if cfg.SlowStart <= 0 {
		return
	}
	for i := range p.members {
		since := p.members[i].Since
		if since < 0 {
			p.slowFrom = math.MinInt64
			continue
		}
		full := math.MaxInt64 - cfg.SlowStart // keeps the sum below from overflowing
		till := min(since, full) + cfg.SlowStart
		p.slowFrom = min(p.slowFrom, till)
		p.slowTill = max(p.slowTill, till)
	}
}

// slowStarting says whether any member is in slow start now. None is while
// all are new: there is nobody else to carry the traffic meanwhile.
func (p *Picker) slowStarting(now time.Duration) bool {
	return now < p.slowTill && now >= p.slowFrom
}

// factor returns the part of its weight that m has now: from
// SlowStartMinPercent up to 1, growing linearly over SlowStart. It is meant
// for times at which slowStarting is true.
func (p *Picker) factor(now time.Duration, m *Member) float64 {
	if m.Since < 0 {
		return 1
	}
	t := float64(max(now-m.Since, 0)) / p.window
	if t >= 1 {
		return 1
	}
	return p.least + (1-p.least)*t
}

// weight returns m's weight now, slow start included.
func (p *Picker) weight(now time.Duration, m *Member) float64 {
	w := float64(m.Weight)
	if p.slowStarting(now) {
		w *= p.factor(now, m)
	}
	return w
}
