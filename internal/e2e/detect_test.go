package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const protocolsMetric = "outrigger_listener_protocol_connections_total"

// eachTransport runs f with a pair of sidecars that find out everything: one
// that shares a connection, and one whose two sides have to find out by
// themselves.
func eachTransport(t *testing.T, app int, f func(t *testing.T, p *pair)) {
	t.Helper()
	for _, multiplex := range []bool{true, false} {
		t.Run(fmt.Sprintf("multiplex %v", multiplex), func(t *testing.T) {
			p := newMesh(t).pairAs("auto", "auto", app, sections{"policies": fmt.Sprintf(`{"*": {multiplex: %v}}`, multiplex)}, nil)
			if p.shared = multiplex; multiplex {
				t.Cleanup(func() {
					if n := p.api.metric(protocolsMetric); n != p.api.metric(protocolsMetric, `protocol="mesh"`) {
						t.Errorf("%v connections to api", n)
					}
				})
			}
			f(t, p)
		})
	}
}

// found wants the sidecars to have counted n connections as protocol by how:
// web's, and where they share no connection that of api as well.
func (p *pair) found(n float64, protocol, how string) {
	p.web.t.Helper()
	for _, s := range []*sidecar{p.web, p.api} {
		if s == p.api && p.shared {
			continue
		}
		if got := s.metric(protocolsMetric, fmt.Sprintf("protocol=%q", protocol), fmt.Sprintf("how=%q", how)); got != n {
			s.t.Errorf("%s: %v connections are %s by %s; want %v", s.name, got, protocol, how, n)
		}
	}
}

// dial makes a connection to the address of a pair.
func (p *pair) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// proto answers with the protocol by which it was asked.
func proto(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, r.Proto)
}

// One pair of ports carries both versions of HTTP as they come, from quick and
// slow clients.
func TestAutoHTTP(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	app := httptest.NewUnstartedServer(http.HandlerFunc(proto))
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetHTTP1(true)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	t.Cleanup(func() {
		app.CloseClientConnections()
		app.Close()
	})
	eachTransport(t, app.Listener.Addr().(*net.TCPAddr).Port, func(t *testing.T, p *pair) {
		for _, c := range []struct{ option, want, version string }{
			{"--http1.1", "HTTP/1.1", "1.1"}, {"--http2-prior-knowledge", "HTTP/2.0", "2"}, {"--http1.1", "HTTP/1.1", "1.1"},
		} {
			id := fmt.Sprintf("auto-%s", c.version)
			cmd := exec.Command(curl, "-sS", "--max-time", "30", "--noproxy", "*", c.option, "-w", " %{http_version}",
				"-H", "X-Request-Id: "+id, "--data-binary", "@-", p.call+"/")
			cmd.Stdin = strings.NewReader(strings.Repeat("x", 100_000))
			if out := must(t, cmd); strings.ReplaceAll(out, c.want+" "+c.version, "") != "" {
				t.Errorf("%s: %s", c.option, out)
			}
			for _, s := range []*sidecar{p.web, p.api} {
				want := map[string]string{"1.1": "HTTP/1.1", "2": "HTTP/2"}[c.version]
				if r := s.recorded("the request", func(r *record) bool { return r.RequestID == id }); r.Protocol != want {
					t.Errorf("%s's record: %+v", s.name, r)
				}
			}
		}
		// Towards api HTTP/2 and HTTP/1.1 are settled by ALPN.
		if n := p.api.metric(protocolsMetric, `protocol="http2"`, `how="declared"`); n != 1 && !p.shared {
			t.Errorf("%v connections for HTTP/2 between the sidecars", n)
		}
		if n := p.web.metric(protocolsMetric, `protocol="http2"`, `how="detected"`); n != 1 {
			t.Errorf("%v connections for HTTP/2 from the application", n)
		}
		if n := p.web.metric(protocolsMetric, `protocol="http1"`, `how="detected"`); n != 2 {
			t.Errorf("%v connections for HTTP/1.1", n)
		}

		c := p.dial(t)
		for _, b := range []byte("POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 1\r\n\r\nx") {
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond) // a slow client, not a wait for anything
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "HTTP/1.1" {
			t.Errorf("a slow client got %q, %v", b, err)
		}

		// One that says nothing for longer than anybody waits, and then asks.
		c = p.dial(t)
		p.web.counts(1, "outrigger_listener_connections_active", `direction="outbound"`)
		time.Sleep(1500 * time.Millisecond) // beyond every wait but the idle time
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if resp, err = http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("a client that was silent at first: %v", err)
		}
		if n := p.web.metric(protocolsMetric, `protocol="tcp"`) + p.api.metric(protocolsMetric, `protocol="tcp"`); n != 0 {
			t.Errorf("%v connections were not taken for HTTP", n)
		}
	})
}

