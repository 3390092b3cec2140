package mesh

import (
	"testing"
	"time"
)

// A few changes are followed with the least rest; without an end of them, rounds have
// no more than their share of the time.
func TestPace(t *testing.T) {
	for _, took := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 300 * time.Millisecond, 450 * time.Millisecond} {
		var p pace
		now, busy := time.Hour, time.Duration(0)
		for i := range 10 {
			now += took
			if rest := p.rest(now, took); rest != turnPause {
				t.Errorf("rounds of %v: %v after the %dth", took, rest, i+1)
			} else {
				now += rest
			}
		}
		start := now
		for range 10_000 {
			now += took
			busy += took
			rest := p.rest(now, took)
			if rest < turnPause || rest > turnRest {
				t.Fatalf("rounds of %v: %v between two", took, rest)
			}
			now += rest
		}
		if limit := (now-start)/(turnShare+1) + turnCredit; busy > limit {
			t.Errorf("rounds of %v: they had %v of %v", took, busy, now-start)
		}
		now += 2*turnCredit + took // quiet
		if rest := p.rest(now, took); rest != turnPause {
			t.Errorf("rounds of %v: %v after a quiet time", took, rest)
		}
	}
	var p pace
	for now := time.Duration(0); now < time.Hour; {
		now += time.Minute
		if rest := p.rest(now, time.Minute); rest > turnRest {
			t.Fatalf("%v between two rounds of a minute", rest)
		} else {
			now += rest
		}
	}
}
