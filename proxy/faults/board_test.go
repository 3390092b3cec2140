package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/fault"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// bench is a board on a clock of its own, with the clusters api and, inbound, web.
type bench struct {
	*Board
	t    *testing.T
	now  time.Duration
	api  *upstream.Cluster
	web  *upstream.Cluster
	vary func([]upstream.Vitals) // changes what the board is told
}

func newBench(t *testing.T) *bench {
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	r := upstream.NewRegistry(t.Context(), wire.NewSweeper(time.Now()), m, log)
	b := &bench{t: t, now: time.Hour}
	b.api = r.Acquire(upstream.Spec{Name: "api"}, telemetry.Outbound)
	b.web = r.Acquire(upstream.Spec{Name: "web", Local: true}, telemetry.Inbound)
	b.Board = New(func() time.Duration { return b.now }, func() []upstream.Vitals {
		all := r.Vitals()
		if b.vary != nil {
			b.vary(all)
		}
		return all
	}, log)
	return b
}

// order is a fault that nothing stops before its time.
func order(name string, change func(*plan.Fault)) *plan.Fault {
	f := &plan.Fault{
		Name: name, Cluster: "api", Direction: telemetry.Outbound, Config: fault.Config{Percent: 100, Abort: 503}, For: time.Minute,
		Stop: fault.Stop{Window: 10 * time.Second, MinRequests: 10},
	}
	if change != nil {
		change(f)
	}
	f.Text = fmt.Sprintf("%+v", *f)
	return f
}

