// Package exchange carries one request with its response, or one TCP connection, from downstream to an endpoint and back, and records it.
package exchange

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/detect"
	"github.com/outrigger-mesh/outrigger/proxy/faults"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// Server holds what all exchanges share.
type Server struct {
	Sweeper   *wire.Sweeper
	Tracer    *telemetry.Tracer
	AccessLog *telemetry.AccessLog
	Log       *slog.Logger
	// LocalID returns this proxy's own SPIFFE ID, empty without identity.
	LocalID func() string
	// Draining is set once the proxy shuts down: connections end with the
	// exchange they carry.
	Draining *atomic.Bool
	// Ledger keeps what was decided; nil keeps nothing.
	Ledger *ledger.Ring
	// Outcomes is the log of how exchanges went; nil keeps none.
	Outcomes *outcomes.Log
	// Faults are those made on purpose; nil makes none.
	Faults *faults.Board
	// Memory says what is to be given up; nil nothing.
	Memory *memory.Budget
	// Resting takes connections between exchanges; nil: each keeps its goroutine.
	Resting *wire.Resting
	// Hops says to other sidecars, and hears from them, who repeats requests; nil
	// neither.
	Hops *Hops
	// HTTP2 is how HTTP/2 connections behave; nil serves none.
	HTTP2 *http2.Config
	// Lessons is what detection has learnt about destinations; nil remembers
	// nothing.
	Lessons *detect.Memory[Destination]

	shards        atomic.Uint32
	passing       passing
	streamConfigs [2]atomic.Pointer[sharedStreamConfig] // and of mesh connections
}

// Peer is what is known about a downstream since its connection was accepted.
type Peer struct {
	// Addr is not valid of one that came by a Unix socket.
	Addr netip.AddrPort
	ID   mtls.ID // zero without mTLS
	TLS  uint16  // the version; 0 for plaintext
	// Original is where an intercepted connection was going, Instance the endpoint that it means, if it does.
	Original, Instance netip.AddrPort
	// ClientCert is the element of x-forwarded-client-cert for this peer, empty
	// where there is to be none.
	ClientCert []byte
	// KeepClientCert says that what came in that field goes on, in front.
	KeepClientCert bool
}

// Session is one downstream HTTP connection.
type Session struct {
	srv    *Server
	conn   *wire.Conn
	source *atomic.Pointer[plan.Listener]
	peer   *Peer // the listener's
	peerID string
	addr   []byte // the peer's address without port, as text
	shard  uint32

	// x is the exchange under way, nil while the connection is idle so that an
	// idle connection holds little memory.
	x        *exchange
	head     int   // length of the request head in the buffer; 0 while incomplete
	bad      error // the head is malformed
	http2    bool  // the peer has begun with the preface of HTTP/2
	end      bool  // the connection must be closed
	abort    bool  // by a reset, since an end would pass for that of the body
	busy     atomic.Bool
	exchange atomic.Uint64
	tunnels  tunnels
	rules    atomic.Pointer[authz.Caller] // what the last policy asked says of the peer
	streams  atomic.Pointer[http2.Server] // nil on HTTP/1.1 connections
	drained  atomic.Bool
	stood    time.Duration // the connection's deadline at the last Relieve
}

// NewSession returns the session of an accepted connection. source holds the
// listener as the plan in force has it; each exchange pins the one it starts
// with. peer must not change any more.
func (s *Server) NewSession(conn *wire.Conn, peer *Peer, source *atomic.Pointer[plan.Listener]) *Session {
	n := &Session{srv: s, conn: conn, source: source, peer: peer, shard: s.shards.Add(1)}
	n.addr = peer.Addr.Addr().AppendTo(nil)
	if !peer.ID.IsZero() {
		n.peerID = peer.ID.String()
	}
	return n
}

// Busy reports whether an exchange is under way.
func (s *Session) Busy() bool {
	if h := s.streams.Load(); h != nil {
		return h.Busy()
	}
	return s.busy.Load()
}

// Exchanges returns how many exchanges have begun.
func (s *Session) Exchanges() uint64 { return s.exchange.Load() }

// Serve carries exchanges until the connection ends, which it does not close, or
// rests: then Resume goes on once something has come.
func (s *Session) Serve() (resting bool) {
	s.conn.MayRest = s.srv.Resting != nil
	s.idle()
	return s.carry()
}

// Resume is Serve after a rest.
func (s *Session) Resume() (resting bool) {
	if h := s.streams.Load(); h != nil {
		return s.carryStreams(h)
	}
	return s.carry()
}

func (s *Session) carry() (resting bool) {
	f := s.onBytes
	for !s.end {
		err := s.conn.Await(f)
		switch {
		case err == nil:
		case err == wire.ErrResting && s.x != nil:
			continue // a part of a request is there
		case err == wire.ErrResting:
			return true
		case s.ended(err):
			s.linger()
			s.drop()
			return false
		default:
			s.drop()
			return false
		}
		if s.http2 {
			return s.ServeStreams()
		}
		if !s.end {
			s.straight()
		}
	}
	s.linger()
	s.drop()
	return false
}

// draining reports whether the connection must end soon. Egress stays open
// until the application has ended.
func (s *Session) draining() bool {
	return s.srv.Draining.Load() && s.source.Load().Direction == telemetry.Inbound
}

// idle sets the deadline between exchanges.
func (s *Session) idle() {
	l := s.source.Load()
	if t := s.srv.Memory.Idle(l.HTTP.IdleTimeout); t > 0 {
		s.conn.SetDeadline(s.srv.Sweeper.Soon() + t)
	} else {
		s.conn.SetDeadline(0)
	}
}

