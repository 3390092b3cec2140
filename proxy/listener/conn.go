package listener

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/detect"
	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// conn is one accepted connection. It is registered before anything is decided
// about it, so that a change of rules in between finds it.
type conn struct {
	l       *Listener
	id      uint64
	wire    *wire.Conn
	since   time.Time
	peer    exchange.Peer
	session atomic.Pointer[exchange.Session]
	// detection is set where it must be found out what is spoken.
	detection atomic.Pointer[exchange.Detection]
	// settled is set once peer is complete and may be read by others.
	settled atomic.Bool
}

func (c *conn) serve(m *telemetry.Listener) { c.carry(m, c.begin) }

// carry runs f, after which the connection has ended or rests.
func (c *conn) carry(m *telemetry.Listener, f func(*telemetry.Listener) (resting bool)) {
	resting := false
	defer func() {
		if p := recover(); p != nil {
			c.defect(p)
		}
		if resting {
			return // it has another goroutine by now, or none
		}
		_ = c.wire.Close()
		c.l.forget(c)
		c.l.srv.Memory.Redeem(memory.PerConnection)
		m.Active.Dec()
		c.l.wg.Done()
	}()
	for f(m) {
		resting = true // before another goroutine may have it
		if c.l.srv.Resting.Add(c.wire, func() { c.carry(m, c.resume) }) {
			return
		}
		resting, f = false, c.resume
	}
}

// defect keeps one that was met by one connection from ending those of others.
// What the exchange held is not given back; the log says where to look.
func (c *conn) defect(p any) {
	c.l.log.Error("defect: a connection was dropped", "event", "panic", "listener", c.l.Plan().Name, "peer", c.peer.From(), "panic", p, "stack", string(debug.Stack()))
}

// tlsHandshake is the first byte of a TLS connection (RFC 8446 section 5.1).
const tlsHandshake = 0x16

// secure runs the handshake, or lets plaintext pass where that is permitted.
func (c *conn) secure(p *plan.Listener, m *telemetry.Listener) bool {
	until := time.Now().Add(p.HandshakeTimeout)
	isTLS, err := c.sniff(p, until)
	switch {
	case err == io.EOF && len(c.wire.Buffered()) == 0:
		return false // a probe that only connects is no failure
	case err != nil:
		c.handshakeFailed(p, m, err)
		return false
	case !isTLS && p.Security == plan.Permissive && c.plaintext(p):
		m.Plaintext.Inc()
		c.l.inventory.add(c.peer.Addr.Addr())
		return true
	}
	s := c.l.slots.Load()
	if !s.take(until, c.l.serving) {
		m.HandshakeFailed(telemetry.HandshakeLimit)
		return false
	}
	c.l.srv.Memory.Pledge(memory.PerHandshake)
	err = c.wire.Server(p.TLS, until)
	c.l.srv.Memory.Redeem(memory.PerHandshake)
	s.give()
	if err != nil {
		c.handshakeFailed(p, m, err)
		c.linger()
		return false
	}
	c.identify(p)
	return true
}

func (c *conn) handshakeFailed(p *plan.Listener, m *telemetry.Listener, err error) {
	if c.wire.Expired() {
		return // ended by CloseAll
	}
	kind := handshakeFailure(err)
	m.HandshakeFailed(kind)
	c.l.log.Warn("handshake refused", "event", "handshake_failed", "listener", p.Name, "peer", c.peer.From(), "kind", kind.String(), "error", err)
}

// sniff reports whether the downstream speaks TLS, and then waits for the whole
// of its first record, so that those who say nothing, or say it slowly, occupy
// no handshake. They hold no buffer before their first byte. Where plaintext is
// permitted, one who is silent too long is taken for the client of a protocol in
// which the server speaks first, which cannot be mTLS.
func (c *conn) sniff(p *plan.Listener, until time.Time) (isTLS bool, err error) {
	wait := until
	if p.Protocol != plan.HTTP && p.Security == plan.Permissive {
		if soon := time.Now().Add(detect.Patience); soon.Before(wait) {
			wait = soon
		}
	}
	c.wire.SetExact(wait)
	defer c.wire.SetExact(time.Time{})
	if err := c.wire.Fill(); err != nil {
		if wait != until && errors.Is(err, wire.ErrExpired) && !c.wire.Expired() {
			return false, nil
		}
		return false, err
	}
	if c.wire.Buffered()[0] != tlsHandshake {
		return false, nil
	}
	c.wire.SetExact(until)
	for {
		b := c.wire.Buffered()
		if len(b) >= recordHead {
			// Overlong records are for crypto/tls to refuse.
			if n := int(b[3])<<8 | int(b[4]); n > longestHello || len(b) >= recordHead+n {
				return true, nil
			}
		}
		if !c.wire.Room(wire.Large) {
			return true, nil
		}
		if err := c.wire.Fill(); err != nil {
			return true, err
		}
	}
}

// The header of a TLS record, and the most that it may announce for one that is
// not encrypted (RFC 8446 section 5.1).
const (
	recordHead   = 5
	longestHello = 16 << 10
)

// Bounds of reading on after a refused handshake.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// linger ends the sending side and throws away for a moment what the downstream
// still sends, since closing with unread bytes makes the kernel reset the
// connection and the downstream lose the alert that says why.
func (c *conn) linger() {
	if c.wire.Expired() || c.wire.CloseWrite() != nil {
		return
	}
	c.wire.SetExact(time.Now().Add(lingerTime))
	for n := 0; n < lingerBytes; {
		if c.wire.Fill() != nil {
			return
		}
		n += len(c.wire.Buffered())
		c.wire.Consume(len(c.wire.Buffered()))
	}
}