// TLS of the application's own goes through as it is; its ClientHello is told
// of.
func TestAutoTLS(t *testing.T) {
	t.Parallel()
	openssl := need(t, "openssl")
	app := httptest.NewUnstartedServer(http.HandlerFunc(proto))
	app.EnableHTTP2 = true
	app.StartTLS()
	t.Cleanup(app.Close)
	eachTransport(t, app.Listener.Addr().(*net.TCPAddr).Port, func(t *testing.T, p *pair) {
		client := app.Client() // which knows the certificate, for example.com
		client.Timeout = patience
		client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.address)
		}
		resp, err := client.Get("https://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(b) != "HTTP/2.0" || !resp.TLS.PeerCertificates[0].Equal(app.Certificate()) {
			t.Errorf("got %q, %v", b, err)
		}
		client.CloseIdleConnections()

		cmd := exec.Command(openssl, "s_client", "-connect", p.address, "-servername", "openssl.example", "-alpn", "http/1.1", "-quiet", "-ign_eof")
		cmd.Stdin = strings.NewReader("GET / HTTP/1.1\r\nHost: openssl.example\r\nConnection: close\r\n\r\n")
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil || !strings.HasSuffix(out.String(), "\r\n\r\nHTTP/1.1") {
			t.Errorf("openssl: %v, %s", err, out.String())
		}
		for name, alpn := range map[string]string{"example.com": "h2,http/1.1", "openssl.example": "http/1.1"} {
			for _, s := range []*sidecar{p.web, p.api} {
				if s == p.api && p.shared {
					continue // it has only been told that this is TCP
				}
				r := s.recorded("the connection to "+name, func(r *record) bool { return r.Authority == name })
				// Who closes before the other side has said goodbye, or before all that it
				// said was read, resets: Go's client and server do so now and then.
				ended := r.Flag == "-" || r.Reason == "upstream_reset" || r.Reason == "downstream_gone"
				if r.Protocol != "tls" || r.ALPN != alpn || !ended {
					t.Errorf("%s's record: %+v", s.name, r)
				}
			}
		}
		p.found(2, "tls", "detected")
		// A ClientHello that comes in pieces, and no name in it.
		c := tls.Client(slowly{p.dial(t)}, &tls.Config{InsecureSkipVerify: true})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		p.found(3, "tls", "detected")
	})
}

// slowly writes byte by byte.
type slowly struct{ net.Conn }

func (s slowly) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := s.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// A server that speaks first is waited for once in a while, and not at all when
// it is known; its half-closing client gets all it has to say.
func TestAutoServerFirst(t *testing.T) {
	t.Parallel()
	app := serveTCP(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "220 ready\r\n")
		b, _ := io.ReadAll(c)
		_, _ = io.WriteString(c, "221 "+string(b))
	})
	eachTransport(t, app, func(t *testing.T, p *pair) {
		for _, said := range []string{"QUIT\r\n", "GET / HTTP/1.1\r\n\r\n", ""} {
			c := p.dial(t)
			greeting := make([]byte, len("220 ready\r\n"))
			if _, err := io.ReadFull(c, greeting); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, said)
			_ = c.CloseWrite()
			rest, err := io.ReadAll(c)
			if got := string(greeting) + string(rest); err != nil || got != "220 ready\r\n221 "+said {
				t.Errorf("got %q, %v", got, err)
			}
		}
		p.found(1, "tcp", "server_first")
		p.found(2, "tcp", "remembered")
	})
}

// A client that ends its side without a word is carried to its server, too, and
// one that stops in the middle of a line.
func TestAutoHalfClose(t *testing.T) {
	t.Parallel()
	app := serveTCP(t, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "it said %q", b)
	})
	eachTransport(t, app, func(t *testing.T, p *pair) {
		for _, said := range []string{"", "HELO", "\x00\x01"} {
			c := p.dial(t)
			_, _ = io.WriteString(c, said)
			_ = c.CloseWrite()
			if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprintf("it said %q", said) {
				t.Errorf("%q: got %q, %v", said, got, err)
			}
		}
		p.found(3, "tcp", "detected")
	})
}

// A sidecar that finds out meets one that was told, and the other way round.
func TestAutoMixed(t *testing.T) {
	t.Parallel()
	app := httptest.NewUnstartedServer(http.HandlerFunc(proto))
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetHTTP1(true)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	t.Cleanup(func() {
		app.CloseClientConnections()
		app.Close()
	})
	port := app.Listener.Addr().(*net.TCPAddr).Port
	for _, c := range []struct{ web, api, http1, http2 string }{
		{"auto", "http", "HTTP/1.1", "HTTP/1.1"},
		{"auto", "http2", "HTTP/2.0", "HTTP/2.0"},
		{"auto", "tcp", "HTTP/1.1", "HTTP/2.0"},
		{"http", "auto", "HTTP/1.1", "HTTP/2.0"},
		{"http2", "auto", "HTTP/1.1", "HTTP/2.0"},
		{"tcp", "auto", "HTTP/1.1", "HTTP/2.0"},
	} {
		for _, multiplex := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s to %s, multiplex %v", c.web, c.api, multiplex), func(t *testing.T) {
				p := newMesh(t).pairAs(c.web, c.api, port, sections{"policies": fmt.Sprintf(`{"*": {multiplex: %v}}`, multiplex)}, nil)
				// A client that is silent for longer than it is waited for alone
				// must not be ended, whatever becomes of the call of the endpoint.
				silent := p.dial(t)
				if c.web == "auto" {
					p.web.counts(1, "outrigger_upstream_connections_total")
				}
				for _, http2 := range []bool{false, true} {
					want := map[bool]string{false: c.http1, true: c.http2}[http2]
					if !multiplex && c.api == "auto" && c.web != "tcp" {
						// What is told of the version is told by the one between them.
						want = map[string]string{"http": "HTTP/1.1", "http2": "HTTP/2.0"}[c.web]
					}
					resp, err := clientOf(t, http2).Get(p.call + "/")
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err != nil || string(b) != want {
						t.Errorf("HTTP/2 %v: the application was asked by %q, %v; want %q", http2, b, err, want)
					}
				}
				if _, err := io.WriteString(silent, "GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(silent); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
					t.Errorf("a client that was silent at first got %q, %v", b, err)
				}
			})
		}
	}
}
