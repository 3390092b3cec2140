package outlier

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// pool is endpoints under a caution, each with a share of failures and a latency.
type pool struct {
	c       Caution
	now     time.Duration
	all     []Seen
	fails   []float64
	latency []time.Duration
}

func newPool(n int) *pool {
	p := &pool{c: DefaultCaution(), all: make([]Seen, n), fails: make([]float64, n), latency: make([]time.Duration, n)}
	for i := range p.all {
		p.all[i] = Seen{Suspect: &Suspect{}, Weight: 1}
		p.latency[i] = 10 * time.Millisecond
	}
	return p
}

// run goes on for a time with so many attempts a second for each endpoint.
func (p *pool) run(d time.Duration, rate float64) {
	const tick = 200 * time.Millisecond
	for range int(d / tick) {
		p.now += tick
		for i := range p.all {
			s := &p.all[i]
			s.Ended = uint64(rate * tick.Seconds())
			s.Failed = uint64(math.Round(p.fails[i] * float64(s.Ended)))
			s.Took = time.Duration(s.Ended-s.Failed) * p.latency[i]
		}
		p.c.Judge(p.now, tick, p.all)
	}
}

func (p *pool) share(i int) float64 {
	part, _ := p.all[i].Suspect.Share()
	return part
}

func (p *pool) want(t *testing.T, what string, i int, low, high float64) {
	t.Helper()
	if got := p.share(i); got < low-1e-9 || got > high+1e-9 {
		t.Errorf("%s: endpoint %d has %.3f of its share, want %v to %v", what, i, got, low, high)
	}
}

func TestCaution(t *testing.T) {
	p := newPool(10)
	p.run(10*time.Second, 100)
	p.fails[0] = 0.05
	p.run(20*time.Second, 100)
	p.want(t, "5 % failures", 0, 1, 1)
	p.fails[0] = 0.125 // half-way between 5 % and 20 %
	p.run(60*time.Second, 200)
	p.want(t, "12.5 % failures", 0, 0.5, 0.6)
	p.fails[0] = 0.5
	p.run(60*time.Second, 200)
	p.want(t, "50 % failures", 0, 0.1, 0.1)
	p.want(t, "no failures", 1, 1, 1)
	if failed, latency := p.all[0].Suspect.Evidence(); math.Abs(failed-0.5) > 0.01 || latency.Round(time.Millisecond) != 10*time.Millisecond {
		t.Errorf("evidence %v, %v", failed, latency)
	}
	p.fails[0] = 0
	p.run(5*time.Second, 200)
	p.want(t, "soon after", 0, 0.1, 0.5)
	before := p.share(0)
	p.run(10*time.Second, 200)
	p.want(t, "it comes back smoothly", 0, before, before+0.5+1e-9)
	p.run(60*time.Second, 200)
	p.want(t, "long after", 0, 1, 1)
	if _, since := p.all[0].Suspect.Share(); since != 0 {
		t.Errorf("under suspicion since %v", since)
	}
}

// TestCautionIsRelative: when all fail, or are slow, nobody is worse.
func TestCautionIsRelative(t *testing.T) {
	p := newPool(4)
	for i := range p.all {
		p.fails[i], p.latency[i] = 0.6, time.Second
	}
	p.run(30*time.Second, 100)
	for i := range p.all {
		p.want(t, "all alike", i, 1, 1)
	}
}

func TestCautionLatency(t *testing.T) {
	p := newPool(5)
	p.latency[2] = 29 * time.Millisecond
	p.run(30*time.Second, 100)
	p.want(t, "2.9 times", 2, 1, 1)
	p.latency[2] = 60 * time.Millisecond
	p.run(60*time.Second, 100)
	p.want(t, "6 times", 2, 0.49, 0.52)
	two := newPool(2)
	two.latency[0] = time.Second
	two.run(30*time.Second, 100)
	two.want(t, "of two nobody is the odd one", 0, 1, 1)
	tiny := newPool(5)
	for i := range tiny.latency {
		tiny.latency[i] = 100 * time.Microsecond
	}
	tiny.latency[0] = time.Millisecond
	tiny.run(30*time.Second, 100)
	tiny.want(t, "less than a millisecond more", 0, 1, 1)
}

// TestCautionNeedsEvidence: a few attempts say nothing.
func TestCautionNeedsEvidence(t *testing.T) {
	p := newPool(3)
	p.fails[0] = 1
	for range 8 { // too few within the window
		p.now += time.Second
		for i := range p.all {
			p.all[i].Ended, p.all[i].Failed, p.all[i].Took = 1, uint64(p.fails[i]), 0
		}
		p.c.Judge(p.now, time.Second, p.all)
	}
	p.want(t, "8 attempts", 0, 1, 1)
}

// TestCautionAgainstBounds: whatever happens, no share is below the floor or above
// all, no more than the bound is taken away, and none moves back too fast.
func TestCautionAgainstBounds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	for range 300 {
		p := newPool(1 + rnd.IntN(12))
		p.c.MaxSharePercent = float64(1 + rnd.IntN(90))
		p.c.FloorPercent = float64(1 + rnd.IntN(99))
		for i := range p.all {
			p.all[i].Weight = uint32(rnd.IntN(5))
		}
		for range 30 {
			dt := time.Duration(rnd.IntN(3000)) * time.Millisecond
			p.now += dt
			before := make([]float64, len(p.all))
			for i := range p.all {
				s := &p.all[i]
				before[i] = p.share(i)
				s.Ended = uint64(rnd.IntN(200))
				s.Failed = uint64(rnd.IntN(int(s.Ended)*2 + 1)) // also more than there were
				s.Took = time.Duration(rnd.Int64N(int64(time.Minute))) - time.Second
			}
			p.c.Judge(p.now, dt, p.all)
			var total, taken float64
			for i := range p.all {
				w := float64(max(p.all[i].Weight, 1))
				total, taken = total+w, taken+w*(1-p.share(i))
				if s := p.share(i); math.IsNaN(s) || s > 1 || s < p.c.FloorPercent/100-1e-9 {
					t.Fatalf("a share of %v with a floor of %v %%", s, p.c.FloorPercent)
				}
			}
			if taken > total*p.c.MaxSharePercent/100+1e-9 {
				t.Fatalf("%v of %v are taken away, at most %v %%", taken, total, p.c.MaxSharePercent)
			}
		}
	}
}

func TestCautionValidate(t *testing.T) {
	for field, change := range map[string]func(*Caution){
		"":                  func(*Caution) {},
		"mode":              func(c *Caution) { c.Mode = guard.Mode(99) },
		"failure_percent":   func(c *Caution) { c.FailurePercent = 26 },
		"latency_percent":   func(c *Caution) { c.LatencyPercent = 100 },
		"floor_percent":     func(c *Caution) { c.FloorPercent = 0 },
		"max_share_percent": func(c *Caution) { c.MaxSharePercent = math.NaN() },
		"minimum_requests":  func(c *Caution) { c.MinimumRequests = 0 },
		"window":            func(c *Caution) { c.Window = 0 },
		"recovery":          func(c *Caution) { c.Recovery = -1 },
	} {
		c := DefaultCaution()
		change(&c)
		got := ""
		c.Validate(func(f, _ string) { got += f })
		if got != field {
			t.Errorf("mistakes in %q, want %q", got, field)
		}
	}
	if s := (*Caution)(nil).String(); s != "off" {
		t.Error(s)
	}
}
