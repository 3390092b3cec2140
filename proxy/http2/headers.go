package http2

import (
	"encoding/binary"

	"github.com/outrigger-mesh/outrigger/proxy/memory"
)

// Bounds of a field section as it is received.
const (
	maxPieces = 64 // HEADERS and CONTINUATION frames
	maxHeads  = 32 // heads of one response, and so interim ones
	bombRatio = 16 // how far the decoded size may exceed the limit, before it is an attack
)

// onHeaders takes a HEADERS frame, RFC 9113 section 6.2.
func (c *conn) onHeaders(f *frame) error {
	if f.id == 0 {
		return c.connError(ProtocolError, "HEADERS on stream 0")
	}
	p, ok := f.unpadded()
	if !ok {
		return c.connError(ProtocolError, "padding exceeds the frame")
	}
	c.blockFl = f.flags
	c.in.self = false
	if f.has(flagPriority) {
		if len(p) < 5 {
			return c.connError(FrameSizeError, "HEADERS without room for its priority")
		}
		c.in.self = binary.BigEndian.Uint32(p)&maxStreamID == f.id
		p = p[5:]
	}
	if f.has(flagEndHeaders) {
		return c.onSection(f.id, p)
	}
	c.blockID, c.pieces = f.id, 1
	c.block = append(c.block[:0], p...)
	return nil
}

// onContinuation takes a CONTINUATION frame, RFC 9113 section 6.10.
func (c *conn) onContinuation(f *frame) error {
	if c.blockID == 0 {
		return c.connError(ProtocolError, "CONTINUATION without HEADERS")
	}
	c.pieces++
	if c.pieces > maxPieces || len(f.payload) == 0 && !f.has(flagEndHeaders) {
		return c.flood(FloodContinuation)
	}
	if len(c.block)+len(f.payload) > c.cfg.HeaderBytes+maxFrame {
		return c.flood(FloodHeaders)
	}
	c.block = append(c.block, f.payload...)
	if !f.has(flagEndHeaders) {
		return nil
	}
	id := c.blockID
	c.blockID = 0
	err := c.onSection(id, c.block)
	if cap(c.block) > keptHead {
		c.block = nil
	}
	return err
}

// onSection takes a whole field section. It is decoded in any case, for the
// dynamic table must not miss anything.
func (c *conn) onSection(id uint32, block []byte) error {
	if c.cfg.Raw {
		return c.onRaw(id, block)
	}
	end := c.blockFl&flagEndStream != 0
	c.mu.Lock()
	s := c.streams[id]
	kind := sectionRequest
	switch {
	case s == nil && c.client:
		kind = sectionTrailers
	case c.client && !s.final:
		kind = sectionResponse
	case s != nil:
		kind = sectionTrailers
	}
	c.in.begin(kind, s)
	c.mu.Unlock()
	if err := c.dec.section(block, c.emit, c.known); err != nil {
		return c.connError(CompressionError, err.Error())
	}
	if c.in.size > bombRatio*c.cfg.HeaderBytes {
		return c.flood(FloodHeaders)
	}
	c.in.end(end)
	return c.placeSection(id, s, end)
}

// placeSection gives the section in c.in to the stream it is for.
func (c *conn) placeSection(id uint32, s *Stream, end bool) error {
	if s != nil {
		return c.onMoreHeaders(id, s, end)
	}
	if c.client {
		return c.strayHeaders(id)
	}
	return c.onRequest(id, end)
}

// strayHeaders judges a field section for a stream that is not open.
func (c *conn) strayHeaders(id uint32) error {
	if c.idleStream(id) {
		return c.connError(ProtocolError, "HEADERS for a stream that is not open")
	}
	c.mu.Lock()
	known, reset := c.fate(id)
	c.mu.Unlock()
	switch {
	case reset:
		return nil
	case known:
		return c.connError(StreamClosed, "HEADERS for a stream that has ended")
	case c.client || c.opened == uint64(c.lastID.Load()+1)/2:
		return nil // no number was left out: long forgotten, and perhaps reset by us
	}
	return c.connError(ProtocolError, "a stream's number is lower than one before")
}