func (b *bench) start(f *plan.Fault) View {
	b.t.Helper()
	v, err := b.Start(f, "127.0.0.1:1", "a test")
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// after moves the clock, with looks as often as Run makes them.
func (b *bench) after(d time.Duration) {
	for end := b.now + d; b.now < end; {
		b.now = min(b.now+lookEvery, end)
		b.Look()
	}
}

// struck is the name of the fault that an attempt of api meets; empty without one.
func (b *bench) struck() string {
	if !b.InForce() {
		return ""
	}
	r, _ := b.Strike(&Question{Cluster: b.api, Endpoint: "10.0.0.1:1", Now: b.now})
	if r == nil {
		return ""
	}
	return r.Name
}

// state says whether the fault of that name runs, or how it has ended.
func (b *bench) state(name string) string {
	v, err := b.Find(name)
	if err != nil {
		return err.Error()
	}
	return v.Cause.String()
}

func exchanges(c *upstream.Cluster, n int, r outcome.Reason, took time.Duration) {
	for range n {
		c.Metrics().Begin(0)
		c.Metrics().Finish(0, r, 200, took)
	}
}

func TestBoardNeedsLeave(t *testing.T) {
	b := newBench(t)
	if _, err := b.Start(order("a", nil), "me", ""); !errors.Is(err, ErrNotAllowed) || !errors.Is(b.Allowed(), ErrNotAllowed) {
		t.Errorf("%v", err)
	}
	b.Apply(true, nil)
	b.start(order("a", nil))
	if got := b.struck(); got != "a" {
		t.Errorf("met %q", got)
	}
	b.Apply(false, nil)
	if got := b.struck() + " " + b.state("a"); got != " removed" || b.InForce() {
		t.Errorf("no longer allowed: %q", got)
	}
	var none *Board
	if none.InForce() {
		t.Error("no board has faults")
	}
}

func TestBoardNames(t *testing.T) {
	b := newBench(t)
	b.Apply(true, nil)
	if v := b.start(order("", nil)); v.Fault.Name != "fault-1" {
		t.Errorf("named %q", v.Fault.Name)
	}
	b.start(order("fault-3", nil))
	if v := b.start(order("", nil)); v.Fault.Name != "fault-4" {
		t.Errorf("named %q", v.Fault.Name)
	}
	if _, err := b.Start(order("fault-3", nil), "me", ""); !errors.Is(err, ErrConflict) {
		t.Errorf("the same name: %v", err)
	}
	for i := 3; i < fault.MaxRules; i++ {
		b.start(order(fmt.Sprint("x", i), nil))
	}
	if _, err := b.Start(order("more", nil), "me", ""); !errors.Is(err, ErrConflict) {
		t.Errorf("too many: %v", err)
	}
	if _, err := b.Stop("more"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	if list, err := b.Stop(""); len(list) != fault.MaxRules || err != nil || b.InForce() {
		t.Errorf("all: %d, %v", len(list), err)
	}
	// Of many that have ended the last ones are kept.
	for i := range 2 * kept {
		b.start(order(fmt.Sprint("y", i), nil))
		if _, err := b.Stop(fmt.Sprint("y", i)); err != nil {
			t.Fatal(err)
		}
	}
	views := b.Views()
	if len(views) != kept || views[0].Fault.Name != fmt.Sprint("y", 2*kept-1) {
		t.Errorf("%d are kept, the last one is %s", len(views), views[0].Fault.Name)
	}
}

// A fault ends at its time, between two looks too.
func TestBoardTime(t *testing.T) {
	b := newBench(t)
	b.Apply(true, nil)
	b.start(order("a", nil))
	r := (*b.force.Load())[0]
	b.now += time.Minute - 1
	if b.struck() != "a" {
		t.Error("over too early")
	}
	b.now++
	if b.struck() != "" {
		t.Error("met after its time")
	}
	b.Look()
	if got := b.state("a"); got != "time_over" {
		t.Errorf("ended by %s", got)
	}
	select {
	case <-r.Over():
	default:
		t.Error("who is held by it is not told")
	}
}

// What the configuration says begins once, and again when it says something else.
func TestBoardConfiguration(t *testing.T) {
	b := newBench(t)
	one := func() *plan.Fault { return order("a", nil) }
	other := order("a", func(f *plan.Fault) { f.Config.Abort = 500 })
	b.Apply(true, []*plan.Fault{one()})
	began := b.Views()[0].Began
	b.now += time.Second
	b.Apply(true, []*plan.Fault{one()})
	if v := b.Views(); len(v) != 1 || v[0].Began != began || v[0].By != "" {
		t.Errorf("the same begins anew: %+v", v)
	}
	b.now += time.Second
	b.Apply(true, []*plan.Fault{other})
	if v := b.Views(); len(v) != 2 || v[0].Began != b.now || v[1].Cause != fault.Removed {
		t.Errorf("another does not: %+v", v)
	}
	b.after(time.Minute)
	b.Apply(true, []*plan.Fault{other})
	if b.InForce() {
		t.Error("one that has ended begins again")
	}
	b.Apply(true, nil)
	b.Apply(true, []*plan.Fault{other})
	if !b.InForce() {
		t.Error("one that was taken out and put back does not begin")
	}
	b.Apply(true, nil)
	// One ordered by hand stays through reloads, until the configuration has its name.
	b.start(order("hand", nil))
	b.Apply(true, []*plan.Fault{one()})
	if b.state("hand") != "running" || b.state("a") != "running" {
		t.Errorf("%s, %s", b.state("hand"), b.state("a"))
	}
	b.Apply(true, []*plan.Fault{one(), order("hand", nil)})
	if v, _ := b.Find("hand"); v.By != "" {
		t.Errorf("still that ordered by %s", v.By)
	}
}

func TestBoardFirstCounts(t *testing.T) {
	b := newBench(t)
	b.Apply(true, []*plan.Fault{
		order("elsewhere", func(f *plan.Fault) { f.Cluster = "web" }),
		order("http", func(f *plan.Fault) { f.OnlyHTTP = true }),
		order("call", func(f *plan.Fault) { f.Config = fault.Config{Percent: 100, AbortGRPC: "INTERNAL"} }),
		order("one", nil), order("two", nil),
	})
	for range 3 {
		if got := b.struck(); got != "one" {
			t.Errorf("met %q", got)
		}
	}
	v, _ := b.Find("one")
	if v.Injected != [fault.Kinds]uint64{fault.Aborted: 3} || b.api.Metrics().FaultTotals().Injected[telemetry.FaultAbort] != 3 {
		t.Errorf("%+v", v)
	}
}

// Guards end a fault by what the cluster counts, and only look where they observe.
func TestBoardGuards(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*fault.Stop)
		what   func(*bench)
		want   string
	}{
		{"errors", func(s *fault.Stop) { s.ErrorsPercent = 10 }, func(b *bench) {
			exchanges(b.api, 17, outcome.OK, 0)
			exchanges(b.api, 3, outcome.UpstreamError, 0)
		}, "errors"},
		{"callers' own", func(s *fault.Stop) { s.ErrorsPercent = 10 }, func(b *bench) {
			exchanges(b.api, 17, outcome.OK, 0)
			exchanges(b.api, 13, outcome.DownstreamGone, 0)
		}, "running"},
		{"those that met it", func(s *fault.Stop) { s.ErrorsPercent = 10 }, func(b *bench) {
			exchanges(b.api, 20, outcome.OK, 0)
			exchanges(b.api, 20, outcome.FaultInjected, 0)
			for range 20 {
				b.api.Metrics().MetFault(outcome.FaultInjected)
			}
		}, "running"},
		{"success", func(s *fault.Stop) { s.SuccessPercent = 60 }, func(b *bench) {
			exchanges(b.api, 20, outcome.OK, 0)
			exchanges(b.api, 20, outcome.FaultInjected, 0)
		}, "success"},
		{"p99", func(s *fault.Stop) { s.P99 = 100 * time.Millisecond }, func(b *bench) {
			exchanges(b.api, 90, outcome.OK, time.Millisecond)
			exchanges(b.api, 10, outcome.OK, time.Second)
		}, "p99"},
		{"another cluster's", func(s *fault.Stop) { *s = fault.DefaultStop() }, func(b *bench) {
			exchanges(b.web, 100, outcome.UpstreamError, 0)
		}, "running"},
		{"breaker", func(s *fault.Stop) { s.Breaker = true }, func(b *bench) { b.api.Metrics().BreakerOpened.Inc() }, "breaker"},
		{"panic", func(s *fault.Stop) { s.Panic = true }, func(b *bench) {
			b.vary = func(all []upstream.Vitals) { find(all, "api", telemetry.Outbound).Panicking = true }
		}, "panic"},
		{"ejections", func(s *fault.Stop) { s.Ejections = 2 }, func(b *bench) {
			b.vary = func(all []upstream.Vitals) { find(all, "api", telemetry.Outbound).Ejections = 2 }
		}, "ejections"},
		{"the cluster is gone", func(s *fault.Stop) { *s = fault.DefaultStop() }, func(b *bench) {
			b.vary = func(all []upstream.Vitals) { clear(all) }
		}, "running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, mode := range []string{"enforce", "observe"} {
				b := newBench(t)
				b.Apply(true, nil)
				exchanges(b.api, 100, outcome.UpstreamError, time.Hour) // what was before does not count
				b.api.Metrics().BreakerOpened.Inc()
				b.start(order("a", func(f *plan.Fault) { c.change(&f.Stop); _ = f.Stop.Mode.UnmarshalText([]byte(mode)) }))
				b.after(time.Second)
				c.what(b)
				b.after(lookEvery)
				v, _ := b.Find("a")
				want, would := c.want, "running"
				if mode == "observe" {
					want, would = "running", c.want
				}
				if v.Cause.String() != want || v.Would.String() != would || (b.struck() != "") != (want == "running") {
					t.Errorf("%s: %v, would %v; want %s, %s", mode, v.Cause, v.Would, want, would)
				}
			}
		})
	}
}

