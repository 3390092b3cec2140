package telemetry

import (
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// What is made with the first of its counts loses none of those that come at once, and
// is read as nothing before.
func TestFirstCountsAtOnce(t *testing.T) {
	for range 20 {
		m := newMetrics(t, 0)
		c, e := m.Cluster("api", Outbound), m.Endpoint("api", "10.0.0.1:80")
		if got := c.Totals(); got.Exchanges != 0 || c.Active() != 0 || e.Attempts(ResultSuccess) != 0 || c.WouldHaveDone(WouldLimit) != 0 {
			t.Fatalf("%+v, %d active, %d attempts before the first", got, c.Active(), e.Attempts(ResultSuccess))
		}
		const many, each = 8, 50
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range uint32(many) {
			wg.Go(func() {
				<-start
				for range each {
					c.Begin(i)
					c.Finish(i, outcome.OK, 200, time.Millisecond)
					c.Begin(i)
					c.Finish(i, outcome.ConnectFailed, 503, time.Millisecond)
					c.Retried(outcome.ConnectFailed)
					c.WouldHave(WouldLimit)
					c.Queued(1, 0, time.Millisecond)
					e.Attempt(ResultSuccess)
				}
			})
		}
		close(start)
		wg.Wait()
		got := c.Totals()
		if got.Exchanges != 2*many*each || got.Failures != many*each || got.Retries != many*each || got.Durations.Count() != 2*many*each || c.Active() != 0 {
			t.Errorf("%+v, %d active", got, c.Active())
		}
		if n := c.WouldHaveDone(WouldLimit); n != many*each {
			t.Errorf("%d would have been limited", n)
		}
		if q := c.QueueTotals(); q.Waits.Count() != many*each {
			t.Errorf("%d have waited", q.Waits.Count())
		}
		if n := e.Attempts(ResultSuccess); n != many*each {
			t.Errorf("%d attempts", n)
		}
		if m.nothing.wouldHave[WouldLimit].Value() != 0 {
			t.Error("what is read where there is nothing was written to")
		}
	}
}
