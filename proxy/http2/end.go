package http2

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

type drainState uint8

const (
	drainNone   drainState = iota
	drainAsked             // GOAWAY with the highest id, and a PING behind it
	drainAgreed            // GOAWAY with the last stream's id
)

// drainPing is the payload of the PING behind the first GOAWAY, and keepPing
// that of those that ask whether the peer is there.
const (
	drainPing = 0x6f75747267676572
	keepPing  = 0x6b656570616c6976
)

// finish ends all streams, waits for their handlers and the writer, and says
// the last word. err is why reading ended.
func (c *conn) finish(err error) error {
	c.mu.Lock()
	local := c.ending || c.dead != nil && !c.dead.Remote && c.dead.Cause == nil
	if c.dead == nil && !c.ending {
		c.failLocked(&Error{Code: NoError, Remote: true, Conn: true, Cause: err})
	} else if c.dead == nil {
		c.failLocked(&Error{Code: NoError, Conn: true, Reason: "closed"})
	}
	dead, ending := c.dead, c.ending
	c.quit = true
	c.writerDone = make(chan struct{})
	c.dismissLocked()
	c.kickLocked()
	c.mu.Unlock()
	// The peer may have stopped reading.
	c.w.SetExact(time.Now().Add(lastWords))
	<-c.writerDone
	c.callCanceled()
	c.handled.Wait()
	if local {
		c.linger()
	}
	if c.cfg.OnEnd != nil && c.watch.toldEnd.CompareAndSwap(false, true) {
		c.cfg.OnEnd(dead)
	}
	c.mu.Lock()
	c.giveBack()
	c.mu.Unlock()
	if err == ErrPreface {
		return err
	}
	if ending || dead.Remote && dead.Code == NoError && c.orderly(dead.Cause) {
		return nil
	}
	return dead
}

// Bounds of ending a connection.
const (
	lastWords   = 250 * time.Millisecond // to write what is pending
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// linger lets the peer read the last frames: closing with unread bytes would make
// the kernel reset the connection and the peer lose them.
func (c *conn) linger() {
	if c.w.Expired() || c.w.CloseWrite() != nil {
		return
	}
	c.w.SetExact(time.Now().Add(lingerTime))
	for n := 0; n < lingerBytes; {
		n += len(c.w.Buffered())
		c.w.Consume(len(c.w.Buffered()))
		if !c.w.Room(wire.Large) || c.w.Fill() != nil {
			return
		}
	}
}

// failLocked ends the connection and all its streams. The first reason counts.
func (c *conn) failLocked(e *Error) {
	if c.dead != nil {
		return
	}
	e.Conn = true
	c.dead = e
	if c.err == nil {
		c.err = ErrClosed
	}
	c.settleLocked()
	for _, s := range c.streams {
		if !s.inEnd {
			f := *e
			f.Unsent = c.client && s.sentAt >= c.handed
			s.failLocked(&f)
		} else {
			s.failLocked(e)
		}
	}
	if c.desk == nil {
		return
	}
	// What is left in the queue waits to send its head: it has no number yet.
	for s := c.ready.front; s != nil; s = c.ready.front {
		c.ready.remove(s)
		f := *e
		f.Unsent = c.client
		s.failLocked(&f)
	}
}

// connError ends the connection for a fault of the peer's: GOAWAY with the code.
func (c *conn) connError(code Code, reason string) error {
	e := &Error{Code: code, Reason: reason, Conn: true}
	c.mu.Lock()
	if c.dead == nil {
		last := c.lastID.Load()
		if c.client {
			last = 0
		}
		c.buffer()
		c.pend = appendGoAway(c.pend, last, code, reason)
		c.failLocked(e)
	}
	c.mu.Unlock()
	return e
}

// endLocked makes Serve or Run return when nothing is left to do.
func (c *conn) endLocked() {
	if c.ending || c.dead != nil {
		return
	}
	c.ending = true
	if c.err == nil {
		c.err = ErrClosed
	}
	c.wakeReader()
}

// wakeReader ends the wait of the goroutine that reads and leaves writing alone.
func (c *conn) wakeReader() {
	_ = c.w.Socket().SetReadDeadline(time.Unix(1, 0))
	c.w.Rouse()
}

// closeNow ends the connection with all streams.
func (c *conn) closeNow() {
	c.mu.Lock()
	c.closeLocked(&Error{Code: Cancel, Reason: "closed by its owner"})
	c.mu.Unlock()
	c.callCanceled()
}

// closeIdle ends the connection if no stream is in use.
func (c *conn) closeIdle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open > 0 || c.running > 0 {
		return false
	}
	if c.dead == nil && !c.ending {
		c.buffer()
		c.pend = appendGoAway(c.pend, c.lastForGoAway(), NoError, "")
		c.endLocked()
	}
	return true
}

// closeLocked ends the connection and fails all streams with e.
func (c *conn) closeLocked(e *Error) {
	if c.dead == nil && !c.ending {
		c.buffer()
		c.pend = appendGoAway(c.pend, c.lastForGoAway(), NoError, "")
		c.endLocked()
		c.failLocked(e)
	}
}

func (c *conn) lastForGoAway() uint32 {
	if c.client {
		return 0
	}
	return c.lastID.Load()
}

// startDrain begins the two phases of RFC 9113 section 6.8. A client, to which
// nobody opens streams, has only one.
func (c *conn) startDrain() {
	c.mu.Lock()
	c.startDrainLocked()
	c.mu.Unlock()
}

func (c *conn) startDrainLocked() {
	if c.drain == drainNone && c.dead == nil && !c.ending {
		if c.client {
			c.drain = drainAgreed
			c.err = ErrGoingAway
			c.drainedLocked()
		} else {
			c.drain = drainAsked
			c.buffer()
			c.pend = appendGoAway(c.pend, maxStreamID, NoError, "")
			c.pend = appendPing(c.pend, 0, drainPing)
			c.kickLocked()
		}
	}
}

// agreeDrainLocked sends the second GOAWAY.
func (c *conn) agreeDrainLocked() {
	if c.drain != drainAsked || c.dead != nil {
		return
	}
	c.drain = drainAgreed
	c.lastSaid = c.lastID.Load()
	c.buffer()
	c.pend = appendGoAway(c.pend, c.lastID.Load(), NoError, "")
	c.kickLocked()
	c.drainedLocked()
}

// drainedLocked ends a draining connection without streams.
func (c *conn) drainedLocked() {
	if c.drain == drainAgreed && c.open == 0 && c.running == 0 {
		if c.client && c.dead == nil && !c.ending {
			c.buffer()
			c.pend = appendGoAway(c.pend, 0, NoError, "")
		}
		c.endLocked()
	}
}