// onBytes serves every request that is whole in the buffer. It returns false
// when the rest needs reads of its own, or the connection is to end.
func (s *Session) onBytes() bool {
	for {
		b := s.conn.Buffered()
		if len(b) == 0 {
			return true
		}
		l := s.source.Load()
		if s.x == nil {
			if s.exchange.Load() == 0 && s.srv.HTTP2 != nil {
				switch isPreface(b) {
				case prefaceWhole:
					s.http2 = true
					return false
				case prefacePart:
					return true
				}
			}
			s.srv.Memory.Pledge(memory.PerExchange)
			s.x = newExchange(s, l)
			s.busy.Store(true)
		} else {
			s.x.late = true // its first part came before
		}
		n, err := s.x.req.Parse(b, &l.HTTP.Limits)
		if err != nil {
			s.bad = err
			return false
		}
		if n == 0 {
			if s.x.headDeadline == 0 && l.HTTP.HeadTimeout > 0 {
				s.x.headDeadline = s.srv.Sweeper.Now() + l.HTTP.HeadTimeout
				s.conn.SetDeadline(s.x.headDeadline)
			}
			return true
		}
		s.head = n
		s.x.normalize(b)
		if r := &s.x.req; r.Upgrade && !tunnelable(r.UpgradeProto.Of(b)) {
			r.Upgrade = false // as any server is free to do (RFC 9110 section 7.8)
		}
		whole, total := s.x.whole(b, n)
		if !whole {
			return false
		}
		s.x.run()
		s.finish(total)
		if s.end {
			return false
		}
	}
}

// preface is how a client begins HTTP/2 by prior knowledge (RFC 9113 section
// 3.4). What follows its first line tells it from a request.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

type prefaceMatch uint8

const (
	prefaceNot prefaceMatch = iota
	prefacePart
	prefaceWhole
)

func isPreface(b []byte) prefaceMatch {
	switch n := min(len(b), len(preface)); {
	case string(b[:n]) != preface[:n]:
		return prefaceNot
	case n < len(preface):
		return prefacePart
	}
	return prefaceWhole
}

// foreign reports whether a line that should be a request line is whole and
// names a protocol that is not HTTP.
func foreign(b []byte) bool {
	line, _, whole := bytes.Cut(b, []byte("\r\n"))
	if !whole {
		return false
	}
	f := bytes.Fields(line)
	return len(f) == 3 && !bytes.HasPrefix(f[2], []byte("HTTP/"))
}

// straight serves the request whose head is in the buffer and whose rest has
// to be read, or answers a malformed one.
func (s *Session) straight() {
	x := s.x
	if s.bad != nil {
		x.refuse(s.bad)
		s.end = true
		s.finish(len(s.conn.Buffered()))
		return
	}
	x.late = true
	total, ok := x.collect(s.head)
	if !ok {
		// Too long to keep, or of unknown length: the body is passed on as it
		// comes, with the head in memory of its own.
		x.detach(s.head)
		x.run()
		s.finish(0)
		return
	}
	if x.failed != outcome.OK {
		if x.failed == outcome.DownstreamTimeout {
			x.reply(x.failed, nil)
		}
		x.finish(x.failed)
		s.end = true
		s.finish(len(s.conn.Buffered()))
		return
	}
	x.run()
	s.finish(total)
}

// finish forgets the exchange and makes the connection ready for the next.
func (s *Session) finish(consume int) {
	// Only where the response has said so: else a client may have sent its next
	// request already. A drain that begins meanwhile closes what is idle.
	if s.x.close {
		s.end = true
	}
	s.conn.Consume(consume)
	s.drop()
	if !s.end {
		s.idle()
	}
}

func (s *Session) drop() {
	if s.x != nil {
		s.x.free()
		s.srv.Memory.Redeem(memory.PerExchange)
		s.x, s.head = nil, 0
		s.busy.Store(false)
	}
}

// ended is called when the connection ended while a request was awaited. It
// reports whether the downstream may still send.
func (s *Session) ended(err error) (sending bool) {
	if s.x == nil {
		return false
	}
	x := s.x
	x.raw = s.conn.Buffered() // the part of the head that came
	switch {
	case errors.Is(err, io.ErrShortBuffer):
		x.refuse(http1.ErrHeadTooLong)
		return true
	case !errors.Is(err, wire.ErrExpired):
		x.cause = err
		x.finish(outcome.DownstreamGone)
	case x.headDeadline > 0 && s.srv.Sweeper.Now() < x.headDeadline:
		x.cause = err
		x.finish(x.expired(outcome.DownstreamGone))
	default:
		x.reply(outcome.DownstreamTimeout, nil)
		x.finish(outcome.DownstreamTimeout)
	}
	return false
}

// Bounds of ending a connection.
const (
	lastWords   = 100 * time.Millisecond // to write a reply on an expired connection
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// linger ends the sending side and reads what the peer still sends for a
// while, since closing with unread bytes makes the kernel reset the connection
// and the peer lose the response (RFC 9112 section 9.6).
func (s *Session) linger() {
	if s.abort {
		s.conn.ResetOnClose()
		return
	}
	if s.conn.Expired() {
		return
	}
	s.conn.SetExact(time.Now().Add(lingerTime))
	if s.conn.CloseWrite() != nil {
		return
	}
	s.conn.Consume(len(s.conn.Buffered()))
	for n := 0; n < lingerBytes; {
		if s.conn.Fill() != nil {
			return
		}
		n += len(s.conn.Buffered())
		s.conn.Consume(len(s.conn.Buffered()))
	}
}

var exchanges = sync.Pool{New: func() any {
	x := new(exchange)
	x.uploader.wake.L = &x.uploader.mu
	return x
}}
