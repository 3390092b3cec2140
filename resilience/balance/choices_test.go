package balance

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestChoices: with d of n distinct draws, the k-th best is taken when it is
// drawn and none of those before it is. Where draws may repeat a loser, the
// proportions are bounded by those of d draws with and without putting back.
func TestChoices(t *testing.T) {
	oneGoroutine(t)
	for _, a := range []Algorithm{P2CEWMA, LeastTime, LeastRequest} {
		for _, c := range []struct{ n, choices int }{{6, 1}, {6, 3}, {6, 6}, {6, 100}, {80, 5}, {80, 81}} {
			cfg := configured(a)
			cfg.Choices = c.choices
			p := NewPicker(cfg, fresh(c.n+1))
			for i := range c.n {
				l := p.Member(i).Load
				l.Begin(0)
				l.End(0, 10*time.Millisecond, false)
				for range i {
					l.Begin(0)
				}
			}
			// The one more is idle and best of all, but avoided: exact draws.
			last := p.Member(c.n).Load
			rnd := rand.New(rand.NewPCG(3, 3))
			best := 0
			const total = 20_000
			for range total {
				i := p.Pick(0, rnd.Uint64(), []*Load{last})
				if i == c.n {
					t.Fatalf("%v: the avoided one was picked", a)
				}
				if i == 0 {
					best++
				}
			}
			d := float64(min(c.choices, c.n))
			want := d / float64(c.n)
			share := float64(best) / total
			if math.Abs(share-want) > 0.015 {
				t.Errorf("%v, %d of %d: the best was taken in %.4f of cases, want %.4f", a, c.choices, c.n, share, want)
			}
		}
	}
}

// TestAllChoices: with all compared the idlest by weight is taken, and among
// idle ones those drawn by weight.
func TestAllChoices(t *testing.T) {
	oneGoroutine(t)
	cfg := configured(LeastRequest)
	cfg.Choices = maxChoices
	for _, n := range []int{3, 100} {
		weights := make([]uint32, n)
		for i := range weights {
			weights[i] = uint32(1 + i%3)
		}
		p := NewPicker(cfg, weighted(weights...))
		shares := make([]float64, n)
		for i, w := range weights {
			shares[i] = float64(w)
		}
		fits(t, picks(p, 50_000, 0, 5), shares)
		rnd := rand.New(rand.NewPCG(7, 7))
		for range 300 * n {
			p.Member(p.Pick(0, rnd.Uint64(), nil)).Load.Begin(0)
		}
		unit := 300 * float64(n) / float64(commonTotal(p.members))
		for i, w := range weights {
			if got, want := float64(p.Member(i).Load.Inflight()), unit*float64(w); math.Abs(got-want) > 2*float64(w) {
				t.Errorf("of %d: weight %d has %v in flight, want %.0f", n, w, got, want)
			}
		}
	}
}

// TestMeanAndPeak: one slow answer among many takes an endpoint out by its
// peak, and hardly changes its mean.
func TestMeanAndPeak(t *testing.T) {
	for _, c := range []struct {
		algorithm   Algorithm
		least, most time.Duration
	}{{P2CEWMA, 990 * time.Millisecond, time.Second}, {LeastTime, 10 * time.Millisecond, 12 * time.Millisecond}} {
		var l Load
		l.Init(configured(c.algorithm))
		now := time.Duration(0)
		for range 1000 {
			now += 10 * time.Millisecond
			l.Begin(now)
			l.End(now, 10*time.Millisecond, false)
		}
		now += 10 * time.Millisecond
		l.Begin(now)
		l.End(now, time.Second, false)
		if got := l.EWMA(now); got < c.least || got > c.most {
			t.Errorf("%v: estimate %v after one slow answer, want %v to %v", c.algorithm, got, c.least, c.most)
		}
	}
}

// TestHoldOff: an endpoint that asked for a pause has the full penalty until it
// has passed, failures in between do not shorten it, and then it decays.
func TestHoldOff(t *testing.T) {
	var l Load
	cfg := Default()
	l.Init(cfg)
	l.Begin(0)
	l.End(0, time.Millisecond, false)
	l.HoldOff(10 * time.Second)
	l.Begin(0)
	l.End(time.Second, time.Millisecond, true)
	for _, c := range []struct {
		now  time.Duration
		want time.Duration
	}{{time.Second, cfg.FailurePenalty}, {10 * time.Second, cfg.FailurePenalty}, {10*time.Second + cfg.Decay/penaltyHaste, 1839 * time.Millisecond}} {
		if got := l.EWMA(c.now); got.Round(time.Millisecond) != c.want {
			t.Errorf("at %v the endpoint costs %v, want %v", c.now, got, c.want)
		}
	}
	l.HoldOff(5 * time.Second) // an earlier end changes nothing
	if got := l.EWMA(10 * time.Second); got != cfg.FailurePenalty {
		t.Errorf("after a shorter pause it costs %v", got)
	}
}
