package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// serveHTTP2 starts an application that speaks HTTP/2 by prior knowledge and
// nothing else, and returns its port.
func serveHTTP2(t *testing.T, h http.Handler) int {
	t.Helper()
	l, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// outboundAs is outbound with a protocol for the upstream.
func (m *mesh) outboundAs(protocol, service, upstream string, more sections) (*sidecar, string) {
	m.t.Helper()
	listen := freeAddress(m.t)
	s := sections{
		"service":   fmt.Sprintf("{name: %s}", service),
		"outbound":  fmt.Sprintf(`{upstreams: [{service: %s, listen: "%s", protocol: %s}]}`, upstream, listen, protocol),
		"discovery": m.discovery(),
	}
	return m.sidecar(service, s.with(more)), listen
}

// speaking is the section of a service api on port with the protocol.
func speaking(protocol string, port int) sections {
	return sections{"service": fmt.Sprintf("{name: api, port: %d, protocol: %s}", port, protocol)}
}

// relayTLS takes plain connections and passes what they carry on to address
// over TLS, and back, as a client with the certificate. It returns its address.
func relayTLS(t *testing.T, address string, c *tls.Config) string {
	t.Helper()
	port := serveTCP(t, func(down net.Conn) {
		up, err := tls.Dial("tcp", address, c)
		if err != nil {
			return
		}
		defer up.Close()
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = io.Copy(down, up)
			_ = down.Close()
		}()
		_, _ = io.Copy(up, down)
		_ = up.Close()
		<-gone
	})
	return loopback(port)
}

// h2spec is a conformance suite for HTTP/2 that nobody here wrote. All of its
// cases pass against the program, those too of what the RFC only recommends.
func TestH2spec(t *testing.T) {
	t.Parallel()
	bin := testkit.H2spec().Find(t)
	for _, c := range []struct {
		name  string
		start func(t *testing.T, m *mesh) (*sidecar, string)
	}{
		{"outbound to HTTP 1", func(t *testing.T, m *mesh) (*sidecar, string) {
			return m.plain(serve(t, echo("api")), nil)
		}},
		{"outbound to HTTP 2", func(t *testing.T, m *mesh) (*sidecar, string) {
			m.catalog(map[string][]string{"api": {loopback(serveHTTP2(t, echo("api")))}})
			return m.outboundAs("http2", "web", "api", sections{"identity": "", "policies": "{api: {transport: plaintext}}"})
		}},
		// h2spec has no client certificate, without which the listener
		// takes nobody: what it sends is passed on over a connection that has.
		{"inbound mTLS to HTTP 2", func(t *testing.T, m *mesh) (*sidecar, string) {
			port := serveHTTP2(t, echo("api"))
			s, in := m.inbound("api", port, speaking("http2", port))
			cert := m.ca.issue(spiffe("web"), nil)
			return s, relayTLS(t, in, &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, InsecureSkipVerify: true, Certificates: []tls.Certificate{cert},
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMesh(t)
			s, address := c.start(t, m)
			s.ready()
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, bin, "--strict", "--host", host, "--port", port, "--timeout", "3").CombinedOutput()
			text := string(out)
			if err != nil {
				if i := strings.Index(text, "Failures:"); i >= 0 {
					text = text[i:]
				}
				t.Fatalf("%v\n%s", err, text)
			}
			m2 := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`).FindStringSubmatch(text)
			if m2 == nil || m2[1] != "146" || m2[2] != "146" {
				t.Fatalf("not 146 of 146: %v", m2)
			}
			// It is still in service.
			if n := s.metric("outrigger_exchanges_active"); n != 0 {
				eventually(t, patience, "no exchange is left", func() (bool, string) {
					n := s.metric("outrigger_exchanges_active")
					return n == 0, fmt.Sprint(n)
				})
			}
		})
	}
}