// A report has what lies between its marks, of the cluster and of the own service.
func TestBoardReport(t *testing.T) {
	b := newBench(t)
	b.Apply(true, nil)
	exchanges(b.api, 1000, outcome.OK, time.Hour) // long ago
	b.after(2 * beforehand)
	exchanges(b.api, 10, outcome.OK, time.Millisecond)
	exchanges(b.web, 5, outcome.OK, time.Millisecond)
	b.after(10 * time.Second)
	b.start(order("a", nil))
	if v, _ := b.Find("a"); len(v.Places) != 2 || v.Places[0].Before.Requests != 10 || v.Places[0].During.Requests != 0 || v.Places[0].After.Over != 0 {
		t.Errorf("%+v", v.Places)
	}
	exchanges(b.api, 15, outcome.OK, 20*time.Millisecond)
	exchanges(b.api, 5, outcome.FaultInjected, 0)
	exchanges(b.api, 2, outcome.DownstreamGone, 0)
	for range 5 {
		b.api.Metrics().MetFault(outcome.FaultInjected)
		b.api.Metrics().Retried(outcome.FaultInjected)
	}
	b.api.Metrics().Retried(outcome.UpstreamReset)
	b.api.Metrics().BreakerOpened.Inc()
	b.after(30 * time.Second)
	if v, _ := b.Find("a"); v.Places[0].During.Requests != 22 || v.End != 0 || v.Complete {
		t.Errorf("while it runs: %+v", v)
	}
	if _, err := b.Stop("a"); err != nil {
		t.Fatal(err)
	}
	b.after(10 * time.Second)
	exchanges(b.api, 7, outcome.OK, time.Millisecond)
	if v, _ := b.Find("a"); v.Places[0].After.Requests != 7 || v.Complete {
		t.Errorf("what was just now: %+v", v.Places[0].After)
	}
	b.after(afterwards)
	exchanges(b.api, 100, outcome.OK, time.Millisecond) // too late
	v, err := b.Find("a")
	if err != nil || !v.Complete || v.By != "127.0.0.1:1" || v.Reason != "a test" {
		t.Fatalf("%+v, %v", v, err)
	}
	api, web := v.Places[0], v.Places[1]
	if api.Cluster != "api" || web.Cluster != "web" || web.Direction != telemetry.Inbound || web.Before.Requests != 5 || web.During.Requests != 0 {
		t.Errorf("%+v\n%+v", api, web)
	}
	d := api.During
	if d.Requests != 22 || d.Good != 15 || d.Failed != 5 || d.Met != 5 || d.MetFailed != 5 || d.ByFault != 5 || d.Retries != 6 || d.Again != 5 || d.Openings != 1 || d.Over != 30*time.Second {
		t.Errorf("during: %+v", d)
	}
	if api.Before.Over < 30*time.Second || api.Before.Over > beforehand+markEvery || api.Before.P50 > time.Millisecond || d.P90 < 15*time.Millisecond {
		t.Errorf("before: %+v\nduring: %+v", api.Before, d)
	}
	if api.After.Requests != 7 || api.After.Over != afterwards || api.After.Openings != 0 {
		t.Errorf("after: %+v", api.After)
	}
}

