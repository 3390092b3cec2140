package upstream

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// mux holds an endpoint's connections that any number of exchanges share: of
// HTTP/2, or of the transport between sidecars.
type mux struct {
	mu     sync.Mutex
	conns  []*muxConn
	closed bool    // the endpoint is gone: connections end with their streams
	ended  bool    // no further connection may be made
	limit  int     // of streams on a connection, as the endpoint said last; 0 unknown
	making *making // non-nil while a connection is made
}

// making is a connection being made by one exchange, for which the others wait.
type making struct {
	done chan struct{}
	err  *outcome.Error // that the others have too, once done is closed
}

type muxConn struct {
	client     *http2.Client
	wire       *wire.Conn
	mesh       bool
	generation uint64
	began      time.Time
	behindAt   time.Duration // its writer has been behind at every look since; 0 not; under mux.mu
}

// A further connection is made where streams would have room, only when the
// writer of every one has been behind for so long: more of them split the
// batches that make one cheap.
const (
	behindFor = 100 * time.Millisecond
	mostMux   = 4
)

// behind reports whether the connection's writer does not keep up.
func (c *muxConn) behind(now time.Duration) bool {
	if !c.client.Saturated() {
		c.behindAt = 0
		return false
	}
	if c.behindAt == 0 {
		c.behindAt = now
	}
	return now-c.behindAt >= behindFor
}

// An endpoint whose limit of streams is not known yet gets one stream, until its
// SETTINGS say more or the time in which they should have come is over: what is
// sent beyond the limit is refused.
const (
	greeting     = time.Second
	greetingPoll = time.Millisecond
)

// room reports whether c may take a further stream; later that it may soon.
func (m *mux) room(c *muxConn) (now, later bool) {
	if c.client.Greeted() || time.Since(c.began) >= greeting {
		m.limit = c.client.Limit()
		return true, false
	}
	if m.limit == 0 {
		now = c.client.Active() == 0
		return now, !now
	}
	return c.client.Active() < m.limit, false
}

// stream returns a stream to e on a connection that has room for one, or what a
// new connection gives: an endpoint that turns out not to share connections has
// one for each exchange. Exchanges that come while one is made wait for it, and
// fail with it, but none longer than its own deadline and the connect timeout.
func (e *Endpoint) stream(p *Policy, w Want) (Leg, *outcome.Error) {
	r := e.cluster.registry
	timeout, own := p.connectTime(w)
	if timeout <= 0 {
		return Leg{}, &outcome.Error{Reason: outcome.RequestTimeout, Op: "connect " + e.address}
	}
	until := time.Now().Add(timeout)
	var timer *time.Timer
	for {
		leg, turn, mine := e.mux.open(e.cluster.generation.Load(), p.http2(w), w.Now)
		switch {
		case leg.Stream != nil:
			return leg, nil
		case mine:
			var oe *outcome.Error
			if _, oe = e.cluster.slot(e, p, Want{Now: w.Now, Deadline: w.Deadline, Fresh: true, Draw: w.Draw}, until); oe == nil {
				leg, oe = e.join(p, w, until)
			}
			e.mux.made(turn, oe, own)
			return leg, oe
		}
		if turn == nil {
			if !time.Now().Before(until) {
				return Leg{}, &outcome.Error{Reason: outcome.ConnectTimeout, Op: "connect " + e.address}
			}
			time.Sleep(greetingPoll)
			continue
		}
		if timer == nil {
			timer = time.NewTimer(time.Until(until))
			defer timer.Stop()
		}
		select {
		case <-turn.done:
			if turn.err != nil {
				return Leg{}, turn.err
			}
			if !p.http2(w) && e.alone.Load() {
				return e.dial(p, w)
			}
		case <-timer.C:
			return Leg{}, &outcome.Error{Reason: outcome.ConnectTimeout, Op: "connect " + e.address}
		case <-r.ctx.Done():
			return Leg{}, &outcome.Error{Reason: outcome.Draining}
		}
	}
}

// connectTime is how long a connection may take to be made; shortened says that
// the exchange's deadline and not the policy bounds it.
func (p *Policy) connectTime(w Want) (timeout time.Duration, shortened bool) {
	if left := w.Deadline - w.Now; w.Deadline > 0 && left < p.ConnectTimeout {
		return left, true
	}
	return p.ConnectTimeout, false
}

