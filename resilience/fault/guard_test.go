package fault

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

func TestGuard(t *testing.T) {
	never := Stop{Window: 10 * time.Second, MinRequests: 20}
	for _, c := range []struct {
		name   string
		change func(*Stop)
		s      Sample // counted since the fault began
		want   Cause
	}{
		{"quiet", func(s *Stop) { *s = DefaultStop() }, Sample{}, Runs},
		{"errors", func(s *Stop) { s.ErrorsPercent = 10 }, Sample{Exchanges: 100, Good: 89, Failures: 11}, Errors},
		{"as many as may be", func(s *Stop) { s.ErrorsPercent = 10 }, Sample{Exchanges: 100, Good: 90, Failures: 10}, Runs},
		{"of those that met it", func(s *Stop) { s.ErrorsPercent = 10 }, Sample{Exchanges: 100, Good: 50, Failures: 50, Met: 50, MetFailed: 50}, Runs},
		{"of the others", func(s *Stop) { s.ErrorsPercent = 10 }, Sample{Exchanges: 100, Good: 44, Failures: 56, Met: 50, MetFailed: 50}, Errors},
		{"too few others", func(s *Stop) { s.ErrorsPercent = 10 }, Sample{Exchanges: 100, Good: 1, Failures: 99, Met: 81, MetFailed: 81}, Runs},
		{"the callers' own doing", func(s *Stop) { s.ErrorsPercent = 10 }, Sample{Exchanges: 100, Good: 50}, Runs},
		{"too few end well", func(s *Stop) { s.SuccessPercent = 90 }, Sample{Exchanges: 100, Good: 89, Met: 11, MetFailed: 11}, Success},
		{"enough end well", func(s *Stop) { s.SuccessPercent = 90 }, Sample{Exchanges: 100, Good: 90}, Runs},
		{"all must end well", func(s *Stop) { s.SuccessPercent = 100 }, Sample{Exchanges: 100, Good: 99}, Success},
		{"too few to say", func(s *Stop) { s.SuccessPercent = 90 }, Sample{Exchanges: 19}, Runs},
		{"slow", func(s *Stop) { s.P99 = time.Second }, Sample{Exchanges: 100, Good: 100, Slow: 2}, Slow},
		{"fast", func(s *Stop) { s.P99 = time.Second }, Sample{Exchanges: 100, Good: 100, Slow: 1}, Runs},
		{"slow, which is not asked", func(*Stop) {}, Sample{Exchanges: 100, Good: 100, Slow: 100}, Runs},
		{"ejections", func(s *Stop) { s.Ejections = 2 }, Sample{Ejections: 2}, Ejected},
		{"one ejection", func(s *Stop) { s.Ejections = 2 }, Sample{Ejections: 1}, Runs},
		{"breaker", func(s *Stop) { s.Breaker = true }, Sample{Openings: 1}, Opened},
		{"breaker, which is not asked", func(*Stop) {}, Sample{Openings: 1}, Runs},
		{"panic", func(s *Stop) { s.Panic = true }, Sample{Panicking: true}, Panic},
		{"panic, which is not asked", func(*Stop) {}, Sample{Panicking: true}, Runs},
		{"counters that are not of one moment", func(s *Stop) { *s = DefaultStop() }, Sample{Exchanges: 30, Met: 31, MetFailed: 2}, Runs},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := never
			c.change(&cfg)
			// What was before the fault does not count.
			base := Sample{Exchanges: 1000, Failures: 500, Slow: 900, Ejections: 7, Openings: 3, Panicking: true}
			s := base
			s.Exchanges += c.s.Exchanges
			s.Good += c.s.Good
			s.Failures += c.s.Failures
			s.Met += c.s.Met
			s.MetFailed += c.s.MetFailed
			s.Slow += c.s.Slow
			s.Ejections += c.s.Ejections
			s.Openings += c.s.Openings
			s.Panicking = c.s.Panicking
			g := NewGuard(cfg, time.Minute, base)
			if got := g.Look(time.Minute+time.Second, s); got != c.want || g.Would() != Runs {
				t.Errorf("%v, want %v; would %v", got, c.want, g.Would())
			}
			cfg.Mode = guard.Observe
			g = NewGuard(cfg, time.Minute, base)
			if got := g.Look(time.Minute+time.Second, s); got != Runs || g.Would() != c.want {
				t.Errorf("observing: %v, would %v, want %v", got, g.Would(), c.want)
			}
		})
	}
}

