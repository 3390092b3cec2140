package upstream

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func draining(list []EndpointSpec, which ...int) []EndpointSpec {
	for _, i := range which {
		list[i].Draining = "in maintenance: new disk"
	}
	return list
}

// TestDraining: who drains gets nothing new, keeps what it has, and counts
// neither as available nor as failed.
func TestDraining(t *testing.T) {
	b, c := orderedBed(t, func(s *Spec) { s.Policy.Balance.PanicPercent = 60 })
	b.r.SetEndpoints("api", draining(numbered(4), 1, 2))
	b.wantPicked(c, "03") // half are away, and there is no panic
	clusters, endpoints := b.r.States()
	if s := clusters[0]; s.Draining != 2 || s.Available != 2 || s.Endpoints != 4 || s.Panicking {
		t.Errorf("%+v", s)
	}
	if endpoints[1].Spec.Draining != "in maintenance: new disk" || endpoints[0].Spec.Draining != "" {
		t.Errorf("%+v", endpoints[:2])
	}
	if log := b.lg.String(); !strings.Contains(log, "event=draining cluster=api endpoint="+address(1)+` cause="in maintenance: new disk"`) {
		t.Errorf("log: %s", log)
	}
	// Of those left one is unhealthy: half, which is below 60 %, so both are used,
	// but none that drains.
	list := draining(numbered(4), 1, 2)
	list[0].Healthy = false
	b.r.SetEndpoints("api", list)
	b.wantPicked(c, "03")
	b.r.SetEndpoints("api", draining(numbered(4), 0, 1, 2, 3))
	b.wantPicked(c, "")
	// A person knows better.
	b.must(b.r.Pin(order("api", 1)))
	b.wantPicked(c, "1")
	if _, err := b.r.TakeBack(order("api", 1)); err != nil {
		t.Fatal(err)
	}
	b.r.SetEndpoints("api", numbered(4))
	b.wantPicked(c, "0123")
	if !strings.Contains(b.lg.String(), "event=draining_over cluster=api endpoint="+address(3)) {
		t.Error("the end is not logged")
	}
}

// TestDrainingIsNoEvidence: the failures of one that drains eject nobody and
// take nothing from what may be ejected.
func TestDrainingIsNoEvidence(t *testing.T) {
	o := outlier.Default()
	o.ConsecutiveFailures, o.MaxEjectedPercent = 2, 25
	b, c := orderedBed(t, func(s *Spec) { s.Policy.Outlier = &o })
	b.r.SetEndpoints("api", draining(numbered(4), 3))
	fail := func(i int) {
		e := c.list()[i]
		for range 3 {
			c.Begin(e, time.Second)
			c.Finish(e, time.Second, time.Millisecond, outcome.UpstreamReset, 0)
		}
	}
	fail(3)
	c.sweep(2 * time.Second)
	if s := c.list()[3].Outlier.State(); s != outlier.Healthy {
		t.Errorf("one that drains is %v", s)
	}
	fail(0)
	c.sweep(2 * time.Second)
	b.wantPicked(c, "12")
}

// TestDrainingKeepsConnections: those in use and those kept.
func TestDrainingKeepsConnections(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	a := b.server()
	b.r.SetEndpoints("api", at(a))
	e := c.Pick(b.sw.Now(), &Wish{}, &Tried{})
	used, kept := b.get(e, Want{}), b.get(e, Want{Fresh: true})
	e.Put(kept, b.sw.Now())
	b.r.SetEndpoints("api", draining(at(a), 0))
	b.wantConnections(c, 2, 1)
	if c.Pick(b.sw.Now(), &Wish{}, &Tried{}) != nil {
		t.Error("it gets something new")
	}
	if _, err := used.Write([]byte("x")); err != nil {
		t.Errorf("what is under way is cut: %v", err)
	}
	e.Drop(used)
	c.closeIdle()
}

// TestDistinctDraining: of two instances at one address the one that serves counts.
func TestDistinctDraining(t *testing.T) {
	list := append(draining(numbered(1), 0), numbered(1)...)
	list[1].Healthy = false
	if got := distinct(list); len(got) != 1 || got[0].Draining != "" {
		t.Errorf("%+v", got)
	}
}

// BenchmarkOneOfManyChanges: discovery says everything again in new strings, and
// one of 10,000 endpoints is another.
func BenchmarkOneOfManyChanges(b *testing.B) {
	bed := newBed(b)
	bed.r.Acquire(spec(nil), telemetry.Outbound)
	var lists [2][]EndpointSpec
	for k := range lists {
		lists[k] = numbered(10_000)
		for i := range lists[k] {
			s := &lists[k][i]
			s.Zone = strings.Clone("eu-1")
			s.Labels, _ = balance.NewLabels([]balance.Label{{Key: "version", Value: "2"}, {Key: "tag.blue", Value: "true"}, {Key: "node.rack", Value: fmt.Sprint(i % 40)}})
		}
	}
	lists[1][5000].Weight = 2
	bed.r.SetEndpoints("api", lists[1])
	b.ResetTimer()
	for i := range b.N {
		bed.r.SetEndpoints("api", lists[i%2])
	}
}
