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

// Params are what a template is rendered with.
type Params struct {
	Role      Role
	Dir       string         // the proxy's own directory
	Listen    netip.AddrPort // where requests arrive
	Upstream  netip.AddrPort // the origin, or the inbound sidecar
	Admin     netip.AddrPort // metrics and readiness
	AccessLog bool
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

// UpstreamPort is the port of Upstream.
func (p Params) UpstreamPort() uint16 { return p.Upstream.Port() }

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
