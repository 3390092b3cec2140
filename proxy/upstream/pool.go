package upstream

import (
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// pool keeps the idle connections of one endpoint, the last used on top: few
// connections stay busy and the rest grow old enough to be closed.
type pool struct {
	mu     sync.Mutex
	idle   []*wire.Conn
	closed bool // the endpoint is gone: nothing is kept any more
}

// quietFor is how long a connection may have been idle without being checked
// for a close by the peer before it is used again.
const quietFor = 50 * time.Millisecond

// take returns a connection that may be used, or nil. careful asks for a check
// in any case, for requests that cannot be sent twice.
func (p *pool) take(now, keepalive time.Duration, careful bool, drop func(*wire.Conn)) *wire.Conn {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		idle := now - c.LastUse
		if idle <= keepalive && ((idle <= quietFor && !careful) || c.Quiet()) {
			return c
		}
		drop(c)
	}
}

// put keeps c; false when the endpoint is gone.
func (p *pool) put(c *wire.Conn, now time.Duration) bool {
	c.LastUse, c.Reused = now, true
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.idle = append(p.idle, c)
	return true
}

// expire removes the connections that have been idle longer than keepalive and
// hands them to drop.
func (p *pool) expire(now, keepalive time.Duration, drop func(*wire.Conn)) {
	p.mu.Lock()
	// The oldest is at the bottom.
	n := 0
	for n < len(p.idle) && now-p.idle[n].LastUse > keepalive {
		n++
	}
	if n == 0 {
		p.mu.Unlock()
		return
	}
	old := append([]*wire.Conn(nil), p.idle[:n]...)
	rest := copy(p.idle, p.idle[n:])
	clear(p.idle[rest:])
	p.idle = p.idle[:rest]
	p.mu.Unlock()
	for _, c := range old {
		drop(c)
	}
}

// evict removes the oldest idle connection, or returns nil.
func (p *pool) evict() *wire.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	c := p.idle[0]
	copy(p.idle, p.idle[1:])
	p.idle[len(p.idle)-1] = nil
	p.idle = p.idle[:len(p.idle)-1]
	return c
}

// close drops everything; with final no connection is kept afterwards.
func (p *pool) close(final bool, drop func(*wire.Conn)) {
	p.mu.Lock()
	old := p.idle
	p.idle = nil
	p.closed = p.closed || final
	p.mu.Unlock()
	for _, c := range old {
		drop(c)
	}
}

func (p *pool) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}
