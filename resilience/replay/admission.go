package replay

import (
	"reflect"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
)

// throttle is admission control as a guard, behind the gate as in a proxy: what
// counts is what reaches the service.
type throttle struct {
	*admission.Throttle // nil: it lets everybody pass
	random              Random
}

// configure makes cfg what it goes by; nil takes it away. What it knows is kept
// where the settings stay.
func (t *throttle) configure(cfg *admission.Config, e *Engine) {
	switch {
	case cfg == nil:
		t.Throttle = nil
	case t.Throttle == nil || !reflect.DeepEqual(t.Config(), cfg):
		t.Throttle, t.random = admission.New(*cfg), e.Fork()
	}
}

// asked is the note of an exchange that it has let pass.
const asked = 1

// Enter implements Guard.
func (t *throttle) Enter(now time.Duration, x *Exchange, note *uint64) (Answer, outcome.Reason) {
	if t.Throttle == nil {
		return Pass, outcome.OK
	}
	*note = asked
	if t.Ask(now, t.random.Next(), x.draw).OK {
		return Pass, outcome.OK
	}
	return Refuse, outcome.Throttled
}

// Leave implements Guard.
func (t *throttle) Leave(now time.Duration, x *Exchange, note *uint64, _ bool, r outcome.Reason) {
	if t.Throttle == nil || *note != asked {
		return // it was not there when x came, or has gone
	}
	res := admission.Unknown
	switch {
	case r == outcome.OK || r == outcome.UpstreamError:
		if res = admission.Accepted; t.Config().Refused(int(x.status), 0) {
			res = admission.Refused
		}
	case r.Row().Blame:
		res = admission.Refused
	}
	t.Done(now, res)
}
