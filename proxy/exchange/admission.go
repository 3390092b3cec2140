package exchange

import (
	"math/rand/v2"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// throttleOf is what holds back requests of r to c, or nil.
func throttleOf(c *upstream.Cluster, r *plan.Route) *upstream.Throttle {
	if r.Throttle != nil {
		return r.Throttle
	}
	return c.Throttle()
}

// ask asks t, which may be nil, whether the exchange of draw may go on.
func ask(t *upstream.Throttle, c *upstream.Cluster, now time.Duration, draw guard.Draw) bool {
	if t == nil {
		return true
	}
	d := t.Ask(now, rand.Uint64(), draw)
	if d.Held && d.OK {
		c.Metrics().WouldHave(telemetry.WouldThrottle)
	}
	return d.OK
}

// admitted asks admission control, after all that might end the exchange here:
// what counts is what reaches the service.
func (x *exchange) admitted() bool {
	t := throttleOf(x.cl, x.route)
	if !ask(t, x.cl, x.at, x.tried.Draw) {
		x.cause, x.heldBack = t.Refusal, t.Patience()
		return false
	}
	x.throttle = t
	return true
}

// tellThrottle says how the exchange, which admission control let through, went.
func (x *exchange) tellThrottle(r outcome.Reason) {
	t := x.throttle
	if t == nil {
		return
	}
	x.throttle = nil
	grpc := retry.GRPCStatus(0)
	if x.grpc {
		grpc = retry.GRPCStatus(x.callStatus(r))
	}
	t.Done(x.at, admissionResult(t.Config(), r, x.status, grpc))
}

// admissionResult says whether the service has accepted what ended so.
func admissionResult(cfg *admission.Config, r outcome.Reason, status int, grpc retry.GRPCStatus) admission.Result {
	switch {
	case r == outcome.OK || r == outcome.UpstreamError:
		if cfg.Refused(status, grpc) {
			return admission.Refused
		}
		return admission.Accepted
	case r.Row().Blame:
		return admission.Refused
	}
	return admission.Unknown
}

// appendHeldBack appends Retry-After (RFC 9110 section 10.2.3) to the reply to
// a request that was held back, after the end of the line before.
func (x *exchange) appendHeldBack(b []byte) []byte {
	if x.heldBack <= 0 {
		return b
	}
	return http1.AppendInt(append(b, "\r\nretry-after: "...), seconds(x.heldBack))
}
