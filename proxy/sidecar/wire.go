package sidecar

import (
	"fmt"
	"slices"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/mtls"
)

const meshEntry = "mesh mesh"

// wire says what is spoken under the protocols, what the application is told of its callers' certificates, and in what
// form it gets requests.
func (t *translation) wire() {
	m := &t.s.Mesh
	if m.TLS != nil {
		t.tls("Incoming", "incoming", m.TLS.Incoming, &t.Config.Identity.TLS.Incoming)
		t.tls("Outgoing", "outgoing", m.TLS.Outgoing, &t.Config.Identity.TLS.Outgoing)
	}
	if m.ValidateClusters {
		t.find(Ignored, meshEntry, "ValidateClusters", "is how Envoy checks routes; here chains are checked in any case before they are put to use", "")
	}
	c, from := &t.Config.Inbound.ClientCert, "Consul's default"
	header := config.ClientCertAppendForward
	if t.Config.Service.Protocol == config.ProtocolGRPC {
		header = config.ClientCertSanitize // as Consul has it of Envoy
	}
	if m.HTTP != nil && m.HTTP.SanitizeXForwardedClientCert {
		header, from = config.ClientCertSanitize, "Consul "+meshEntry+" HTTP.SanitizeXForwardedClientCert"
	}
	put(t, &c.Header, header, "inbound.client_cert.header", from)
	put(t, &c.Fields, config.ClientCertFields(), "inbound.client_cert.fields", "Consul's default")
	if t.Config.Service.Protocol.HTTP() {
		t.normalize()
	}
}

// tls takes the versions and suites of one direction. What is older than TLS 1.2 is never spoken.
func (t *translation) tls(name, key string, m *mesh.MeshTLS, r *config.TLSRange) {
	if m == nil {
		return
	}
	path, at := "identity.tls."+key, "TLS."+name+"."
	from := "Consul " + meshEntry + " " + at
	switch v := m.TLSMinVersion; v {
	case "", "TLS_AUTO":
	case "TLSv1_2", "TLSv1_3":
		put(t, &r.Min, version(v), path+".min", from+"TLSMinVersion")
	case "TLSv1_0", "TLSv1_1":
		t.find(Differs, meshEntry, at+"TLSMinVersion", "is "+v+", which is not safe; TLS 1.2 is the oldest that is spoken", "write TLSv1_2")
	default:
		t.find(Refused, meshEntry, at+"TLSMinVersion", "is "+v+", which is not known; only TLS 1.3 is spoken", "write TLSv1_2 or TLSv1_3")
		put(t, &r.Min, "1.3", path+".min", from+"TLSMinVersion")
	}
	switch v := m.TLSMaxVersion; v {
	case "", "TLS_AUTO", "TLSv1_3":
	case "TLSv1_2":
		put(t, &r.Max, version(v), path+".max", from+"TLSMaxVersion")
	default:
		t.find(Refused, meshEntry, at+"TLSMaxVersion", "is "+v+", above which nothing is allowed, while TLS 1.2 is the oldest that is spoken; it is not heeded", "write TLSv1_2 or TLSv1_3")
	}
	if len(m.CipherSuites) == 0 {
		return
	}
	var suites []string
	for _, s := range m.CipherSuites {
		if _, ok := mtls.Suite(s); !ok {
			t.find(Refused, meshEntry, at+"CipherSuites", fmt.Sprintf("names %s, which has no forward secrecy or no authenticated encryption, or is not known; it is not spoken", s), "leave it out")
		} else if !slices.Contains(suites, s) {
			suites = append(suites, s)
		}
	}
	switch {
	case r.Min == "1.3":
		t.find(Ignored, meshEntry, at+"CipherSuites", "are those of TLS 1.2, which is not spoken", "")
	case len(suites) == 0:
		t.find(Refused, meshEntry, at+"CipherSuites", "names no suite that is spoken; only TLS 1.3 is", "name a suite such as TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
		put(t, &r.Min, "1.3", path+".min", from+"CipherSuites")
	default:
		put(t, &r.CipherSuites, suites, path+".cipher_suites", from+"CipherSuites")
	}
}

func version(consul string) string {
	if consul == "TLSv1_3" {
		return "1.3"
	}
	return "1.2"
}
