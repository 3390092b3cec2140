package http2

import (
	"encoding/binary"
)

func (c *conn) onPriority(f *frame) error {
	if f.id == 0 {
		return c.connError(ProtocolError, "PRIORITY on stream 0")
	}
	if len(f.payload) != 5 {
		return c.resetByID(f.id, FrameSizeError)
	}
	if binary.BigEndian.Uint32(f.payload)&maxStreamID == f.id {
		return c.resetByID(f.id, ProtocolError)
	}
	return c.spend(FloodPriority)
}

// resetByID ends a stream, which may be one that is not open, for a fault of the
// peer's that concerns only it.
func (c *conn) resetByID(id uint32, code Code) error {
	c.mu.Lock()
	if s := c.streams[id]; s != nil {
		return c.streamErrorLocked(s, code, "malformed frame")
	}
	idle := c.idleStream(id)
	if !idle {
		c.buffer()
		c.pend = appendWord(c.pend, frameReset, 0, id, uint32(code))
		c.kickLocked()
	}
	c.mu.Unlock()
	if idle {
		// RST_STREAM may not be sent for an idle stream.
		return c.connError(code, "malformed frame for an idle stream")
	}
	return c.spend(FloodReset)
}

func (c *conn) onReset(f *frame) error {
	if len(f.payload) != 4 {
		return c.connError(FrameSizeError, "RST_STREAM of the wrong length")
	}
	if f.id == 0 || c.idleStream(f.id) {
		return c.connError(ProtocolError, "RST_STREAM for a stream that is not open")
	}
	code := Code(binary.BigEndian.Uint32(f.payload))
	c.mu.Lock()
	s := c.streams[f.id]
	if s != nil {
		s.failLocked(&Error{Code: code, Remote: true, Unsent: c.client && code == RefusedStream})
	}
	c.mu.Unlock()
	if c.client && s != nil {
		return nil // it may refuse as many as are opened
	}
	return c.spend(FloodReset)
}

func (c *conn) onPing(f *frame) error {
	if f.id != 0 {
		return c.connError(ProtocolError, "PING on a stream")
	}
	if len(f.payload) != 8 {
		return c.connError(FrameSizeError, "PING of the wrong length")
	}
	word := binary.BigEndian.Uint64(f.payload)
	if f.has(flagAck) {
		c.mu.Lock()
		switch word {
		case drainPing:
			c.agreeDrainLocked()
		case keepPing:
			c.watch.asked = false
		}
		c.mu.Unlock()
		return nil
	}
	if err := c.spend(FloodPing); err != nil {
		return err
	}
	return c.reply(func() { c.pend = appendPing(c.pend, flagAck, word) })
}

// reply appends an answer to a control frame. A peer that does not read its
// answers is stopped.
func (c *conn) reply(add func()) error {
	c.mu.Lock()
	full := len(c.pend) > c.cfg.PendingBytes+answerBytes
	if !full && c.dead == nil {
		c.buffer()
		add()
		c.kickLocked()
	}
	c.mu.Unlock()
	if full {
		return c.flood(FloodPending)
	}
	return nil
}

// answerBytes is how much of answers to control frames may be pending beyond
// PendingBytes.
const answerBytes = 16 << 10

func appendPing(b []byte, flags uint8, word uint64) []byte {
	return binary.BigEndian.AppendUint64(appendFrameHead(b, 8, framePing, flags, 0), word)
}

func (c *conn) onGoAway(f *frame) error {
	if f.id != 0 {
		return c.connError(ProtocolError, "GOAWAY on a stream")
	}
	if len(f.payload) < 8 {
		return c.connError(FrameSizeError, "GOAWAY of the wrong length")
	}
	last := binary.BigEndian.Uint32(f.payload) & maxStreamID
	code := Code(binary.BigEndian.Uint32(f.payload[4:]))
	c.mu.Lock()
	if last > c.lastHeard {
		c.mu.Unlock()
		return c.connError(ProtocolError, "GOAWAY with a higher stream than before")
	}
	c.lastHeard = last
	if !c.client {
		c.mu.Unlock()
		return c.spend(FloodSettings)
	}
	if c.err == nil {
		c.err = ErrGoingAway
	}
	for id, s := range c.streams {
		if id > last {
			// Whatever the code says, it was not and will not be processed.
			s.failLocked(&Error{Code: code, Reason: "the peer goes away", Remote: true, Unsent: true})
		}
	}
	if c.drain == drainNone {
		c.drain = drainAgreed
	}
	c.drainedLocked()
	c.mu.Unlock()
	if c.cfg.OnEnd != nil && c.watch.toldEnd.CompareAndSwap(false, true) {
		c.cfg.OnEnd(&Error{Code: code, Remote: true, Conn: true, Reason: "GOAWAY"})
	}
	return c.spend(FloodSettings)
}

func (c *conn) onWindowUpdate(f *frame) error {
	if len(f.payload) != 4 {
		return c.connError(FrameSizeError, "WINDOW_UPDATE of the wrong length")
	}
	if err := c.spend(FloodWindow); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	if f.id == 0 {
		if n == 0 {
			return c.connError(ProtocolError, "WINDOW_UPDATE by nothing")
		}
		c.mu.Lock()
		c.sendLeft += n
		over := c.sendLeft > maxWindow
		if c.ready.front != nil {
			c.kickLocked()
		}
		c.mu.Unlock()
		if over {
			return c.connError(FlowControlError, "the connection's window exceeds 2^31-1")
		}
		return nil
	}
	if c.idleStream(f.id) {
		return c.connError(ProtocolError, "WINDOW_UPDATE for a stream that is not open")
	}
	c.mu.Lock()
	s := c.streams[f.id]
	switch {
	case s == nil:
		c.mu.Unlock() // it may well cross the end
	case n == 0:
		return c.streamErrorLocked(s, ProtocolError, "WINDOW_UPDATE by nothing")
	case s.sendLeft+n > maxWindow:
		return c.streamErrorLocked(s, FlowControlError, "the stream's window exceeds 2^31-1")
	default:
		s.sendLeft += n
		c.resume(s)
		c.mu.Unlock()
	}
	return nil
}

// resume lets a stream whose window was used up take its turn again.
func (c *conn) resume(s *Stream) {
	if s.sending && !s.queued && s.sendLeft > 0 {
		c.ready.push(s)
		c.kickLocked()
	}
}
