package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// result is how one handshake went, seen from both sides.
type result struct {
	client, server           tls.ConnectionState
	clientError, serverError error
}

// shake runs a handshake and one byte each way within memory.
func shake(server, client *tls.Config) result {
	cc, sc := bufferedPipe()
	return shakeOver(cc, sc, server, client)
}

func shakeOver(cc, sc net.Conn, server, client *tls.Config) result {
	var r result
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer sc.Close()
		conn := tls.Server(sc, server)
		if r.serverError = conn.Handshake(); r.serverError != nil {
			return
		}
		r.server = conn.ConnectionState()
		var b [1]byte
		if _, r.serverError = conn.Read(b[:]); r.serverError == nil {
			_, r.serverError = conn.Write(b[:])
		}
	}()
	conn := tls.Client(cc, client)
	if r.clientError = conn.Handshake(); r.clientError == nil {
		r.client = conn.ConnectionState()
		if _, r.clientError = conn.Write([]byte{'x'}); r.clientError == nil {
			_, r.clientError = conn.Read(make([]byte, 1))
		}
	}
	cc.Close()
	<-done
	return r
}

func wantKind(t *testing.T, side string, err error, kind VerifyKind) *VerifyError {
	t.Helper()
	var v *VerifyError
	if !errors.As(err, &v) {
		t.Fatalf("%s: got error %v, want a VerifyError of kind %s", side, err, kind)
	}
	if v.Kind != kind {
		t.Fatalf("%s: got %v, want kind %s", side, v, kind)
	}
	if v.Want == "" || v.Got == "" {
		t.Errorf("%s: the error does not say what was expected and what came: %+v", side, v)
	}
	return v
}

const (
	webID = "spiffe://d.test/web"
	apiID = "spiffe://d.test/api"
)

