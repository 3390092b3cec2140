package http2

import (
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// onData takes a DATA frame, RFC 9113 section 6.1.
func (c *conn) onData(f *frame) error {
	if f.id == 0 {
		return c.connError(ProtocolError, "DATA on stream 0")
	}
	p, ok := f.unpadded()
	if !ok {
		return c.connError(ProtocolError, "padding exceeds the frame")
	}
	n, pad := len(p), len(f.payload)-len(p)
	end := f.has(flagEndStream)
	if n == 0 && !end {
		if err := c.spend(FloodEmptyData); err != nil {
			return err
		}
	} else {
		c.earn(FloodEmptyData, 1)
		c.earn(FloodPing, 1)
	}
	c.mu.Lock()
	if c.recvLeft -= int64(n + pad); c.recvLeft < 0 {
		c.mu.Unlock()
		return c.connError(FlowControlError, "more DATA than the connection's window")
	}
	s := c.streams[f.id]
	switch {
	case s == nil:
		c.creditLocked(int64(n + pad))
		c.mu.Unlock()
		return c.strayData(f.id)
	case s.inEnd:
		// Only our own sending side is still open.
		c.creditLocked(int64(n + pad))
		return c.streamErrorLocked(s, StreamClosed, "DATA after the stream's end")
	case !s.final:
		c.creditLocked(int64(n + pad))
		return c.streamErrorLocked(s, ProtocolError, "DATA before the head")
	}
	if s.recvLeft -= int64(n + pad); s.recvLeft < 0 {
		c.creditLocked(int64(n + pad))
		return c.streamErrorLocked(s, FlowControlError, "more DATA than the stream's window")
	}
	s.got += int64(n)
	if s.expected >= 0 && (s.got > s.expected || end && s.got < s.expected) {
		c.creditLocked(int64(n + pad))
		return c.streamErrorLocked(s, ProtocolError, "DATA does not fit content-length")
	}
	if s.err != nil {
		c.creditLocked(int64(n + pad)) // nobody will read it
	} else {
		s.keep(p)
		c.buffered += int64(n)
		if c.buffered <= c.mayBuffer() {
			c.creditLocked(int64(n + pad))
		} else {
			c.withheld += int64(n)
			c.creditLocked(int64(pad))
		}
		if pad > 0 && !end {
			c.owe(s, pad)
		}
	}
	if end {
		s.endedWhole()
	}
	if s.reading && (n > 0 || end) {
		s.reading = false
		c.wakeLater(s.readable)
	}
	c.mu.Unlock()
	return nil
}

// keep copies p behind what waits to be read.
func (s *Stream) keep(p []byte) {
	s.bodyN += len(p)
	for len(p) > 0 {
		if k := len(s.body); k > 0 {
			if n := copy(s.body[k-1][s.bodyW:], p); n > 0 {
				s.bodyW += n
				p = p[n:]
				continue
			}
		}
		b := wire.GetSmall()
		if len(s.body) > 0 || len(p) > wire.Small {
			wire.Put(b)
			b = wire.GetLarge()
		}
		s.body = append(s.body, b)
		s.bodyW = 0
	}
}

// take drops n bytes from the front of the first buffer.
func (s *Stream) take(n int) {
	s.bodyR += n
	s.bodyN -= n
	if len(s.body) == 0 {
		return
	}
	end := len(s.body[0])
	if len(s.body) == 1 {
		end = s.bodyW
	}
	if s.bodyR < end {
		return
	}
	wire.Put(s.body[0])
	k := copy(s.body, s.body[1:])
	s.body[k] = nil
	s.body = s.body[:k]
	s.bodyR = 0
	if k == 0 {
		s.bodyW = 0
	}
}

// dropBody throws away what was not read.
func (s *Stream) dropBody() {
	n := s.bodyN
	for i, b := range s.body {
		wire.Put(b)
		s.body[i] = nil
	}
	s.body, s.bodyR, s.bodyW, s.bodyN = s.body[:0], 0, 0, 0
	if n > 0 {
		s.c.freed(n)
	}
}

// gaveUp counts n bytes that were read, and lets the peer send as many again.
func (c *conn) gaveUp(s *Stream, n int) {
	c.freed(n)
	if !s.inEnd {
		c.owe(s, n)
	}
}

// freed counts n bytes that wait no longer.
func (c *conn) freed(n int) {
	c.buffered -= int64(n)
	if c.withheld > 0 {
		w := min(c.withheld, int64(n))
		if c.buffered <= c.mayBuffer() {
			w = c.withheld
		}
		c.withheld -= w
		c.creditLocked(w)
	}
}

// mayBuffer is how many bytes may wait to be read before the peer's window for
// the connection is given back only as they are.
func (c *conn) mayBuffer() int64 {
	if c.cfg.Memory.At(memory.Narrow) {
		return 0
	}
	return int64(c.cfg.ConnBuffer)
}

// creditLocked lets the peer send n bytes more on the connection, in steps of a
// quarter of the window.
func (c *conn) creditLocked(n int64) {
	if c.owed += n; c.owed >= int64(c.cfg.ConnWindow)/4 && c.dead == nil {
		c.buffer()
		c.pend = appendWord(c.pend, frameWindowUpdate, 0, 0, uint32(c.owed))
		c.recvLeft += c.owed
		c.owed = 0
		c.kickLocked()
	}
}

// owe lets the peer send n bytes more on a stream, in steps of half its window,
// which grows for a stream that uses it.
func (c *conn) owe(s *Stream, n int) {
	s.owed += int64(n)
	if s.owed < s.window/2 || s.err != nil {
		return
	}
	if grown := min(2*s.window, int64(c.cfg.MaxWindow)); s.got > 4*s.window && grown > s.window && !c.cfg.Memory.At(memory.Narrow) {
		s.owed += grown - s.window
		s.window = grown
	}
	c.buffer()
	c.pend = appendWord(c.pend, frameWindowUpdate, 0, s.id, uint32(s.owed))
	s.recvLeft += s.owed
	s.owed = 0
	c.kickLocked()
}
