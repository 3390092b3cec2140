package upstream

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// TestCaution: who fails a little gets less, in observe mode it is only told, and
// without it all is as before.
func TestCaution(t *testing.T) {
	for _, mode := range []guard.Mode{guard.Enforce, guard.Observe} {
		o := outlier.Default()
		caution := outlier.DefaultCaution()
		caution.Mode, o.Caution = mode, &caution
		change := func(s *Spec) { s.Policy.Outlier = &o }
		b, c := orderedBed(t, change)
		now := time.Second
		for range 100 {
			for i, e := range c.list() {
				for k := range 10 {
					r := outcome.OK
					if i == 2 && k == 4 {
						r = outcome.UpstreamError
					}
					c.Begin(e, now)
					c.Finish(e, now, time.Millisecond, r, 200)
				}
			}
			now += TickInterval
			c.tick(now)
		}
		picks := 0
		for range 4000 {
			if c.Pick(now, &Wish{}, &Tried{}).address == address(2) {
				picks++
			}
		}
		_, states := b.r.States()
		st := states[2].Caution
		if st == nil || st.Mode != mode || st.Share > 0.75 || st.Share < 0.65 || st.Failed < 0.09 || st.Since == 0 || states[0].Caution.Share != 1 {
			t.Fatalf("%v: %+v, %+v", mode, st, states[0].Caution)
		}
		log := b.lg.String()
		if !strings.Contains(log, "event=caution cluster=api endpoint="+address(2)) {
			t.Errorf("log: %s", log)
		}
		// 0.7 of a quarter is 19 %.
		if low := picks < 880; low != (mode == guard.Enforce) {
			t.Errorf("%v: %d of 4000 picks", mode, picks)
		}
		o.Caution = nil
		b.r.Acquire(spec(change), telemetry.Outbound)
		if share := c.list()[2].Load.Share(); share != 1 {
			t.Errorf("without caution it has a share of %v", share)
		}
	}
}
