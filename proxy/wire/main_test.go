package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// mode is how the connection under test and its peer talk.
type mode uint8

const (
	plain mode = iota
	tlsServer
	tlsClient
	unixSocket // plain, over a Unix socket
)

func (m mode) String() string { return [...]string{"plain", "tls-server", "tls-client", "unix"}[m] }

// run runs f once for each mode.
func run(t *testing.T, f func(t *testing.T, m mode)) {
	t.Helper()
	for _, m := range []mode{plain, tlsServer, tlsClient, unixSocket} {
		t.Run(m.String(), func(t *testing.T) { f(t, m) })
	}
}

// configs are made once: signing takes longer than most tests.
var configs = sync.OnceValues(func() (server, client *tls.Config) {
	return testkit.NewCA(failing{}).MutualTLS()
})

// failing is the testing.TB of what is made outside of any one test.
type failing struct{ testing.TB }

func (failing) Helper()           {}
func (failing) Fatal(args ...any) { panic(args) }

// sockets returns the two ends of a TCP connection over loopback.
func sockets(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return accepted.(*net.TCPConn), dialled.(*net.TCPConn)
}

// unixSockets returns the two ends of a connection by a Unix socket.
func unixSockets(t testing.TB) (a, b Socket) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return accepted.(Socket), dialled.(Socket)
}

// peer is the far end of a connection under test: the standard library's.
type peer struct {
	net.Conn
	sock Socket
}

// reset ends the connection with a RST, which a Unix socket does not know.
func (p *peer) reset() {
	if s, ok := p.sock.(*net.TCPConn); ok {
		_ = s.SetLinger(0)
	}
	_ = p.sock.Close()
}

// closeWrite ends the sending side.
func (p *peer) closeWrite() error {
	return p.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// patience bounds what would otherwise hang when the code under test fails.
const patience = 20 * time.Second

// connect returns a connection under test and its peer, past their handshake.
func connect(t testing.TB, m mode, sw *Sweeper) (*Conn, *peer) {
	t.Helper()
	if m == unixSocket {
		a, b := unixSockets(t)
		return join(t, m, sw, a, b, b)
	}
	a, b := sockets(t)
	return join(t, m, sw, a, b, b)
}

// join makes a connection under test of a, whose peer speaks through far, to
// which near is the socket.
func join(t testing.TB, m mode, sw *Sweeper, a Socket, far net.Conn, near Socket) (*Conn, *peer) {
	t.Helper()
	server, client := configs()
	return joinTLS(t, m, sw, a, far, near, server, client)
}

func joinTLS(t testing.TB, m mode, sw *Sweeper, a Socket, far net.Conn, near Socket, server, client *tls.Config) (*Conn, *peer) {
	t.Helper()
	c, err := New(a, sw)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{far, near}
	t.Cleanup(func() {
		_ = p.sock.Close()
		_ = c.Close()
	})
	_ = p.SetDeadline(time.Now().Add(patience))
	until := time.Now().Add(patience)
	switch m {
	case tlsServer:
		tc := tls.Client(far, client)
		hand := async(tc.Handshake)
		if err := c.Server(server, until); err != nil {
			t.Fatal(err)
		}
		if err := <-hand; err != nil {
			t.Fatal(err)
		}
		p.Conn = tc
	case tlsClient:
		tc := tls.Server(far, server)
		hand := async(tc.Handshake)
		if err := c.Client(client, until); err != nil {
			t.Fatal(err)
		}
		if err := <-hand; err != nil {
			t.Fatal(err)
		}
		p.Conn = tc
	}
	return c, p
}

// async runs f and gives its error to the channel.
func async(f func() error) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- f() }()
	return ch
}

// want receives from ch and compares; it fails when nothing comes.
func want(t *testing.T, ch <-chan error, target error) {
	t.Helper()
	select {
	case err := <-ch:
		if !errors.Is(err, target) {
			t.Fatalf("got error %v, want %v", err, target)
		}
	case <-time.After(patience):
		t.Fatalf("still blocked; want error %v", target)
	}
}

// isEnd reports whether err says that the peer is gone, in whichever way the
// kernel had occasion to say it.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// holdsNothing fails when c holds a pooled buffer.
func holdsNothing(t *testing.T, c *Conn) {
	t.Helper()
	if c.buf != nil {
		t.Errorf("a buffer of %d bytes is held", len(c.buf))
	}
	if c.feed != nil && c.feed.buf != nil {
		t.Errorf("a record buffer of %d bytes is held", len(c.feed.buf))
	}
}

// pattern fills p with bytes that depend on their offset in the stream.
func pattern(p []byte, offset int) {
	for i := range p {
		p[i] = byte((offset + i) * 2654435761 >> 13)
	}
}

// checkPattern reports whether p is what pattern gives.
func checkPattern(p []byte, offset int) bool {
	for i := range p {
		if p[i] != byte((offset+i)*2654435761>>13) {
			return false
		}
	}
	return true
}
