package exchange

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/relay"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// ServeOriginal connects an intercepted connection with where it was going, as
// the listener's plan has it: no endpoint is picked, and no TLS is spoken.
func (s *Server) ServeOriginal(conn *wire.Conn, peer Peer, source *atomic.Pointer[plan.Listener]) {
	t := s.newTCP(relay.Conn(conn), peer, source)
	shard := s.shards.Add(1)
	t.cl.Metrics().Begin(shard)
	t.finish(t.pass(), shard)
}

// pass makes the connection and carries it.
func (t *tcpExchange) pass() outcome.Reason {
	dst, own := t.peer.Original, &t.srv.passing
	// A connection that this proxy has made itself comes back to it where it is
	// not exempt from the redirection. Whichever of the two looks last sees it.
	if own.has(way{t.peer.Addr, dst}) {
		return t.looped()
	}
	var from netip.Addr
	if t.l.Transparent {
		from = t.peer.Addr.Addr()
	}
	now := t.srv.Sweeper.Now()
	up, oe := t.cl.DialOriginal(dst, from)
	r := outcome.OK
	if oe != nil {
		r, t.cause = oe.Reason, oe
	}
	took := t.srv.Sweeper.Now() - now
	t.rec.ConnectTime, t.rec.Endpoint, t.rec.UpstreamAddr = took, dst.String(), dst
	t.rec.AddAttempt(telemetry.Attempt{Endpoint: t.rec.Endpoint, Reason: r, Offset: now - t.start, Duration: took})
	if oe != nil {
		return r
	}
	defer up.Close()
	made := way{up.LocalAddr(), dst}
	own.add(made)
	defer own.remove(made)
	if own.has(way{t.peer.Addr, dst}) {
		return t.looped()
	}
	res := t.move(relay.Conn(up), relay.Options{Now: t.srv.Sweeper.Now, Idle: t.pol.TCPIdle})
	t.rec.BytesIn, t.rec.BytesOut = res.Sent, res.Received
	t.cause = res.Err
	switch {
	case res.Broke == relay.Nobody:
		return outcome.OK
	case errors.Is(res.Err, wire.ErrExpired):
		return t.expired()
	case res.Broke == relay.Downstream:
		return outcome.DownstreamGone
	}
	return outcome.UpstreamReset
}

var errLoop = errors.New("the connection is this proxy's own: its user must be exempt from the redirection")

func (t *tcpExchange) looped() outcome.Reason {
	t.cause = errLoop
	if m := t.l.Metrics; m != nil {
		m.Intercept(telemetry.InterceptedLoop)
	}
	return outcome.NoRoute
}

// way is where a connection came from and where it was going. Both together are
// one connection: with its caller's address kept, a connection may have the
// address and port of one that the caller has made to somewhere else.
type way struct{ from, to netip.AddrPort }

// passing are the connections that were made to pass others through.
type passing struct {
	mu  sync.Mutex
	own map[way]struct{}
}

func (p *passing) has(w way) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.own[w]
	return ok
}

func (p *passing) add(w way) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own == nil {
		p.own = map[way]struct{}{}
	}
	p.own[w] = struct{}{}
}

func (p *passing) remove(w way) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.own, w)
}