// onRequest opens a stream.
func (c *conn) onRequest(id uint32, end bool) error {
	if id&1 == 0 {
		return c.connError(ProtocolError, "a client's stream with an even number")
	}
	if id <= c.lastID.Load() {
		return c.strayHeaders(id)
	}
	c.earned()
	c.mu.Lock()
	if c.dead != nil || id > c.lastSaid {
		c.mu.Unlock()
		return nil // the client will learn from GOAWAY
	}
	c.lastID.Store(id)
	c.opened++
	in := &c.in
	var code Code
	switch {
	case in.self:
		code = ProtocolError
	case in.malformed != "":
		code = ProtocolError
	case c.open >= c.cfg.Streams || c.running >= 2*c.cfg.Streams:
		code = RefusedStream
	case c.cfg.Memory.At(memory.Refuse):
		c.cfg.Memory.Gave(memory.Streams)
		code = RefusedStream
	case in.tooLarge && c.cfg.Raw:
		code = EnhanceYourCalm // the other sidecar has the same limits unless told otherwise
	case in.tooLarge:
		return c.refuseLargeLocked(id, end)
	default:
		c.cfg.Memory.Pledge(memory.PerExchange)
		s := c.newStream()
		s.id = id
		s.sendLeft = c.peerWindow
		s.final = true
		s.connect = in.connect
		s.Origin = in.origin
		s.heads = append(s.heads[:0], in.out...)
		s.headEnds = append(s.headEnds[:0], len(s.heads))
		s.headAt = 1
		s.Head = s.heads[:len(s.heads):len(s.heads)]
		s.Ended = end
		s.Protocol = append(s.Protocol[:0], in.protocol.of(in.pseudo)...)
		s.key = append(s.key[:0], in.key...)
		s.expected = in.length
		s.inEnd, s.whole = end, end
		c.streams[id] = s
		c.open++
		c.running++
		c.mu.Unlock()
		c.fresh = append(c.fresh, s)
		return nil
	}
	c.buffer()
	c.pend = appendWord(c.pend, frameReset, 0, id, uint32(code))
	c.remember(id, true)
	c.kickLocked()
	c.mu.Unlock()
	return c.spend(FloodReset)
}

// refuseLargeLocked answers 431 to a request whose head exceeds the limits (RFC
// 6585 section 5). It releases the lock.
func (c *conn) refuseLargeLocked(id uint32, end bool) error {
	c.buffer()
	at := len(c.pend)
	c.pend = appendFrameHead(c.pend, 0, frameHeaders, flagEndHeaders|flagEndStream, id)
	c.pend = c.enc.begin(c.pend)
	c.pend = c.enc.field(c.pend, staticStatus, []byte(":status"), []byte("431"))
	putLength(c.pend[at:], len(c.pend)-at-frameHead)
	if !end {
		c.pend = appendWord(c.pend, frameReset, 0, id, uint32(NoError))
	}
	c.remember(id, !end)
	c.kickLocked()
	c.mu.Unlock()
	return c.spend(FloodReset)
}

// onMoreHeaders takes a response's head, or trailers of either kind.
func (c *conn) onMoreHeaders(id uint32, s *Stream, end bool) error {
	in := &c.in
	if c.client {
		c.earned()
	}
	c.mu.Lock()
	switch {
	case c.streams[id] != s: // it ended meanwhile, and may carry another exchange by now
		c.mu.Unlock()
		return nil
	case s.inEnd:
		// RFC 9113 section 5.1, half-closed (remote).
		return c.streamErrorLocked(s, StreamClosed, "HEADERS after the stream's end")
	case in.self:
		return c.streamErrorLocked(s, ProtocolError, "the stream depends on itself")
	case in.malformed != "":
		return c.streamErrorLocked(s, ProtocolError, in.malformed)
	case in.tooLarge:
		return c.streamErrorLocked(s, EnhanceYourCalm, "the field section exceeds the limits")
	}
	if in.kind == sectionTrailers {
		if !end {
			return c.streamErrorLocked(s, ProtocolError, "trailers that do not end the stream")
		}
		if s.expected >= 0 && s.got != s.expected {
			return c.streamErrorLocked(s, ProtocolError, "DATA does not fit content-length")
		}
		s.trailers = append(s.trailers[:0], in.out...)
	} else {
		if len(s.headEnds) >= maxHeads || len(s.heads) > c.cfg.HeaderBytes {
			return c.streamErrorLocked(s, EnhanceYourCalm, "too many interim responses")
		}
		s.final = in.status >= 200
		if !s.final && end {
			return c.streamErrorLocked(s, ProtocolError, "an interim response ends the stream")
		}
		if s.final {
			s.expected = in.length
			if s.isHead || in.status == 304 || in.status == 204 {
				s.expected = -1
			} else if end && in.length > 0 {
				return c.streamErrorLocked(s, ProtocolError, "content-length without DATA")
			}
		}
		s.heads = append(s.heads, in.out...)
		s.headEnds = append(s.headEnds, len(s.heads))
		s.lastEnds = end
	}
	if end {
		s.endedWhole()
	}
	if s.reading {
		s.reading = false
		c.wakeLater(s.readable)
	}
	c.mu.Unlock()
	return nil
}
