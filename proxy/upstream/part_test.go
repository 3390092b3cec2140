package upstream

import (
	"runtime"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// The limits that hold for an exchange are those that act for it; the others
// say what they would have done.
func TestBounds(t *testing.T) {
	for _, c := range []struct {
		static      int64
		mode        guard.Mode
		adaptive    int64
		amode       guard.Mode
		draw        guard.Draw
		most, would int64
	}{
		{static: 10, most: 10},
		{static: 10, adaptive: 5, most: 5},
		{static: 10, mode: guard.Observe, adaptive: 5, draw: guard.Strictest, most: 5, would: 10},
		{static: 10, adaptive: 5, amode: guard.Percent(25), draw: 7499, most: 10, would: 5},
		{static: 10, adaptive: 5, amode: guard.Percent(25), draw: 7500, most: 5},
		{static: 10, mode: guard.Percent(50), adaptive: 5, amode: guard.Percent(25), draw: 6000, most: 10, would: 5},
		{static: 10, mode: guard.Percent(50), adaptive: 5, amode: guard.Percent(25), draw: 0, would: 5},
		{mode: guard.Percent(50)},
	} {
		parts := [2]bound{{c.static, c.mode}, {c.adaptive, c.amode}}
		if most, would := bounds(&parts, c.draw); most != c.most || would != c.would {
			t.Errorf("%+v: %d and %d", c, most, would)
		}
	}
}

// An exchange that a full gate only observes goes in at once, and past those who
// wait; one for which it acts waits behind them.
func TestGatePartial(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) {
		gateSpec(s, 1, func(q *queue.Config) { q.MaxWait, q.Target = time.Hour, 0 })
		s.Policy.Limits.Mode = guard.Percent(25)
	}), 0)
	g := &c.Gate
	if !g.TryEnter(guard.Strictest) || g.TryEnter(guard.Strictest) {
		t.Fatal("the limit of 1 does not hold for those it acts for")
	}
	if !g.TryEnter(0) || !g.TryEnter(7499) || c.metrics.WouldHaveDone(telemetry.WouldLimit) != 2 {
		t.Fatalf("the limit holds for those it observes, or %d of 2 are counted", c.metrics.WouldHaveDone(telemetry.WouldLimit))
	}
	in := make(chan queue.Result)
	go func() {
		why, _ := g.Enter(&Ask{Draw: guard.Strictest})
		in <- why
	}()
	for g.Waiting() == 0 {
		select {
		case why := <-in:
			t.Fatalf("did not wait: %v", why)
		default:
			runtime.Gosched()
		}
	}
	if g.TryEnter(7500) {
		t.Error("one for which it acts went past who waits")
	}
	if !g.TryEnter(1) {
		t.Error("one that it observes waits behind another")
	}
	for range 4 {
		g.Leave(0)
	}
	if why := <-in; why != queue.Entered {
		t.Errorf("who waited: %v", why)
	}
	g.Leave(0)
	if n := c.Limits.Requests.Value(); n != 0 || c.Limits.Rejected(limit.Requests) != 0 {
		t.Errorf("%d are in", n)
	}
	d := guard.Draw(0)
	if n := testing.AllocsPerRun(100, func() {
		d = (d + 997) % (guard.Strictest + 1)
		if g.TryEnter(d) {
			g.Leave(0)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A limit on connections lets those beyond it that it only observes.
func TestSlotPartial(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) {
		s.Policy.Limits.MaxConnections, s.Policy.Limits.Mode = 1, guard.Percent(25)
	}), 0)
	c.SetLocal(numbered(1))
	p := c.Policy()
	until := time.Now().Add(-time.Second) // nobody waits
	for i, w := range []struct {
		draw guard.Draw
		want outcome.Reason
	}{
		{guard.Strictest, outcome.OK},
		{guard.Strictest, outcome.LimitConnections},
		{0, outcome.OK},
		{7500, outcome.LimitConnections},
		{7499, outcome.OK},
	} {
		got := outcome.OK
		if _, oe := c.slot(nil, p, Want{Fresh: true, Draw: w.draw}, until); oe != nil {
			got = oe.Reason
		}
		if got != w.want {
			t.Errorf("%d: %v, want %v", i, got, w.want)
		}
	}
	if c.Limits.Connections.Value() != 3 || c.Limits.WouldHaveRejected(limit.Connections) != 2 || c.metrics.WouldHaveDone(telemetry.WouldLimit) != 2 {
		t.Errorf("%d connections, %d would have been refused", c.Limits.Connections.Value(), c.Limits.WouldHaveRejected(limit.Connections))
	}
}

// Of an endpoint that has all it may, one more is taken only by an exchange that
// the limit observes, and that counts there.
func TestPlacesPartial(t *testing.T) {
	b := newBed(t)
	c := placed(b, 1, 1, func(s *Spec) { s.Policy.Limits.Mode = guard.Percent(25) })
	pick := func(d guard.Draw) (*Endpoint, *Tried) {
		tried := &Tried{Draw: d}
		return c.Pick(b.sw.Now(), &Wish{}, tried), tried
	}
	first, one := pick(guard.Strictest)
	if e, tried := pick(7500); first == nil || e != nil || !tried.Full() {
		t.Fatal("the limit does not hold for those it acts for")
	}
	e, two := pick(0)
	if e != first || e.occupied().Value() != 2 {
		t.Fatal("the limit holds for those it observes, or they do not count")
	}
	one.Vacate()
	if e, _ := pick(7500); e != nil {
		t.Error("one that was only observed takes no place")
	}
	two.Vacate()
	if e, _ := pick(7500); e != first {
		t.Error("there is no room although all have gone")
	}
}

func TestPolicyPartial(t *testing.T) {
	quarter := guard.Percent(25)
	for name, p := range map[string]*Policy{
		"limits":    {Limits: limit.Config{Mode: quarter}},
		"retry":     {Retry: &retry.Config{Mode: quarter}},
		"hedge":     {Hedge: &hedge.Config{Mode: quarter}},
		"breaker":   {Breaker: &breaker.Config{Mode: quarter}},
		"admission": {Admission: &admission.Config{Mode: quarter}},
		"adaptive":  {Adaptive: &adaptive.Config{Mode: quarter}},
	} {
		if !p.Partial() {
			t.Errorf("the percentage of %s is not seen", name)
		}
	}
	whole := &Policy{
		Limits: limit.Config{Mode: guard.Observe}, Retry: &retry.Config{}, Breaker: &breaker.Config{Mode: guard.Observe},
		Admission: &admission.Config{}, Adaptive: &adaptive.Config{},
	}
	if whole.Partial() || (*Policy)(nil).Partial() {
		t.Error("there is no percentage")
	}
}
