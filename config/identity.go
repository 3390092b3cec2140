package config

import (
	"net/netip"
	"strings"

	"github.com/outrigger-mesh/outrigger/mtls"
)

// IdentityTLS says which TLS is spoken with peers, as far as it may be chosen.
type IdentityTLS struct {
	// With those who call the service.
	Incoming TLSRange `yaml:"incoming"`
	// With the endpoints of upstreams.
	Outgoing TLSRange `yaml:"outgoing"`
}

// TLSRange is which TLS is spoken in one direction.
type TLSRange struct {
	// The oldest version. Default: identity.min_tls.
	Min string `yaml:"min" enum:"1.3,1.2"`
	// The newest version. Default: 1.3.
	Max string `yaml:"max" enum:"1.3,1.2"`
	// The cipher suites of TLS 1.2, by IANA name, of those with forward secrecy and authenticated encryption
	// (TLS_ECDHE_..._GCM_... and ..._CHACHA20_POLY1305_SHA256). Those of TLS 1.3 cannot be chosen. Empty: all.
	CipherSuites []string `yaml:"cipher_suites"`
}

// derive fills in what depends on the source of identity.
func (i *Identity) derive() {
	if i.ServiceID == "" {
		if i.ServiceID = "spiffe://{trust_domain}/{service}"; i.Consul != nil {
			i.ServiceID = i.Consul.ServiceID("{trust_domain}", "{datacenter}", "{service}")
		}
	}
	if i.MinTLS == "" {
		if i.MinTLS = "1.3"; i.Consul != nil {
			i.MinTLS = "1.2"
		}
	}
	for _, r := range [...]*TLSRange{&i.TLS.Incoming, &i.TLS.Outgoing} {
		if r.Max == "" {
			r.Max = "1.3"
		}
		if r.Min == "" {
			r.Min = min(i.MinTLS, r.Max)
		}
	}
}

// sources refuses more than one source of identity.
func (v *validator) sources() {
	i := &v.Identity
	first := ""
	for _, s := range [...]struct {
		name string
		set  bool
	}{{"workload_api", i.WorkloadAPI != ""}, {"files", i.Files != nil}, {"consul", i.Consul != nil}} {
		switch {
		case s.set && first != "":
			v.say("identity."+s.name, "is a second source of identity beside %s; keep one", first)
		case s.set:
			first = s.name
		}
	}
	v.bundles("identity.bundles", i.Bundles)
	if len(i.Bundles) > 0 && first == "" {
		v.say("identity.bundles", "are of no use without an identity; give workload_api, files or consul")
	}
	for _, d := range [...]struct {
		name string
		r    *TLSRange
	}{{"incoming", &i.TLS.Incoming}, {"outgoing", &i.TLS.Outgoing}} {
		path := "identity.tls." + d.name
		if d.r.Min > d.r.Max {
			v.say(path+".min", "is %s, above max, which is %s", d.r.Min, d.r.Max)
		}
		for n, name := range d.r.CipherSuites {
			if _, ok := mtls.Suite(name); !ok {
				v.say(joinIndex(path+".cipher_suites", n), "is %q; write the IANA name of a suite of TLS 1.2 with forward secrecy and authenticated encryption, such as TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", name)
			}
		}
		if d.r.Min == "1.3" && len(d.r.CipherSuites) > 0 {
			v.say(path+".cipher_suites", "are never used: min is 1.3, whose suites cannot be chosen; write min: \"1.2\"")
		}
	}
}

// bundles checks a map of trust domains to files.
func (v *validator) bundles(at string, files map[string]string) {
	for domain, file := range files {
		path := joinKey(at, domain)
		if _, err := mtls.ParseTrustDomain(domain); err != nil {
			v.say(path, "%v", err)
		} else if file == "" {
			v.say(path, "is empty; name the PEM file with the roots of %s", domain)
		}
	}
}

// serverName refuses what cannot be sent as a server name (RFC 6066, section 3).
func (v *validator) serverName(path, policy string, p *Policy) {
	name := p.ServerName
	if name == "" {
		return
	}
	path += ".server_name"
	switch {
	case policy == AnyService:
		v.say(path, "would be that of every upstream; give each its own")
	case p.Transport != TransportMTLS:
		v.say(path, "is never sent: transport is %s", p.Transport)
	case !hostName(name):
		v.say(path, "is %q; write a name of letters, digits, '-', '_' and '.', at most 253, no address", name)
	}
}

func hostName(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil || len(s) > 253 || strings.HasSuffix(s, ".") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, r := range label {
			switch {
			case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
			default:
				return false
			}
		}
	}
	return true
}
