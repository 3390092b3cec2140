package upstream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func TestAcquireAndRelease(t *testing.T) {
	b := newBed(t)
	b.r.SetEndpoints("api", numbered(3))
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	if got := b.r.Acquire(spec(nil), telemetry.Outbound); got != c {
		t.Error("another cluster of the same name")
	}
	in := b.r.Acquire(spec(nil), telemetry.Inbound)
	if in == c {
		t.Error("the directions share a cluster")
	}
	if !c.Listed() || len(c.list()) != 3 {
		t.Errorf("what discovery had said before is lost: %d endpoints", len(c.list()))
	}
	b.r.Release(c)
	if len(c.list()) != 3 {
		t.Error("retired while in use")
	}
	b.r.Release(c)
	if clusters, _ := b.r.States(); len(clusters) != 1 {
		t.Errorf("%d clusters, want that of the other direction: not retired", len(clusters))
	}
	b.r.SetEndpoints("api", numbered(4))
	next := b.r.Acquire(spec(nil), telemetry.Outbound)
	if next == c || len(next.list()) != 4 {
		t.Error("the name does not begin anew")
	}
	b.r.Release(next)
	b.r.Release(in)
	if clusters, eps := b.r.States(); len(clusters)+len(eps) != 0 {
		t.Errorf("%d clusters, %d endpoints are left", len(clusters), len(eps))
	}
}

// TestEndpointsStay: what is known about an endpoint outlives updates, reloads
// and the comings and goings of others.
func TestEndpointsStay(t *testing.T) {
	b := newBed(t)
	cfg := outlier.Default()
	cfg.ConsecutiveFailures, cfg.KeepEndpoints = 1, 1
	withOutlier := func(s *Spec) { s.Policy.Outlier = &cfg }
	c := b.r.Acquire(spec(withOutlier), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(4))
	e := c.list()[1]
	now := time.Second
	c.Begin(e, now)
	c.Finish(e, now, time.Millisecond, outcome.UpstreamReset, 0)
	if e.Outlier.State() != outlier.Ejected {
		t.Fatal("not ejected")
	}
	if !strings.Contains(b.lg.String(), "event=ejected") {
		t.Errorf("log: %s", b.lg.String())
	}
	list := numbered(5)[1:]
	list[0].Weight, list[1].Healthy = 7, false
	slices.Reverse(list)
	b.r.SetEndpoints("api", list)
	b.r.Acquire(spec(withOutlier), telemetry.Outbound)
	defer b.r.Release(c)
	if got := c.list(); len(got) != 4 || got[0] != e || e.Outlier.State() != outlier.Ejected || e.spec.Load().Weight != 7 {
		t.Errorf("%d endpoints, the ejected one is %v, weight %d", len(got), e.Outlier.State(), e.spec.Load().Weight)
	}
	if got := c.set.Load(); got.picker.Len() != 2 {
		t.Errorf("%d may be used, want 2: one is ejected, one unhealthy", got.picker.Len())
	}
	cs, es := b.r.States()
	if len(cs) != 1 || cs[0].Ejected != 1 || cs[0].Available != 2 || cs[0].Endpoints != 4 || len(es) != 4 || es[0].Failures != 1 {
		t.Errorf("states %+v %+v", cs, es)
	}
	if e.Load.Inflight() != 0 {
		t.Error("an attempt was not ended")
	}
}

func TestSameAddressTwice(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	defer b.r.Release(c)
	one := numbered(1)[0]
	sick := one
	sick.Healthy, sick.Weight = false, 0
	for range 2 {
		b.r.SetEndpoints("api", []EndpointSpec{sick, one})
		if got := c.list(); len(got) != 1 || !got[0].spec.Load().Healthy {
			t.Fatalf("%d endpoints", len(got))
		}
	}
	b.r.SetEndpoints("api", []EndpointSpec{sick})
	if s := c.list()[0].spec.Load(); s.Healthy || s.Weight != 1 {
		t.Errorf("spec %+v", s)
	}
}

