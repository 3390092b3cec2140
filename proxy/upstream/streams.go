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
	closed bool          // the endpoint is gone
	making chan struct{} // non-nil while a connection is made: closed then
}

type muxConn struct {
	client     *http2.Client
	wire       *wire.Conn
	generation uint64
}

// Stream returns a stream to e on a connection that has room for one, or on a
// new connection. Exchanges that come while one is made wait for it.
func (e *Endpoint) Stream(w Want) (st *http2.Stream, peerID string, reused bool, oe *outcome.Error) {
	reused = true
	for {
		if st, id := e.mux.open(e.cluster.generation.Load()); st != nil {
			return st, id, reused, nil
		}
		wait, mine := e.mux.turn()
		if !mine {
			select {
			case <-wait:
				continue
			case <-e.cluster.registry.ctx.Done():
				return nil, "", false, &outcome.Error{Reason: outcome.Draining}
			}
		}
		oe := e.addConn(w)
		e.mux.done()
		if oe != nil {
			return nil, "", false, oe
		}
		reused = false
	}
}

// open reserves a stream on any connection of the generation.
func (m *mux) open(generation uint64) (*http2.Stream, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		if c.generation != generation {
			continue
		}
		if st, err := c.client.Open(); err == nil {
			return st, c.wire.PeerID
		}
	}
	return nil, ""
}

// turn lets one exchange make a connection; the others get a channel to wait on.
func (m *mux) turn() (wait <-chan struct{}, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.making != nil {
		return m.making, false
	}
	m.making = make(chan struct{})
	return m.making, true
}

func (m *mux) done() {
	m.mu.Lock()
	close(m.making)
	m.making = nil
	m.mu.Unlock()
}

// addConn makes one more connection and starts to serve it.
func (e *Endpoint) addConn(w Want) *outcome.Error {
	cl := e.cluster
	p := cl.policy.Load()
	timeout := p.ConnectTimeout
	if w.Deadline > 0 {
		timeout = min(timeout, w.Deadline-w.Now)
	}
	if timeout <= 0 {
		return &outcome.Error{Reason: outcome.RequestTimeout, Op: "connect " + e.address}
	}
	until := time.Now().Add(timeout)
	if _, oe := cl.slot(e, p, Want{Now: w.Now, Deadline: w.Deadline, Fresh: true}, until); oe != nil {
		return oe
	}
	c, oe := e.connect(until)
	if oe != nil {
		cl.freed(true)
		return oe
	}
	if t := c.TLS(); t != nil && t.ConnectionState().NegotiatedProtocol != "h2" {
		_ = c.Close()
		cl.freed(true)
		return &outcome.Error{Reason: outcome.HandshakeFailed, Op: "connect " + e.address, Err: errNoHTTP2}
	}
	e.conns.Add(1)
	cfg := *cl.registry.HTTP2
	cfg.IdleTimeout = max(p.Keepalive, minMuxIdle)
	m := &muxConn{wire: c, generation: c.Generation}
	cfg.OnEnd = func(error) { e.mux.remove(m) }
	m.client = http2.NewClient(c, &cfg)
	if !e.mux.add(m) {
		e.drop(c)
		return &outcome.Error{Reason: outcome.NoEndpoints, Op: "connect " + e.address}
	}
	cl.registry.running.Add(1)
	go func() {
		defer cl.registry.running.Done()
		_ = m.client.Run()
		e.mux.remove(m)
		e.drop(c)
	}()
	return nil
}

// minMuxIdle is the shortest time for which an HTTP/2 connection without
// streams is kept: one serves many exchanges and costs a handshake.
const minMuxIdle = 30 * time.Second

var errNoHTTP2 = errors.New("the endpoint does not speak h2 (ALPN); write protocol: http for it")

func (m *mux) add(c *muxConn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.conns = append(m.conns, c)
	return true
}

func (m *mux) remove(c *muxConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.conns, c); i >= 0 {
		m.conns = slices.Delete(m.conns, i, i+1)
	}
}

// drain lets the connections end with the streams that they carry; with final
// no further one is kept.
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
	m.closed = true
	m.mu.Unlock()
	for _, c := range conns {
		c.client.Close()
	}
}
