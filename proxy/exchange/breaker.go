package exchange

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// passesBreaker asks the breaker of the route or of the cluster for an attempt.
// Those of endpoints are asked by the pick.
func (x *exchange) passesBreaker(now time.Duration) bool {
	ok, refusal := passes(x.cl, x.route, now, &x.tried)
	if !ok && refusal != nil {
		x.cause = refusal
	}
	return ok
}

// passes asks the breaker of r or of c. A refusal by that of the route says so.
func passes(c *upstream.Cluster, r *plan.Route, now time.Duration, t *upstream.Tried) (ok bool, refusal error) {
	if b := r.Breaker; b != nil {
		return c.Admit(b.Breaker, now, t), b.Refusal
	}
	return c.Admit(c.Breaker(), now, t), nil
}
