package telemetry

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// How many are longer is told within the bucket that the bound lies in.
func TestAbove(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var list []time.Duration
		for range 1 + r.IntN(500) {
			list = append(list, time.Duration(r.Int64N(int64(90*time.Second))))
		}
		d := distribution(list...)
		than := time.Duration(r.Int64N(int64(70 * time.Second)))
		if r.IntN(3) == 0 {
			than = bounds[r.IntN(bucketCount)]
		}
		least, most := uint64(0), uint64(0)
		for _, one := range list {
			switch {
			case bucketOf(one) > bucketOf(than):
				least++
				most++
			case bucketOf(one) == bucketOf(than) && than != bounds[min(bucketOf(than), bucketCount-1)]:
				most++
			}
		}
		if got := d.Above(than); got < least || got > most {
			t.Errorf("above %v: %d, of %d to %d", than, got, least, most)
		}
	}
	d := distribution(time.Hour)
	if d.Above(0) != 1 || d.Above(2*time.Hour) != 1 {
		t.Error("what is beyond the last bound is longer than all")
	}
}

func TestFaultTotals(t *testing.T) {
	c := newMetrics(t, 0).Cluster("api", Outbound)
	end := func(r outcome.Reason, met bool) {
		c.Begin(1)
		c.Finish(1, r, 200, time.Millisecond)
		if met {
			c.MetFault(r)
		}
	}
	end(outcome.OK, false)
	end(outcome.OK, true)
	end(outcome.FaultInjected, true)
	end(outcome.UpstreamError, true)
	end(outcome.UpstreamError, false)
	end(outcome.DownstreamGone, true)
	end(outcome.BadRequest, false)
	c.Injected(FaultReset)
	c.Injected(FaultReset)
	c.Injected(faultKindCount)
	c.Retried(outcome.FaultInjected)
	c.BreakerOpened.Inc()
	got := c.FaultTotals()
	if got.Exchanges != 7 || got.Failures != 5 || got.Failed != 3 || got.Met != 4 || got.MetFailed != 2 || got.Ended != 1 || got.Again != 1 || got.Openings != 1 || got.Durations.Count() != 7 {
		t.Errorf("%+v", got)
	}
	if got.Injected != [faultKindCount]uint64{FaultReset: 2} {
		t.Errorf("%v", got.Injected)
	}
}
