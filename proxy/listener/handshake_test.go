package listener

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

func TestStrictServesAVerifiedCaller(t *testing.T) {
	r := start(t, nil)
	c := r.caller()
	echoes(t, c, "hello")
	if v := c.ConnectionState().Version; v != tls.VersionTLS13 {
		t.Errorf("version %x", v)
	}
	states := r.l.States(10)
	if len(states) != 1 {
		t.Fatalf("%d connections, want 1", len(states))
	}
	s := states[0]
	if s.Peer.ID.String() != callerID || s.Peer.TLS != tls.VersionTLS13 || s.Peer.Addr.String() != c.LocalAddr().String() {
		t.Errorf("peer %+v", s.Peer)
	}
	sum := sha256.Sum256(leaf(t, r))
	if want := "By=" + ownID + ";Hash=" + hex.EncodeToString(sum[:]) + ";URI=" + callerID; string(s.Peer.ClientCert) != want {
		t.Errorf("x-forwarded-client-cert %q, want %q", s.Peer.ClientCert, want)
	}
	if k := r.log.kinds(); len(k) != 0 {
		t.Errorf("handshakes failed: %v", k)
	}
}

// leaf returns the certificate of the one connection's caller.
func leaf(t *testing.T, r *rig) []byte {
	t.Helper()
	for _, c := range r.l.snapshot() {
		state := c.wire.TLS().ConnectionState()
		return state.PeerCertificates[0].Raw
	}
	t.Fatal("no connection")
	return nil
}

func TestRefusedHandshakes(t *testing.T) {
	tests := map[string]struct {
		kind  string
		alert string // part of what the caller is told
		cert  func() []tls.Certificate
	}{
		"no certificate": {"no_certificate", "certificate required", func() []tls.Certificate { return nil }},
		"foreign": {"untrusted", "bad certificate", func() []tls.Certificate {
			return []tls.Certificate{testkit.NewCA(t).Issue(callerID, nil)}
		}},
		"unknown trust domain": {"untrusted", "bad certificate", func() []tls.Certificate {
			return []tls.Certificate{authority().Issue("spiffe://other.example/web", nil)}
		}},
		"expired": {"expired", "bad certificate", func() []tls.Certificate {
			return []tls.Certificate{authority().Issue(callerID, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			})}
		}},
		"not yet valid": {"expired", "bad certificate", func() []tls.Certificate {
			return []tls.Certificate{authority().Issue(callerID, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })}
		}},
		"two identities": {"identity", "bad certificate", func() []tls.Certificate {
			return []tls.Certificate{authority().Issue(callerID, func(c *x509.Certificate) {
				c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "test.example", Path: "/admin"})
			})}
		}},
		"no identity": {"identity", "bad certificate", func() []tls.Certificate {
			return []tls.Certificate{authority().Issue(callerID, func(c *x509.Certificate) { c.URIs = nil })}
		}},
		"a server's certificate": {"identity", "bad certificate", func() []tls.Certificate {
			return []tls.Certificate{authority().Issue(callerID, func(c *x509.Certificate) {
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			})}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil)
			c := r.secure(tt.cert()...)
			// A TLS 1.3 caller is done before the server has seen its
			// certificate, and sends its first bytes: they must not cost it
			// the alert.
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(make([]byte, 30_000)); err != nil {
				t.Fatal(err)
			}
			_, err := c.Read(make([]byte, 1))
			var op *net.OpError
			if !errors.As(err, &op) || op.Op != "remote error" || !strings.Contains(err.Error(), tt.alert) {
				t.Errorf("the caller got %v, want the alert %q", err, tt.alert)
			}
			_ = c.Close()
			eventually(t, func() bool { return r.l.Connections() == 0 })
			if k := r.log.kinds(); !slices.Equal(k, []string{tt.kind}) {
				t.Errorf("logged %v, want %s", k, tt.kind)
			}
			if n := r.m.Connections.Value(); n != 1 {
				t.Errorf("%d connections counted, want 1", n)
			}
		})
	}
}

func TestBrokenHandshakes(t *testing.T) {
	tests := map[string]struct {
		kinds []string
		do    func(c *net.TCPConn)
	}{
		"plaintext":          {[]string{"protocol"}, func(c *net.TCPConn) { _, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) }},
		"a probe":            {nil, func(c *net.TCPConn) { _ = c.Close() }},
		"half a hello":       {[]string{"closed"}, func(c *net.TCPConn) { _, _ = c.Write([]byte{22, 3, 1, 0, 100, 1}); _ = c.CloseWrite() }},
		"one byte":           {[]string{"closed"}, func(c *net.TCPConn) { _, _ = c.Write([]byte{22}); _ = c.CloseWrite() }},
		"a garbled hello":    {[]string{"protocol"}, func(c *net.TCPConn) { _, _ = c.Write([]byte{22, 3, 1, 0, 4, 99, 0, 0, 0}) }},
		"an overlong record": {[]string{"protocol"}, func(c *net.TCPConn) { _, _ = c.Write([]byte{22, 3, 1, 0xff, 0xff, 1, 2, 3}) }},
		"an old version": {[]string{"protocol"}, func(c *net.TCPConn) {
			handshakeWith(c, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
		}},
		"a caller who refuses": {[]string{"closed"}, func(c *net.TCPConn) { handshakeWith(c, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "api"}) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil)
			c := r.dial()
			tt.do(c)
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
			eventually(t, func() bool { return r.l.Connections() == 0 && r.m.Connections.Value() == 1 })
			if k := r.log.kinds(); !slices.Equal(k, tt.kinds) {
				t.Errorf("logged %v, want %v", k, tt.kinds)
			}
		})
	}
}

