package balance

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"
)

// Far is how far away an endpoint is.
type Far uint8

const (
	// Near is in the own zone.
	Near Far = iota
	// Around is in another zone of the own region.
	Around
	// Away is anywhere else.
	Away

	farCount = 3
)

// String returns "zone", "region" or "elsewhere".
func (f Far) String() string { return [...]string{"zone", "region", "elsewhere"}[min(f, Away)] }

// maxLevels bounds the levels of priority that are told apart; those behind are
// one.
const maxLevels = 8

// tier is the endpoints of a level that are equally far away.
type tier struct {
	level  uint16
	far    Far
	picker *Picker // of its own; its members are part of the whole's
	from   int     // where they begin there
	// quota is the level's share of the attempts, most how much of what comes to
	// it the tier may take, by how many of its endpoints are available.
	quota, most float64
	weight      float64 // of its members
	last        bool    // of its level
}

// tiers divide the attempts among groups of endpoints.
type tiers struct {
	list  []tier
	first uint16 // the number of the first level, used or not
	// shares are the upper ends of the tiers' shares, out of 2^63.
	shares atomic.Pointer[[]uint64]
}

const whole = 1 << 63

// NewTiered applies the panic rule to each level of priority, and returns a picker
// over all endpoints that may be used. Attempts go to the first level as far as
// its share of available endpoints, times OverprovisioningPercent, goes; what is
// left goes to the next one (Envoy's priority levels). Within a level, with
// Zones.Prefer, the near endpoints are asked first, likewise as far as they are
// available and as spill, which may be nil, does not say that they have enough.
//
// Where there is one level and one distance, it is Choose and NewPicker.
func NewTiered(cfg Config, all []Candidate, spill *Spill) (p *Picker, panicking bool) {
	if !cfg.Zones.Prefer && slices.ContainsFunc(all, func(c Candidate) bool { return c.Far != Near }) {
		all = slices.Clone(all)
		for i := range all {
			all[i].Far = Near
		}
	}
	levels := byLevel(cfg, all)
	if len(levels) == 1 && !levels[0].mixed() {
		use, panicking := Choose(cfg, all)
		return NewPicker(cfg, use), panicking
	}
	quotas, panicking := quotasOf(cfg, levels)
	p = &Picker{algorithm: cfg.Algorithm, choices: cfg.Choices, slowFrom: math.MaxInt64, slowTill: math.MinInt64}
	t := &tiers{first: levels[0].number}
	for i := range levels {
		l := &levels[i]
		for far := range Far(farCount) {
			use, total := l.at(far)
			if len(use) == 0 {
				continue
			}
			one := tier{level: l.number, far: far, from: len(p.members), quota: quotas[i]}
			one.most = min(1, over(cfg)*float64(len(use))/float64(total))
			for j := range use {
				one.weight += float64(max(use[j].Weight, 1))
			}
			p.members = append(p.members, use...)
			t.list = append(t.list, one)
		}
		if n := len(t.list); n > 0 && t.list[n-1].level == l.number {
			t.list[n-1].last = true
		}
	}
	for i := range t.list {
		one, end := &t.list[i], len(p.members)
		if i+1 < len(t.list) {
			end = t.list[i+1].from
		}
		one.picker = NewPicker(cfg, p.members[one.from:end:end])
	}
	if len(t.list) > 0 {
		p.tiers = t
		p.divide(spill)
	}
	return p, panicking
}

func over(cfg Config) float64 { return max(cfg.OverprovisioningPercent, 100) / 100 }

// level is the candidates of one priority.
type level struct {
	number    uint16
	all       []Candidate
	use       []Member
	available int
	healthy   float64 // the share of its endpoints that is available, overprovisioned
}

// byLevel sorts the candidates by priority and distance.
func byLevel(cfg Config, all []Candidate) []level {
	var levels []level
	if one := len(all) == 0 || !slices.ContainsFunc(all, func(c Candidate) bool { return c.Level != all[0].Level }); one {
		l := level{all: all}
		if len(all) > 0 {
			l.number = all[0].Level
		}
		levels = []level{l}
	} else {
		sorted := slices.Clone(all)
		slices.SortStableFunc(sorted, func(a, b Candidate) int { return cmp.Compare(a.Level, b.Level) })
		for from := 0; from < len(sorted); {
			to := from + 1
			for to < len(sorted) && (sorted[to].Level == sorted[from].Level || len(levels) == maxLevels-1) {
				to++
			}
			levels = append(levels, level{number: sorted[from].Level, all: sorted[from:to]})
			from = to
		}
	}
	for i := range levels {
		l := &levels[i]
		for j := range l.all {
			if l.all[j].available() {
				l.available++
			}
		}
		l.healthy = min(1, over(cfg)*float64(l.available)/float64(max(len(l.all), 1)))
	}
	return levels
}

