package upstream

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/orca"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// report has the i-th endpoint report so many requests a second at half its CPU.
func report(c *Cluster, i int, now time.Duration, rps float64) {
	text := fmt.Sprintf("TEXT cpu_utilization=0.5,rps_fractional=%g", rps)
	c.Reported(c.list()[i], c.policy.Load().Balance.ORCA, now, []byte(text), false)
}

// shares returns how attempts are divided among the endpoints. Each attempt is under
// way until four others have begun.
func shares(c *Cluster, now time.Duration, n int) []float64 {
	counts := map[*Endpoint]float64{}
	var running []*Endpoint
	for range n {
		e := c.Pick(now, &Wish{}, &Tried{})
		e.Load.Begin(now)
		counts[e]++
		if running = append(running, e); len(running) > 4 {
			running[0].Load.End(now, time.Millisecond, false)
			running = running[1:]
		}
	}
	for _, e := range running {
		e.Load.End(now, time.Millisecond, false)
	}
	out := make([]float64, 0, len(counts))
	for _, e := range c.list() {
		out = append(out, counts[e]/float64(n))
	}
	return out
}

// heedingBed is a bed of n endpoints that report.
func heedingBed(t *testing.T, n int, change func(*Spec, *orca.Config)) (*bed, *Cluster) {
	t.Helper()
	b := newBed(t)
	c := b.r.Acquire(heeding(change), telemetry.Outbound)
	b.r.SetEndpoints("api", numbered(n))
	return b, c
}

func heeding(change func(*Spec, *orca.Config)) Spec {
	cfg := orca.Default()
	return spec(func(s *Spec) {
		s.Policy.Balance.SlowStart, s.Policy.Balance.Algorithm = 0, balance.WeightedRoundRobin
		s.Policy.Balance.ORCA = &cfg
		if change != nil {
			change(s, &cfg)
		}
	})
}

// begin is when the beds' endpoints report for the first time.
const begin = time.Minute

// TestWeighed: attempts follow what endpoints report, for every algorithm that
// knows of weights.
func TestWeighed(t *testing.T) {
	for _, a := range []balance.Algorithm{balance.WeightedRoundRobin, balance.Random, balance.LeastRequest, balance.P2CEWMA, balance.LeastTime} {
		t.Run(a.String(), func(t *testing.T) {
			_, c := heedingBed(t, 4, func(s *Spec, _ *orca.Config) { s.Policy.Balance.Algorithm = a })
			now := begin
			for ; now < begin+11*time.Second; now += TickInterval {
				for i, rps := range []float64{100, 200, 300} { // the last one says nothing
					report(c, i, now, rps)
				}
				c.tick(now)
			}
			got := shares(c, now, 24_000)
			want := []float64{1. / 8, 2. / 8, 3. / 8, 2. / 8}
			t.Logf("shares %.3f", got)
			for i := range want {
				slack := 0.01
				switch a {
				case balance.WeightedRoundRobin:
					slack = 0.001
				case balance.P2CEWMA, balance.LeastTime, balance.LeastRequest:
					// By what is in flight for each unit of weight: near it, not exact.
					slack = 0.09
				}
				if math.Abs(got[i]-want[i]) > slack {
					t.Errorf("shares %.3f, want %.3f", got, want)
					break
				}
			}
		})
	}
}

// TestWeighedInTime: nothing changes before the blackout is over, nor more often
// than weight_update_period says; a report that is too old counts no more.
func TestWeighedInTime(t *testing.T) {
	b, c := heedingBed(t, 2, func(_ *Spec, o *orca.Config) {
		o.WeightUpdatePeriod, o.WeightExpirationPeriod = 2*time.Second, 20*time.Second
	})
	factor := func() float64 { return c.list()[1].reported.Factor() }
	first := c.set.Load()
	now := begin
	at := func(end time.Duration, rps float64) {
		for ; now <= end; now += TickInterval {
			if rps > 0 {
				report(c, 0, now, 100)
				report(c, 1, now, rps)
			}
			c.tick(now)
		}
	}
	at(begin+9*time.Second, 300)
	if c.set.Load() != first || factor() != 1 {
		t.Errorf("in the blackout its factor is %v", factor())
	}
	at(begin+13*time.Second, 300)
	if math.Abs(factor()-1.5) > 1e-9 {
		t.Fatalf("its factor is %v, want 1.5", factor())
	}
	_, endpoints := b.r.States()
	if r := endpoints[1].Reported; r == nil || r.Factor != factor() || r.Mode != guard.Enforce {
		t.Errorf("shown as %+v", r)
	}
	set := c.set.Load()
	at(begin+20*time.Second, 300)
	if c.set.Load() != set {
		t.Error("a new picker for the same weights")
	}
	changes := 0
	for i := range 50 { // 10 s, in which the weight changes all the time
		was := c.set.Load()
		at(now, 100+10*float64(i))
		if c.set.Load() != was {
			changes++
		}
	}
	if changes < 4 || changes > 6 {
		t.Errorf("%d changes in 10s", changes)
	}
	at(now+25*time.Second, 0)
	if factor() != 1 || c.list()[0].reported.Factor() != 1 {
		t.Errorf("after all reports have expired its factor is %v", factor())
	}
	if got := shares(c, now, 1000); math.Abs(got[0]-0.5) > 0.002 {
		t.Errorf("shares %v", got)
	}
}

