package balance

import (
	"math"
	"time"
)

// Zones says whether endpoints nearby are preferred.
type Zones struct {
	// Prefer sends attempts to endpoints of the proxy's own zone (service.zone)
	// first, then to those of its region, then to others.
	Prefer bool `yaml:"prefer"`
	// SpillLatencyPercent is how long endpoints nearby may take, in percent of
	// what those further away take, before part of the attempts goes there: as
	// much as makes up for it, and never so much that those nearby have less than
	// their fair share by weight. While nothing is known of those further away,
	// what those nearby usually take stands for it. Differences below 1ms never
	// count. Default 200.
	SpillLatencyPercent float64 `yaml:"spill_latency_percent"`
}

const (
	spillGain  = 0.25             // of the way, at each Tick, when latency is far above
	spillBack  = 0.1              // of it, at each Tick, when it is far below
	spillStep  = 0.005            // the least of both
	spillSlack = time.Millisecond // the least difference that counts
	smoothing  = 0.3              // of a new measurement, ...
	enough     = 8                // ... if it is of so many attempts
	// usualTime is in which the usual latency follows one that is higher.
	usualTime = time.Minute
	// farTime is for how long what was measured further away stands.
	farTime = 2 * time.Second
)

// Spill measures the tiers of a picker and says which part of the attempts for
// each is to go further away. It outlives pickers; its methods are not safe for
// concurrent use. The zero value is ready.
type Spill struct {
	bounds map[spillKey]*bound
}

type spillKey struct {
	level uint16
	far   Far
}

// bound stands between a tier and those of its level that are further away.
type bound struct {
	spill  float64
	near   float64       // smoothed latency in nanoseconds; 0 unknown
	usual  float64       // what near is without a spill
	beyond float64       // the same further away; 0 unknown
	seen   time.Duration // when something was measured there
	at     time.Duration // of the last Tick
}

// of returns the part that a tier gives away.
func (s *Spill) of(level uint16, far Far) float64 {
	if s == nil {
		return 0
	}
	if b := s.bounds[spillKey{level, far}]; b != nil {
		return b.spill
	}
	return 0
}

// Tick takes in what the attempts since the last Tick have shown, which Roll
// has put into the members' Loads, and divides p's attempts anew. It is to be
// called some five times a second.
func (s *Spill) Tick(cfg Config, now time.Duration, p *Picker) {
	t := p.tiers
	if t == nil || !cfg.Zones.Prefer {
		s.bounds = nil
		return
	}
	if s.bounds == nil {
		s.bounds = map[spillKey]*bound{}
	}
	for k := range s.bounds {
		if !t.has(k) {
			delete(s.bounds, k)
		}
	}
	changed := false
	for i := range t.list {
		one := &t.list[i]
		if one.last {
			continue
		}
		key := spillKey{one.level, one.far}
		b := s.bounds[key]
		if b == nil {
			b = &bound{at: now}
			s.bounds[key] = b
		}
		near, beyond, total := one.measure(), measured{}, one.weight
		for j := i + 1; j < len(t.list) && t.list[j].level == one.level; j++ {
			beyond.add(t.list[j].measure())
			total += t.list[j].weight
		}
		before := b.spill
		b.tick(cfg, now, near, beyond, 1-one.weight/total)
		changed = changed || b.spill != before
	}
	if changed {
		p.divide(s)
	}
}

func (t *tiers) has(k spillKey) bool {
	for i := range t.list {
		if one := &t.list[i]; one.level == k.level && one.far == k.far && !one.last {
			return true
		}
	}
	return false
}

// measured is what the attempts of a tier have shown since the last Tick.
type measured struct {
	ended, failed    uint64
	took, tookFailed time.Duration // of all, and of those that failed
}

func (m *measured) add(o measured) {
	m.ended, m.took = m.ended+o.ended, m.took+o.took
}

func (t *tier) measure() (m measured) {
	for i := range t.picker.members {
		m.add(t.picker.members[i].Load.measured())
	}
	return m
}

// tick decides how much goes further away, at most so much.
func (b *bound) tick(cfg Config, now time.Duration, near, beyond measured, most float64) {
	dt := max(now-b.at, 0)
	b.at = now
	if beyond.ended > 0 {
		if b.beyond == 0 || now-b.seen > farTime {
			b.beyond = 0
		}
		b.beyond, b.seen = smooth(b.beyond, beyond), now
	}
	if near.ended == 0 {
		b.less(0)
		return
	}
	b.near = smooth(b.near, near)
	if b.usual == 0 {
		b.usual = b.near
	}
	switch {
	case b.near < b.usual:
		b.usual += (b.near - b.usual) * smoothing
	case b.spill == 0:
		b.usual += (b.near - b.usual) * (1 - math.Exp(-float64(dt)/float64(usualTime)))
	}
	reference := b.usual
	if b.beyond > 0 && now-b.seen <= farTime {
		reference = b.beyond
	}
	limit := max(reference*cfg.Zones.SpillLatencyPercent/100, reference+float64(spillSlack))
	if b.near > limit {
		b.spill += max(spillGain*(1-limit/b.near)*(1-b.spill), spillStep)
	} else {
		b.less(b.near / limit)
	}
	b.spill = min(b.spill, most)
}

// less takes back part of the spill: much while latency is a small part of its
// limit.
func (b *bound) less(part float64) {
	b.spill = max(b.spill-max(spillBack*b.spill*(1-part), spillStep), 0)
}

// smooth moves a latency, 0 for an unknown one, towards what was measured.
func smooth(old float64, m measured) float64 {
	mean := float64(m.took) / float64(m.ended)
	if old == 0 {
		return max(mean, 1)
	}
	return max(old+(mean-old)*smoothing*min(1, float64(m.ended)/enough), 1)
}

// Roll makes what was measured since the last Roll the latest measurement. It is
// to be called once before the Ticks of all pickers that the Load is in, by the
// same goroutine.
func (l *Load) Roll() {
	t := l.tally.Load()
	if t == nil {
		return // nothing was counted yet
	}
	t.rolled.ended = t.ended.Swap(0)
	t.rolled.took = time.Duration(t.took.Swap(0))
	t.rolled.failed = t.failed.Swap(0)
	t.rolled.tookFailed = time.Duration(t.tookFailed.Swap(0))
}

// measured is what the last Roll has taken in.
func (l *Load) measured() measured {
	if t := l.tally.Load(); t != nil {
		return t.rolled
	}
	return measured{}
}

// count takes note of an attempt that ended.
func (l *Load) count(rtt time.Duration, failed bool) {
	t := l.tally.Load()
	if t == nil {
		l.tally.CompareAndSwap(nil, new(tally))
		t = l.tally.Load()
	}
	t.ended.Add(1)
	t.took.Add(int64(rtt))
	if failed {
		t.failed.Add(1)
		t.tookFailed.Add(int64(rtt))
	}
}
