package scenario

import (
	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
)

// Machines returns the part of a policy that the machines of a replay obey.
func Machines(p *config.Policy) replay.Policy {
	return replay.Policy{
		Timeout: p.Timeout, ConnectTimeout: p.ConnectTimeout, StreamIdle: p.StreamIdleTimeout,
		Retry: p.Retry, Hedge: p.Hedge, Outlier: p.Outlier, Breaker: p.Breaker, Admission: p.Admission, Limits: p.Limits, Adaptive: p.Adaptive, Balance: p.Balance,
	}
}
