package http2

import (
	"runtime"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// quantum is how much of a stream's data is written before the next stream has
// its turn.
const quantum = maxFrame

// scraps is the room in the pending buffer below which no data frame is begun.
const scraps = 1 << 10

// queue is a list of streams that have data to send, in turn.
type queue struct{ front, back *Stream }

func (q *queue) push(s *Stream) {
	s.queued, s.prev, s.next = true, q.back, nil
	if q.back == nil {
		q.front = s
	} else {
		q.back.next = s
	}
	q.back = s
}

func (q *queue) remove(s *Stream) {
	if s.prev == nil {
		q.front = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		q.back = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.queued, s.prev, s.next = false, nil, nil
}

// send puts p into frames and waits until all of them are pending. It is called
// with the connection's lock held and releases it.
func (s *Stream) send(p []byte, f Flags) error {
	c := s.c
	s.out, s.outWantEnd, s.sending = p, f&End != 0, len(p) > 0 || f&End != 0
	if s.sending && c.ready.front == nil {
		for s.sending && c.appendData(s) {
		}
	}
	if !s.sending {
		c.flush(f)
		return nil
	}
	return s.waitSent()
}

// waitRoom waits until the pending buffer has room for a head. It is called with
// the connection's lock held, and returns with it.
func (s *Stream) waitRoom() error {
	c := s.c
	if len(c.pend) < c.cfg.PendingBytes {
		return nil
	}
	s.out, s.outWantEnd, s.sending = nil, false, true
	err := s.waitSent()
	c.mu.Lock()
	if err == nil {
		err = s.err
	}
	return err
}

// waitSent waits for the writer to take what s.out has. It releases the lock.
func (s *Stream) waitSent() error {
	c := s.c
	if !s.queued && (s.sendLeft > 0 || len(s.out) == 0) {
		c.ready.push(s)
	}
	c.kickLocked()
	for s.sending && s.err == nil && !s.outEnd {
		s.writing = true
		c.mu.Unlock()
		<-s.writable
		c.mu.Lock()
	}
	var err error
	if s.sending {
		if err = s.err; err == nil {
			err = ErrEnded
		}
	}
	if s.queued {
		c.ready.remove(s)
	}
	s.out, s.sending = nil, false
	c.mu.Unlock()
	return err
}

// appendData appends one frame of the stream's data, if windows and room allow.
// It reports whether it did, or nothing had to be done.
func (c *conn) appendData(s *Stream) bool {
	n := len(s.out)
	if n > 0 {
		room := c.cfg.PendingBytes - len(c.pend)
		if room < n && room < scraps {
			return false
		}
		n = min(n, quantum-s.turn, room)
		if n = int(min(int64(n), s.sendLeft, c.sendLeft)); n <= 0 {
			return false
		}
	}
	end := s.outWantEnd && n == len(s.out)
	if n > 0 || end {
		flags := uint8(0)
		if end {
			flags = flagEndStream
		}
		c.buffer()
		c.pend = appendFrameHead(c.pend, n, frameData, flags, s.id)
		c.pend = append(c.pend, s.out[:n]...)
		s.sendLeft -= int64(n)
		c.sendLeft -= int64(n)
		s.out = s.out[n:]
		if s.turn += n; s.turn >= quantum {
			s.turn = 0
		}
		c.watch.sent.Add(1 + int64(n)>>10)
	}
	if len(s.out) == 0 {
		s.sending = false
		if end {
			s.endLocked(false, true)
		}
	}
	return true
}

// pump gives each stream that waits its turn until the pending buffer is full or
// the connection's window used up. Heads wait in the same queue, and pass streams
// that wait for the window.
func (c *conn) pump() {
	if c.desk == nil {
		return // at rest: no streams
	}
	for s := c.ready.front; s != nil && len(c.pend) < c.cfg.PendingBytes; {
		next := s.next
		switch {
		case c.appendData(s):
			if s.turn > 0 && s.sending && s.sendLeft > 0 {
				next = s // its turn goes on when there is room
				break
			}
			if s.queued {
				c.ready.remove(s)
			}
			if s.sending && s.sendLeft > 0 {
				c.ready.push(s)
			} else if !s.sending && s.writing {
				s.writing = false
				s.writable <- struct{}{}
			}
		case s.sendLeft <= 0:
			c.ready.remove(s) // until the peer widens the stream's window
		case c.sendLeft > 0:
			return // no room
		}
		if s = next; s == nil && c.sendLeft > 0 {
			s = c.ready.front
		}
	}
}

// buffer makes sure that pend has memory.
func (c *conn) buffer() {
	if c.pend == nil {
		if c.desk != nil && c.spare != nil {
			c.pend, c.spare = c.spare[:0], nil
		} else {
			c.pend = wire.GetLarge()[:0]
		}
	}
}

// flush tells the writer, unless the caller has more to send at once. It releases
// the lock.
//
// A sender does not write itself, also where it is the only one: that saves
// nothing that could be measured, and would let a peer that reads slowly hold up
// a handler beyond its deadline.
func (c *conn) flush(f Flags) {
	if f&More == 0 && len(c.pend) > 0 {
		c.kickLocked()
	}
	c.mu.Unlock()
}

// kickLocked tells the writer that something is pending, unless it is at work,
// and starts it where there is none.
func (c *conn) kickLocked() {
	if c.kicked || c.flushing && !c.quit {
		return
	}
	switch c.writer {
	case writerWaits:
		c.kicked = true
		c.kick <- struct{}{}
	case writerNone:
		if c.kick == nil {
			c.kick = make(chan struct{}, 1)
		}
		c.kicked, c.writer = true, writerWaits
		go c.writeLoop()
	}
}

// writerState says whether a connection has a goroutine that writes.
type writerState uint8

const (
	writerUnborn writerState = iota // nothing is written before Serve or Run
	writerNone                      // it is started for what comes next
	writerWaits                     // it is there, at work or waiting to be kicked
	writerEnded                     // it has said the last word
)

// restWriterLocked has a writer without work end, until it is needed again: an
// idle connection holds no stack for it.
func (c *conn) restWriterLocked() {
	if c.writer == writerWaits && !c.kicked && !c.flushing {
		c.writerRests = true
		c.kickLocked()
	}
}

// writeOnce writes what is pending. The lock is released while it does.
func (c *conn) writeOnce() {
	b := c.pend
	c.pend = nil
	c.handed += uint64(len(b))
	c.watch.writes.Add(1)
	c.mu.Unlock()
	_, err := c.w.Write(b)
	c.watch.writes.Add(1)
	c.mu.Lock()
	if c.desk != nil && c.spare == nil && cap(b) == wire.Large {
		c.spare = b[:0]
	} else {
		wire.Put(b)
	}
	if err != nil {
		c.pend = c.pend[:0]
		if c.dead == nil {
			c.failLocked(&Error{Code: NoError, Remote: true, Cause: err})
			c.wakeReader()
		}
	}
}

// giveBack returns the buffers of a connection that has nothing to write.
func (c *conn) giveBack() {
	if c.desk != nil && c.spare != nil {
		wire.Put(c.spare)
		c.spare = nil
	}
	if len(c.pend) == 0 && c.pend != nil {
		wire.Put(c.pend)
		c.pend = nil
	}
}

// writeLoop writes what is pending each time it is told to, until the connection
// has ended or rests. It lets the others run before each write, for they have
// mostly something to add to it.
func (c *conn) writeLoop() {
	for {
		c.mu.Lock()
		c.kicked, c.flushing = false, true
		for {
			if !c.quit {
				c.mu.Unlock()
				runtime.Gosched()
				c.mu.Lock()
			}
			c.pump()
			if len(c.pend) == 0 {
				break
			}
			c.writeOnce()
		}
		c.flushing = false
		c.giveBack()
		switch {
		case c.quit:
			c.writer = writerEnded
			close(c.writerDone)
			c.mu.Unlock()
			return
		case c.writerRests:
			c.writer, c.writerRests = writerNone, false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		<-c.kick
	}
}