// TestWeighedLiar: an endpoint that claims everything gets four times the others'.
func TestWeighedLiar(t *testing.T) {
	_, c := heedingBed(t, 5, func(_ *Spec, o *orca.Config) { o.BlackoutPeriod = 0 })
	for i, rps := range []float64{1e12, 100, 100, 100, 100} {
		report(c, i, begin, rps)
	}
	c.tick(begin + time.Second)
	if got := shares(c, begin, 8000); math.Abs(got[0]-0.5) > 0.001 {
		t.Errorf("shares %v, want half for four times the others", got)
	}
	// Nor does one that is not to be read change anything.
	for _, bad := range []string{"TEXT cpu_utilization=0.5,rps_fractional=1e99999", "TEXT rps_fractional=5", "nonsense"} {
		c.Reported(c.list()[1], c.policy.Load().Balance.ORCA, begin+2*time.Second, []byte(bad), false)
	}
	c.tick(begin + 3*time.Second)
	if got := shares(c, begin, 8000); math.Abs(got[1]-0.125) > 0.001 {
		t.Errorf("shares %v", got)
	}
}

// TestWeighedByCatalog: weights of the catalog are what the bounds are relative
// to, and what those go by who say nothing; in observe mode only they count, and
// without the section nothing is left of it.
func TestWeighedByCatalog(t *testing.T) {
	b, c := heedingBed(t, 3, func(_ *Spec, o *orca.Config) { o.BlackoutPeriod = 0 })
	list := numbered(3)
	list[0].Weight, list[1].Weight, list[2].Weight = 1, 10, 5
	b.r.SetEndpoints("api", list)
	now := begin
	weighed := func(want ...float64) {
		t.Helper()
		now += 2 * time.Second
		report(c, 0, now, 100)
		report(c, 1, now, 100)
		c.tick(now)
		got := shares(c, now, 16_000)
		for i := range want {
			if math.Abs(got[i]-want[i]) > 0.002 {
				t.Fatalf("shares %.3f, want %.3f", got, want)
			}
		}
	}
	// By themselves: 100 and 10 for each unit of weight. The bound is 4 x 10. The
	// mean of 40 and 10, for the one that is silent, is 25.
	weighed(40./265, 100./265, 125./265)
	b.r.Acquire(heeding(func(_ *Spec, o *orca.Config) { o.BlackoutPeriod, o.Mode = 0, guard.Observe }), telemetry.Outbound)
	weighed(1./16, 10./16, 5./16)
	if f := c.list()[0].reported.Factor(); math.Abs(f-1.6) > 1e-9 {
		t.Errorf("in observe mode its factor is shown as %v", f)
	}
	b.r.Acquire(spec(func(s *Spec) {
		s.Policy.Balance.SlowStart, s.Policy.Balance.Algorithm = 0, balance.WeightedRoundRobin
	}), telemetry.Outbound)
	if w := c.set.Load().picker.Member(1).Weight; w != 10 || c.list()[0].reported.Factor() != 1 {
		t.Errorf("without it its weight is %v", w)
	}
	if _, endpoints := b.r.States(); endpoints[0].Reported != nil {
		t.Error("it is shown still")
	}
}

// TestReportedAllocatesNothing, whatever is in it.
func TestReportedAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	_, c := heedingBed(t, 1, nil)
	e, cfg := c.list()[0], c.policy.Load().Balance.ORCA
	for _, s := range []string{"TEXT cpu_utilization=0.5,rps_fractional=10", "TEXT cpu", "JSON {}"} {
		value := []byte(s)
		if n := testing.AllocsPerRun(100, func() { c.Reported(e, cfg, begin, value, false) }); n != 0 {
			t.Errorf("%q: %v allocations", s, n)
		}
	}
}
