package upstream

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/telemetry"
)

// An exchange that began under a plan which has been replaced still reaches the
// endpoints of its cluster, and leaves no connection behind.
func TestRetired(t *testing.T) {
	b := newBed(t)
	b.r.SetEndpoints("api", at(b.server()))
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	e := c.Pick(0, &Wish{}, &Tried{})
	kept := b.get(e, Want{})
	e.Put(kept, 0)
	b.wantConnections(c, 1, 1)
	b.r.Release(c)
	b.wantConnections(c, 0, 0)
	late := c.Pick(0, &Wish{}, &Tried{})
	if late != e {
		t.Fatalf("picked %v, want the endpoint it had", late)
	}
	conn := b.get(late, Want{})
	b.wantConnections(c, 1, 0)
	late.Put(conn, 0)
	b.wantConnections(c, 0, 0)
	if clusters, endpoints := b.r.States(); len(clusters)+len(endpoints) != 0 {
		t.Errorf("%d clusters and %d endpoints are shown", len(clusters), len(endpoints))
	}
}

// What asks for a cluster before discovery has answered waits for that, not
// longer than it may, and never again.
func TestAwaitListed(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	defer b.r.Release(c)
	synctest.Test(t, func(t *testing.T) {
		c := &Cluster{registry: &Registry{ctx: t.Context()}, listed: make(chan struct{})}
		began := time.Now()
		if c.AwaitListed(time.Second) || time.Since(began) != time.Second {
			t.Errorf("waited %s for an answer that does not come", time.Since(began))
		}
		got := make(chan bool)
		go func() { got <- c.AwaitListed(time.Hour) }()
		synctest.Wait()
		close(c.listed)
		if !<-got {
			t.Error("the answer came and was not seen")
		}
		if c.AwaitListed(time.Hour) {
			t.Error("said to have waited for what was known")
		}
	})
	if c.Listed() {
		t.Error("listed before any answer")
	}
	b.r.SetEndpoints("api", nil)
	if !c.Listed() {
		t.Error("an answer without endpoints is none")
	}
	b.r.SetEndpoints("api", numbered(2))
	if len(c.list()) != 2 {
		t.Errorf("%d endpoints", len(c.list()))
	}
}
