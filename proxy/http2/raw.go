package http2

import "bytes"

// ALPN names of the transport between two sidecars: HTTP/2 framing in which a
// HEADERS block is not compressed. A request's block is one byte, its Origin,
// and the HTTP/1.1 head as package http1 writes it; a response's is the head;
// trailers are field lines. Names keep their case, and no side does work for the
// other's compression. A TCP stream's block is its Origin alone, and it has no
// response head: DATA flows at once in both directions.
//
// Whatever comes is checked as if it had come by HTTP/1.1: heads by package http1
// with the listener's limits, trailers here, and the length of a body against
// what its head says (Expect).
const (
	MeshHTTP = "outrigger/1"
	MeshTCP  = "outrigger-tcp/1"
)

// Origin is how a request came into the mesh.
type Origin byte

// The origins.
const (
	FromHTTP1 Origin = '1'
	FromHTTP2 Origin = '2'
	FromTCP   Origin = 't' // a TCP connection: no head
)

func (o Origin) known() bool { return o == FromHTTP1 || o == FromHTTP2 || o == FromTCP }

var headEnd = []byte("\r\n\r\n")

// startRaw sends the beginning of a request or of a TCP stream.
func (s *Stream) startRaw(head []byte, end bool) error {
	c := s.c
	tcp := s.Origin == FromTCP
	if !s.Origin.known() || tcp != (len(head) == 0) || !tcp && !bytes.HasSuffix(head, headEnd) {
		return ErrBadHead
	}
	s.final = tcp
	s.connect = tcp
	s.begin()
	at := c.beginHead()
	c.pend = append(append(c.pend, byte(s.Origin)), head...)
	c.endHead(at, s.id, end)
	if end {
		s.endLocked(false, true)
	}
	return nil
}

// answerRaw sends a response's head.
func (s *Stream) answerRaw(head []byte, body, end bool) error {
	c := s.c
	status, ok := statusOf(head)
	if !ok || c.client || s.answered || !bytes.HasSuffix(head, headEnd) {
		return ErrBadHead
	}
	interim := status < 200 && status != 101
	if interim && (body || end) {
		return ErrBadHead
	}
	at := c.beginHead()
	c.pend = append(c.pend, head...)
	end = end && !body
	c.endHead(at, s.id, end)
	s.answered = !interim
	if end {
		s.endLocked(false, true)
	}
	return nil
}

// statusOf returns the status of a response's head.
func statusOf(head []byte) (int, bool) {
	const version = "HTTP/1.1 "
	if len(head) < len(version)+3 || string(head[:len(version)]) != version {
		return 0, false
	}
	n := 0
	for _, b := range head[len(version) : len(version)+3] {
		if b -= '0'; b > 9 {
			return 0, false
		}
		n = 10*n + int(b)
	}
	return n, n >= 100
}

// onRaw is onSection for a block that is not compressed.
func (c *conn) onRaw(id uint32, block []byte) error {
	end := c.blockFl&flagEndStream != 0
	c.mu.Lock()
	s := c.streams[id]
	c.mu.Unlock()
	in := &c.in
	in.malformed, in.length, in.status = "", -1, 0
	in.size, in.tooLarge = len(block), len(block) > c.cfg.HeaderBytes
	in.out = block
	switch {
	case s == nil && !c.client:
		in.kind = sectionRequest
		if len(block) == 0 || !Origin(block[0]).known() {
			in.malformed = "unknown origin"
			break
		}
		in.origin, in.out = Origin(block[0]), block[1:]
		in.connect = in.origin == FromTCP
		if in.connect != (len(in.out) == 0) {
			in.malformed = "a head where none belongs, or none where one does"
		}
	case s != nil && c.client && !s.final:
		in.kind = sectionResponse
		status, ok := statusOf(block)
		if !ok || !bytes.HasSuffix(block, headEnd) {
			in.malformed = "malformed status line"
		}
		if in.status = status; status == 101 {
			in.status = 200 // final: what follows is the tunnel's
		}
	default:
		in.kind = sectionTrailers
		c.mu.Lock()
		lines, ok := c.rawTrailers(in.lines[:0], block)
		c.mu.Unlock()
		if in.lines, in.out = lines, lines; !ok {
			in.malformed = "malformed trailers"
		}
	}
	return c.placeSection(id, s, end)
}

// rawTrailers appends the field lines of block that may be trailers. The lock is
// held.
func (c *conn) rawTrailers(b, block []byte) ([]byte, bool) {
	if _, ok := c.parseLines(block, 0); !ok {
		return b, false
	}
	for i := range c.lines {
		if l := &c.lines[i]; c.mayTrail(block, l) {
			b = append(b, block[l.at:l.valueEnd]...)
			b = append(b, "\r\n"...)
		}
	}
	return b, true
}

// Expect tells the length of the body behind the head received last, where the
// transport could not know it: a body of another length fails the stream. It
// returns that failure when it has happened already.
func (s *Stream) Expect(n int64) error {
	c := s.c
	c.mu.Lock()
	s.expected = n
	var err error
	switch {
	case s.broken():
		err = s.err
	case s.got > n || s.inEnd && s.got != n:
		s.resetLocked(ProtocolError, errLength)
		// It may have ended in order, or been reset after that.
		s.err, s.whole, err = errLength, false, errLength
	}
	c.mu.Unlock()
	c.callCanceled()
	return err
}

var errLength = &Error{Code: ProtocolError, Reason: "DATA does not fit content-length"}

// Raw reports whether heads pass as they are: the peer is an Outrigger.
func (s *Stream) Raw() bool { return s.c.cfg.Raw }
