package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// answerTo sends a request over TLS with the given certificate and returns
// what came back, which is nothing when the handshake is refused.
func answerTo(t *testing.T, address string, cert *tls.Certificate) []byte {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return answerOn(c, cert)
}

// answerOn is answerTo on a connection, which it closes.
func answerOn(c net.Conn, cert *tls.Certificate) []byte {
	cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	s := tls.Client(c, cfg)
	if s.Handshake() != nil {
		return nil
	}
	// In TLS 1.3 the client has finished before the server has looked at it.
	_, _ = io.WriteString(s, "GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")
	b, _ := io.ReadAll(s)
	return b
}

// A strict port refuses every caller without a good SVID of a trusted domain,
// and says why in metric and log; the application hears nothing of it.
func TestStrictRefusesCallers(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	api, address := m.inbound("api", serve(t, echo("api")), nil)
	api.ready()
	foreign := newAuthority(t)
	second, err := url.Parse(spiffe("other"))
	if err != nil {
		t.Fatal(err)
	}
	good := m.ca.issue(spiffe("web"), nil)
	if b := answerTo(t, address, &good); !bytes.HasPrefix(b, []byte("HTTP/1.1 200")) {
		t.Fatalf("with a good SVID: %q", b)
	}

	certificates := []struct {
		name, kind string
		cert       func() *tls.Certificate
	}{
		{"no certificate", "no_certificate", func() *tls.Certificate { return nil }},
		{"wrong trust domain", "untrusted", func() *tls.Certificate { c := foreign.issue("spiffe://foreign.test/web", nil); return &c }},
		{"own trust domain from a foreign root", "untrusted", func() *tls.Certificate { c := foreign.issue(spiffe("web"), nil); return &c }},
		{"expired", "expired", func() *tls.Certificate {
			c := m.ca.issue(spiffe("web"), func(x *x509.Certificate) {
				x.NotBefore, x.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			})
			return &c
		}},
		{"two URI SANs", "identity", func() *tls.Certificate {
			c := m.ca.issue(spiffe("web"), func(x *x509.Certificate) { x.URIs = append(x.URIs, second) })
			return &c
		}},
		{"no URI SAN", "identity", func() *tls.Certificate {
			c := m.ca.issue(spiffe("web"), func(x *x509.Certificate) { x.URIs, x.DNSNames = nil, []string{"web"} })
			return &c
		}},
	}
	for _, c := range certificates {
		before := api.metric("outrigger_listener_handshake_failures_total", `kind="`+c.kind+`"`)
		if b := answerTo(t, address, c.cert()); len(b) != 0 {
			t.Errorf("%s: answer %q", c.name, b)
		}
		api.counts(before+1, "outrigger_listener_handshake_failures_total", `kind="`+c.kind+`"`)
		api.says("handshake_failed", c.kind)
	}

	t.Run("plaintext", func(t *testing.T) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(c); bytes.Contains(b, []byte("200")) {
			t.Errorf("answer %q", b)
		}
		api.counts(1, "outrigger_listener_handshake_failures_total", `kind="protocol"`)
	})
	if n := api.metric("outrigger_exchanges_total", `direction="inbound"`); n != 1 {
		t.Errorf("%v exchanges were carried; only the good caller's was allowed", n)
	}
}

// A sidecar talks to nobody but the service it was asked for: an endpoint with
// another identity gets no request, and the caller is told which identity was
// found.
func TestImpostorsAreNotCalled(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	foreign := newAuthority(t)
	for _, c := range []struct {
		name string
		cert tls.Certificate
	}{
		{"another service", m.ca.issue(spiffe("other"), nil)},
		{"a foreign root", foreign.issue(spiffe("api"), nil)},
		{"an expired SVID", m.ca.issue(spiffe("api"), func(x *x509.Certificate) {
			x.NotBefore, x.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &mesh{t: t, dir: t.TempDir(), ca: m.ca}
			heard := make(chan string, 16)
			port := serveTCP(t, func(nc net.Conn) {
				s := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{c.cert}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13})
				_ = s.SetDeadline(time.Now().Add(patience))
				b := make([]byte, 1024)
				if n, _ := s.Read(b); n > 0 {
					heard <- string(b[:n])
				}
			})
			m.catalog(map[string][]string{"api": {loopback(port)}})
			web, call := m.outbound("web", "api", sections{"policies": "{api: {retry: off, outlier: off}}"})
			web.ready()
			resp, body := fetch(t, http.MethodGet, "http://"+call+"/", nil)
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("X-Outrigger-Reason") != "peer_identity" {
				t.Errorf("answer: %d %v %s", resp.StatusCode, resp.Header, body)
			}
			r := web.recorded("the failure", func(r *record) bool { return r.Reason == "peer_identity" })
			if r.Flag != "UI" || r.Status != 503 || r.Detail == "" {
				t.Errorf("record: %+v", r)
			}
			web.counts(1, "outrigger_upstream_connection_failures_total", `reason="peer_identity"`)
			select {
			case got := <-heard:
				t.Errorf("the impostor was sent %q", got)
			default:
			}
			if c.name == "another service" && !hasLine(r.Detail, spiffe("other")) {
				t.Errorf("the detail does not name the identity that was found: %s", r.Detail)
			}
		})
	}
}

// A plaintext endpoint is no endpoint of the mesh.
func TestPlaintextEndpointIsNotCalled(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.catalog(map[string][]string{"api": {loopback(serve(t, echo("plain")))}})
	web, call := m.outbound("web", "api", nil)
	web.ready()
	resp, body := fetch(t, http.MethodGet, "http://"+call+"/", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("X-Outrigger-Reason") != "handshake_failed" {
		t.Errorf("answer: %d %s", resp.StatusCode, body)
	}
	if r := web.recorded("the failure", func(r *record) bool { return r.Reason == "handshake_failed" }); r.Flag != "UX" {
		t.Errorf("record: %+v", r)
	}
}

// dialTLS opens a connection to a sidecar as somebody with the certificate.
func dialTLS(t *testing.T, address string, cert tls.Certificate) net.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