func TestHandshake(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	own := trust("d.test", ca)
	both := map[string]*x509.CertPool{"d.test": pool(ca), "o.test": pool(other)}
	good := ca.issue(webID, nil)
	api := ca.issue(apiID, nil)
	expectAPI := ClientOptions{Expected: []ID{mustID(t, apiID)}}
	addURI := func(c *x509.Certificate) {
		c.URIs = append(c.URIs, &url.URL{Scheme: "https", Host: "x.test"})
	}
	past := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	future := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	}
	none := func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"api"} }
	isCA := func(c *x509.Certificate) { c.IsCA = true }
	certSign := func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }
	noSignature := func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }
	usage := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}

	for _, c := range []struct {
		name           string
		server, client *Feed
		so             ServerOptions
		co             ClientOptions
		max            uint16 // highest version of the client
		atClient       VerifyKind
		atServer       VerifyKind
		says           string // in the error of the side that refuses
	}{
		{name: "right", server: fixed(t, api, own), client: fixed(t, good, own), co: expectAPI},
		{name: "one of several", server: fixed(t, api, own), client: fixed(t, good, own), co: ClientOptions{Expected: []ID{mustID(t, webID), mustID(t, apiID)}}},
		{name: "whole trust domain", server: fixed(t, api, own), client: fixed(t, good, own), co: ClientOptions{TrustDomains: []string{"d.test"}}},
		{
			name: "wrong identity", server: fixed(t, ca.issue("spiffe://d.test/billing", nil), own), client: fixed(t, good, own), co: expectAPI,
			atClient: WrongIdentity, says: "expected spiffe://d.test/api, got spiffe://d.test/billing",
		},
		{name: "identity that only begins like it", server: fixed(t, ca.issue(apiID+"2", nil), own), client: fixed(t, good, own), co: expectAPI, atClient: WrongIdentity},
		{name: "nobody expected", server: fixed(t, api, own), client: fixed(t, good, own), atClient: WrongTrustDomain, says: "no identity is configured"},
		{
			name: "wrong trust domain", server: fixed(t, other.issue("spiffe://o.test/api", nil), both), client: fixed(t, good, both), co: expectAPI,
			atClient: WrongTrustDomain, says: "got spiffe://o.test/api",
		},
		{
			name: "trust domain without bundle", server: fixed(t, other.issue("spiffe://o.test/api", nil), both), client: fixed(t, good, own), co: expectAPI,
			atClient: UnknownTrustDomain, says: "spiffe://o.test/api",
		},
		{name: "client of a trust domain without bundle", server: fixed(t, api, own), client: fixed(t, other.issue("spiffe://o.test/web", nil), both), co: expectAPI, atServer: UnknownTrustDomain},
		{name: "client of a federated trust domain", server: fixed(t, api, both), client: fixed(t, other.issue("spiffe://o.test/web", nil), both), co: expectAPI},
		{
			name: "client of a federated trust domain not wanted", server: fixed(t, api, both), client: fixed(t, other.issue("spiffe://o.test/web", nil), both), co: expectAPI,
			so: ServerOptions{TrustDomains: []string{"d.test"}}, atServer: WrongTrustDomain,
		},
		{name: "foreign CA", server: forced(other.issue(apiID, nil), own), client: fixed(t, good, own), co: expectAPI, atClient: UntrustedChain},
		{name: "federated CA oversteps its trust domain", server: forced(other.issue(apiID, nil), both), client: fixed(t, good, both), co: expectAPI, atClient: UntrustedChain},
		{name: "federated CA oversteps as a client", server: fixed(t, api, both), client: forced(other.issue(webID, nil), both), co: expectAPI, atServer: UntrustedChain},
		{name: "intermediate", server: fixed(t, ca.intermediate().issue(apiID, nil), own), client: fixed(t, ca.intermediate().issue(webID, nil), own), co: expectAPI},
		{name: "expired server", server: fixed(t, ca.issue(apiID, past), own), client: fixed(t, good, own), co: expectAPI, atClient: Expired, says: "valid until"},
		{name: "expired client", server: fixed(t, api, own), client: fixed(t, ca.issue(webID, past), own), co: expectAPI, atServer: Expired, says: "valid until"},
		{name: "server not yet valid", server: fixed(t, ca.issue(apiID, future), own), client: fixed(t, good, own), co: expectAPI, atClient: NotYetValid, says: "valid from"},
		{name: "client not yet valid", server: fixed(t, api, own), client: fixed(t, ca.issue(webID, future), own), co: expectAPI, atServer: NotYetValid},
		{name: "server with two URI SANs", server: forced(ca.issue(apiID, addURI), own), client: fixed(t, good, own), co: expectAPI, atClient: BadCertificate, says: "2 URI SANs"},
		{name: "client with two URI SANs", server: fixed(t, api, own), client: forced(ca.issue(webID, addURI), own), co: expectAPI, atServer: BadCertificate, says: "2 URI SANs"},
		{name: "no URI SAN", server: forced(ca.issue(apiID, none), own), client: fixed(t, good, own), co: expectAPI, atClient: BadCertificate, says: "no URI SAN"},
		{name: "CA as a leaf", server: forced(ca.issue(apiID, isCA), own), client: fixed(t, good, own), co: expectAPI, atClient: BadCertificate, says: "is a CA"},
		{name: "client CA as a leaf", server: fixed(t, api, own), client: forced(ca.issue(webID, isCA), own), co: expectAPI, atServer: BadCertificate},
		{name: "leaf that may sign certificates", server: forced(ca.issue(apiID, certSign), own), client: fixed(t, good, own), co: expectAPI, atClient: BadCertificate},
		{name: "leaf without digitalSignature", server: forced(ca.issue(apiID, noSignature), own), client: fixed(t, good, own), co: expectAPI, atClient: BadCertificate},
		{name: "leaf without path", server: forced(ca.issue("spiffe://d.test", nil), own), client: fixed(t, good, own), co: ClientOptions{TrustDomains: []string{"d.test"}}, atClient: BadCertificate},
		{name: "no SPIFFE ID in the URI SAN", server: forced(ca.issue("https://d.test/api", nil), own), client: fixed(t, good, own), co: expectAPI, atClient: BadCertificate},
		{name: "client certificate as a server", server: forced(ca.issue(apiID, usage(x509.ExtKeyUsageClientAuth)), own), client: fixed(t, good, own), co: expectAPI, atClient: WrongUsage},
		{name: "server certificate as a client", server: fixed(t, api, own), client: forced(ca.issue(webID, usage(x509.ExtKeyUsageServerAuth)), own), co: expectAPI, atServer: WrongUsage},
		{name: "no extended key usage", server: fixed(t, ca.issue(apiID, usage()), own), client: fixed(t, good, own), co: expectAPI},
		{name: "TLS 1.2 client", server: fixed(t, api, own), client: fixed(t, good, own), co: expectAPI, max: tls.VersionTLS12},
		{name: "TLS 1.2 client with a foreign certificate", server: fixed(t, api, own), client: forced(other.issue(webID, nil), own), co: expectAPI, max: tls.VersionTLS12, atServer: UntrustedChain},
		{name: "TLS 1.2 server with a wrong identity", server: fixed(t, good, own), client: fixed(t, good, own), co: expectAPI, max: tls.VersionTLS12, atClient: WrongIdentity},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := ClientConfig(c.client, c.co)
			client.MaxVersion = c.max
			r := shake(ServerConfig(c.server, c.so), client)
			var refusal *VerifyError
			switch {
			case c.atClient != 0:
				refusal = wantKind(t, "client", r.clientError, c.atClient)
				if r.serverError == nil {
					t.Error("the server did not notice")
				}
			case c.atServer != 0:
				refusal = wantKind(t, "server", r.serverError, c.atServer)
				if r.clientError == nil {
					t.Error("the client did not notice")
				}
			default:
				if r.clientError != nil || r.serverError != nil {
					t.Fatalf("client: %v, server: %v", r.clientError, r.serverError)
				}
				want := uint16(tls.VersionTLS13)
				if c.max != 0 {
					want = c.max
				}
				if r.client.Version != want {
					t.Errorf("version %x, want %x", r.client.Version, want)
				}
				seen, err := PeerID(&r.client)
				if err != nil || seen != c.server.Material().ID {
					t.Errorf("the client sees %q (%v), want %q", seen, err, c.server.Material().ID)
				}
				seen, err = PeerID(&r.server)
				if err != nil || seen != c.client.Material().ID {
					t.Errorf("the server sees %q (%v), want %q", seen, err, c.client.Material().ID)
				}
				return
			}
			if !strings.Contains(refusal.Error(), c.says) {
				t.Errorf("error %q does not say %q", refusal, c.says)
			}
		})
	}
}

