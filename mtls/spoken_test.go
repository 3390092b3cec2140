package mtls

import (
	"crypto/tls"
	"testing"
)

// Several endpoints of one server name keep their sessions apart, so that all of them can resume.
func TestForPeer(t *testing.T) {
	ca := newTestCA(t)
	own := trust("d.test", ca)
	web := fixed(t, ca.issue(webID, nil), own)
	var servers [2]*tls.Config
	var names [2]string
	for i := range servers {
		servers[i] = ServerConfig(fixed(t, ca.issue(apiID, nil), own), ServerOptions{})
		get := servers[i].GetConfigForClient
		servers[i].GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			names[i] = h.ServerName
			return get(h)
		}
	}
	client := ClientConfig(web, ClientOptions{Expected: []ID{mustID(t, apiID)}, ServerName: "api.default.dc1.internal.d.test"})
	for turn := range 3 {
		for i, peer := range []string{"10.0.0.1:1", "10.0.0.2:1"} {
			good(t, shake(servers[i], ForPeer(client, peer)), turn > 0)
		}
	}
	if names[0] != "api.default.dc1.internal.d.test" || names[1] != names[0] {
		t.Errorf("servers saw the names %q", names)
	}
	nameless := ClientConfig(web, ClientOptions{Expected: []ID{mustID(t, apiID)}})
	if ForPeer(nameless, "10.0.0.1:1") != nameless {
		t.Error("a configuration without server name is copied, which every dial would pay for")
	}
}

func TestChosenVersionsAndSuites(t *testing.T) {
	ca := newTestCA(t)
	own := trust("d.test", ca)
	server, client := fixed(t, ca.issue(apiID, nil), own), fixed(t, ca.issue(webID, nil), own)
	chacha, ok := Suite("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
	if !ok || chacha != tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 {
		t.Fatalf("suite %x, %t", chacha, ok)
	}
	for _, name := range []string{"TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "TLS_AES_128_GCM_SHA256", ""} {
		if _, ok := Suite(name); ok {
			t.Errorf("%q passes", name)
		}
	}
	any := ClientOptions{TrustDomains: []string{"d.test"}}
	r := shake(ServerConfig(server, ServerOptions{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{chacha}}), ClientConfig(client, any))
	good(t, r, false)
	if r.client.Version != tls.VersionTLS12 || r.client.CipherSuite != chacha {
		t.Errorf("version %x, suite %x", r.client.Version, r.client.CipherSuite)
	}
	any.MaxVersion, any.CipherSuites = tls.VersionTLS12, []uint16{chacha}
	r = shake(ServerConfig(server, ServerOptions{}), ClientConfig(client, any))
	good(t, r, false)
	if r.server.Version != tls.VersionTLS12 || r.server.CipherSuite != chacha {
		t.Errorf("version %x, suite %x", r.server.Version, r.server.CipherSuite)
	}
	other, _ := Suite("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")
	if r := shake(ServerConfig(server, ServerOptions{CipherSuites: []uint16{other}}), ClientConfig(client, any)); r.serverError == nil {
		t.Error("a suite that was not chosen is spoken")
	}
}
