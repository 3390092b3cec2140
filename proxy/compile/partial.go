package compile

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// partial reports whether some guard on the way of u acts for a percentage of
// the exchanges only.
func (d *Draft) partial(u *use) bool {
	s := &d.specs[u.spec]
	return s.spec.Policy.Partial() || u.route.Policy.Partial() ||
		s.dir == telemetry.Inbound && d.authz.Partial() ||
		slices.ContainsFunc(s.rates, func(l *plan.RateLimit) bool { return l.Mode.Partial() })
}