// open reserves a stream on any connection of the generation, of HTTP/2 only
// where that will do. Without one the
// caller is to make a connection, or to wait for whoever makes one, or with
// neither to ask again in a moment.
func (m *mux) open(generation uint64, http2 bool, at time.Duration) (leg Leg, turn *making, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var busy *muxConn // has room, but its writer is behind
	soon, usable := false, 0
	for _, c := range m.conns {
		if c.generation != generation || c.client.Err() != nil || !c.mesh && !http2 {
			continue
		}
		usable++
		now, later := m.room(c)
		soon = soon || later
		switch {
		case !now:
		case c.behind(at):
			busy = c
		default:
			if st, err := c.client.Open(); err == nil {
				return Leg{Stream: st, PeerID: c.wire.PeerID, Reused: true}, nil, false
			}
		}
	}
	if busy != nil && (m.making != nil || usable >= mostMux) {
		if st, err := busy.client.Open(); err == nil {
			return Leg{Stream: st, PeerID: busy.wire.PeerID, Reused: true}, nil, false
		}
	}
	if m.making != nil || soon {
		return Leg{}, m.making, false
	}
	m.making = &making{done: make(chan struct{})}
	return Leg{}, m.making, true
}

// made ends a turn. A failure is that of all who waited, unless it came from
// the short time that one exchange had left.
func (m *mux) made(t *making, oe *outcome.Error, shortened bool) {
	if oe != nil && !shortened {
		t.err = oe
	}
	m.mu.Lock()
	m.making = nil
	m.mu.Unlock()
	close(t.done)
}

// share starts to serve c and returns its first stream.
func (e *Endpoint) share(p *Policy, c *wire.Conn, mesh bool) (Leg, *outcome.Error) {
	cl := e.cluster
	cfg := *cl.registry.HTTP2
	cfg.IdleTimeout, cfg.MaxAge = max(p.Keepalive, minMuxIdle), p.MaxAge
	if cfg.Raw = mesh; mesh {
		cfg.PingIdle = true // all that goes to the endpoint depends on it
	}
	m := &muxConn{wire: c, mesh: mesh, generation: c.Generation, began: time.Now()}
	cfg.OnEnd = func(error) { e.mux.remove(m) }
	m.client = http2.NewClient(c, &cfg)
	id := c.PeerID
	st, err := m.client.Open()
	if err != nil || !e.mux.add(m, &cl.registry.running) {
		if err == nil {
			st.Close()
		}
		e.drop(c)
		return Leg{}, &outcome.Error{Reason: outcome.Draining, Op: "connect " + e.address}
	}
	go func() {
		defer cl.registry.running.Done()
		_ = m.client.Run()
		e.mux.remove(m)
		e.drop(c)
	}()
	return Leg{Stream: st, PeerID: id}, nil
}

// minMuxIdle is the shortest time for which a shared connection without
// streams is kept: one serves many exchanges and costs a handshake.
const minMuxIdle = 30 * time.Second

var errNoHTTP2 = errors.New("the endpoint does not speak h2 (ALPN); write protocol: http for it")

// add keeps c and counts it as running. A connection to an endpoint that is gone
// meanwhile ends with the stream that it has. It reports false where no
// connection may be made any more.
func (m *mux) add(c *muxConn, running *sync.WaitGroup) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return false
	}
	running.Add(1)
	m.conns = append(m.conns, c)
	if m.closed {
		c.client.Drain()
	}
	return true
}

// evict ends one connection without streams, which frees its slot soon.
func (m *mux) evict() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, c := range m.conns {
		if c.client.Err() == nil && c.client.CloseIdle() {
			m.conns = slices.Delete(m.conns, i, i+1)
			return true
		}
	}
	return false
}

func (m *mux) remove(c *muxConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.conns, c); i >= 0 {
		m.conns = slices.Delete(m.conns, i, i+1)
	}
}

// drain lets the connections end with the streams that they carry; with final
// the further ones too.
func (m *mux) drain(final bool) {
	m.mu.Lock()
	conns := slices.Clone(m.conns)
	m.closed = m.closed || final
	m.mu.Unlock()
	for _, c := range conns {
		c.client.Drain()
	}
}

// end closes all connections at once.
func (m *mux) end() {
	m.mu.Lock()
	conns := slices.Clone(m.conns)
	m.closed, m.ended = true, true
	m.mu.Unlock()
	for _, c := range conns {
		c.client.Close()
	}
}
