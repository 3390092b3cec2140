// Package peers holds the configuration files of the proxies that the benchmark compares, as templates.
package peers

import (
	"embed"
	"fmt"
	"net/netip"
	"strings"
	"text/template"
)

//go:embed *.conf.tmpl
var files embed.FS

// Role is the place of a proxy in a scenario.
type Role string

// The roles of a proxy.
const (
	Plain    Role = "plain"    // cleartext from client to origin
	Outbound Role = "outbound" // cleartext from the client, mutual TLS to the inbound sidecar
	Inbound  Role = "inbound"  // mutual TLS from the outbound sidecar, cleartext to the origin
)

// Protocol is what a proxy carries.
type Protocol string

// The protocols that proxies are compared in. An upgrade to WebSocket begins
// as HTTP.
const (
	HTTP  Protocol = "http"  // HTTP/1.1 on both sides
	HTTP2 Protocol = "http2" // cleartext HTTP/2 by prior knowledge on both sides
	GRPC  Protocol = "grpc"  // the same, declared to carry gRPC where a proxy wants to know
	TCP   Protocol = "tcp"
)

// Params are what a template is rendered with.
type Params struct {
	Role      Role
	Protocol  Protocol
	HopH2     bool             // HTTP/2 between the two sidecars where HTTP/1.1 is the rule
	Cores     int              // that the proxy may use
	Dir       string           // the proxy's own directory
	Listen    netip.AddrPort   // where requests arrive
	Upstreams []netip.AddrPort // the origin's endpoints, or the inbound sidecar
	Admin     netip.AddrPort   // metrics and readiness
	AccessLog bool
	Guards    string // "all" or "none" of Outrigger's guards; empty: those that are on by default
	Profile   bool   // the profiler is served on Admin, where a proxy has one
	Certs     Certs
}

// Certs are the files of one identity, in PEM, and whom it talks to.
type Certs struct {
	Cert, Key, Bundle string
	Pair              string // certificate and key in one file
	PeerName          string // DNS name in the other side's certificate
	PeerID            string // SPIFFE ID in the other side's certificate
}

// TLSListen says whether requests arrive over mutual TLS.
func (p Params) TLSListen() bool { return p.Role == Inbound }

// TLSUpstream says whether requests leave over mutual TLS.
func (p Params) TLSUpstream() bool { return p.Role == Outbound }

// IsTCP says whether bytes are relayed as they are.
func (p Params) IsTCP() bool { return p.Protocol == TCP }

// H2Listen says whether requests arrive over HTTP/2.
func (p Params) H2Listen() bool {
	return p.Protocol == HTTP2 || p.Protocol == GRPC || p.HopH2 && p.Role == Inbound
}

// H2Upstream says whether requests leave over HTTP/2.
func (p Params) H2Upstream() bool {
	return p.Protocol == HTTP2 || p.Protocol == GRPC || p.HopH2 && p.Role == Outbound
}

// Upstream is the first of the upstreams.
func (p Params) Upstream() netip.AddrPort { return p.Upstreams[0] }

// UpstreamPort is the port of the first upstream.
func (p Params) UpstreamPort() uint16 { return p.Upstream().Port() }

// Idle is how many idle upstream connections a proxy should keep: more than
// 256 clients need, and some for each endpoint.
func (p Params) Idle() int { return max(512, 2*len(p.Upstreams)) }

// Render fills in the template NAME.conf.tmpl.
func Render(name string, p Params) (string, error) {
	t, err := template.New(name+".conf.tmpl").Option("missingkey=error").ParseFS(files, name+".conf.tmpl")
	if err != nil {
		return "", fmt.Errorf("peers: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, p); err != nil {
		return "", fmt.Errorf("peers: %w", err)
	}
	return b.String(), nil
}