// identify notes the verified identity of the peer, and what the application is told of it.
func (c *conn) identify(p *plan.Listener) {
	state := c.wire.TLS().ConnectionState()
	c.peer.TLS = state.Version
	id, err := mtls.PeerID(&state)
	if err != nil {
		return
	}
	c.peer.ID = id
	c.peer.KeepClientCert = p.ClientCert.Keep
	if p.ClientCert.Set {
		c.peer.ClientCert = c.l.certs.element(state.PeerCertificates, p.ClientCert, c.l.srv.LocalID())
	}
}

// refused reports whether p ends this connection.
func (c *conn) refused(p *plan.Listener) bool {
	if !c.settled.Load() {
		return false // what follows is decided by the plan of then
	}
	if c.insecure(p) {
		return true
	}
	if p.Route.Authz == nil {
		return false
	}
	_, d := c.carrier()
	tcp := p.Protocol == plan.TCP
	if d != nil {
		_, tcp = d.Found() // what is not known yet is decided by the plan of then
	}
	return tcp && p.Route.Authz.CheckConn(c.peer.ID).Refuse(0)
}

// insecure reports whether the connection is plaintext where p demands mTLS.
func (c *conn) insecure(p *plan.Listener) bool {
	return p.Security == plan.Strict && c.peer.TLS == 0
}

// handshakeFailure sorts the errors of a handshake for the metrics.
func handshakeFailure(err error) telemetry.HandshakeFailure {
	var ve *mtls.VerifyError
	var op *net.OpError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &ve):
		switch ve.Kind {
		case mtls.NoCertificate:
			return telemetry.HandshakeNoCertificate
		case mtls.UntrustedChain, mtls.UnknownTrustDomain:
			return telemetry.HandshakeUntrusted
		case mtls.Expired, mtls.NotYetValid:
			return telemetry.HandshakeExpired
		}
		return telemetry.HandshakeIdentity
	case errors.Is(err, mtls.ErrNoMaterial):
		return telemetry.HandshakeNoIdentity
	case errors.Is(err, wire.ErrExpired):
		return telemetry.HandshakeTimeout
	case errors.As(err, &record):
		return telemetry.HandshakeProtocol
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return telemetry.HandshakeClosed
	case errors.As(err, &op) && op.Op == "remote error":
		// How crypto/tls wraps an alert of the peer's.
		return telemetry.HandshakeClosed
	case strings.Contains(err.Error(), "client didn't provide a certificate"):
		// crypto/tls has no type for it.
		return telemetry.HandshakeNoCertificate
	}
	return telemetry.HandshakeProtocol
}

// State is a copy of what is known about a connection.
type State struct {
	ID        uint64 // unique for the listener
	Local     string // the own address
	Listener  string
	Direction telemetry.Direction
	Protocol  string // what is spoken, or else what the listener takes
	Peer      exchange.Peer
	Since     time.Time
	Busy      bool
	Exchanges uint64
}

// States returns copies of all connections, the oldest first, at most n.
func (l *Listener) States(n int) []State {
	p := l.Plan()
	var list []State
	for _, c := range l.snapshot() {
		s := State{ID: c.id, Local: l.localOf(c), Listener: p.Name, Direction: p.Direction, Protocol: p.Protocol.String(), Since: c.since, Busy: true}
		s.Peer.Addr = c.wire.RemoteAddr()
		if c.settled.Load() {
			s.Peer = c.peer
		}
		x, _ := c.carrier()
		if x != nil {
			s.Busy, s.Exchanges = x.Busy(), x.Exchanges()
		}
		if d := c.detection.Load(); d != nil {
			if k, known := d.Found(); known {
				s.Protocol = k.String()
			}
			s.Busy = s.Busy && !d.Idle()
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b State) int { return a.Since.Compare(b.Since) })
	return list[:min(n, len(list))]
}

// plaintextPeers is the inventory of those who came without mTLS to a
// permissive listener: what must change before it can be strict.
type plaintextPeers struct {
	mu    sync.Mutex
	peers map[netip.Addr]*PlaintextPeer
	lost  uint64
}

// maxPlaintextPeers bounds the inventory.
const maxPlaintextPeers = 1000

// PlaintextPeer is one address that came without mTLS.
type PlaintextPeer struct {
	Addr        netip.Addr
	Connections uint64
	Last        time.Time
}

func (p *plaintextPeers) add(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peers == nil {
		p.peers = map[netip.Addr]*PlaintextPeer{}
	}
	e := p.peers[a]
	if e == nil {
		if len(p.peers) >= maxPlaintextPeers {
			p.lost++
			return
		}
		e = &PlaintextPeer{Addr: a}
		p.peers[a] = e
	}
	e.Connections++
	e.Last = time.Now()
}

// PlaintextPeers returns the inventory in the order of addresses, and how many
// connections of further peers it had no room for.
func (l *Listener) PlaintextPeers() (peers []PlaintextPeer, lost uint64) {
	p := &l.inventory
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.peers {
		peers = append(peers, *e)
	}
	slices.SortFunc(peers, func(a, b PlaintextPeer) int { return a.Addr.Compare(b.Addr) })
	return peers, p.lost
}
