package limit

import (
	"fmt"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Resource is one of the things that are limited.
type Resource uint8

const (
	// Connections are open connections to the destination.
	Connections Resource = iota
	// Pending are requests that wait for a connection.
	Pending
	// Requests are active requests.
	Requests

	resources = 3
)

// String returns the name used in metrics and on the admin API.
func (r Resource) String() string {
	switch r {
	case Connections:
		return "connections"
	case Pending:
		return "pending"
	case Requests:
		return "requests"
	}
	return fmt.Sprintf("resource(%d)", uint8(r))
}

// Limits counts what one destination has in use and what its limits refused.
// It outlives configurations, is safe for concurrent use, and its zero value
// is ready.
type Limits struct {
	Connections, Pending, Requests Gauge

	rejected  [resources]atomic.Uint64
	wouldHave [resources]atomic.Uint64
}

// Gauge returns the gauge of r.
func (l *Limits) Gauge(r Resource) *Gauge {
	switch r {
	case Connections:
		return &l.Connections
	case Pending:
		return &l.Pending
	default:
		return &l.Requests
	}
}

// Acquire takes one r for the exchange of d under the limit that cfg sets, and
// says whether it did. After true the caller owes one Release. For an exchange
// that is only observed it always takes one, and counts when it would not have.
func (l *Limits) Acquire(cfg *Config, r Resource, d guard.Draw) bool {
	g := l.Gauge(r)
	if g.Acquire(cfg.limit(r)) {
		return true
	}
	if !cfg.Mode.Acts(d) {
		g.Acquire(0)
		l.wouldHave[r].Add(1)
		return true
	}
	l.rejected[r].Add(1)
	return false
}

// Refuse counts an r that was refused by others than Acquire.
func (l *Limits) Refuse(r Resource) { l.rejected[r].Add(1) }

// WouldRefuse counts an r that enforce mode would have refused.
func (l *Limits) WouldRefuse(r Resource) { l.wouldHave[r].Add(1) }

// Release gives one r back.
func (l *Limits) Release(r Resource) { l.Gauge(r).Release() }

// Rejected returns how many Acquires of r were refused.
func (l *Limits) Rejected(r Resource) uint64 { return l.rejected[r].Load() }

// WouldHaveRejected returns how many Acquires of r passed, only observed, that
// enforce mode would have refused.
func (l *Limits) WouldHaveRejected(r Resource) uint64 { return l.wouldHave[r].Load() }
