package http2

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/proxy/memory"
)

// Stream is one exchange. One goroutine may read (ReadHead, Peek, Discard, Read,
// Trailers) while another writes; Reset, Expire and Err are for any. Nothing may
// be called after Close, or on a server after the handler has returned.
type Stream struct {
	// Head is the head received last, as HTTP/1.1 with the empty line, that
	// package http1 parses: of the request when the handler of a server is
	// called, of the response after ReadHead. It is valid until the next
	// ReadHead or the stream's end.
	//
	// :authority is the first field, host; without it and without a host field
	// that is empty. Cookie fields are joined to one (RFC 9113 section 8.2.3).
	// Where a body follows whose length is not given the head has
	// "transfer-encoding: chunked", which concerns only this form: Read gives
	// the body itself. CONNECT has its authority as the target.
	//
	// A request for an extended CONNECT is GET with "connection: upgrade",
	// "upgrade: " and the protocol, and for websocket a sec-websocket-key made
	// for it; it is answered with a 101, whose accept is checked. To a client
	// the success of such a request is a 101 with the accept for its key.
	Head []byte
	// Ended says that nothing follows Head, neither body nor trailers.
	Ended bool
	// Protocol is the :protocol of an extended CONNECT, else empty.
	Protocol []byte
	// Origin is how the request came into the mesh, where the peer is another
	// sidecar (Config.Raw): a client sets it before WriteRequest.
	Origin Origin

	c  *conn
	id uint32

	// Under the connection's lock.
	held     bool // the handler or the opener has not given it back
	inEnd    bool // nothing more comes
	whole    bool // because the peer has ended its side in order
	outEnd   bool // nothing more may be sent
	wasReset bool // RST_STREAM was sent
	final    bool // the final head has come, or for a server the request's
	answered bool // a server's final head is sent
	isHead   bool // a client's HEAD request
	connect  bool // CONNECT of either kind
	err      error

	heads    []byte // received, not Head yet
	headEnds []int
	headAt   int
	lastEnds bool // the last of heads has END_STREAM
	trailers []byte
	key      []byte // Sec-WebSocket-Key

	body     [][]byte // pooled buffers with what was received
	bodyR    int      // read position in the first
	bodyW    int      // fill of the last
	bodyN    int      // bytes in all
	expected int64    // content-length that has not come yet; -1 unknown
	got      int64    // body bytes received

	recvLeft int64 // what the peer may send
	window   int64 // what it may send at once
	owed     int64 // read and not given back
	sendLeft int64

	out        []byte // what Write waits to send
	outWantEnd bool
	sending    bool
	turn       int    // what was sent of the quantum of its turn
	sentAt     uint64 // position of HEADERS among all bytes of the connection
	queued     bool
	next, prev *Stream

	reading, writing bool // a goroutine waits
	interrupted      bool // Peek does not wait
	readable         chan struct{}
	writable         chan struct{}

	deadline atomic.Int64
	stood    int64 // deadline at the last EndStalled
	expires  atomic.Bool

	hookMu sync.Mutex
	hook   Canceler
	gen    atomic.Uint32
}

var streamPool = sync.Pool{New: func() any {
	return &Stream{readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}}

func (c *conn) newStream() *Stream {
	s := streamPool.Get().(*Stream)
	s.c = c
	s.held = true
	s.expected = -1
	s.window = int64(c.cfg.Window)
	s.recvLeft = s.window
	return s
}

// recycle forgets everything but memory.
func (s *Stream) recycle() {
	s.Head, s.Ended, s.Protocol, s.Origin, s.c, s.id = nil, false, s.Protocol[:0], 0, nil, 0
	s.held, s.inEnd, s.whole, s.outEnd, s.wasReset = false, false, false, false, false
	s.final, s.answered, s.isHead, s.connect = false, false, false, false
	s.err = nil
	if cap(s.heads)+cap(s.trailers) > keptHead {
		s.heads, s.trailers = nil, nil
	}
	s.heads, s.headEnds, s.headAt, s.lastEnds, s.trailers, s.key = s.heads[:0], s.headEnds[:0], 0, false, s.trailers[:0], s.key[:0]
	s.got, s.owed, s.sendLeft, s.sentAt = 0, 0, 0, 0
	s.out, s.outWantEnd, s.sending, s.turn, s.interrupted = nil, false, false, 0, false
	s.deadline.Store(0)
	s.stood = 0
	s.expires.Store(false)
	streamPool.Put(s)
}

// keptHead is how much memory for heads a pooled stream keeps.
const keptHead = 8 << 10

// ID is the stream's identifier; 0 before WriteRequest.
func (s *Stream) ID() uint32 {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.id
}

// ReadHead waits for the next head of the response, interim or final, and puts
// it into Head. To a server it gives nothing new.
func (s *Stream) ReadHead() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.headAt == len(s.headEnds) {
		if s.broken() {
			return s.err
		}
		if s.inEnd {
			return io.EOF
		}
		s.waitRead()
	}
	if s.broken() {
		return s.err
	}
	from := 0
	if s.headAt > 0 {
		from = s.headEnds[s.headAt-1]
	}
	to := s.headEnds[s.headAt]
	s.headAt++
	s.Head = s.heads[from:to:to]
	s.Ended = s.lastEnds && s.headAt == len(s.headEnds)
	return nil
}

// waitRead waits for whatever comes next. The connection's lock is released
// meanwhile.
func (s *Stream) waitRead() {
	c := s.c
	if len(c.pend) > 0 {
		c.kickLocked()
	}
	s.reading = true
	c.mu.Unlock()
	<-s.readable
	c.mu.Lock()
}

