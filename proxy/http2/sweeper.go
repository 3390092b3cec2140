package http2

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/memory"
)

// SweepInterval is how often times are looked at, and so how late a stream or
// connection may be ended.
const SweepInterval = 100 * time.Millisecond

// Sweeper ends streams whose deadline has passed, connections that are idle for
// too long, and those whose peer is dead. The request path only stores a number.
type Sweeper struct {
	now func() time.Duration

	mu    sync.Mutex
	conns []*conn
	work  []*conn
}

// NewSweeper returns a sweeper with the given clock, such as that of a
// wire.Sweeper.
func NewSweeper(now func() time.Duration) *Sweeper { return &Sweeper{now: now} }

// Now returns the time on the sweeper's clock.
func (w *Sweeper) Now() time.Duration { return w.now() }

// Run sweeps until ctx ends.
func (w *Sweeper) Run(ctx context.Context) error {
	tick := time.NewTicker(SweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.Sweep(w.now())
		}
	}
}

// Sweep ends what has to be at now. It must not be called by two goroutines at
// the same time.
func (w *Sweeper) Sweep(now time.Duration) {
	w.mu.Lock()
	w.work = append(w.work[:0], w.conns...)
	w.mu.Unlock()
	for i, c := range w.work {
		c.sweep(now)
		w.work[i] = nil
	}
}

func (w *Sweeper) add(c *conn) {
	if w == nil {
		return
	}
	w.mu.Lock()
	c.watch.at = len(w.conns)
	c.watch.began, c.watch.heard, c.watch.wrote = w.now(), w.now(), w.now()
	if c.watch.agedAt == 0 { // else it has rested meanwhile
		c.watch.agedAt = c.aged(c.watch.began)
	}
	w.conns = append(w.conns, c)
	w.mu.Unlock()
}

func (w *Sweeper) remove(c *conn) {
	if w == nil {
		return
	}
	w.mu.Lock()
	last := w.conns[len(w.conns)-1]
	w.conns[c.watch.at], last.watch.at = last, c.watch.at
	w.conns[len(w.conns)-1] = nil
	w.conns = w.conns[:len(w.conns)-1]
	w.mu.Unlock()
}

// watch is what the sweeper knows of a connection. But for the atomic members
// it is under the connection's lock.
type watch struct {
	at      int // position in the sweeper's list, under its lock
	toldEnd atomic.Bool
	writes  atomic.Uint64 // odd while a write is under way
	// Real work, as credit for frames that ask for some: data frames and
	// kilobytes sent, and streams that ended in order.
	sent, finished atomic.Int64
	ticks          atomic.Uint64 // sweeps, each of which earns one frame of any kind

	began     time.Duration
	heard     time.Duration // when a frame was last known to have come
	wrote     time.Duration // when the write under way was first seen
	used      time.Duration // when a stream was last known to be open
	askedAt   time.Duration
	drainAt   time.Duration
	agedAt    time.Duration // when the connection is to be drained; 0 never
	frames    uint64        // of conn.frames, at heard
	writeSeq  uint64
	openedSeq uint64
	asked     bool // a PING is not answered
}

// sweep looks after all times of a connection.
func (c *conn) sweep(now time.Duration) {
	c.watch.ticks.Add(1)
	c.mu.Lock()
	if c.dead == nil && !c.ending {
		c.sweepStreams(now)
		c.sweepConn(now)
	}
	c.mu.Unlock()
	c.callCanceled()
}

func (c *conn) sweepStreams(now time.Duration) {
	if c.desk == nil {
		return
	}
	for _, s := range c.streams {
		s.sweep(now)
	}
	// Those that wait to send their head are not among them.
	for s := c.ready.front; s != nil; {
		next := s.next
		s.sweep(now)
		s = next
	}
}

func (s *Stream) sweep(now time.Duration) {
	if d := s.deadline.Load(); d > 0 && d < int64(now) {
		s.expireLocked()
	}
}

// sweepConn is called with the lock held.
func (c *conn) sweepConn(now time.Duration) {
	k := &c.watch
	// A write that takes too long.
	if seq := k.writes.Load(); seq&1 == 0 || seq != k.writeSeq {
		k.writeSeq, k.wrote = seq, now
	} else if now-k.wrote >= c.cfg.WriteTimeout {
		c.expireConn("the peer reads nothing")
		return
	}
	// A peer that says nothing.
	if n := c.frames.Load(); n != k.frames {
		k.frames, k.heard = n, now
		if k.asked && now-k.askedAt < c.cfg.PingTimeout {
			k.asked = false
		}
	}
	switch {
	case !c.ackedOwn && now-k.began >= c.cfg.WriteTimeout:
		c.expireConn("the peer does not acknowledge SETTINGS")
		return
	case k.asked && now-k.askedAt >= c.cfg.PingTimeout:
		c.expireConn("the peer does not answer PING")
		return
	case !k.asked && c.cfg.PingAfter > 0 && now-k.heard >= c.cfg.PingAfter && (c.open > 0 || c.cfg.PingIdle):
		k.asked, k.askedAt = true, now
		c.buffer()
		c.pend = appendPing(c.pend, 0, keepPing)
		c.kickLocked()
	}
	if c.sweepAge(now); c.dead != nil || c.ending {
		return
	}
	// Draining whose PING is not answered.
	if c.drain == drainAsked {
		if k.drainAt == 0 {
			k.drainAt = now
		} else if now-k.drainAt >= c.cfg.PingTimeout {
			c.agreeDrainLocked()
		}
	}
	if c.desk != nil && c.withheld > 0 && !c.cfg.Memory.At(memory.Narrow) {
		c.freed(0) // memory may not be short any more
	}
	// Idle.
	if c.open > 0 || c.running > 0 || c.opened != k.openedSeq || k.used == 0 {
		k.used, k.openedSeq = now, c.opened
		return
	}
	if now-k.used >= restTime {
		c.dismissLocked()
		c.restWriterLocked()
		c.askRestLocked()
	}
	idle := c.cfg.IdleTimeout
	if !c.client {
		idle = c.cfg.Memory.Idle(idle)
	}
	if idle > 0 && now-k.used >= idle {
		c.buffer()
		c.pend = appendGoAway(c.pend, c.lastForGoAway(), NoError, "idle")
		c.endLocked()
	}
}

// restTime is how long a connection's workers wait for streams, and its writer
// for something to write.
const restTime = 500 * time.Millisecond

// expireConn ends a connection whose peer is taken to be dead. To its streams that
// is a lost connection: no deadline of theirs has passed.
func (c *conn) expireConn(reason string) {
	c.failLocked(&Error{Code: NoError, Reason: reason, Cause: errLost})
	c.w.Expire()
}

var errLost = errors.New("the connection is taken to be lost")
