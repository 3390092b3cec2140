package replay

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// As in a proxy exchanges draw only where some guard has a percentage.
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
		if !p.partial() {
			t.Errorf("the percentage of %s is not seen", name)
		}
	}
	if (&Policy{Retry: &retry.Config{Mode: guard.Observe}, Breaker: &breaker.Config{}}).partial() {
		t.Error("there is no percentage")
	}
}

// A gate holds those of the percentage to its limit and lets the others in.
func TestGatePartial(t *testing.T) {
	e := New(1)
	c := NewClient(e, Policy{Limits: limit.Config{Mode: guard.Percent(25), MaxRequests: 1}}, nil, nil)
	if !c.partial {
		t.Fatal("the client does not draw")
	}
	for i, x := range []struct {
		draw guard.Draw
		want Answer
	}{{guard.Strictest, Pass}, {7500, Refuse}, {7499, Pass}, {0, Pass}, {9000, Refuse}} {
		var note uint64
		if got, _ := c.gate.Enter(0, &Exchange{draw: x.draw}, &note); got != x.want {
			t.Errorf("%d: %v, want %v", i, got, x.want)
		}
	}
	if c.limits.Rejected(limit.Requests) != 2 || c.limits.WouldHaveRejected(limit.Requests) != 2 {
		t.Errorf("%d refused, %d would have been", c.limits.Rejected(limit.Requests), c.limits.WouldHaveRejected(limit.Requests))
	}
}
