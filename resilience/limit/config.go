// Package limit bounds how many connections, waiting requests and active requests one destination may have.
package limit

import (
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

// Config holds the limits of one destination. They are Envoy's circuit
// breaker thresholds, but exact, and off where a limit is surprising: long
// lived WebSocket connections run into a default number of connections.
type Config struct {
	// Mode says whether a limit refuses (enforce, the default) or only counts
	// what it would have refused (observe). With a percentage, such as 25%, it
	// refuses for so many of the exchanges; all of them count.
	Mode guard.Mode `yaml:"mode"`
	// MaxConnections is how many connections to the destination may be open.
	// 0 (default) means unlimited. Envoy: max_connections, 1024.
	MaxConnections int64 `yaml:"max_connections"`
	// MaxPending is how many requests may wait for a connection. 0 means
	// unlimited. Default 1024, as Envoy's max_pending_requests.
	MaxPending int64 `yaml:"max_pending"`
	// MaxRequests is how many requests may be active. 0 (default) means
	// unlimited. Envoy: max_requests, 1024.
	MaxRequests int64 `yaml:"max_requests"`
	// MaxRequestsPerEndpoint is how many requests may be active at one endpoint.
	// One that has them is passed over by balancing, also where a hash or a
	// cookie leads to it; all of them together are one more limit on active
	// requests. 0 (default) means unlimited.
	MaxRequestsPerEndpoint int64 `yaml:"max_requests_per_endpoint"`
	// Queue is where requests beyond max_requests, or beyond the adaptive limit,
	// wait for their turn. off (default): they are refused at once.
	Queue *queue.Config `yaml:"queue" off:"true"`
}

// Default returns the defaults given at each field of Config.
func Default() Config { return Config{MaxPending: 1024} }

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if !c.Mode.Known() {
		add("mode", guard.Unknown)
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"max_connections", c.MaxConnections},
		{"max_pending", c.MaxPending},
		{"max_requests", c.MaxRequests},
		{"max_requests_per_endpoint", c.MaxRequestsPerEndpoint},
	} {
		if f.value < 0 {
			add(f.name, "must not be negative; 0 means unlimited")
		}
	}
}

// limit returns the limit on r; 0 means unlimited.
func (c *Config) limit(r Resource) int64 {
	switch r {
	case Connections:
		return c.MaxConnections
	case Pending:
		return c.MaxPending
	default:
		return c.MaxRequests
	}
}