// TestUnchangedListBuildsNothing: the usual answer of discovery is the same list.
func TestUnchangedListBuildsNothing(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(10))
	before := c.set.Load()
	b.r.SetEndpoints("api", numbered(10))
	if c.set.Load() != before {
		t.Error("the set was built anew")
	}
}

// TestBreakerAndBudgetStay over reloads that do not concern them.
func TestBreakerAndBudgetStay(t *testing.T) {
	b := newBed(t)
	br, rt := breaker.Default(), retry.Default()
	with := func(change func(*Policy)) Spec {
		return spec(func(s *Spec) {
			brc, rtc := br, rt
			s.Policy.Breaker, s.Policy.Retry = &brc, &rtc
			if change != nil {
				change(&s.Policy)
			}
		})
	}
	c := b.r.Acquire(with(nil), telemetry.Outbound)
	defer b.r.Release(c)
	breaker0, budget0 := c.Breaker(), c.Budget()
	again := func(change func(*Policy)) {
		b.r.Acquire(with(change), telemetry.Outbound)
		b.r.Release(c)
	}
	again(func(p *Policy) { p.Timeout = time.Second; p.Retry.Attempts = 5 })
	if c.Breaker() != breaker0 || c.Budget() != budget0 || c.Policy().Timeout != time.Second {
		t.Error("a change of something else reset breaker or budget")
	}
	again(func(p *Policy) { p.Breaker.OpenFor = time.Minute; p.Retry.BudgetPercent = 1 })
	if c.Breaker() == breaker0 || c.Budget() == budget0 {
		t.Error("new settings are not in force")
	}
	again(func(p *Policy) { p.Breaker, p.Retry = nil, nil })
	if c.Breaker() != nil || c.Budget() != nil {
		t.Error("still on")
	}
}

// TestZeroBalance: a cluster without balancing settings, as that of the own
// application, still gives sensible estimates.
func TestZeroBalance(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Balance = balance.Config{}; s.Local = true }), telemetry.Inbound)
	defer b.r.Release(c)
	c.SetLocal(numbered(1))
	e := c.Pick(0, &Wish{}, &Tried{})
	for range 3 { // at one and the same time
		c.Begin(e, time.Second)
		c.Finish(e, time.Second, 5*time.Millisecond, outcome.OK, 200)
	}
	if got := e.Load.EWMA(time.Second); got != 5*time.Millisecond {
		t.Errorf("estimate %s", got)
	}
}

// TestPickAvoids the endpoints tried before, as long as there are others.
func TestPickAvoids(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(3))
	for range 50 {
		var tried Tried
		seen := map[*Endpoint]bool{}
		for range 3 {
			e := c.Pick(0, &Wish{}, &tried)
			seen[e] = true
			tried.Add(e)
		}
		if len(seen) != 3 {
			t.Fatalf("%d of 3 endpoints were tried", len(seen))
		}
		if c.Pick(0, &Wish{}, &tried) == nil {
			t.Fatal("none is left when all were tried")
		}
	}
}

// TestProbation lets one attempt through, and with nothing else left the panic
// rule decides about the others.
func TestProbation(t *testing.T) {
	for _, panicPercent := range []float64{0, 30} {
		b := newBed(t)
		cfg := outlier.Default()
		cfg.ConsecutiveFailures, cfg.BaseEjection, cfg.Jitter, cfg.MaxEjectedPercent, cfg.KeepEndpoints = 1, time.Second, 0, 100, 0
		c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Outlier = &cfg; s.Policy.Balance.PanicPercent = panicPercent }), telemetry.Outbound)
		b.r.SetEndpoints("api", numbered(12))
		now := time.Second
		for _, e := range c.list() {
			c.Begin(e, now)
			c.Finish(e, now, time.Millisecond, outcome.UpstreamReset, 0)
		}
		c.tick(now + 2*time.Second)
		probes := 0
		for range 12 {
			if c.Pick(now, &Wish{}, &Tried{}) != nil {
				probes++
			}
		}
		if probes != 12 {
			t.Errorf("%d of 12 probes", probes)
		}
		if got := c.Pick(now, &Wish{}, &Tried{}) != nil; got != (panicPercent > 0) {
			t.Errorf("panic at %g %%: another attempt is let through: %v", panicPercent, got)
		}
		b.r.Release(c)
	}
}

