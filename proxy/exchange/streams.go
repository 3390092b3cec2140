package exchange

import (
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// ServeStreams carries the exchanges of an HTTP/2 connection, each in a
// goroutine of its own, until the connection ends, which it does not close, or
// rests.
func (s *Session) ServeStreams() (resting bool) {
	s.conn.SetDeadline(0) // the http2 server has its own
	t := s.conn.TLS()
	mesh := t != nil && isMesh(t.ConnectionState().NegotiatedProtocol)
	h := http2.NewServer(s.conn, s.srv.streamConfig(s.source.Load(), mesh), s.onStream)
	s.streams.Store(h)
	if s.draining() {
		s.Drain()
	}
	return s.carryStreams(h)
}

func (s *Session) carryStreams(h *http2.Server) (resting bool) {
	switch err := h.Serve(); err {
	case nil:
	case wire.ErrResting:
		return true
	default:
		s.srv.Log.Debug("an HTTP/2 connection ended", "event", "http2_ended", "listener", s.source.Load().Name, "peer", s.peer.From(), "error", err)
	}
	return false
}

// meshStreams is how many exchanges another sidecar may have under way on one
// connection: it stands for all callers of an application.
const meshStreams = 1000

func isMesh(protocol string) bool { return protocol == http2.MeshHTTP || protocol == http2.MeshTCP }

// onStream carries one exchange.
func (s *Session) onStream(st *http2.Stream) {
	l := s.source.Load()
	if tcp := st.Origin == http2.FromTCP; tcp || l.Protocol == plan.TCP {
		s.onTCP(l, st, tcp)
		return
	}
	x := newExchange(s, l)
	defer s.contain(l, st)
	x.st, x.down, x.raw = st, streamDown{st}, st.Head
	if err := x.parseStream(); err != nil {
		x.refuse(err)
		x.free()
		s.lingerStream(st)
		return
	}
	x.normalize(st.Head)
	if x.hasBody() {
		x.req.Upgrade = false // a stream that carries a body ends with it
		x.late = true         // the body is waited for
	}
	if x.hasBody() && !x.collectStream() {
		if x.failed != outcome.OK {
			x.finish(x.failed)
			x.free()
			return
		}
		x.stream = true
	}
	st.Notify(&x.caller)
	x.run()
	st.Notify(nil)
	unread := x.stream && x.upload == uploadNone
	x.free()
	if unread {
		s.lingerStream(st)
	}
}

// parseStream parses the head of a stream. One that another sidecar sends as it
// is must be exactly one head, and its body what the head says.
func (x *exchange) parseStream() error {
	n, err := x.req.Parse(x.st.Head, &x.l.HTTP.Limits)
	if err != nil || !x.st.Raw() {
		return err
	}
	switch {
	case n != len(x.st.Head), x.req.Framing == http1.FramingNone && !x.st.Ended && !x.req.Upgrade:
		return http1.ErrStream
	case x.req.Framing == http1.FramingLength:
		return x.st.Expect(x.req.Length)
	}
	return nil
}

// lingerStream throws away for a while what still comes of a request that was
// answered unread, so that its sender gets to see the answer before the reset.
func (s *Session) lingerStream(st *http2.Stream) {
	st.SetDeadline(s.srv.Sweeper.Now() + lingerTime)
	for {
		p, err := st.Peek()
		if err != nil {
			return
		}
		st.Discard(len(p))
	}
}

// contain keeps a defect met by one stream from ending the process. What the
// exchange held is not given back; the log says where to look.
func (s *Session) contain(l *plan.Listener, st *http2.Stream) {
	if p := recover(); p != nil {
		s.srv.Log.Error("defect: a stream was dropped", "event", "panic", "listener", l.Name, "peer", s.peer.From(), "panic", p, "stack", string(debug.Stack()))
		st.Notify(nil)
		st.Reset(http2.InternalError)
	}
}

// caller ends the upstream leg when the stream that the request came on ends
// before its time: nobody waits for the answer any more.
type caller struct {
	gone   atomic.Bool
	beaten atomic.Bool // a rival has won: the leg is not waited for either
	mu     sync.Mutex
	leg    upstreamLeg // nil while there is none
}

// Canceled implements http2.Canceler.
func (c *caller) Canceled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone.Store(true)
	if c.leg != nil {
		c.leg.Expire()
	}
}

