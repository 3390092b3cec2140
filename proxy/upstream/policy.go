package upstream

import (
	"crypto/tls"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/websocket"
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/health"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Policy is how a cluster is called. It is immutable once given to a cluster;
// a nil section is off.
type Policy struct {
	Timeout        time.Duration // the whole exchange; 0 none
	ConnectTimeout time.Duration // one connection with its handshake
	StreamIdle     time.Duration // an exchange without a byte; 0 none
	Keepalive      time.Duration // an idle HTTP connection; 0 keeps none
	MaxAge         time.Duration // a shared connection, which then takes no more exchanges; 0 none
	TCPIdle        time.Duration // a TCP connection without a byte; 0 none

	// HTTP2 speaks HTTP/2 to the endpoints: by ALPN over TLS, by prior
	// knowledge over plaintext.
	HTTP2 bool
	// SameHTTP speaks with the endpoints the version of HTTP that the
	// downstream speaks, HTTP2 notwithstanding; Want says which. TLS then offers
	// none of them by itself.
	SameHTTP bool
	// Mesh offers the transport between sidecars over TLS (http2.MeshHTTP): an
	// endpoint that takes it carries everything on shared connections.
	Mesh bool

	Retry   *retry.Config
	Hedge   *hedge.Config
	Outlier *outlier.Config
	Breaker *breaker.Config
	Health  *health.Config // active checks
	// Admission holds back requests to a cluster that accepts too few.
	Admission *admission.Config
	Limits    limit.Config
	// Adaptive finds one more limit on active requests.
	Adaptive *adaptive.Config
	// WebSocket limits WebSockets, in place of StreamIdle.
	WebSocket websocket.Config
	Balance   balance.Config // the zero value means balance.Default
	Subsets   []SubsetSpec
	// Region and Zone are where this proxy runs, for Balance.Zones.
	Region, Zone string
	// AffinityKey is for Balance.Affinity; nil means the process's own.
	AffinityKey *AffinityKey
}

// http2 reports whether HTTP/2 is to be spoken with endpoints that have not
// taken the mesh transport.
func (p *Policy) http2(w Want) bool {
	if p.SameHTTP {
		return w.HTTP2
	}
	return p.HTTP2
}

// Spec is what a plan wants of a cluster.
type Spec struct {
	Name     string
	Protocol string // "http", "http2", "grpc", "tcp" or "auto"
	Policy   Policy
	// TLS is the configuration of connections; nil means plaintext.
	TLS *tls.Config
	// Identities are the SPIFFE IDs of which an endpoint must have one, for
	// the admin API and to tell whether kept connections still satisfy the
	// plan.
	Identities []string
	// Transport is equal for two specs exactly when connections made under one
	// may be used under the other.
	Transport string
	// Local marks the cluster of the own application: one fixed endpoint that
	// is never ejected.
	Local bool
	// Direct says that endpoints are found by their addresses, too (Instances).
	Direct bool
}
