package limiter

import (
	"sync"
	"time"
)

// pool keeps connections between questions, the last used on top.
type pool struct {
	mu     sync.Mutex
	idle   []*redisConn
	closed bool
}

// Bounds of a pool.
const (
	maxIdle  = 64
	idleTime = time.Minute
)

// get takes a connection; nil if there is none.
func (p *pool) get(now time.Duration) *redisConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(now)
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return c
}

func (p *pool) put(c *redisConn, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(now)
	if p.closed || len(p.idle) == maxIdle {
		_ = c.conn.Close()
		return
	}
	c.since = now
	p.idle = append(p.idle, c)
}

// expire closes those that have been unused too long. mu is held.
func (p *pool) expire(now time.Duration) {
	n := 0
	for n < len(p.idle) && now-p.idle[n].since > idleTime {
		_ = p.idle[n].conn.Close()
		n++
	}
	p.idle = append(p.idle[:0], p.idle[n:]...)
}

// flush closes all that are kept.
func (p *pool) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}

// close is flush for good.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.drop()
}

func (p *pool) drop() {
	for _, c := range p.idle {
		_ = c.conn.Close()
	}
	p.idle = nil
}
