package upstream

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

// What is shown of a gate is who is in it, who waits, and for how long.
func TestGateState(t *testing.T) {
	in(t, 1, func(q *queue.Config) { q.Size, q.MaxWait = 3, 50*time.Millisecond }, func(b *bed, c *Cluster) {
		if s := c.State(b.sw.Now()); len(s.Gates) != 1 || s.Gates[0].Shut() || s.Gates[0].Queue.Size != 3 {
			t.Fatalf("%+v", s.Gates)
		}
		c.Gate.ask(Ask{})
		waits := c.Gate.asking(Ask{})
		time.Sleep(20 * time.Millisecond)
		s := c.State(b.sw.Now()).Gates[0]
		if s.Most != 1 || s.Active != 1 || s.Waiting != 1 || s.Delay != 20*time.Millisecond || !s.Shut() || s.Standing || s.Adaptive != nil {
			t.Errorf("%+v", s)
		}
		time.Sleep(30 * time.Millisecond)
		want(t, waits, queue.WaitedOut)
		cs := c.State(b.sw.Now())
		if s := cs.Gates[0]; s.Waiting != 0 || s.Delay != 0 || s.Refused != 1 || cs.Turns.Results[queue.Normal.Rank()][queue.WaitedOut] != 1 {
			t.Errorf("%+v %+v", s, cs.Turns.Results)
		}
		c.Gate.Leave(0)
	})
}

// A route's gate comes after the cluster's; those that bound nothing are left out.
func TestGateStatesOfRoutes(t *testing.T) {
	b := newBed(t)
	ad := adaptive.Default()
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Adaptive = &ad }), 0)
	g := c.KeepGates([]GateSpec{{Name: "l/b", Limits: limit.Config{MaxRequests: 2}}, {Name: "l/a"}})
	for range 2 {
		if !g[0].TryEnter(0) {
			t.Fatal("no room")
		}
	}
	list := c.State(0).Gates
	if len(list) != 2 || list[0].Route != "" || list[0].Adaptive == nil || list[1].Route != "l/b" || !list[1].Shut() || list[0].Shut() {
		t.Errorf("%+v", list)
	}
	g[0].Leave(0)
	g[0].Leave(0)
}