// Peek waits until a part of the body is there and returns it, to be taken with
// Discard; it stays valid until then. At the body's end it returns io.EOF.
func (s *Stream) Peek() ([]byte, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case s.broken():
			return nil, s.err
		case s.bodyN > 0:
			b := s.body[0]
			end := len(b)
			if len(s.body) == 1 {
				end = s.bodyW
			}
			return b[s.bodyR:end:end], nil
		case s.inEnd:
			return nil, io.EOF
		case s.interrupted:
			return nil, ErrInterrupted
		}
		s.waitRead()
	}
}

// broken reports whether what has come of the stream is of no use anymore. What
// a peer sent whole before it reset the stream stays readable (RFC 9113
// section 8.1).
func (s *Stream) broken() bool {
	return s.err != nil && (!s.whole || s.wasReset || s.expires.Load())
}

// Discard takes n bytes of what Peek returned and lets the peer send as many.
func (s *Stream) Discard(n int) {
	c := s.c
	c.mu.Lock()
	s.take(n)
	c.gaveUp(s, n)
	c.mu.Unlock()
}

// Read reads the body; io.EOF at its end.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := s.Peek()
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	s.Discard(n)
	return n, nil
}

// Readable says how many bytes Peek and Read give without waiting, and whether
// the body is then at its end.
func (s *Stream) Readable() (n int, end bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.bodyN, s.whole
}

// Trailers returns the trailer fields as HTTP/1.1 field lines, once Read has
// returned io.EOF; nil without.
func (s *Stream) Trailers() []byte {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if len(s.trailers) == 0 {
		return nil
	}
	return s.trailers
}

// Write sends p as a part of the body. It waits as long as flow control and the
// connection's writer make it, until the stream ends.
func (s *Stream) Write(p []byte, f Flags) error {
	c := s.c
	c.mu.Lock()
	if err := s.mayWrite(); err != nil {
		c.mu.Unlock()
		return err
	}
	return s.send(p, f)
}

// mayWrite says whether anything may be sent.
func (s *Stream) mayWrite() error {
	switch {
	case s.err != nil:
		return s.err
	case s.outEnd:
		return ErrEnded
	}
	return nil
}

// Reset ends the stream with RST_STREAM unless it has ended already, and fails
// whatever waits for it.
func (s *Stream) Reset(code Code) {
	c := s.c
	c.mu.Lock()
	s.resetLocked(code, &Error{Code: code, Reason: "reset by this side"})
	c.mu.Unlock()
	c.callCanceled()
}

// resetLocked sends RST_STREAM and fails the stream with e.
func (s *Stream) resetLocked(code Code, e error) {
	c := s.c
	if s.id != 0 && !s.wasReset && !(s.inEnd && s.outEnd) && c.dead == nil {
		s.wasReset = true
		c.buffer()
		c.pend = appendWord(c.pend, frameReset, 0, s.id, uint32(code))
		c.kickLocked()
	}
	s.failLocked(e)
}

// failLocked ends both directions of the stream.
func (s *Stream) failLocked(e error) {
	if s.err == nil && !(s.inEnd && s.outEnd) {
		s.err = e
		if s.held {
			s.c.noteCanceled(s)
		}
	}
	s.endLocked(true, true)
	s.wakeBoth()
}

func (s *Stream) wakeBoth() {
	if s.reading {
		s.reading = false
		s.readable <- struct{}{}
	}
	if s.writing {
		s.writing = false
		s.writable <- struct{}{}
	}
}

// endedWhole notes that the peer has ended its side in order.
func (s *Stream) endedWhole() {
	s.whole = true
	s.endLocked(true, false)
}

// endLocked notes that a direction has ended, and takes the stream off the
// connection when both have.
func (s *Stream) endLocked(in, out bool) {
	c := s.c
	s.inEnd = s.inEnd || in
	s.outEnd = s.outEnd || out
	if !s.inEnd || !s.outEnd || s.id == 0 || c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	c.remember(s.id, s.wasReset)
	if s.queued {
		c.ready.remove(s)
	}
	if !c.client {
		c.open--
		c.drainedLocked()
	}
}

// Close gives a client's stream back. One that has not ended is reset with CANCEL.
func (s *Stream) Close() {
	if s.c.client {
		s.release(Cancel)
	}
}

// release is Close, also for a server whose handler has returned.
func (s *Stream) release(code Code) {
	c := s.c
	s.Notify(nil)
	s.gen.Add(1)
	c.mu.Lock()
	if !s.client() && s.outEnd && !s.inEnd {
		// The answer is whole: the rest of the request is not needed
		// (RFC 9113 section 8.1).
		code = NoError
	}
	s.held = false
	s.resetLocked(code, ErrEnded)
	s.dropBody()
	idle := false
	if c.client {
		c.open--
		idle = c.open == 0
		c.drainedLocked()
	} else {
		c.cfg.Memory.Redeem(memory.PerExchange)
		c.running--
		if s.err == nil {
			c.watch.finished.Add(1)
		}
		c.drainedLocked()
	}
	c.mu.Unlock()
	s.recycle()
	if idle && c.cfg.OnIdle != nil {
		c.cfg.OnIdle()
	}
}

func (s *Stream) client() bool { return s.c.client }

// Err is why the stream ended before its time: an *Error, ErrExpired, or nil.
func (s *Stream) Err() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.err
}
