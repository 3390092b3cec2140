package http2

import (
	"bytes"
)

// beginHead makes room for a HEADERS frame's header and returns its position.
func (c *conn) beginHead() int {
	c.buffer()
	at := len(c.pend)
	c.pend = appendFrameHead(c.pend, 0, frameHeaders, 0, 0)
	if !c.cfg.Raw {
		c.pend = c.enc.begin(c.pend)
	}
	return at
}

// endHead completes the HEADERS frame at the given position, in as many frames
// as it takes.
func (c *conn) endHead(at int, id uint32, end bool) {
	flags := uint8(0)
	if end {
		flags = flagEndStream
	}
	n := len(c.pend) - at - frameHead
	if n <= maxFrame {
		appendFrameHead(c.pend[:at], n, frameHeaders, flags|flagEndHeaders, id)
		return
	}
	block := bytes.Clone(c.pend[at+frameHead:])
	c.pend = c.pend[:at]
	kind := uint8(frameHeaders)
	for len(block) > 0 {
		n := min(len(block), maxFrame)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		c.pend = appendFrameHead(c.pend, n, kind, flags, id)
		c.pend = append(c.pend, block[:n]...)
		block, kind, flags = block[n:], frameContinuation, 0
	}
}

// WriteRequest sends a request: head, which is an HTTP/1.1 head with its empty
// line as package http1 writes it, and body, all of it or its beginning. It may
// be called once.
//
// Names become lower case. Host, or the target's authority, becomes :authority.
// Connection and all that it names, Keep-Alive, Proxy-Connection,
// Transfer-Encoding and TE other than trailers are left out. A GET whose
// Connection names Upgrade becomes an extended CONNECT, or ErrNoConnectProtocol
// if the peer takes none. Where the peer answered whole and took no more of the
// body than it wanted, WriteRequest succeeds (RFC 9113 section 8.1).
func (s *Stream) WriteRequest(head, body []byte, f Flags) error {
	return s.unlessAnswered(s.writeRequest(head, body, f))
}

