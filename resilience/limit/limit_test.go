package limit

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

func TestScripts(t *testing.T) {
	for _, path := range scripts(t) {
		t.Run(path, func(t *testing.T) {
			cfg := Default()
			var l Limits
			runScript(t, path, func(c command) string { return step(c, &cfg, &l) })
		})
	}
}

func step(c command, cfg *Config, l *Limits) string {
	var out strings.Builder
	switch c.name {
	case "config":
		for k, v := range c.keys {
			switch k {
			case "mode":
				if err := cfg.Mode.UnmarshalText([]byte(v)); err != nil {
					c.t.Fatal(err)
				}
			case "max_connections":
				cfg.MaxConnections = int64(c.number(v))
			case "max_pending":
				cfg.MaxPending = int64(c.number(v))
			case "max_requests":
				cfg.MaxRequests = int64(c.number(v))
			default:
				c.unknown()
			}
		}
	case "acquire":
		ok := 0
		for range c.count {
			if l.Acquire(cfg, resource(c), 0) {
				ok++
			}
		}
		fmt.Fprintf(&out, "%d of %d\n", ok, c.count)
	case "release":
		for range c.count {
			l.Release(resource(c))
		}
	case "show":
		for r := Connections; r < resources; r++ {
			fmt.Fprintf(&out, "%-11s in use %d, rejected %d, would have rejected %d\n",
				r, l.Gauge(r).Value(), l.Rejected(r), l.WouldHaveRejected(r))
		}
	default:
		c.unknown()
	}
	return out.String()
}

func resource(c command) Resource {
	for r := Connections; r < resources; r++ {
		if c.has(r.String()) {
			return r
		}
	}
	c.unknown()
	return 0
}

// TestNeverMoreThanTheLimit has many goroutines fight for few places.
func TestNeverMoreThanTheLimit(t *testing.T) {
	const limit, workers, rounds = 3, 16, 3000
	for _, mode := range []guard.Mode{guard.Enforce, guard.Observe} {
		t.Run(mode.String(), func(t *testing.T) {
			cfg := Config{Mode: mode, MaxRequests: limit}
			var l Limits
			var inside, most, passed atomic.Int64
			var wg sync.WaitGroup
			for range workers {
				wg.Go(func() {
					for range rounds {
						if !l.Acquire(&cfg, Requests, 0) {
							continue
						}
						passed.Add(1)
						n := inside.Add(1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
						inside.Add(-1)
						l.Release(Requests)
					}
				})
			}
			wg.Wait()
			if mode == guard.Enforce && most.Load() > limit {
				t.Errorf("%d at once, limit %d", most.Load(), limit)
			}
			if got := passed.Load() + int64(l.Rejected(Requests)); got != workers*rounds {
				t.Errorf("%d passed or rejected, want %d", got, workers*rounds)
			}
			if mode == guard.Observe && passed.Load() != workers*rounds {
				t.Errorf("observe mode refused %d", workers*rounds-passed.Load())
			}
			if v := l.Requests.Value(); v != 0 {
				t.Errorf("%d in use at the end", v)
			}
		})
	}
}

// TestLimitIsReached makes sure that a full gauge means limit in use, even
// when all come at once: nobody is refused by another's failed attempt.
func TestLimitIsReached(t *testing.T) {
	const limit = 100
	for range 50 {
		var g Gauge
		var got atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 2 * limit {
					if g.Acquire(limit) {
						got.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if got.Load() != limit || g.Value() != limit {
			t.Fatalf("%d acquired, gauge at %d, want %d", got.Load(), g.Value(), limit)
		}
	}
}

func TestReleaseStopsAtZero(t *testing.T) {
	var g Gauge
	g.Release()
	g.Release()
	if !g.Acquire(1) || g.Acquire(1) || g.Value() != 1 {
		t.Errorf("releases without acquire moved the gauge: %d", g.Value())
	}
}

func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	cfg := Config{MaxRequests: 1}
	var l Limits
	if n := testing.AllocsPerRun(100, func() {
		l.Acquire(&cfg, Requests, 0)
		l.Acquire(&cfg, Requests, 0)
		l.Release(Requests)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Default(), ""},
		{Config{}, ""},
		{Config{MaxConnections: -1, MaxPending: -1, MaxRequests: -1, MaxRequestsPerEndpoint: -1}, "max_connections max_pending max_requests max_requests_per_endpoint"},
		{Config{Mode: guard.Observe + 1}, "mode"},
	} {
		var got []string
		c.cfg.Validate(func(field, _ string) { got = append(got, field) })
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: mistakes in %q, want %q", c.cfg, s, c.want)
		}
	}
}

func BenchmarkAcquireRelease(b *testing.B) {
	cfg := Config{MaxRequests: 1000}
	var l Limits
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if l.Acquire(&cfg, Requests, 0) {
				l.Release(Requests)
			}
		}
	})
}
