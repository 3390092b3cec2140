package exchange

import (
	"errors"
	"io"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// ServeStreams carries the exchanges of an HTTP/2 connection, each in a
// goroutine of its own, until the connection ends. It does not close it.
func (s *Session) ServeStreams() {
	s.conn.SetDeadline(0) // the http2 server has its own
	cfg := *s.srv.HTTP2
	l := s.source.Load()
	cfg.IdleTimeout = l.HTTP.IdleTimeout
	cfg.HeaderBytes, cfg.Fields = l.HTTP.Limits.HeadBytes, l.HTTP.Limits.Fields
	h := http2.NewServer(s.conn, &cfg, s.onStream)
	s.streams.Store(h)
	if err := h.Serve(); err != nil {
		s.srv.Log.Debug("an HTTP/2 connection ended", "event", "http2_ended", "listener", l.Name, "peer", s.peer.Addr.String(), "error", err)
	}
}

// onStream carries one exchange.
func (s *Session) onStream(st *http2.Stream) {
	l := s.source.Load()
	x := newExchange(s, l)
	defer x.free()
	x.st, x.down = st, streamDown{st}
	if _, err := x.req.Parse(st.Head, &l.HTTP.Limits); err != nil {
		x.refuse(err)
		return
	}
	x.raw = st.Head
	x.req.Upgrade = false
	if n, end := st.Readable(); !st.Ended && (!end || !x.keep(n)) {
		x.stream = true
	}
	x.run()
}

// keep takes over a body of n bytes that has come whole, if it is short enough
// to be sent again.
func (x *exchange) keep(n int) bool {
	most := keptBody
	if p := x.l.Route.Cluster.Policy().Retry; p != nil {
		most = p.MaxBodyBytes
	}
	if n > min(most, wire.Large-http1.DefaultHeadBytes/4) || len(x.st.Trailers()) > 0 {
		return false
	}
	x.spool = wire.GetLarge()
	for at := 0; ; {
		p, err := x.st.Peek()
		if err != nil {
			x.body = x.spool[:at]
			return err == io.EOF
		}
		at += copy(x.spool[at:], p)
		x.st.Discard(len(p))
	}
}

// Drain ends the session in order: HTTP/2 peers are told to open no more
// streams, an HTTP/1.1 connection is ended if it carries nothing.
func (s *Session) Drain() {
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
	streaming := x.stream && x.hasBody()
	f := http2.Flags(0)
	if !streaming {
		f = http2.End
	}
	err := x.ust.WriteRequest(x.out[:head], x.out[head:], f)
	if err == nil && streaming {
		x.startUpload()
	}
	for {
		if err == nil {
			err = x.ust.ReadHead()
		}
		if err != nil {
			return x.streamFailed(err)
		}
		x.heard = true
		k, perr := x.res.Parse(x.ust.Head, &x.l.HTTP.Limits, x.req.Method)
		switch {
		case perr != nil || k == 0 || x.res.Status == 101:
			if x.cause = perr; x.res.Status == 101 {
				x.cause = errUnasked
			}
			x.dropUpstream()
			return outcome.UpstreamProtocol
		case x.res.Interim:
			if r := x.forwardInterim(x.ust.Head[:k]); r != outcome.OK {
				x.dropUpstream()
				return r
			}
		default:
			return x.answered(k, x.ust.Head)
		}
	}
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
	if x.headLen+ownFields > cap(x.out) {
		x.grow(wire.Large)
	}
	out := x.res.AppendHead(x.out[:0], head)
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
	var from source
	if x.ust != nil {
		from = x.ust
	} else {
		x.up.Consume(x.headLen)
		from = newBodyIn(x.up, x.res.Framing, x.res.Length, &x.resp, &x.l.HTTP.Limits)
	}
	x.began = true
	got := x.respond(out, len(out), none)
	if got == outcome.OK && !none {
		got = x.passBody(from)
	}
	if got == outcome.OK && x.grpc && r == outcome.OK && !none {
		r = x.grpcOutcome(from.Trailers())
	}
	x.keepUpstream(got == outcome.OK)
	if got != outcome.OK {
		if x.st != nil {
			x.st.Reset(http2.InternalError)
		}
		x.s.abort = x.s.abort || x.st == nil && !x.chunked && x.res.Framing != http1.FramingLength
		return got
	}
	return r
}

// passBody passes the response's body on.
func (x *exchange) passBody(from source) outcome.Reason {
	var to sink = bodyOut{x.s.conn, x.chunked}
	if x.st != nil {
		to = streamOut{x.st}
	}
	in, err := pump(from, to, func(n int) {
		x.rec.BytesOut += uint64(n)
		x.down.setDeadline(x.idleBy())
		x.setUpstreamDeadline()
	})
	switch {
	case err == nil:
		return outcome.OK
	case !in:
		x.cause = err
		if errors.Is(err, wire.ErrExpired) {
			return x.expired(outcome.StreamIdle)
		}
		return outcome.DownstreamGone
	}
	if _, ok := errors.AsType[*http1.Error](err); ok {
		x.cause = err
		return outcome.UpstreamProtocol
	}
	if r := x.upstreamFailed(err); r != outcome.StaleConnection {
		return r
	}
	return outcome.UpstreamReset
}