func handshakeWith(c net.Conn, cfg *tls.Config) { _ = tls.Client(c, cfg).Handshake() }

func TestASilentCallerIsEnded(t *testing.T) {
	for _, security := range []plan.Security{plan.Strict, plan.Permissive} {
		for _, first := range []string{"", "\x16\x03\x01\x01\x00"} {
			r := start(t, func(p *plan.Listener) {
				p.HandshakeTimeout, p.Security, p.Protocol = 30*time.Millisecond, security, plan.HTTP
			})
			c := r.dial()
			if _, err := c.Write([]byte(first)); err != nil {
				t.Fatal(err)
			}
			isEnded(t, c)
			eventually(t, func() bool { return r.l.Connections() == 0 })
			if k := r.log.kinds(); !slices.Equal(k, []string{"timeout"}) {
				t.Errorf("logged %v, want timeout", k)
			}
		}
	}
}

func TestSlowCallersOccupyNoHandshake(t *testing.T) {
	r := start(t, func(p *plan.Listener) { p.MaxHandshakes = 1 })
	for range 20 {
		if _, err := r.dial().Write([]byte{22, 3, 1}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return r.l.Connections() == 20 })
	echoes(t, r.caller(), "hello")
}

func TestHandshakesAtOnceAreBounded(t *testing.T) {
	r := start(t, func(p *plan.Listener) { p.MaxHandshakes, p.HandshakeTimeout = 2, patience })
	s := r.l.slots.Load()
	// Two handshakes that do not come to an end.
	for range 2 {
		if !s.take(time.Now().Add(patience), nil) {
			t.Fatal("no slot")
		}
	}
	done := make(chan error, 1)
	c := r.secure(authority().Issue(callerID, nil))
	go func() { done <- c.Handshake() }()
	eventually(t, func() bool { return r.l.Connections() == 1 })
	select {
	case err := <-done:
		t.Fatalf("a third handshake was run: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	// More slots by a new plan: those in use belong to the old ones.
	r.change(func(p *plan.Listener) { p.MaxHandshakes = 3 })
	echoes(t, r.caller(), "hello")
	s.give()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	echoes(t, c, "hello")
	s.give()
	// Nobody gives a slot: refused in time.
	r.change(func(p *plan.Listener) { p.MaxHandshakes, p.HandshakeTimeout = 1, 20*time.Millisecond })
	s = r.l.slots.Load()
	s.take(time.Now().Add(patience), nil)
	late := r.secure(authority().Issue(callerID, nil))
	if err := late.Handshake(); err == nil {
		t.Error("a handshake beyond the bound was run")
	}
	s.give()
}

func TestPermissive(t *testing.T) {
	for _, protocol := range []plan.Protocol{plan.TCP, plan.HTTP} {
		r := start(t, func(p *plan.Listener) { p.Security, p.Protocol = plan.Permissive, protocol })
		secure, clear := net.Conn(r.caller()), net.Conn(r.dial())
		if protocol == plan.TCP {
			echoes(t, secure, "secure")
			echoes(t, clear, "clear")
		} else {
			for _, c := range []net.Conn{secure, clear} {
				if _, err := c.Write([]byte("BAD\r\n\r\n")); err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
					t.Errorf("%v: got %.40q, %v", protocol, b, err)
				}
			}
		}
		peers, lost := r.l.PlaintextPeers()
		if len(peers) != 1 || peers[0].Addr.String() != "127.0.0.1" || peers[0].Connections != 1 || lost != 0 {
			t.Errorf("plaintext peers %+v, %d lost", peers, lost)
		}
		if n := r.m.Plaintext.Value(); n != 1 {
			t.Errorf("%d plaintext connections counted, want 1", n)
		}
		if protocol == plan.TCP {
			secureStates := 0
			for _, s := range r.l.States(10) {
				if s.Peer.TLS != 0 {
					secureStates++
				}
			}
			if secureStates != 1 {
				t.Errorf("%d connections pass for mTLS, want 1", secureStates)
			}
		}
	}
}

func TestPermissiveIsStillVerified(t *testing.T) {
	r := start(t, func(p *plan.Listener) { p.Security = plan.Permissive })
	c := r.secure(testkit.NewCA(t).Issue(callerID, nil))
	_ = c.Handshake()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a foreign certificate was accepted")
	}
	eventually(t, func() bool { return slices.Equal(r.log.kinds(), []string{"untrusted"}) })
}

// The client of a protocol in which the server speaks first says nothing, and
// must be let through to the server.
func TestPermissiveServerFirst(t *testing.T) {
	greeting := tcpOrigin(t, func(c net.Conn) {
		if _, err := c.Write([]byte("welcome")); err == nil {
			_, _ = io.Copy(c, c)
		}
	})
	r := start(t, func(p *plan.Listener) { p.Security = plan.Permissive; setOrigin(p, greeting) })
	c := r.dial()
	b := make([]byte, 7)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "welcome" {
		t.Fatalf("got %q, %v", b, err)
	}
	echoes(t, c, "hello")
}

func TestInventoryIsBounded(t *testing.T) {
	l := &Listener{}
	for i := range maxPlaintextPeers + 10 {
		l.inventory.add(addr(i))
		l.inventory.add(addr(i))
	}
	peers, lost := l.PlaintextPeers()
	if len(peers) != maxPlaintextPeers || lost != 20 || peers[0].Connections != 2 {
		t.Errorf("%d peers, %d lost", len(peers), lost)
	}
	if !slices.IsSortedFunc(peers, func(a, b PlaintextPeer) int { return a.Addr.Compare(b.Addr) }) {
		t.Error("out of order")
	}
}
