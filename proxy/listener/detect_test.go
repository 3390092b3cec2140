package listener

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

// autoListener makes a listener take any protocol.
func autoListener(p *plan.Listener) {
	p.Protocol, p.DetectWait = plan.Auto, time.Millisecond
}

// protocols are those of the connections, the oldest first.
func (r *rig) protocols() string {
	var list []string
	for _, s := range r.l.States(10) {
		list = append(list, s.Protocol)
	}
	return strings.Join(list, " ")
}

func httpOrigin(t testing.TB) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") }))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

func get(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 15)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "HTTP/1.1 200 OK" {
		t.Fatalf("got %q, %v", b, err)
	}
}

// Any protocol, behind mTLS and without: each connection is what it turns out
// to be.
func TestAuto(t *testing.T) {
	for _, security := range []plan.Security{plan.Plaintext, plan.Strict, plan.Permissive} {
		t.Run(security.String(), func(t *testing.T) {
			r := start(t, func(p *plan.Listener) { autoListener(p); p.Security = security })
			connect := func() net.Conn {
				if security == plan.Plaintext {
					return r.dial()
				}
				return r.caller()
			}
			c := connect()
			echoes(t, c, "\x00hello")
			r.change(func(p *plan.Listener) { setOrigin(p, httpOrigin(t)) })
			h := connect()
			get(t, h)
			if got := r.protocols(); got != "tcp http1" {
				t.Errorf("connections: %s", got)
			}
			eventually(t, func() bool {
				list := r.l.States(10)
				return list[0].Busy && !list[1].Busy
			})
		})
	}
}

// What ALPN has settled is not found out again.
func TestAutoNegotiated(t *testing.T) {
	r := start(t, func(p *plan.Listener) {
		autoListener(p)
		p.TLS = serverTLS(t, "h2", "http/1.1")
		setOrigin(p, httpOrigin(t))
	})
	for _, alpn := range []string{"h2", "http/1.1"} {
		cfg := clientTLS(authority().Issue(callerID, nil))
		cfg.NextProtos = []string{alpn}
		c := tls.Client(r.dial(), cfg)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if alpn == "http/1.1" {
			get(t, c)
		} else {
			if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 9)
			if _, err := io.ReadFull(c, b); err != nil || b[3] != 4 {
				t.Fatalf("got %q, %v; want SETTINGS", b, err)
			}
		}
		_ = c.Close()
	}
	for _, c := range r.l.snapshot() {
		if c.detection.Load() != nil {
			t.Error("a connection was examined")
		}
	}
}

// A silent caller without mTLS is let through to the server after a while, and
// one with mTLS is told apart from it although its server speaks first.
func TestAutoPermissiveServerFirst(t *testing.T) {
	greeting := tcpOrigin(t, func(c net.Conn) {
		if _, err := c.Write([]byte("welcome")); err == nil {
			_, _ = io.Copy(c, c)
		}
	})
	r := start(t, func(p *plan.Listener) { autoListener(p); p.Security = plan.Permissive; setOrigin(p, greeting) })
	for _, c := range []net.Conn{r.caller(), r.dial()} {
		b := make([]byte, 7)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "welcome" {
			t.Fatalf("got %q, %v", b, err)
		}
		echoes(t, c, "hello")
	}
	if n := r.m.Plaintext.Value(); n != 1 {
		t.Errorf("%d plaintext connections are counted", n)
	}
}

// Those who have said nothing yet carry no exchange; the others go on.
func TestAutoCloseIdle(t *testing.T) {
	calls := make(chan struct{}, 10)
	quiet := tcpOrigin(t, func(c net.Conn) {
		calls <- struct{}{}
		_, _ = io.Copy(c, c)
	})
	r := start(t, func(p *plan.Listener) { autoListener(p); clear(p); setOrigin(p, quiet) })
	busy, silent := r.dial(), r.dial()
	echoes(t, busy, "\x00hello")
	<-calls
	<-calls // both are undecided or relayed now
	eventually(t, func() bool { return r.protocols() == "tcp auto" })
	r.l.CloseIdle()
	isEnded(t, silent)
	echoes(t, busy, "hello")
}

// New rules end what is carried as TCP, and let those go on of which it is not
// known yet what they are, or that are HTTP.
func TestAutoRecheck(t *testing.T) {
	r := start(t, func(p *plan.Listener) { autoListener(p); p.Route.Authz = policy(t, callerID) })
	tcp := r.caller()
	echoes(t, tcp, "\x00hello")
	r.change(func(p *plan.Listener) { setOrigin(p, httpOrigin(t)) })
	web := r.caller()
	get(t, web)
	silent := r.caller()
	eventually(t, func() bool { return r.protocols() == "tcp http1 auto" })
	if n := r.l.Recheck(); n != 0 {
		t.Errorf("%d ended under the same rules", n)
	}
	r.change(func(p *plan.Listener) { p.Route.Authz = policy(t, "spiffe://test.example/other") })
	if n := r.l.Recheck(); n != 1 {
		t.Errorf("%d ended, want 1", n)
	}
	isEnded(t, tcp)
	for _, c := range []net.Conn{web, silent} {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 12)
	if _, err := io.ReadFull(silent, b); err != nil || string(b) != "HTTP/1.1 403" {
		t.Errorf("got %q, %v", b, err)
	}
}
