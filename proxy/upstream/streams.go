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

// mux holds an endpoint's HTTP/2 connections, which any number of exchanges
// share.
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
	generation uint64
	began      time.Time
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

// Stream returns a stream to e on a connection that has room for one, or on a
// new connection. Exchanges that come while one is made wait for it, and fail
// with it, but none longer than its own deadline and the connect timeout.
func (e *Endpoint) Stream(w Want) (st *http2.Stream, peerID string, reused bool, oe *outcome.Error) {
	r := e.cluster.registry
	p := e.cluster.policy.Load()
	timeout, own := p.connectTime(w)
	if timeout <= 0 {
		return nil, "", false, &outcome.Error{Reason: outcome.RequestTimeout, Op: "connect " + e.address}
	}
	until := time.Now().Add(timeout)
	var timer *time.Timer
	for {
		st, id, turn, mine := e.mux.open(e.cluster.generation.Load())
		switch {
		case st != nil:
			return st, id, true, nil
		case mine:
			st, id, oe = e.addConn(p, w, until)
			e.mux.made(turn, oe, own)
			return st, id, false, oe
		}
		if turn == nil {
			if !time.Now().Before(until) {
				return nil, "", false, &outcome.Error{Reason: outcome.ConnectTimeout, Op: "connect " + e.address}
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
				return nil, "", false, turn.err
			}
		case <-timer.C:
			return nil, "", false, &outcome.Error{Reason: outcome.ConnectTimeout, Op: "connect " + e.address}
		case <-r.ctx.Done():
			return nil, "", false, &outcome.Error{Reason: outcome.Draining}
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

// open reserves a stream on any connection of the generation. Without one the
// caller is to make a connection, or to wait for whoever makes one, or with
// neither to ask again in a moment.
func (m *mux) open(generation uint64) (st *http2.Stream, peerID string, turn *making, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	soon := false
	for _, c := range m.conns {
		if c.generation != generation || c.client.Err() != nil {
			continue
		}
		now, later := m.room(c)
		soon = soon || later
		if !now {
			continue
		}
		if st, err := c.client.Open(); err == nil {
			return st, c.wire.PeerID, nil, false
		}
	}
	if m.making != nil || soon {
		return nil, "", m.making, false
	}
	m.making = &making{done: make(chan struct{})}
	return nil, "", m.making, true
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

// addConn makes one more connection, starts to serve it and returns its first
// stream.
func (e *Endpoint) addConn(p *Policy, w Want, until time.Time) (*http2.Stream, string, *outcome.Error) {
	cl := e.cluster
	if _, oe := cl.slot(e, p, Want{Now: w.Now, Deadline: w.Deadline, Fresh: true}, until); oe != nil {
		return nil, "", oe
	}
	c, oe := e.connect(until)
	if oe != nil {
		cl.freed(true)
		return nil, "", oe
	}
	if t := c.TLS(); t != nil && t.ConnectionState().NegotiatedProtocol != "h2" {
		_ = c.Close()
		cl.freed(true)
		return nil, "", &outcome.Error{Reason: outcome.HandshakeFailed, Op: "connect " + e.address, Err: errNoHTTP2}
	}
	e.conns.Add(1)
	cfg := *cl.registry.HTTP2
	cfg.IdleTimeout = max(p.Keepalive, minMuxIdle)
	m := &muxConn{wire: c, generation: c.Generation, began: time.Now()}
	cfg.OnEnd = func(error) { e.mux.remove(m) }
	m.client = http2.NewClient(c, &cfg)
	id := c.PeerID
	st, err := m.client.Open()
	if err != nil || !e.mux.add(m, &cl.registry.running) {
		if err == nil {
			st.Close()
		}
		e.drop(c)
		return nil, "", &outcome.Error{Reason: outcome.Draining, Op: "connect " + e.address}
	}
	go func() {
		defer cl.registry.running.Done()
		_ = m.client.Run()
		e.mux.remove(m)
		e.drop(c)
	}()
	return st, id, nil
}

// minMuxIdle is the shortest time for which an HTTP/2 connection without
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
