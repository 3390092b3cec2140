package upstream

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// broken is a policy whose breakers open at the first failure, for an hour.
func broken(scope breaker.Scope) func(*Spec) {
	return func(s *Spec) {
		c := breaker.Default()
		c.Scope, c.ConsecutiveFailures, c.OpenFor = scope, 1, time.Hour
		s.Policy.Breaker = &c
	}
}

// attempt is one attempt from pick to end; nil when there was none.
func (c *Cluster) attempt(now time.Duration, bad func(*Endpoint) bool) (*Endpoint, bool) {
	var tried Tried
	e := c.Pick(now, &Wish{}, &tried)
	if e == nil {
		return nil, tried.Broken()
	}
	c.Begin(e, now)
	r, res := outcome.OK, breaker.Success
	if bad(e) {
		r, res = outcome.UpstreamError, breaker.Failure
	}
	c.Finish(e, now, time.Millisecond, r, 0)
	tried.Settle(now, res)
	return e, false
}

// TestEndpointBreakers: each failing endpoint gets one attempt, then the others
// have all; when all have failed there is none, until the time of a trial.
func TestEndpointBreakers(t *testing.T) {
	for _, algorithm := range []balance.Algorithm{balance.P2CEWMA, balance.WeightedRoundRobin, balance.Random} {
		for _, n := range []int{1, 3, 40} {
			t.Run(fmt.Sprint(algorithm, n), func(t *testing.T) {
				b := newBed(t)
				c := b.r.Acquire(spec(func(s *Spec) {
					broken(breaker.ScopeEndpoint)(s)
					s.Policy.Balance.Algorithm = algorithm
				}), telemetry.Outbound)
				defer b.r.Release(c)
				b.r.SetEndpoints("api", numbered(n))
				if c.Breaker() != nil {
					t.Error("the cluster has one as well")
				}
				now, failed := time.Second, map[*Endpoint]int{}
				half := func(e *Endpoint) bool { return e.AddrPort().Addr().As4()[3]%2 == 0 }
				for range 200 * n {
					e, _ := c.attempt(now, half)
					switch {
					case e == nil && n > 1:
						t.Fatal("none was picked, and half of them are well")
					case e != nil && half(e):
						failed[e]++
					}
				}
				if want := (n + 1) / 2; len(failed) != want {
					t.Errorf("%d failing endpoints were tried, want %d", len(failed), want)
				}
				for e, times := range failed {
					if times != 1 {
						t.Errorf("%s got %d attempts", e.address, times)
					}
					if s := e.Condition(now); s != "breaker open" {
						t.Errorf("%s is %s", e.address, s)
					}
				}
				for range 200 * n {
					c.attempt(now, func(*Endpoint) bool { return true })
				}
				e, isBroken := c.attempt(now, half)
				if e != nil || !isBroken {
					t.Errorf("all are open, and %v was picked, broken %v", e, isBroken)
				}
				now += time.Hour
				for range 400 * n {
					if e, _ := c.attempt(now, func(*Endpoint) bool { return false }); e == nil {
						t.Fatal("none was picked in the time of trials")
					}
				}
				if w := Worst(c.breakers(now)); w.State != breaker.Closed || w.Scope != breaker.ScopeEndpoint {
					t.Errorf("after good trials: %+v", w)
				}
			})
		}
	}
}

// TestEndpointBreakerObserved: all are picked as if there were none, and what
// would have been is counted.
func TestEndpointBreakerObserved(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) {
		broken(breaker.ScopeEndpoint)(s)
		s.Policy.Breaker.Mode = guard.Observe
	}), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(3))
	for range 30 {
		if e, _ := c.attempt(0, func(*Endpoint) bool { return true }); e == nil {
			t.Fatal("a breaker that only observes has refused")
		}
	}
	would := uint64(0)
	for _, s := range c.breakers(0) {
		would += s.WouldHaveRejected
		if s.Rejected != 0 {
			t.Errorf("rejected: %+v", s)
		}
	}
	if would != 27 {
		t.Errorf("would have rejected %d, want 27", would)
	}
}

// TestBreakerWithProbation: a look at an endpoint whose one probe is under way
// takes no trial from its breaker.
func TestBreakerWithProbation(t *testing.T) {
	b := newBed(t)
	o := outlier.Default()
	c := b.r.Acquire(spec(func(s *Spec) {
		broken(breaker.ScopeEndpoint)(s)
		s.Policy.Outlier = &o
	}), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(4))
	e, now := c.endpoints[0], time.Duration(0)
	for i := 0; e.Outlier.State() != outlier.Probation; i++ {
		if i == 1000 {
			t.Fatalf("%v after %v", e.Outlier.State(), now)
		}
		if e.Outlier.State() == outlier.Healthy {
			c.Begin(e, now)
			c.Finish(e, now, 0, outcome.UpstreamReset, 0)
		}
		now += 200 * time.Millisecond
		c.sweep(now)
	}
	var tried Tried
	for i, want := range []bool{true, false, false} {
		if got := c.takes(c.set.Load(), e, guard.Enforce, now, &tried); got != want {
			t.Errorf("look %d: %v", i, got)
		}
		if held := tried.leave.by != nil; held != want {
			t.Errorf("look %d: holds a leave: %v", i, held)
		}
		tried.leave = leave{} // under way
	}
	if tried.Broken() {
		t.Error("the breaker is said to have refused")
	}
}