// unlessAnswered is err, or nil where the answer was whole before the stream failed.
func (s *Stream) unlessAnswered(err error) error {
	if err == nil {
		return nil
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err == s.err && s.client() && !s.broken() {
		return nil
	}
	return err
}

func (s *Stream) writeRequest(head, body []byte, f Flags) error {
	c := s.c
	c.mu.Lock()
	err := s.mayWrite()
	if err == nil {
		err = s.waitRoom()
	}
	if err == nil {
		err = s.startRequest(head, f&End != 0 && len(body) == 0)
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	return s.rest(body, f)
}

// rest sends the body behind a head. It releases the lock.
func (s *Stream) rest(body []byte, f Flags) error {
	if len(body) == 0 {
		s.c.flush(f)
		return nil
	}
	return s.send(body, f)
}

func (s *Stream) startRequest(head []byte, end bool) error {
	c := s.c
	switch {
	case s.id != 0 || !c.client:
		return ErrBadHead
	case c.dead != nil:
		e := *c.dead
		e.Unsent = true
		return &e
	case c.err != nil && c.err != ErrGoingAway || c.lastHeard != maxStreamID:
		return c.err
	case c.lastID.Load() >= maxStreamID-1:
		c.err = ErrGoingAway
		return ErrGoingAway
	case c.cfg.Raw:
		return s.startRaw(head, end)
	}
	i := bytes.IndexByte(head, ' ')
	j := bytes.IndexByte(head, '\n')
	const version = " HTTP/1.1\r"
	if i < 1 || j < i+1+len(version) || string(head[j-len(version):j]) != version {
		return ErrBadHead
	}
	method, target := head[:i], head[i+1:j-len(version)]
	fl, ok := c.parseLines(head, j+1)
	if !ok || !isToken(method) || !plain(target) || len(target) == 0 {
		return ErrBadHead
	}
	authority, path := fl.host, target
	s.isHead = string(method) == "HEAD"
	tunnel := string(method) == "CONNECT"
	switch {
	case tunnel:
		authority, path = target, nil
		s.connect = true
	case target[0] == '/' || len(target) == 1 && target[0] == '*':
	default:
		var ok bool
		if authority, path, ok = splitAbsolute(target, string(method) == "OPTIONS"); !ok {
			return ErrBadHead
		}
	}
	if !plain(authority) {
		return ErrBadHead
	}
	upgrade := len(fl.upgrade) > 0 && string(method) == "GET"
	if upgrade {
		if !isToken(fl.upgrade) {
			return ErrBadHead
		}
		if !c.peerSpeaks {
			return ErrNoConnectProtocol
		}
		s.connect = true
		s.Protocol = append(s.Protocol[:0], fl.upgrade...)
		for i := range s.Protocol {
			s.Protocol[i] = lowerByte(s.Protocol[i])
		}
		s.key = append(s.key[:0], fl.key...)
		method, end = []byte("CONNECT"), false
	}
	s.begin()
	at := c.beginHead()
	b := c.pend
	switch string(method) {
	case "GET":
		b = indexed(b, staticMethod)
	case "POST":
		b = indexed(b, staticMethod+1)
	default:
		b = c.enc.field(b, staticMethod, []byte(":method"), method)
	}
	if !tunnel {
		switch c.cfg.Scheme {
		case "http":
			b = indexed(b, staticScheme)
		default:
			b = indexed(b, staticScheme+1)
		}
		if len(path) == 1 && path[0] == '/' {
			b = indexed(b, staticPath)
		} else {
			b = c.enc.field(b, staticPath, []byte(":path"), path)
		}
	}
	if len(authority) > 0 {
		b = c.enc.field(b, staticAuthority, []byte(":authority"), authority)
	}
	if upgrade {
		b = c.enc.field(b, 0, []byte(":protocol"), s.Protocol)
		c.dropWebSocket("sec-websocket-key", head)
	}
	c.pend = c.appendLines(b, head)
	c.endHead(at, s.id, end)
	if end {
		s.endLocked(false, true)
	}
	return nil
}

// begin gives a stream its number, once nothing can fail any more.
func (s *Stream) begin() {
	c := s.c
	id := c.lastID.Load() + 2
	if c.opened == 0 {
		id = 1
	}
	c.lastID.Store(id)
	c.opened++
	s.id, s.sentAt = id, c.handed+uint64(len(c.pend))
	s.sendLeft = c.peerWindow
	c.streams[id] = s
}

// splitAbsolute splits a target in absolute form. One without a path stands for
// "/", and for OPTIONS without a query for "*" (RFC 9112 section 3.2.4).
func splitAbsolute(target []byte, options bool) (authority, path []byte, ok bool) {
	i := bytes.Index(target, []byte("://"))
	if i < 1 {
		return nil, nil, false
	}
	authority = target[i+3:]
	k := bytes.IndexAny(authority, "/?")
	if k < 0 {
		if options {
			return authority, []byte("*"), len(authority) > 0
		}
		return authority, []byte("/"), len(authority) > 0
	}
	path = authority[k:]
	if path[0] == '?' {
		path = append([]byte("/"), path...)
	}
	return authority[:k], path, k > 0
}

// WriteResponse sends a response's head, which is an HTTP/1.1 head with its empty
// line, and body, all of it or its beginning. Any number of interim heads (1xx)
// may come before the final one; they take neither body nor End.
//
// Fields are left out as by WriteRequest. A 101, which only an extended CONNECT
// may be answered with, becomes a 200, after its Sec-WebSocket-Accept was
// compared with the key that Head had.
func (s *Stream) WriteResponse(head, body []byte, f Flags) error {
	c := s.c
	c.mu.Lock()
	err := s.mayWrite()
	if err == nil {
		err = s.waitRoom()
	}
	if err == nil {
		err = s.startResponse(head, len(body) > 0, f&End != 0)
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	return s.rest(body, f)
}

func (s *Stream) startResponse(head []byte, body, end bool) error {
	c := s.c
	if c.cfg.Raw {
		return s.answerRaw(head, body, end)
	}
	j := bytes.IndexByte(head, '\n')
	if c.client || s.answered || j < 13 || string(head[:9]) != "HTTP/1.1 " || head[9]-'1' > 8 || head[10]-'0' > 9 || head[11]-'0' > 9 {
		return ErrBadHead
	}
	status := head[9:12]
	fl, ok := c.parseLines(head, j+1)
	if !ok {
		return ErrBadHead
	}
	interim := status[0] == '1'
	if string(status) == "101" {
		if len(s.Protocol) == 0 {
			return ErrBadHead
		}
		if len(s.key) > 0 {
			var want [28]byte
			if string(appendWebSocketAccept(want[:0], s.key)) != string(fl.accept) {
				return ErrBadAccept
			}
			c.dropWebSocket("sec-websocket-accept", head)
		}
		status, interim = []byte("200"), false
	}
	if interim && (body || end) {
		return ErrBadHead
	}
	at := c.beginHead()
	c.pend = c.appendLines(appendStatus(c, c.pend, status), head)
	end = end && !body
	c.endHead(at, s.id, end)
	s.answered = !interim
	if end {
		s.endLocked(false, true)
	}
	return nil
}

func appendStatus(c *conn, b, status []byte) []byte {
	switch string(status) {
	case "200":
		return indexed(b, 8)
	case "204":
		return indexed(b, 9)
	case "206":
		return indexed(b, 10)
	case "304":
		return indexed(b, 11)
	case "400":
		return indexed(b, 12)
	case "404":
		return indexed(b, 13)
	case "500":
		return indexed(b, 14)
	}
	return c.enc.field(b, staticStatus, []byte(":status"), status)
}

// WriteTrailers sends trailer fields, given as HTTP/1.1 field lines, and ends the
// sending side. Fields that may not be trailers are left out. Where the peer has
// answered whole and wants no more, WriteTrailers succeeds.
func (s *Stream) WriteTrailers(lines []byte) error {
	return s.unlessAnswered(s.writeTrailers(lines))
}

func (s *Stream) writeTrailers(lines []byte) error {
	c := s.c
	c.mu.Lock()
	err := s.mayWrite()
	if err == nil {
		err = s.waitRoom()
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	if _, ok := c.parseLines(lines, 0); !ok || !c.client && !s.answered {
		c.mu.Unlock()
		return ErrBadHead
	}
	left := 0
	for i := range c.lines {
		l := &c.lines[i]
		if l.drop = !c.mayTrail(lines, l); !l.drop {
			left++
		}
	}
	if left == 0 {
		return s.send(nil, End)
	}
	at := c.beginHead()
	if c.cfg.Raw {
		c.pend, _ = c.rawTrailers(c.pend, lines)
	} else {
		c.pend = c.appendLines(c.pend, lines)
	}
	c.endHead(at, s.id, true)
	s.endLocked(false, true)
	c.flush(0)
	return nil
}
