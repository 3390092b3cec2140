package check

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/health"
)

func numbered(n int) (list []netip.AddrPort) {
	for i := range n {
		list = append(list, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 80))
	}
	return list
}

// field is a runner over endpoints that are functions of the test, on a clock
// of its own.
type field struct {
	*bed
	mu     sync.Mutex
	starts map[string][]time.Duration // by endpoint
	active atomic.Int64
	most   atomic.Int64
	stop   func()
}

// newField starts a runner; answer is how a check of an endpoint ends, and how
// long it takes.
func newField(t *testing.T, cfg health.Config, endpoints int, answer func(address string) (health.Result, time.Duration)) *field {
	f := &field{bed: newBed(t, cfg, false, nil, numbered(endpoints)...), starts: map[string][]time.Duration{}}
	r := New(f.r, f.sw)
	r.check = func(ctx context.Context, d upstream.DueCheck) upstream.CheckResult {
		f.most.Store(max(f.most.Load(), f.active.Add(1)))
		defer f.active.Add(-1)
		f.mu.Lock()
		f.starts[d.Endpoint.Address()] = append(f.starts[d.Endpoint.Address()], f.sw.Now())
		f.mu.Unlock()
		res, takes := answer(d.Endpoint.Address())
		select {
		case <-time.After(takes):
			return upstream.CheckResult{Check: d, Result: res}
		case <-ctx.Done():
			return upstream.CheckResult{Check: d, Void: true}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	f.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := f.active.Load(); n != 0 {
			t.Errorf("Run has left %d checks behind", n)
		}
	}
	return f
}

// counts returns how many checks each endpoint has had since the last call.
func (f *field) counts() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := map[string]int{}
	for a, s := range f.starts {
		n[a] = len(s)
		f.starts[a] = nil
	}
	return n
}

func passing(string) (health.Result, time.Duration) { return health.Result{}, time.Millisecond }

// TestThousandEndpoints: the first checks spread over the fast interval and the
// later ones over the interval; each endpoint gets its own number of them.
func TestThousandEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(t, tcpCheck("", ""), 1000, passing)
		defer f.stop()
		time.Sleep(1100 * time.Millisecond)
		inStep := map[time.Duration]int{}
		f.mu.Lock()
		for _, s := range f.starts {
			inStep[s[0].Truncate(100*time.Millisecond)]++
		}
		f.mu.Unlock()
		for at, n := range inStep {
			if n > 200 {
				t.Errorf("%d first checks in the tenth of a second at %s", n, at)
			}
		}
		if first := f.counts(); len(first) != 1000 {
			t.Errorf("%d of 1000 were checked within the fast interval", len(first))
		}
		time.Sleep(60 * time.Second)
		for a, n := range f.counts() {
			// 5 s to 6 s and the runner's step between two of them.
			if n < 9 || n > 12 {
				t.Errorf("%s was checked %d times in a minute", a, n)
			}
		}
		if m := f.most.Load(); m > maxChecks {
			t.Errorf("%d checks at a time", m)
		}
		if _, available := f.state(); available != 1000 {
			t.Errorf("%d available", available)
		}
	})
}

// TestAllHang: however many do not answer, so many checks run at a time and no
// endpoint is forgotten.
func TestAllHang(t *testing.T) {
	if raceEnabled {
		t.Skip("Go's race detector crashes now and then where so many timers of a bubble run out at a time")
	}
	synctest.Test(t, func(t *testing.T) {
		f := newField(t, tcpCheck("", ""), 1000, func(string) (health.Result, time.Duration) {
			return health.Result{Cause: health.Timeout}, time.Second
		})
		defer f.stop()
		time.Sleep(60 * time.Second)
		if m := f.most.Load(); m != maxChecks {
			t.Errorf("%d checks at a time, want %d", m, maxChecks)
		}
		// 128 at a time of a second each make 7.8 s for a round.
		for a, n := range f.counts() {
			if n < 6 || n > 9 {
				t.Errorf("%s was checked %d times in a minute", a, n)
			}
		}
		if s, available := f.state(); s.State != health.Unhealthy || available != 1000 {
			t.Errorf("%s, %d available: the panic rule uses all", s.State, available)
		}
	})
}

