package balance

import (
	"math"
	"testing"
	"time"
)

// zoneWorld is two zones whose endpoints slow down as they fill, and a balancer.
type zoneWorld struct {
	cfg   Config
	p     *Picker
	spill Spill
	now   time.Duration
	// latency of an attempt, by the rate of attempts a second and endpoint
	near, far func(rate float64) time.Duration
}

func newZoneWorld(near, far int) *zoneWorld {
	w := &zoneWorld{cfg: nearby(P2CEWMA)}
	all := groups(group(0, Near, near, near), group(0, Away, far, far))
	for i := range all {
		all[i].Load.Init(w.cfg)
	}
	w.p, _ = NewTiered(w.cfg, all, nil)
	flat := func(float64) time.Duration { return 10 * time.Millisecond }
	w.near, w.far = flat, flat
	return w
}

// queue is the latency of a server with a service time of 10 ms that does at
// most so many requests a second (M/M/1, cut off).
func queue(most float64) func(float64) time.Duration {
	return func(rate float64) time.Duration {
		return time.Duration(float64(10*time.Millisecond) / max(1-rate/most, 0.02))
	}
}

// run goes on for a time with so many attempts a second and returns the share of
// those that went to the far zone in the last tenth of it.
func (w *zoneWorld) run(d time.Duration, rate float64) (spilled float64) {
	const tick = 200 * time.Millisecond
	ticks := int(d / tick)
	var sum float64
	for k := range ticks {
		w.now += tick
		states := w.p.Tiers()
		for i, s := range states {
			each := rate * s.Share / float64(s.Members)
			latency := w.near(each)
			if i == 1 {
				latency = w.far(each)
			}
			one := w.p.tiers.list[i]
			for j := range one.picker.members {
				l := one.picker.members[j].Load
				n := int(each * tick.Seconds())
				if j == 0 && n == 0 && s.Share > 0 && rate > 0 {
					n = 1
				}
				for range n {
					l.Begin(w.now)
					l.End(w.now, latency, false)
				}
				l.Roll()
			}
		}
		w.spill.Tick(w.cfg, w.now, w.p)
		if k >= ticks*9/10 {
			sum += w.p.Tiers()[1].Share
		}
	}
	return sum / float64(ticks-ticks*9/10)
}

// TestNoSpillWithoutNeed: what those nearby can bear stays there, however much
// it is and however the latency of all moves.
func TestNoSpillWithoutNeed(t *testing.T) {
	w := newZoneWorld(2, 8)
	for _, rate := range []float64{10, 1000, 5000, 10} {
		if s := w.run(10*time.Second, rate); s != 0 {
			t.Errorf("%.3f go further at %v/s", s, rate)
		}
	}
	// A slow dependency makes all endpoints slow: going further does not help.
	slow := func(float64) time.Duration { return 80 * time.Millisecond }
	w.near, w.far = slow, slow
	if s := w.run(20*time.Second, 1000); s > 0.05 {
		t.Errorf("%.3f go further although it helps nothing", s)
	}
	// Less than a millisecond never counts.
	w = newZoneWorld(2, 2)
	w.run(5*time.Second, 100)
	w.near = func(float64) time.Duration { return 10900 * time.Microsecond }
	w.cfg.Zones.SpillLatencyPercent = 100
	if s := w.run(10*time.Second, 100); s != 0 {
		t.Errorf("%.3f go further for 0.9 ms", s)
	}
}

// TestSpillAtLoad: beyond what those nearby can bear as much goes further as
// brings latency down to its limit, and no more; all of it comes back.
func TestSpillAtLoad(t *testing.T) {
	w := newZoneWorld(2, 8)
	w.near, w.far = queue(100), queue(100)
	if s := w.run(10*time.Second, 60); s != 0 {
		t.Fatalf("%.3f go further at 30 %% load", s)
	}
	// 300/s on two endpoints that do 100 each: at 200 % of the far latency each
	// has about (1-x) where 1/(1-x) = 2/(1-y).
	s := w.run(60*time.Second, 300)
	near, far := 300*(1-s)/2, 300*s/8
	ratio := float64(w.near(near)) / float64(w.far(far))
	if s < 0.5 || s > 0.8 || ratio < 1.4 || ratio > 3 {
		t.Errorf("%.3f go further: %.0f/s near, %.0f/s far, latency %.2f times", s, near, far, ratio)
	}
	if s := w.run(30*time.Second, 60); s != 0 {
		t.Errorf("%.3f still go further when the load is gone", s)
	}
}

// TestSpillIsBounded: those nearby never have less than their fair share, even
// when they are hopeless.
func TestSpillIsBounded(t *testing.T) {
	w := newZoneWorld(2, 6)
	w.run(5*time.Second, 500)
	w.near = func(float64) time.Duration { return 10 * time.Second }
	if s := w.run(60*time.Second, 500); math.Abs(s-0.75) > 1e-6 {
		t.Errorf("%.4f go further, want the fair 0.75", s)
	}
}

// TestSpillOutlivesPickers: a new picker begins where the old one was.
func TestSpillOutlivesPickers(t *testing.T) {
	w := newZoneWorld(2, 6)
	w.run(5*time.Second, 500)
	w.near = func(float64) time.Duration { return 100 * time.Millisecond }
	w.run(5*time.Second, 500)
	before := w.p.Tiers()[1].Share
	p, _ := NewTiered(w.cfg, groups(group(0, Near, 3, 3), group(0, Away, 6, 6)), &w.spill)
	if after := p.Tiers()[1].Share; before < 0.1 || math.Abs(after-before) > 1e-9 {
		t.Errorf("%.4f went further before, %.4f after", before, after)
	}
	w.cfg.Zones.Prefer = false
	w.spill.Tick(w.cfg, w.now, p)
	if w.spill.of(0, Near) != 0 {
		t.Error("the spill is remembered when zones are not preferred")
	}
}