// mixed reports whether the endpoints of the level are not all equally far away.
func (l *level) mixed() bool {
	return slices.ContainsFunc(l.all, func(c Candidate) bool { return c.Far != l.all[0].Far })
}

// at returns those that are used at a distance, and how many there are in all.
func (l *level) at(far Far) (use []Member, total int) {
	for i := range l.use {
		if l.use[i].Far == far {
			use = append(use, l.use[i])
		}
	}
	for i := range l.all {
		if l.all[i].Far == far {
			total++
		}
	}
	return use, max(total, 1)
}

// quotasOf divides the attempts among the levels, and says which endpoints of
// each are used. As long as the levels together have enough that are available,
// only those are; below that the panic rule decides for each level.
func quotasOf(cfg Config, levels []level) (quotas []float64, panicking bool) {
	quotas = make([]float64, len(levels))
	sum := 0.0
	for i := range levels {
		sum += levels[i].healthy
	}
	left := 1.0
	for i := range levels {
		l := &levels[i]
		if len(levels) > 1 && sum >= 1 {
			l.use = members(l.all, l.available, (*Candidate).available)
			quotas[i] = min(l.healthy, left)
			left -= quotas[i]
			continue
		}
		var panics bool
		l.use, panics = Choose(cfg, l.all)
		panicking = panicking || panics
		switch {
		case len(l.use) == 0:
		case sum > 0:
			quotas[i] = l.healthy / sum
		default:
			quotas[i], left = left, 0
		}
	}
	return quotas, panicking
}

// divide makes the shares of the tiers, with what spill says; nil is nothing.
func (p *Picker) divide(spill *Spill) {
	t := p.tiers
	if t == nil {
		return
	}
	shares := make([]uint64, len(t.list))
	sum, rest := 0.0, 0.0
	begun := false
	var level uint16
	for i := range t.list {
		one := &t.list[i]
		if !begun || one.level != level {
			begun, level, rest = true, one.level, one.quota
		}
		take := rest
		if !one.last {
			take = rest * min(one.most, 1-spill.of(one.level, one.far))
		}
		rest -= take
		sum += take
		shares[i] = uint64(sum * whole)
	}
	if sum <= 0 { // nothing is available, and nothing is to be used in its place
		return
	}
	for i := range shares {
		shares[i] = uint64(float64(shares[i]) / sum)
	}
	shares[len(shares)-1] = whole
	t.shares.Store(&shares)
}

// TierState is what a tier of a picker is and has.
type TierState struct {
	Level   uint16
	Far     Far
	Members int
	Share   float64 // of the attempts
}

// Tiers returns the tiers in their order; nil where attempts are not divided.
func (p *Picker) Tiers() []TierState {
	if p.tiers == nil {
		return nil
	}
	states := make([]TierState, len(p.tiers.list))
	for i := range states {
		t := &p.tiers.list[i]
		states[i] = TierState{t.level, t.far, t.picker.Len(), p.tiers.share(i)}
	}
	return states
}

func (t *tiers) share(i int) float64 {
	shares := *t.shares.Load()
	below := uint64(0)
	if i > 0 {
		below = shares[i-1]
	}
	return float64(shares[i]-below) / whole
}

// at returns the tier for a random word.
func (t *tiers) at(word uint64) int {
	shares := *t.shares.Load()
	word >>= 1
	i := 0
	for i < len(shares)-1 && word >= shares[i] {
		i++
	}
	return i
}

// besides returns the first tier from i on that has more than avoid; i itself
// when none has.
func (t *tiers) besides(i int, avoid []*Load) int {
	if len(avoid) == 0 {
		return i
	}
	for k := range t.list {
		j := i + k
		if j >= len(t.list) {
			j -= len(t.list)
		}
		if !t.list[j].picker.allAvoided(avoid) {
			return j
		}
	}
	return i
}

// FirstLevel is the lowest number of priority that a member has.
func (p *Picker) FirstLevel() uint16 {
	if p.tiers == nil {
		return 0
	}
	return p.tiers.first
}
