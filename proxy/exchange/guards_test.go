package exchange_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

// guardOf switches one guard on, so that it watches and need not act.
type guardOf struct {
	name   string
	policy func(*upstream.Policy)
	route  func(testing.TB, *bed, *plan.Route)
}

// everyGuard is all that a policy can have, with breakers of a scope. Active
// checks are left out: they are made apart from exchanges.
func everyGuard(scope breaker.Scope) []guardOf {
	bounds := limit.Config{MaxConnections: 1000, MaxPending: 1000, MaxRequests: 1000, MaxRequestsPerEndpoint: 500, Queue: new(queue.Default())}
	return []guardOf{
		{name: "timeouts", policy: func(p *upstream.Policy) { p.Timeout = 15 * time.Second }},
		{name: "retry", policy: func(p *upstream.Policy) {
			p.Retry = retrying(3)
			p.Retry.PerTryTimeout = 10 * time.Second
		}},
		{name: "hedge", policy: func(p *upstream.Policy) {
			p.Hedge = new(hedge.Default())
			p.Hedge.MinDelay, p.Hedge.NonIdempotent = 30*time.Second, true
		}, route: func(_ testing.TB, b *bed, r *plan.Route) {
			r.Latency = b.cluster.KeepLatencies([]string{"test/api"})[0]
		}},
		{name: "outlier", policy: func(p *upstream.Policy) {
			p.Outlier = new(outlier.Default())
			p.Outlier.Caution = new(outlier.DefaultCaution())
		}},
		{name: "breaker", policy: func(p *upstream.Policy) {
			p.Breaker = new(breaker.Default())
			p.Breaker.Scope = scope
		}, route: func(_ testing.TB, b *bed, r *plan.Route) {
			if scope == breaker.ScopeRoute {
				r.Breaker = b.cluster.KeepBreakers([]string{"test/api"})[0]
			}
		}},
		{name: "admission", policy: func(p *upstream.Policy) { p.Admission = new(admission.Default()) }},
		{name: "limits", policy: func(p *upstream.Policy) { p.Limits = bounds }, route: func(_ testing.TB, b *bed, r *plan.Route) {
			r.Gate = b.cluster.KeepGates([]upstream.GateSpec{{Name: "test/api", Limits: bounds}})[0]
			r.Priorities = []plan.PriorityRule{{Priority: queue.High}}
		}},
		{name: "adaptive", policy: func(p *upstream.Policy) { p.Adaptive = new(adaptive.Default()) }},
		{name: "rate limit", route: func(t testing.TB, _ *bed, r *plan.Route) {
			r.RateLimits = append(r.RateLimits, hourly(t, "agents", ratelimit.MaxCount, func(l *plan.RateLimit) {
				l.Key, l.Field = plan.RateField, "user-agent"
			}))
		}},
		{name: "zones", policy: func(p *upstream.Policy) {
			p.Balance = balance.Default()
			p.Balance.Zones.Prefer, p.Zone = true, "near"
		}},
	}
}

// protect switches guards on as a reload does. A second endpoint is in another
// zone; both run script.
func protect(b *bed, script func(*originConn), list []guardOf) {
	near, far := b.another(script), b.another(script)
	b.cluster.SetLocal([]upstream.EndpointSpec{
		{Address: near.addr, Weight: 1, Healthy: true, Zone: "near"},
		{Address: far.addr, Weight: 1, Healthy: true, Zone: "far"},
	})
	b.apply(func(p *upstream.Policy) {
		for _, g := range list {
			if g.policy != nil {
				g.policy(p)
			}
		}
	})
	l := *b.plan.Load()
	for _, g := range list {
		if g.route != nil {
			g.route(b.t, b, &l.Route)
		}
	}
	b.plan.Store(&l)
}

// watched fails the test unless those of the guards that count have seen n
// exchanges.
func watched(b *bed, n uint64) {
	b.t.Helper()
	r := &b.plan.Load().Route
	if got := decisions(r.RateLimits[0])[0]; got < n {
		b.t.Errorf("the rate limit has seen %d of %d exchanges", got, n)
	}
	now := b.sweeper.Now()
	if s := b.cluster.Throttle().Snapshot(now); s.Accepts == 0 || s.Rejected > 0 {
		b.t.Errorf("admission control has seen %+v", s)
	}
	if _, ok := b.cluster.Latencies().All.Quantile(now, 50, 1); !ok {
		b.t.Error("hedging has learnt nothing")
	}
	if s := b.cluster.Gate.Most(); s == 0 {
		b.t.Error("there is no limit")
	}
}

// TestNoAllocationUnderGuards: with every guard on, and the ledger and the outcome
// log, a steady exchange allocates nothing.
func TestNoAllocationUnderGuards(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, scope := range []breaker.Scope{breaker.ScopeCluster, breaker.ScopeRoute, breaker.ScopeEndpoint} {
		check := func(name string, script func(*originConn), measure func(prepare func(*bed)) float64) {
			t.Run(name+"/breaker by "+scope.String(), func(t *testing.T) {
				var under *bed
				got := measure(func(b *bed) {
					under = b
					protect(b, script, everyGuard(scope))
				})
				watched(under, 6000)
				// What looks after the endpoints allocates by the clock, not by the exchange.
				if t.Logf("%.3f allocations an exchange", got); got > 0.5 {
					t.Errorf("%.3f allocations an exchange", got)
				}
			})
		}
		for i, s := range steady[:3] {
			check("HTTP1/"+s.name, steadyOrigin(s.response), func(prepare func(*bed)) float64 { return mallocs(t, plain, i, prepare) })
		}
		check("gRPC", steadyService, func(prepare func(*bed)) float64 { return grpcMallocs(t, prepare) })
	}
}

// BenchmarkGuards is what an exchange costs with each guard by itself, and with
// all of them, in CPU time of the whole process: client and origin are in it,
// and the same everywhere.
func BenchmarkGuards(b *testing.B) {
	all := everyGuard(breaker.ScopeEndpoint)
	run := func(name string, list []guardOf) {
		b.Run(name, func(b *testing.B) {
			bed := newBed(b, plain, func(s *setup) { s.quiet = true })
			protect(bed, steadyOrigin(okResponse), list)
			c := bed.dial()
			_ = c.sock.SetDeadline(time.Time{})
			request, buf := []byte(steady[0].request), make([]byte, len(okResponse))
			if err := exchanges(c.Conn, request, buf, 200); err != nil {
				b.Fatal(err)
			}
			before := cpu(b)
			b.ResetTimer()
			if err := exchanges(c.Conn, request, buf, b.N); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
			bed.stop()
		})
	}
	run("none", nil)
	for i := range all {
		run(all[i].name, all[i:i+1])
	}
	run("all", all)
}

// cpu is the CPU time of the process.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