// TestConcurrentChanges has discovery, reloads, traffic and views meet.
func TestConcurrentChanges(t *testing.T) {
	b := newBed(t)
	cfg := outlier.Default()
	change := func(s *Spec) { s.Policy.Outlier = &cfg }
	keep := b.r.Acquire(spec(change), telemetry.Outbound)
	ctx, cancel := context.WithCancel(context.Background())
	var wg, run sync.WaitGroup
	run.Go(func() { _ = b.r.Run(ctx) })
	loop := func(f func(i int)) {
		wg.Go(func() {
			for i := range 200 {
				f(i)
			}
		})
	}
	loop(func(i int) { b.r.SetEndpoints("api", numbered(i%7)) })
	loop(func(i int) { b.r.SetEndpoints("other", numbered(i%7)) })
	loop(func(i int) {
		s := spec(change)
		s.Transport = fmt.Sprint(i % 3)
		b.r.Acquire(s, telemetry.Outbound)
		b.r.Release(keep)
	})
	loop(func(int) {
		s := spec(change)
		s.Name = "other"
		b.r.Release(b.r.Acquire(s, telemetry.Outbound))
	})
	loop(func(i int) {
		now := time.Duration(i) * time.Second
		if e := keep.Pick(now, &Wish{}, &Tried{}); e != nil {
			keep.Begin(e, now)
			keep.Finish(e, now, time.Millisecond, outcome.UpstreamReset, 0)
		}
	})
	loop(func(int) { b.r.States() })
	wg.Wait()
	cancel()
	run.Wait()
	b.r.SetEndpoints("api", numbered(3))
	if n := len(keep.list()); n != 3 {
		t.Errorf("%d endpoints", n)
	}
	b.r.Release(keep)
}

func TestOwnWantIsNoFaultOfTheEndpoint(t *testing.T) {
	for e, want := range map[error]bool{
		syscall.EMFILE: true, syscall.ENFILE: true, syscall.EADDRNOTAVAIL: true,
		syscall.ECONNREFUSED: false, syscall.EHOSTUNREACH: false, syscall.ENETUNREACH: false,
	} {
		if got := ownWant(fmt.Errorf("dial: %w", e)); got != want {
			t.Errorf("%v: %v", e, got)
		}
	}
	if outcome.Internal.Row().Blame {
		t.Error("the endpoint is blamed")
	}
}

// BenchmarkOneChangeAmong10000 is one endpoint replaced among 10,000.
func BenchmarkOneChangeAmong10000(b *testing.B) {
	bed := newBed(b)
	c := bed.r.Acquire(spec(nil), telemetry.Outbound)
	list := numbered(10_001)
	bed.r.SetEndpoints("api", list[1:])
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%2 == 0 {
			bed.r.SetEndpoints("api", list[:10_000])
		} else {
			bed.r.SetEndpoints("api", list[1:])
		}
	}
	b.StopTimer()
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/1e6/float64(b.N), "cpu-ms/op")
	if n := len(c.list()); n != 10_000 {
		b.Errorf("%d endpoints", n)
	}
	bed.r.Release(c)
}

// Alive are those that the catalog does not call critical and that are not about
// to go, also of a service that no plan wants.
func TestLive(t *testing.T) {
	b := newBed(t)
	if n := b.r.Live("own"); n != 0 {
		t.Errorf("%d of a service that nobody knows", n)
	}
	list := numbered(5)
	list[1].Healthy, list[2].Draining = false, "maintenance"
	b.r.SetEndpoints("own", list)
	if n := b.r.Live("own"); n != 3 {
		t.Errorf("%d of 5 are alive, of which one is critical and one drains", n)
	}
}