func TestAnonymousClients(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	own := trust("d.test", ca)
	server := fixed(t, ca.issue(apiID, nil), own)
	bare := func() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

	r := shake(ServerConfig(server, ServerOptions{}), bare())
	if r.serverError == nil || r.clientError == nil {
		t.Errorf("a client without certificate was accepted: server %v, client %v", r.serverError, r.clientError)
	}
	permissive := ServerConfig(server, ServerOptions{AllowAnonymous: true})
	if r = shake(permissive, bare()); r.serverError != nil || r.clientError != nil {
		t.Errorf("permissive: server %v, client %v", r.serverError, r.clientError)
	}
	if _, err := PeerID(&r.server); err == nil {
		t.Error("an anonymous client has an identity")
	} else {
		wantKind(t, "PeerID", err, NoCertificate)
	}
	// Permissive is no licence for a bad certificate.
	bad := ClientConfig(forced(other.issue(webID, nil), own), ClientOptions{TrustDomains: []string{"d.test"}})
	wantKind(t, "permissive server", shake(permissive, bad).serverError, UntrustedChain)
	if r = shake(permissive, ClientConfig(fixed(t, ca.issue(webID, nil), own), ClientOptions{TrustDomains: []string{"d.test"}})); r.serverError != nil {
		t.Error(r.serverError)
	} else if id, err := PeerID(&r.server); err != nil || id.String() != webID {
		t.Errorf("permissive, with certificate: %q, %v", id, err)
	}
}

func TestVersionsAndSuites(t *testing.T) {
	ca := newTestCA(t)
	own := trust("d.test", ca)
	server, client := fixed(t, ca.issue(apiID, nil), own), fixed(t, ca.issue(webID, nil), own)
	co := ClientOptions{TrustDomains: []string{"d.test"}}

	old := ClientConfig(client, co)
	old.MaxVersion = tls.VersionTLS12
	if r := shake(ServerConfig(server, ServerOptions{MinVersion: tls.VersionTLS13}), old); r.serverError == nil || r.clientError == nil {
		t.Error("TLS 1.2 was accepted below the minimum")
	}
	cbc := ClientConfig(client, co)
	cbc.MaxVersion, cbc.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	if r := shake(ServerConfig(server, ServerOptions{}), cbc); r.serverError == nil {
		t.Error("a CBC suite was accepted")
	}
	ancient := ClientConfig(client, co)
	ancient.MinVersion, ancient.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if r := shake(ServerConfig(server, ServerOptions{}), ancient); r.serverError == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

func TestALPN(t *testing.T) {
	ca := newTestCA(t)
	own := trust("d.test", ca)
	server, client := fixed(t, ca.issue(apiID, nil), own), fixed(t, ca.issue(webID, nil), own)
	for _, c := range []struct {
		server, client []string
		want           string
	}{
		{nil, nil, ""},
		{[]string{"http/1.1"}, []string{"http/1.1"}, "http/1.1"},
		{[]string{"h2", "http/1.1"}, []string{"http/1.1"}, "http/1.1"},
		{[]string{"http/1.1"}, nil, ""},
		{nil, []string{"h2"}, ""},
		{[]string{"http/1.1"}, []string{"h2"}, ""},
		{[]string{"outrigger/1"}, []string{"h2", "http/1.1"}, ""},
	} {
		r := shake(ServerConfig(server, ServerOptions{NextProtos: c.server}),
			ClientConfig(client, ClientOptions{TrustDomains: []string{"d.test"}, NextProtos: c.client}))
		if r.clientError != nil || r.serverError != nil {
			t.Errorf("server %q, client %q: %v, %v", c.server, c.client, r.serverError, r.clientError)
		} else if r.client.NegotiatedProtocol != c.want || r.server.NegotiatedProtocol != c.want {
			t.Errorf("server %q, client %q: negotiated %q and %q, want %q", c.server, c.client, r.server.NegotiatedProtocol, r.client.NegotiatedProtocol, c.want)
		}
	}
}

func TestNoMaterialYet(t *testing.T) {
	ca := newTestCA(t)
	own := trust("d.test", ca)
	ready, empty := fixed(t, ca.issue(apiID, nil), own), NewFeed("test")
	co := ClientOptions{TrustDomains: []string{"d.test"}}
	if r := shake(ServerConfig(empty, ServerOptions{}), ClientConfig(ready, co)); !errors.Is(r.serverError, ErrNoMaterial) || r.clientError == nil {
		t.Errorf("server: %v, client: %v", r.serverError, r.clientError)
	}
	if r := shake(ServerConfig(ready, ServerOptions{}), ClientConfig(empty, co)); !errors.Is(r.clientError, ErrNoMaterial) || r.serverError == nil {
		t.Errorf("client: %v, server: %v", r.clientError, r.serverError)
	}
}