// TestOneFails: it is out after three failures, each told by its cause, and
// back after two passes.
func TestOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		bad := numbered(1)[0].String()
		f := newField(t, tcpCheck("", ""), 3, func(a string) (health.Result, time.Duration) {
			if a == bad && broken.Load() {
				return health.Result{Cause: health.Connect, Detail: "connection refused"}, time.Millisecond
			}
			return passing(a)
		})
		defer f.stop()
		expect := func(state health.State, available int) {
			t.Helper()
			if s, n := f.state(); s.State != state || n != available {
				t.Errorf("at %s: %s, %d available; want %s, %d", f.sw.Now(), s.State, n, state, available)
			}
		}
		expect(health.Unknown, 3)
		time.Sleep(2 * time.Second)
		expect(health.Healthy, 3)
		broken.Store(true)
		time.Sleep(10 * time.Second) // at most 6 s to the next check and two fast ones of 1.2 s
		expect(health.Unhealthy, 2)
		if got := f.metric("outrigger_endpoint_health{"); !strings.Contains(got, bad+`"} 2`) {
			t.Error(got)
		}
		broken.Store(false)
		time.Sleep(8 * time.Second) // at most 6 s to the next check and a fast one
		expect(health.Healthy, 3)
		want := `outrigger_health_changes_total{cluster="api",endpoint="` + bad + `",to="healthy"} 1
outrigger_health_changes_total{cluster="api",endpoint="` + bad + `",to="unhealthy"} 1`
		if got := f.metric("outrigger_health_changes_total"); got != want {
			t.Error(got)
		}
		if n := strings.Count(f.logged(), "event=health_unhealthy"); n != 1 {
			t.Errorf("%d lines say unhealthy:\n%s", n, f.logged())
		}
		if !strings.Contains(f.logged(), `endpoint=`+bad+` check=tcp cause=connect detail="connection refused"`) {
			t.Errorf("the cause is not told:\n%s", f.logged())
		}
	})
}

// TestWhoIsChecked: endpoints that come are checked soon, those that leave are
// not any more, and nobody is once the checks are off.
func TestWhoIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(t, tcpCheck("", ""), 2, passing)
		defer f.stop()
		time.Sleep(30 * time.Second)
		f.counts()
		two := numbered(3)[1:]
		f.endpoints(two...)
		time.Sleep(1100 * time.Millisecond)
		if n := f.counts(); n[two[1].String()] != 1 {
			t.Errorf("the new one was checked %d times", n[two[1].String()])
		}
		time.Sleep(time.Minute)
		if n := f.counts(); n[numbered(1)[0].String()] != 0 || n[two[0].String()] < 9 || n[two[1].String()] < 9 {
			t.Errorf("%v", n)
		}
		f.apply(func(s *upstream.Spec) { s.Policy.Health = nil })
		time.Sleep(time.Minute)
		if n := f.counts(); n[two[0].String()]+n[two[1].String()] != 0 {
			t.Errorf("checks are off: %v", n)
		}
		cfg := tcpCheck("", "220")
		f.apply(func(s *upstream.Spec) { s.Policy.Health = &cfg })
		time.Sleep(1100 * time.Millisecond)
		if n := f.counts(); n[two[0].String()] != 1 || n[two[1].String()] != 1 {
			t.Errorf("checks are on again: %v", n)
		}
	})
}

// TestLateResults: a check that ends after its endpoint has left, or after the
// checks were changed, is no result, and the new ones go on.
func TestLateResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Bool
		hang.Store(true)
		f := newField(t, tcpCheck("", ""), 2, func(a string) (health.Result, time.Duration) {
			if hang.Load() {
				return health.Result{Cause: health.Timeout}, 10 * time.Second
			}
			return passing(a)
		})
		defer f.stop()
		time.Sleep(1100 * time.Millisecond)
		hang.Store(false)
		f.endpoints(numbered(1)...)
		cfg := tcpCheck("", "220")
		f.apply(func(s *upstream.Spec) { s.Policy.Health = &cfg })
		time.Sleep(20 * time.Second)
		if s, _ := f.state(); s.State != health.Healthy || s.Changes != 1 {
			t.Errorf("%+v", s)
		}
		if got := f.metric("outrigger_health_checks_total"); strings.Contains(got, "timeout") {
			t.Error(got)
		}
	})
}

// TestStopWaits: Run gives up what is under way and waits for it.
func TestStopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(t, tcpCheck("", ""), 50, func(string) (health.Result, time.Duration) { return health.Result{}, time.Hour })
		time.Sleep(2 * time.Second)
		if n := f.active.Load(); n != 50 {
			t.Errorf("%d checks are under way", n)
		}
		f.stop()
		if s, _ := f.state(); s.Checks != 0 {
			t.Errorf("%+v", s)
		}
	})
}
