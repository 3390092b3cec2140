package http2

import "time"

// askRestLocked has the goroutine that reads an idle server's connection leave
// it: its stack is most of what such a connection holds.
func (c *conn) askRestLocked() {
	if c.cfg.Rests && !c.restAsked && !c.rests && c.writer == writerNone {
		c.restAsked = true
		_ = c.w.Socket().SetReadDeadline(time.Unix(1, 0))
	}
}

// stayLocked takes that back, for something has come.
func (c *conn) stayLocked() {
	if c.rests = false; c.restAsked {
		c.restAsked = false
		c.w.KeepReading()
	}
}

// leaving is what a reader does whose read has failed.
type leaving uint8

const (
	fails leaving = iota // the connection has ended
	stays                // it was asked to leave, but has to do something
	leaves
)

// leave says whether the failure of a read was but a request to leave.
func (c *conn) leave() leaving {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.restAsked || c.ending || c.dead != nil || c.w.Expired() {
		return fails
	}
	c.stayLocked()
	if len(c.w.Buffered()) > 0 || c.blockID != 0 || c.open > 0 || c.running > 0 || len(c.pend) > 0 || c.writer != writerNone {
		return stays
	}
	c.rests = true
	c.shedLocked()
	return leaves
}

// shedLocked gives up what a connection at rest does not need: all but the
// dynamic tables, which the peer counts on.
func (c *conn) shedLocked() {
	c.block, c.lines, c.lower, c.fresh, c.wakes, c.canceled, c.idle = nil, nil, nil, nil, nil, nil, nil
	c.in.out, c.in.pseudo, c.in.cookies, c.in.key = nil, nil, nil, nil
	c.dec.scratch = nil
	c.enc.seen = nil
	c.streams = nil // empty
}
