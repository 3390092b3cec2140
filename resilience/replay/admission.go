package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
)

// throttle is admission control as a guard, behind the gate as in a proxy: what
// counts is what reaches the service.
type throttle struct {
	*admission.Throttle
	random Random
}

// Enter implements Guard.
func (t *throttle) Enter(now time.Duration, _ *Exchange, _ *uint64) (Answer, outcome.Reason) {
	if t.Ask(now, t.random.Next()).OK {
		return Pass, outcome.OK
	}
	return Refuse, outcome.Throttled
}

// Leave implements Guard.
func (t *throttle) Leave(now time.Duration, x *Exchange, _ *uint64, _ bool, r outcome.Reason) {
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
