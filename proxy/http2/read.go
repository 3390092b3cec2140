package http2

import (
	"encoding/binary"
	"errors"
	"io"
	"syscall"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// orderly reports whether a connection that ended with err ended as connections
// do, between frames.
func (c *conn) orderly(err error) bool { return err == io.EOF }

// readLoop takes frames until the connection ends.
func (c *conn) readLoop() error {
	for {
		err := c.batch()
		c.deliver()
		if err != nil {
			return err
		}
		c.mu.Lock()
		dead, ending := c.dead, c.ending
		c.stayLocked()
		c.mu.Unlock()
		if dead != nil {
			return dead
		}
		if ending {
			return ErrClosed
		}
		if len(c.w.Buffered()) == 0 && c.bulk() {
			c.w.Widen()
		} else if !c.w.Room(wire.Large) {
			return c.connError(FrameSizeError, "frame is larger than the buffer")
		}
		if err := c.w.Fill(); err != nil {
			switch c.leave() {
			case stays:
				continue
			case leaves:
				return wire.ErrResting
			}
			if errors.Is(err, syscall.ECONNRESET) || err == io.EOF && len(c.w.Buffered()) == 0 {
				err = io.EOF
			} else if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// bulk reports whether streams are sending so much that a large buffer pays.
func (c *conn) bulk() bool { return c.in.bulk }

// batch takes all whole frames of the buffer.
func (c *conn) batch() error {
	b := c.w.Buffered()
	whole := len(b)
	taken := 0
	defer func() { c.w.Consume(taken) }()
	if !c.greeted {
		n := min(len(b), len(preface))
		if string(b[:n]) != preface[:n] {
			_ = c.connError(ProtocolError, "no preface")
			return ErrPreface
		}
		if n < len(preface) {
			return nil
		}
		c.greeted = true
		taken, b = n, b[n:]
	}
	for len(b) >= frameHead {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if n > maxFrame {
			return c.connError(FrameSizeError, "frame exceeds SETTINGS_MAX_FRAME_SIZE")
		}
		if len(b) < frameHead+n {
			break
		}
		f := frame{kind: b[3], flags: b[4], id: binary.BigEndian.Uint32(b[5:]) & maxStreamID, payload: b[frameHead : frameHead+n]}
		taken += frameHead + n
		b = b[frameHead+n:]
		c.frames.Add(1)
		if err := c.onFrame(&f); err != nil {
			return err
		}
	}
	c.in.bulk = whole >= wire.Small
	return nil
}

// deliver starts the handlers and wakes the goroutines for which something came.
func (c *conn) deliver() {
	for i, s := range c.fresh {
		c.fresh[i] = nil
		c.dispatch(s)
	}
	c.fresh = c.fresh[:0]
	for i, ch := range c.wakes {
		c.wakes[i] = nil
		ch <- struct{}{}
	}
	c.wakes = c.wakes[:0]
	c.callCanceled()
}

func (c *conn) onFrame(f *frame) error {
	if c.blockID != 0 && (f.kind != frameContinuation || f.id != c.blockID) {
		return c.connError(ProtocolError, "a field section is interrupted")
	}
	if !c.settled {
		if f.kind != frameSettings || f.has(flagAck) {
			return c.connError(ProtocolError, "the first frame is not SETTINGS")
		}
		c.settled = true
	}
	switch f.kind {
	case frameData:
		return c.onData(f)
	case frameHeaders:
		return c.onHeaders(f)
	case framePriority:
		return c.onPriority(f)
	case frameReset:
		return c.onReset(f)
	case frameSettings:
		err := c.onSettings(f)
		c.heardSettings.Store(err == nil)
		c.settle()
		return err
	case framePushPromise:
		return c.connError(ProtocolError, "PUSH_PROMISE, which was not allowed")
	case framePing:
		return c.onPing(f)
	case frameGoAway:
		return c.onGoAway(f)
	case frameWindowUpdate:
		return c.onWindowUpdate(f)
	case frameContinuation:
		return c.onContinuation(f)
	}
	return c.spend(FloodPriority) // unknown: to be ignored, RFC 9113 section 4.1
}

// idleStream reports whether the stream has not been opened yet.
func (c *conn) idleStream(id uint32) bool {
	own := id&1 == 1 // opened by a client
	return !own || id > c.lastID.Load()
}

// streamErrorLocked ends one stream for a fault of the peer's. It releases the
// lock.
func (c *conn) streamErrorLocked(s *Stream, code Code, reason string) error {
	s.resetLocked(code, &Error{Code: code, Reason: reason})
	c.mu.Unlock()
	if c.client {
		return nil // the stream was ours
	}
	return c.spend(FloodReset)
}

// strayData answers DATA for a stream that is not open.
func (c *conn) strayData(id uint32) error {
	if c.idleStream(id) {
		return c.connError(ProtocolError, "DATA on a stream that is not open")
	}
	c.mu.Lock()
	if _, reset := c.fate(id); reset || id > c.lastSaid {
		c.mu.Unlock()
		return nil // it crossed our RST_STREAM or GOAWAY
	}
	c.buffer()
	c.pend = appendWord(c.pend, frameReset, 0, id, uint32(StreamClosed))
	c.remember(id, true)
	c.kickLocked()
	c.mu.Unlock()
	return c.spend(FloodReset)
}
