// Package listener accepts connections, runs their TLS handshakes, tracks them, re-checks them against new rules and drains them.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// Listener is one bound socket. What is served on it follows the plan; the
// socket stays.
type Listener struct {
	srv *exchange.Server
	log *slog.Logger
	ln  net.Listener // nil where connections come from others that intercept them

	file *socketFile // of a Unix socket

	current   atomic.Pointer[plan.Listener]
	slots     atomic.Pointer[slots]
	inventory plaintextPeers
	certs     elements

	accepted atomic.Uint64
	wg       sync.WaitGroup

	// What an intercepting Listener needs.
	bound     netip.AddrPort
	directory atomic.Pointer[Directory]
	originals wire.Originals // of the goroutine that accepts
	loops     loops
	ready     chan struct{} // closed once there is a plan

	// accept is closed by Stop, serving by CloseAll after it.
	accept, serving chan struct{}

	mu      sync.Mutex
	conns   map[*conn]struct{}
	stopped bool // nothing is admitted any more
	ended   bool // serving is closed

	directed bool // ready is closed
	held     int  // connections that wait for ready
}

// Bind opens the socket of l without accepting. The error names the address
// and what to do.
func Bind(l *plan.Listener, srv *exchange.Server, log *slog.Logger) (*Listener, error) {
	n := &Listener{
		srv: srv, log: log,
		accept: make(chan struct{}), serving: make(chan struct{}), ready: make(chan struct{}),
		conns: map[*conn]struct{}{},
	}
	path, unix := strings.CutPrefix(l.Address, wire.Unix)
	switch {
	case l.Address == "":
	case unix:
		var err error
		if n.ln, n.file, err = listenUnix(path, l.SocketMode); err != nil {
			return nil, bindError(l, err)
		}
	default:
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // splice and half-close are wanted as TCP has them
		if l.Transparent {
			lc.Control = wire.Transparent
		}
		ln, err := lc.Listen(context.Background(), "tcp", l.Address)
		switch {
		case err == nil:
			n.ln = ln
			n.bound = n.ln.Addr().(*net.TCPAddr).AddrPort()
		case !l.Optional || !missing(err):
			return nil, bindError(l, err)
		}
	}
	n.Apply(l)
	return n, nil
}