// watch has leg ended with the caller; nil before it is given back. A leg that
// comes when the caller has gone is ended at once.
func (c *caller) watch(leg upstreamLeg) {
	c.mu.Lock()
	c.leg = leg
	if leg != nil && (c.gone.Load() || c.beaten.Load()) {
		leg.Expire()
	}
	c.mu.Unlock()
}

// Drain ends the session in order: HTTP/2 peers are told to open no more
// streams, an HTTP/1.1 connection is ended if it carries nothing, WebSockets are
// closed.
func (s *Session) Drain() {
	s.GoAway()
	switch h := s.streams.Load(); {
	case h == nil:
		if !s.busy.Load() {
			s.conn.Expire()
		}
	case !s.drained.Swap(true):
		h.Drain()
	}
}

// answer is what the spans of x.res refer to.
func (x *exchange) answer() []byte {
	if x.ust != nil {
		return x.ust.Head
	}
	return x.up.Buffered()
}

// roundTripStream is roundTrip on an HTTP/2 stream. x.out has the request.
func (x *exchange) roundTripStream(head int) outcome.Reason {
	x.takeReady()
	body, trailers, whole := x.body, x.behind(), true
	if x.stream && x.hasBody() {
		body, trailers, whole = x.uploader.again()
	}
	f := http2.Flags(0)
	switch {
	case len(trailers) > 0:
		f = http2.More
	case whole && !x.req.Upgrade:
		f = http2.End
	}
	x.ust.Origin = x.origin()
	if x.pol.Hedge != nil {
		x.arm()
	}
	err := x.ust.WriteRequest(x.out[:head], body, f)
	if err == nil && len(trailers) > 0 {
		err = x.ust.WriteTrailers(trailers)
	}
	switch {
	case err != nil || !x.stream:
	case whole:
		x.uploader.complete()
	case !x.attach():
		err = x.uploader.err
	}
	for {
		if err == nil {
			err = x.ust.ReadHead()
		}
		if err != nil {
			return x.streamFailed(err)
		}
		x.heard = true
		k, perr := x.parseAnswer()
		switch {
		case perr != nil:
			x.cause = perr
			x.dropUpstream()
			return outcome.UpstreamProtocol
		case x.res.Interim:
			if r := x.forwardInterim(x.ust.Head[:k]); r != outcome.OK {
				x.dropUpstream()
				return r
			}
		default:
			if err := x.expectBody(); err != nil {
				return x.streamFailed(err)
			}
			return x.answered(k, x.ust.Head)
		}
	}
}

// expectBody has the stream hold what a response's head says, where the transport
// has not looked.
func (x *exchange) expectBody() error {
	switch {
	case !x.ust.Raw(), x.req.Method == http1.MethodHead, x.res.Status == 101:
	case x.res.Framing == http1.FramingLength:
		return x.ust.Expect(x.res.Length)
	case x.res.Framing == http1.FramingNone && !x.ust.Ended:
		return x.ust.Expect(0)
	}
	return nil
}

// streamFailed is upstreamFailed for an HTTP/2 stream.
func (x *exchange) streamFailed(err error) outcome.Reason {
	if http2.Unsent(err) {
		x.cause, x.unsent = err, true
		x.dropUpstream()
		return outcome.StaleConnection
	}
	return x.upstreamFailed(err)
}

