package plan

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Datagrams is one bound UDP address and where what arrives there goes.
type Datagrams struct {
	Name     string // unique, for example "udp:dns"
	Address  string // as configured, "host:port"
	Idle     time.Duration
	MaxFlows int
	Cluster  *upstream.Cluster
	Metrics  *telemetry.Listener
}
