package exchange_test

import (
	"testing"
	"time"
)

// TestHedgeTimerLeftRunning: a timer that a request has left running when it was
// answered starts no attempt beside the next one before its time, but then it does.
func TestHedgeTimerLeftRunning(t *testing.T) {
	const delay = 60 * time.Millisecond // so long that it is not stopped
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			s := newSeveral(t, l, 2, func(set *setup) { set.policy.Hedge.Delay = delay })
			for range 3 {
				if g := <-s.send(t.Context(), "GET", "", "x-now", "yes"); g.err != nil || g.status != 200 {
					t.Fatalf("got %+v", g)
				}
				sent := time.Now()
				got := s.send(t.Context(), "GET", "")
				a, b := s.next(t), s.next(t)
				if took := time.Since(sent); took < delay {
					t.Errorf("another attempt after %v, before %v", took, delay)
				}
				b.answer <- says(200, "good")
				if g := <-got; g.err != nil || g.status != 200 || g.body != "good" {
					t.Fatalf("got %+v", g)
				}
				a.calledOff(t)
			}
		})
	}
}