// Draining ends faults and lets none begin.
func TestBoardDrain(t *testing.T) {
	b := newBench(t)
	b.Apply(true, []*plan.Fault{order("a", nil)})
	b.Drain()
	if b.InForce() || b.state("a") != "drain" {
		t.Errorf("%s", b.state("a"))
	}
	b.Apply(true, []*plan.Fault{order("b", nil)})
	if _, err := b.Start(order("c", nil), "me", ""); !errors.Is(err, ErrConflict) || b.InForce() {
		t.Errorf("%v", err)
	}
}

// Run looks in time, and ends all faults when it ends.
func TestBoardRun(t *testing.T) {
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		sw := wire.NewSweeper(time.Now())
		r := upstream.NewRegistry(t.Context(), sw, m, log)
		r.Acquire(upstream.Spec{Name: "api"}, telemetry.Outbound)
		b := New(sw.Now, r.Vitals, log)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		synctest.Wait()
		b.Apply(true, []*plan.Fault{order("a", nil)})
		if _, err := b.Start(order("long", func(f *plan.Fault) { f.For = time.Hour }), "me", ""); err != nil {
			t.Fatal(err)
		}
		over := (*b.force.Load())[0].Over()
		began := time.Now()
		<-over
		if took := time.Since(began); took < time.Minute || took > time.Minute+lookEvery {
			t.Errorf("ended after %v", took)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if v, _ := b.Find("long"); v.Cause != fault.Runs || v.Places[0].Before.Over != 0 {
			t.Errorf("%+v", v)
		}
		cancel()
		if err := <-done; err != nil || b.InForce() {
			t.Errorf("%v", err)
		}
	})
}

func TestTitles(t *testing.T) {
	r := &Rule{Fault: order("a", nil)}
	for _, c := range []struct {
		hit  fault.Hit
		held time.Duration
		want string
	}{
		{fault.Hit{Delay: time.Second}, 1500 * time.Microsecond, "a: held for 2ms"},
		{fault.Hit{Delay: time.Second, Abort: fault.Abort{Status: 503}}, time.Second, "a: held for 1s, answered 503 in the endpoint's place"},
		{fault.Hit{Reset: true}, 0, "a: reset"},
		{fault.Hit{Response: 1, Request: 1}, 0, "a: request slowed down, answer slowed down"},
	} {
		if got := r.Title(&c.hit, c.held); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if !strings.Contains(fault.Panic.Words(), "all were used") {
		t.Error(fault.Panic.Words())
	}
}

// What no fault concerns costs nothing.
func TestStrikeAllocatesNothing(t *testing.T) {
	b := newBench(t)
	b.Apply(true, []*plan.Fault{order("a", func(f *plan.Fault) { f.From = []string{"spiffe://a/b*"} }), order("b", func(f *plan.Fault) { f.Config.Percent = 1 })})
	q := &Question{Cluster: b.api, Endpoint: "10.0.0.1:1", Caller: "spiffe://a/c", Now: b.now}
	if n := testing.AllocsPerRun(1000, func() { b.Strike(q) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