// missing reports whether the machine does not have the address at all.
func missing(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

func bindError(l *plan.Listener, err error) error {
	remedy := ""
	switch {
	case errors.Is(err, errNoSocket), errors.Is(err, errServed):
	case errors.Is(err, syscall.EADDRINUSE):
		remedy = "; another process listens there: choose another port or stop it"
	case errors.Is(err, syscall.EACCES) && strings.HasPrefix(l.Address, wire.Unix):
		remedy = "; the proxy's user must be allowed to write to its directory"
	case errors.Is(err, syscall.ENOENT):
		remedy = "; make its directory"
	case errors.Is(err, syscall.EACCES):
		remedy = "; ports below 1024 need CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EPERM):
		remedy = "; mode: tproxy needs CAP_NET_ADMIN"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		remedy = "; no interface has this address"
	}
	return fmt.Errorf("listener %s: cannot listen on %s: %w%s", l.Name, l.Address, err, remedy)
}

// Address returns the bound address, with the port that the kernel chose, or the
// path of a Unix socket.
func (l *Listener) Address() net.Addr {
	if l.ln == nil {
		return virtualAddr{}
	}
	return l.ln.Addr()
}

// Plan returns what is served at present.
func (l *Listener) Plan() *plan.Listener { return l.current.Load() }

// Apply makes p what is served from the next exchange on.
func (l *Listener) Apply(p *plan.Listener) {
	if s := l.slots.Load(); s == nil || s.most != p.MaxHandshakes {
		l.slots.Store(newSlots(p.MaxHandshakes))
	}
	l.current.Store(p)
	if l.file != nil {
		if err := l.file.permit(p.SocketMode); err != nil {
			l.log.Error("the permissions of a listener's socket cannot be changed", "event", "socket_mode", "listener", p.Name, "error", err)
		}
	}
}

// Bounds of the pause after accept failed, as in net/http.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// Run accepts until Stop is called or ctx ends, then waits for the connections
// to end; CloseAll hastens that.
func (l *Listener) Run(ctx context.Context) error {
	defer l.wg.Wait()
	defer context.AfterFunc(ctx, l.Stop)()
	if l.ln == nil {
		<-l.accept
		return nil
	}
	var trouble acceptTrouble
	for {
		c, err := l.ln.Accept()
		now := time.Now()
		if err == nil {
			if trouble.over(now) {
				l.log.Info("accepting again", "event", "accept_recovered", "listener", l.Plan().Name)
			}
			l.admit(c.(wire.Socket))
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			l.Stop()
			return nil
		}
		// Most often the process is out of file descriptors. New connections
		// wait in the kernel's queue meanwhile.
		l.Plan().Metrics.AcceptErrors.Inc()
		pause, first := trouble.failed(now)
		if first {
			l.log.Error("cannot accept connections", "event", "accept_failed", "listener", l.Plan().Name, "error", err)
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-l.accept:
		}
		wait.Stop()
	}
}

// acceptTrouble is a time in which accept fails, perhaps not always: while
// connections end and others come, it works now and then.
type acceptTrouble struct {
	pause time.Duration
	last  time.Time // of the last failure; zero outside of trouble
}

// failed returns how long to pause, and whether the trouble begins now.
func (t *acceptTrouble) failed(now time.Time) (pause time.Duration, first bool) {
	t.pause = min(max(2*t.pause, minAcceptPause), maxAcceptPause)
	first = t.last.IsZero()
	t.last = now
	return t.pause, first
}

// over reports, after an accept that worked, whether the trouble ends now.
func (t *acceptTrouble) over(now time.Time) bool {
	if t.last.IsZero() {
		return false
	}
	t.pause = 0
	if now.Sub(t.last) < 2*maxAcceptPause {
		return false
	}
	t.last = time.Time{}
	return true
}

// admit starts to serve an accepted connection, or closes it when there are
// too many.
func (l *Listener) admit(sock wire.Socket) {
	switch d, p := l.directory.Load(), l.Plan(); {
	case d != nil && d.Interception != nil:
		l.intercept(sock, d)
		return
	case p.Ports != nil:
		l.byPort(sock, p)
		return
	}
	w, err := wire.New(sock, l.srv.Sweeper)
	if err != nil {
		_ = sock.Close()
		return
	}
	if !l.take(arrived{wire: w, peer: w.RemoteAddr()}) {
		l.Plan().Metrics.Refused.Inc()
		reset(w)
	}
}

// take starts to serve a connection. It reports false when there are too many or
// the listener has been stopped.
func (l *Listener) take(a arrived) bool {
	p := l.Plan()
	m := p.Metrics
	c := &conn{l: l, id: l.accepted.Add(1), wire: a.wire, since: time.Now()}
	c.peer.Addr, c.peer.Original, c.peer.Instance = a.peer, a.dst, a.only
	short := l.srv.Memory.At(memory.Refuse)
	if short {
		l.srv.Memory.Gave(memory.Connections)
	}
	if short || !l.register(c, p.MaxConnections) {
		return false
	}
	l.srv.Memory.Pledge(memory.PerConnection)
	m.Connections.Inc()
	m.Active.Inc()
	go c.serve(m)
	return true
}

// register makes c one of the connections, unless there are most already or
// the listener has been stopped, so that none escapes a CloseAll after Stop.
func (l *Listener) register(c *conn, most int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || most > 0 && len(l.conns) >= most {
		return false
	}
	l.conns[c] = struct{}{}
	l.wg.Add(1) // before Run waits, which it does once the listener is stopped
	return true
}

func (l *Listener) forget(c *conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// Stop closes the socket. Connections go on.
func (l *Listener) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped {
		l.stopped = true
		close(l.accept)
		if l.file != nil {
			l.file.remove() // while it is listened on, so that nobody else has taken its place
		}
		if l.ln != nil {
			_ = l.ln.Close()
		}
	}
}

// CloseIdle ends the connections that carry no exchange, and has HTTP/2 peers
// open no more streams.
func (l *Listener) CloseIdle() {
	for _, c := range l.snapshot() {
		switch s, d := c.carrier(); {
		case s != nil:
			s.Drain()
		case d != nil && d.Idle():
			c.wire.Expire()
		}
	}
}

// Relieve gives up what holds memory for little: see exchange.Session.Relieve.
func (l *Listener) Relieve() {
	for _, c := range l.snapshot() {
		if s := c.session.Load(); s != nil {
			s.Relieve()
		}
	}
}

// GoAway has all WebSockets closed in order, those too that are opened on these
// connections from now on.
func (l *Listener) GoAway() {
	for _, c := range l.snapshot() {
		if s := c.session.Load(); s != nil {
			s.GoAway()
		}
	}
}

// CloseAll ends every connection at once, those too that wait for their
// handshake. After Stop none is left.
func (l *Listener) CloseAll() {
	l.mu.Lock()
	if l.stopped && !l.ended {
		l.ended = true
		close(l.serving)
	}
	l.mu.Unlock()
	for _, c := range l.snapshot() {
		c.wire.Expire()
	}
}

// Recheck ends the connections that the plan now in force refuses: TCP
// connections and tunnels of callers that are no longer allowed, and plaintext
// where mTLS has become a must. Other HTTP exchanges are checked one by one
// anyway.
func (l *Listener) Recheck() (ended int) {
	p := l.Plan()
	for _, c := range l.snapshot() {
		if c.refused(p) {
			c.wire.Expire()
			ended++
		} else if s, _ := c.carrier(); s != nil {
			ended += s.Recheck(p.Route.Authz)
		}
	}
	return ended
}

// Connections returns how many connections are open.
func (l *Listener) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

func (l *Listener) snapshot() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		list = append(list, c)
	}
	return list
}
