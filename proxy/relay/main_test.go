package relay

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// patience bounds what would otherwise hang when the code under test fails.
const patience = 30 * time.Second

var configs = sync.OnceValues(func() (server, client *tls.Config) {
	return testkit.NewCA(failing{}).MutualTLS()
})

// failing is the testing.TB of what is made outside of any one test.
type failing struct{ testing.TB }

func (failing) Helper()           {}
func (failing) Fatal(args ...any) { panic(args) }

// legs says which legs of a relay are TLS, or Unix sockets.
type legs struct{ down, up, downUnix, upUnix bool }

func (l legs) String() string {
	return map[legs]string{
		{}: "splice", {down: true}: "tls to plain", {up: true}: "plain to tls", {down: true, up: true}: "tls to tls",
		{downUnix: true}: "unix to tcp", {upUnix: true}: "tcp to unix", {down: true, upUnix: true}: "tls to unix", {downUnix: true, upUnix: true}: "unix to unix",
	}[l]
}

// run runs f once for each kind of relay: spliced, and copied three ways, by TCP
// and Unix sockets.
func run(t *testing.T, f func(t *testing.T, l legs)) {
	t.Helper()
	for _, l := range []legs{{}, {down: true}, {up: true}, {down: true, up: true}, {downUnix: true}, {upUnix: true}, {down: true, upUnix: true}, {downUnix: true, upUnix: true}} {
		t.Run(l.String(), func(t *testing.T) { f(t, l) })
	}
}

// end is what a test holds of a leg: the far side.
type end struct {
	net.Conn
	sock wire.Socket
}

func (e *end) closeWrite() error {
	return e.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func (e *end) reset() {
	if s, ok := e.sock.(*net.TCPConn); ok {
		_ = s.SetLinger(0)
	}
	_ = e.sock.Close()
}

func sockets(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return s.(*net.TCPConn), d.(*net.TCPConn)
}

// unixSockets returns the two ends of a connection by a Unix socket.
func unixSockets(t testing.TB) (a, b wire.Socket) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return s.(wire.Socket), d.(wire.Socket)
}

// leg returns a connection of the relay's and its far side.
func leg(t testing.TB, sw *wire.Sweeper, secure, unix bool) (*wire.Conn, *end) {
	t.Helper()
	var a, b wire.Socket
	if unix {
		a, b = unixSockets(t)
	} else {
		a, b = sockets(t)
	}
	c, err := wire.New(a, sw)
	if err != nil {
		t.Fatal(err)
	}
	e := &end{b, b}
	t.Cleanup(func() {
		_ = b.Close()
		_ = c.Close()
	})
	_ = b.SetDeadline(time.Now().Add(patience))
	if secure {
		server, client := configs()
		tc := tls.Client(b, client)
		hand := make(chan error, 1)
		go func() { hand <- tc.Handshake() }()
		if err := c.Server(server, time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if err := <-hand; err != nil {
			t.Fatal(err)
		}
		e.Conn = tc
	}
	return c, e
}

// bench is a running relay.
type bench struct {
	sw             *wire.Sweeper
	down, up       *wire.Conn
	client, server *end
	result         chan Result
}

func start(t testing.TB, l legs, idle time.Duration) *bench {
	t.Helper()
	b := prepare(t, l)
	b.run(idle)
	return b
}

func prepare(t testing.TB, l legs) *bench {
	t.Helper()
	b := &bench{sw: wire.NewSweeper(time.Now()), result: make(chan Result, 1)}
	b.down, b.client = leg(t, b.sw, l.down, l.downUnix)
	b.up, b.server = leg(t, b.sw, l.up, l.upUnix)
	return b
}

func (b *bench) run(idle time.Duration) {
	go func() {
		r := Run(Conn(b.down), Conn(b.up), Options{Now: b.sw.Now, Idle: idle})
		_, _ = b.down.Close(), b.up.Close()
		b.result <- r
	}()
}

func (b *bench) wait(t testing.TB) Result {
	t.Helper()
	select {
	case r := <-b.result:
		return r
	case <-time.After(patience):
		t.Fatal("the relay does not end")
		return Result{}
	}
}

// descriptors returns how many the process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