// What lies longer back than the window is forgotten.
func TestGuardWindow(t *testing.T) {
	cfg := Stop{ErrorsPercent: 10, Window: 10 * time.Second, MinRequests: 20}
	g := NewGuard(cfg, 0, Sample{})
	s := Sample{Exchanges: 19, Failures: 19}
	for at := time.Second; at < time.Minute; at += time.Second {
		if c := g.Look(at, s); c != Runs {
			t.Fatalf("at %v: %v", at, c)
		}
	}
	s.Exchanges += 19 // with those before they were enough
	s.Failures += 19
	if c := g.Look(time.Minute, s); c != Runs {
		t.Errorf("%v", c)
	}
	s.Exchanges++
	if c := g.Look(time.Minute+time.Second, s); c != Errors {
		t.Errorf("%v with one more", c)
	}
}

// model is the slow reference: it keeps all samples and judges from the newest
// that is as old as the window, among those that the guard may keep.
type model struct {
	cfg Stop
	all []mark
}

func (m *model) look(now time.Duration, s Sample) Cause {
	base := m.all[0]
	for _, k := range m.all {
		if k.at+m.cfg.Window <= now {
			base = k
		}
	}
	d := Sample{
		Exchanges: s.Exchanges - base.s.Exchanges, Good: s.Good - base.s.Good, Failures: s.Failures - base.s.Failures,
		Met: s.Met - base.s.Met, MetFailed: s.MetFailed - base.s.MetFailed, Slow: s.Slow - base.s.Slow,
		Ejections: s.Ejections - base.s.Ejections, Openings: s.Openings - base.s.Openings,
	}
	if last := m.all[len(m.all)-1]; now-last.at >= m.cfg.Window/steps {
		m.all = append(m.all, mark{now, s})
	}
	share := func(part, whole uint64) float64 { return 100 * float64(part) / float64(whole) }
	switch clean := d.Exchanges - d.Met; {
	case clean >= m.cfg.MinRequests && share(d.Failures-d.MetFailed, clean) > m.cfg.ErrorsPercent:
		return Errors
	case d.Exchanges >= m.cfg.MinRequests && share(d.Exchanges-d.Good, d.Exchanges) > 100-m.cfg.SuccessPercent:
		return Success
	case d.Exchanges >= m.cfg.MinRequests && share(d.Slow, d.Exchanges) > 1:
		return Slow
	case d.Ejections >= uint64(m.cfg.Ejections):
		return Ejected
	case d.Openings > 0:
		return Opened
	case s.Panicking:
		return Panic
	}
	return Runs
}

func TestGuardAgainstModel(t *testing.T) {
	seen := map[Cause]int{}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		cfg := Stop{
			ErrorsPercent: 5 + 20*r.Float64(), SuccessPercent: 50 + 40*r.Float64(), P99: time.Second, Ejections: 1 + r.IntN(3),
			Breaker: true, Panic: true, Window: time.Duration(1+r.IntN(20)) * time.Second, MinRequests: 1 + r.Uint64N(40),
		}
		g, m := NewGuard(cfg, 0, Sample{}), model{cfg: cfg, all: []mark{{}}}
		var s Sample
		now := time.Duration(0)
		for range 400 {
			now += time.Duration(r.IntN(700)) * time.Millisecond
			n := r.Uint64N(10)
			failed := r.Uint64N(n/5 + 1)
			met := r.Uint64N(n - failed + 1)
			metFailed := r.Uint64N(met + 1)
			s.Exchanges += n
			s.Failures += failed + metFailed
			s.Good += n - failed - metFailed
			s.Met += met
			s.MetFailed += metFailed
			if r.IntN(50) == 0 {
				s.Slow += min(n, 1)
			}
			if r.IntN(100) == 0 {
				s.Ejections++
			}
			if r.IntN(400) == 0 {
				s.Openings++
			}
			s.Panicking = r.IntN(400) == 0
			want := m.look(now, s)
			if got := g.Look(now, s); got != want {
				t.Fatalf("seed %d at %v: %v, the model says %v", seed, now, got, want)
			}
			seen[want]++
		}
	}
	for c := Runs; c <= Panic; c++ {
		if seen[c] == 0 {
			t.Errorf("%v never happened", c)
		}
	}
}
