// Package plan is the compiled, immutable form of one version of the configuration: what the request path reads.
package plan

import (
	"crypto/tls"
	"io/fs"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Protocol is what a listener speaks.
type Protocol uint8

// The protocols.
const (
	HTTP Protocol = iota
	TCP
	Auto // found out for each connection
)

// String returns the word used in configuration.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case Auto:
		return "auto"
	}
	return "http"
}

// Security is what a listener demands of its downstreams.
type Security uint8

// The kinds of security.
const (
	// Plaintext: no TLS. For outbound listeners, and inbound ones where mTLS is off.
	Plaintext Security = iota
	// Strict: mTLS with a verified SPIFFE ID only.
	Strict
	// Permissive: mTLS, or plaintext, which is counted.
	Permissive
)

// String returns the word used in configuration.
func (s Security) String() string {
	switch s {
	case Strict:
		return "strict"
	case Permissive:
		return "permissive"
	}
	return "plaintext"
}

// Plan is everything that is served. Nothing in it changes after compile,
// apart from the clusters, which outlive it.
type Plan struct {
	Version   uint64
	Listeners []*Listener         // in the order of their names
	Clusters  []*upstream.Cluster // in the order of their names
	Datagrams []*Datagrams
	// RateLimits are those of all clusters, as written.
	RateLimits []*RateLimit
	// Faults are those of the configuration.
	Faults []*Fault
}

// Listener is one bound address and what happens to what arrives there.
type Listener struct {
	Version   uint64 // of the plan
	Name      string // unique, for example "inbound" or "outbound:api"
	Address   string // as configured, "host:port" or "unix:/path"; empty for one without a socket, whose connections come by Intercept of another
	Direction telemetry.Direction
	Protocol  Protocol
	// DetectWait is how long an Auto listener waits for the downstream alone.
	DetectWait time.Duration

	Security         Security
	TLS              *tls.Config // nil for Plaintext
	HandshakeTimeout time.Duration
	MaxHandshakes    int // at once; 0 unlimited
	MaxConnections   int // 0 unlimited
	ClientCert       ClientCert

	// Index is its place among the plan's listeners.
	Index int
	// Intercept hands what arrives on to other listeners; nil serves it.
	Intercept *Interception
	// Ports says what becomes of connections that were redirected here from other
	// ports; nil serves all.
	Ports *Ports
	// Original passes connections through to where they were going, as TCP.
	Original bool
	// Transparent binds the socket with IP_TRANSPARENT, and keeps the source of
	// connections that are passed through.
	Transparent bool
	// Exposed says that it is for one path alone, without mTLS and rules.
	Exposed bool
	// SocketMode are the permissions of a Unix socket's file; 0 leaves them to the
	// umask.
	SocketMode fs.FileMode
	// Optional says that the machine may have no such address; then there is no
	// socket.
	Optional bool
	// Opaque are ports on which Auto means TCP, for intercepted connections.
	Opaque []uint16

	// Route takes all that Routes, where there are some, leave over.
	Route   Route
	Routes  *Table // nil: every exchange takes Route
	HTTP    HTTPOptions
	Metrics *telemetry.Listener
}

// HTTPOptions bounds what an HTTP downstream may do.
type HTTPOptions struct {
	Limits      http1.Limits
	HeadTimeout time.Duration // from its first byte to its last
	IdleTimeout time.Duration // between exchanges; 0 none
	MaxAge      time.Duration // of an HTTP/2 connection, which is then drained; 0 none
	AgeGrace    time.Duration // of its streams after that; 0 none
	// Normalize brings requests into one form before anything looks at them; nil
	// takes them as they come.
	Normalize *http1.Normalization
}