// TestRouteBreakers stay over reloads by the names of the routes, and are new
// with another configuration.
func TestRouteBreakers(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(broken(breaker.ScopeRoute)), telemetry.Outbound)
	defer b.r.Release(c)
	if c.Breaker() != nil {
		t.Error("the cluster has one as well")
	}
	first := c.KeepBreakers([]string{"l/a", "l/b", "l/a"})
	if first[0] != first[2] || first[0] == first[1] {
		t.Error("one a name was wanted")
	}
	var tried Tried
	if !c.Admit(first[0].Breaker, 0, &tried) {
		t.Fatal("refused at first")
	}
	tried.Settle(0, breaker.Failure)
	if c.Admit(first[0].Breaker, 0, &tried) || !c.Admit(first[1].Breaker, 0, &tried) {
		t.Error("the failure of one route is not that route's alone")
	}
	if s, ok := c.BreakerState(first[0], nil, 0); !ok || s != breaker.Open {
		t.Errorf("%v %v", s, ok)
	}
	if w := Worst(c.breakers(0)); w == nil || w.Of != "l/a" || w.State != breaker.Open || w.Scope != breaker.ScopeRoute {
		t.Errorf("the worst is %+v", w)
	}
	st := c.State(0)
	if w := st.BreakerFor(first[1]); w == nil || w.Of != "l/b" {
		t.Errorf("that of the other route is %+v", w)
	}
	if w := st.BreakerFor(nil); w != nil {
		t.Errorf("that of no route is %+v", w)
	}
	if !strings.Contains(b.lg.String(), "event=breaker_open cluster=api from=closed route=l/a") {
		t.Errorf("log: %s", b.lg.String())
	}
	again := func(change func(*Spec)) {
		b.r.Acquire(spec(func(s *Spec) { broken(breaker.ScopeRoute)(s); change(s) }), telemetry.Outbound)
		b.r.Release(c)
	}
	again(func(s *Spec) { s.Policy.Timeout = time.Minute })
	if next := c.KeepBreakers([]string{"l/c", "l/a"}); next[1] != first[0] {
		t.Error("a reload has reset the breaker of a route")
	}
	if next := c.KeepBreakers([]string{"l/b"}); next[0] == first[1] {
		t.Error("the breaker of a route that was gone for a reload is the old one")
	}
	again(func(s *Spec) { s.Policy.Breaker.OpenFor = time.Minute })
	if next := c.KeepBreakers([]string{"l/a"}); next[0] == first[0] {
		t.Error("new settings are not in force")
	}
	again(func(s *Spec) { s.Policy.Breaker.Scope = breaker.ScopeCluster })
	if c.KeepBreakers([]string{"l/a"}) != nil || c.Breaker() == nil {
		t.Error("the scope did not change")
	}
	b.r.SetEndpoints("api", numbered(2))
	again(func(s *Spec) { s.Policy.Breaker.Scope = breaker.ScopeEndpoint })
	if c.Breaker() != nil || c.endpoints[0].breaker.Load() == nil {
		t.Error("the scope did not change again")
	}
	again(func(s *Spec) { s.Policy.Breaker = nil })
	if c.endpoints[0].breaker.Load() != nil || len(c.breakers(0)) != 0 {
		t.Error("still on")
	}
}

// TestPicksWithBreakersDoNotAllocate, whether one is open or not.
func TestPicksWithBreakersDoNotAllocate(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(broken(breaker.ScopeEndpoint)), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(4))
	var tried Tried
	bad := c.endpoints[0]
	c.Admit(bad.breaker.Load(), 0, &tried)
	tried.Settle(0, breaker.Failure)
	w := &Wish{}
	if n := testing.AllocsPerRun(200, func() {
		tried.Reset()
		if e := c.Pick(0, w, &tried); e == bad || e == nil {
			t.Fatalf("picked %v", e)
		}
		tried.Settle(0, breaker.Success)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBreakersAgainstModel: with random ends of attempts no pick goes to an
// endpoint that a model of its breaker holds back, and none fails while the
// model lets one pass.
func TestBreakersAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		b := newBed(t)
		c := b.r.Acquire(spec(func(s *Spec) {
			broken(breaker.ScopeEndpoint)(s)
			s.Policy.Breaker.OpenFor = time.Second
		}), telemetry.Outbound)
		b.r.SetEndpoints("api", numbered(1+rnd.IntN(12)))
		until := map[*Endpoint]time.Duration{} // when one that failed may be tried
		now := time.Second
		for range 2000 {
			now += time.Duration(rnd.ExpFloat64() * float64(30*time.Millisecond))
			e, isBroken := c.attempt(now, func(*Endpoint) bool { return rnd.IntN(3) == 0 })
			if e == nil {
				for _, e := range c.endpoints {
					if now >= until[e] {
						t.Fatalf("seed %d %v: none picked, and %s may be", seed, now, e.address)
					}
				}
				if !isBroken {
					t.Fatalf("seed %d: none picked, and the breakers are not the reason", seed)
				}
				continue
			}
			if now < until[e] {
				t.Fatalf("seed %d %v: %s was picked, held back until %v", seed, now, e.address, until[e])
			}
			if e.breaker.Load().State(now) == breaker.Open {
				until[e] = now + time.Second
			}
		}
		b.r.Release(c)
	}
}