// forwardStream passes the response on where either leg is HTTP/2.
func (x *exchange) forwardStream(r outcome.Reason) outcome.Reason {
	if x.upload == uploadRunning && !x.uploader.read.Load() || x.s.draining() {
		x.close = true
	}
	head := x.answer()[:x.headLen]
	none := x.res.Framing == http1.FramingNone || x.ust != nil && x.ust.Ended
	x.chunked = !none && x.st == nil && x.res.Framing != http1.FramingLength
	if x.chunked && x.req.Minor == 0 {
		x.chunked, x.close = false, true
	}
	x.grow(wire.Small)
	if x.headLen+ownFields+x.route.Response.Size() > cap(x.out) {
		x.grow(wire.Large)
	}
	out := x.appendResponseHead(x.out[:0], head)
	if x.st == nil {
		switch {
		case x.chunked:
			out = append(out, "transfer-encoding: chunked\r\n"...)
		case none && x.res.Framing == http1.FramingUntilClose:
			out = append(out, "content-length: 0\r\n"...)
		}
		switch {
		case x.close:
			out = append(out, "connection: close\r\n"...)
		case x.req.Minor == 0:
			out = append(out, "connection: keep-alive\r\n"...)
		}
	}
	out = append(out, "\r\n"...)
	x.out = out
	headLen := len(out)
	var from source
	var trailers []byte
	whole := false
	if x.ust != nil {
		from = x.ust
		if !none && !x.slowed() {
			trailers, whole = x.takeWhole()
		}
	} else {
		x.up.Consume(x.headLen)
		if n := x.res.Length; !x.slowed() && x.res.Framing == http1.FramingLength && int64(len(x.up.Buffered())) >= n && int64(len(out))+n <= int64(cap(out)) {
			// Short and here already: one write.
			x.out = append(out, x.up.Buffered()[:n]...)
			x.up.Consume(int(n))
			x.rec.BytesOut = uint64(n)
			none = true
		} else {
			from = newBodyIn(x.up, x.res.Framing, x.res.Length, &x.resp, &x.l.HTTP.Limits)
		}
	}
	x.began = true
	got := x.respond(x.out, headLen, none || whole && (len(trailers) == 0 || x.st == nil))
	switch {
	case got != outcome.OK || none:
	case !whole:
		got = x.passBody(from)
	case len(trailers) > 0 && x.st != nil:
		if err := x.st.WriteTrailers(trailers); err != nil {
			x.cause, got = err, outcome.DownstreamGone
		}
	}
	if got == outcome.OK && x.grpc && r == outcome.OK && !none {
		r = x.callOutcome(from.Trailers())
	}
	x.keepUpstream(got == outcome.OK)
	if got != outcome.OK {
		if x.st != nil {
			x.cutStream(got)
		}
		if x.st == nil && !x.chunked && x.res.Framing != http1.FramingLength {
			x.s.abort = true
		}
		return got
	}
	return r
}

// oneWrite is the longest body that is copied behind its head, to be sent with it
// in one write.
const oneWrite = 16 << 10

// takeWhole puts the response's body, where it has come whole and is short, behind
// the head in x.out, coded for the downstream.
func (x *exchange) takeWhole() (trailers []byte, whole bool) {
	n, whole := x.ust.Readable()
	if !whole || n > oneWrite {
		return nil, false
	}
	if len(x.out)+n+http1.DefaultTrailerBytes+3*chunkOverhead > cap(x.out) {
		head := x.out
		x.out = append(wire.GetLarge()[:0], head...)
		wire.Put(head)
	}
	trailers = x.hearTrailers(x.ust.Trailers())
	for left := n; left > 0; {
		p, err := x.ust.Peek()
		if err != nil { // the stream is reset
			return nil, false
		}
		if x.chunked {
			x.out = http1.AppendChunk(x.out, p)
		} else {
			x.out = append(x.out, p...)
		}
		left -= len(p)
		x.ust.Discard(len(p))
	}
	if x.chunked {
		x.out = http1.AppendLastChunk(x.out, trailers)
	}
	x.rec.BytesOut = uint64(n)
	return trailers, true
}
