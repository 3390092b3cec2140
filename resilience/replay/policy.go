package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Policy is how a client calls its endpoints: the part of a proxy's policy
// that machines obey. A nil section is off.
type Policy struct {
	Timeout        time.Duration // the whole exchange; 0 none
	ConnectTimeout time.Duration // for worlds that model connections
	StreamIdle     time.Duration // the same for answers that never come; 0 none
	Retry          *retry.Config
	Hedge          *hedge.Config
	Outlier        *outlier.Config
	Breaker        *breaker.Config
	Admission      *admission.Config
	Limits         limit.Config
	Adaptive       *adaptive.Config
	Balance        balance.Config // the zero value means balance.Default
}

// partial reports whether some guard acts for a percentage of the exchanges only.
func (p *Policy) partial() bool {
	return p.Limits.Mode.Partial() ||
		p.Retry != nil && p.Retry.Mode.Partial() ||
		p.Hedge != nil && p.Hedge.Mode.Partial() ||
		p.Breaker != nil && p.Breaker.Mode.Partial() ||
		p.Admission != nil && p.Admission.Mode.Partial() ||
		p.Adaptive != nil && p.Adaptive.Mode.Partial()
}

// Endpoint is one endpoint as discovery describes it.
type Endpoint struct {
	// Name is its address; what is known about an endpoint stays with its name.
	Name    string
	Weight  uint32 // 0 counts as 1
	Healthy bool
}

// sweepInterval is how often a proxy reviews its ejections (upstream.TickInterval).
const sweepInterval = 200 * time.Millisecond

// maxTried is how many endpoints of earlier attempts a proxy avoids.
const maxTried = 8
