package exchange

import (
	"math/rand/v2"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// whole reports whether the request whose head takes the first n bytes of b is
// in b with all of its body, and how many bytes it takes. Then the body is kept
// for every attempt.
func (x *exchange) whole(b []byte, n int) (bool, int) {
	x.raw = b[:n]
	switch {
	case x.req.Upgrade:
		return false, 0
	case x.req.Framing == http1.FramingLength:
		if int64(len(b)-n) < x.req.Length {
			return false, 0
		}
		end := n + int(x.req.Length)
		x.body = b[n:end]
		return true, end
	case x.req.Framing == http1.FramingChunked:
		if p := x.policy(); p.HTTP2 || p.Mesh {
			return false, 0 // passed on decoded
		}
		return x.wholeChunked(b, n)
	}
	return true, n
}

// wholeChunked decodes a chunked body that may be whole in b into x.body,
// coded again in the plainest way.
func (x *exchange) wholeChunked(b []byte, n int) (bool, int) {
	x.in.Reset(&x.l.HTTP.Limits)
	spool := wire.GetLarge()
	rest := b[n:]
	if in := codable(rest, spool); len(in) == len(rest) {
		used, body, _, done, err := recode(&x.in, in, spool[:0], true)
		if err != nil {
			x.s.bad = err
		} else if done {
			x.spool, x.body = spool, http1.AppendLastChunk(body, x.in.Trailers())
			return true, n + used
		}
	}
	wire.Put(spool)
	return false, 0
}

// collect reads the rest of a body that is short enough to be kept, so that
// the request can be sent again and in one write. It reports false when the
// body must be passed on as it comes. Otherwise total is the length of the
// request in the buffer, unless x.failed says that it could not be read.
func (x *exchange) collect(n int) (total int, ok bool) {
	c := x.s.conn
	if x.req.Framing != http1.FramingLength || x.req.ExpectContinue || x.req.Upgrade {
		return 0, false
	}
	most := int64(keptBody)
	pol := x.policy()
	if pol.Retry != nil {
		most = int64(pol.Retry.MaxBodyBytes)
	}
	if x.req.Length > most || int64(n)+x.req.Length > wire.Large || !x.keepsBodies() {
		return 0, false
	}
	total = n + int(x.req.Length)
	var end time.Duration // of the exchange: this is part of it
	if pol.Timeout > 0 {
		end = x.start + pol.Timeout
	}
	for len(c.Buffered()) < total {
		c.SetDeadline(sooner(end, x.idleBy()))
		if !c.Room(wire.Large) {
			return 0, false
		}
		if err := c.Fill(); err != nil {
			x.raw = c.Buffered()[:n]
			x.cause = err
			x.failed = reasonOfRead(err)
			return total, true
		}
	}
	b := c.Buffered()
	x.raw, x.body = b[:n], b[n:total]
	return total, true
}

// keptBody is the longest body that is kept where no retry asks for it: small
// ones are cheaper to send in one write.
const keptBody = 16 << 10

// detach copies the head out of the connection's buffer, which then is free
// for the body.
func (x *exchange) detach(n int) {
	b := x.s.conn.Buffered()[:n]
	if n <= wire.Small {
		x.own = wire.GetSmall()
	} else {
		x.own = wire.GetLarge()
	}
	x.raw = x.own[:copy(x.own, b)]
	x.s.conn.Consume(n)
	x.stream = true
}

// hasBody reports whether a body follows the head. Where a stream goes on
// without one a tunnel is asked for.
func (x *exchange) hasBody() bool {
	if x.st != nil {
		return !x.st.Ended && x.req.Framing != http1.FramingNone
	}
	return x.req.Framing == http1.FramingChunked || x.req.Framing == http1.FramingLength && x.req.Length > 0
}

// maxRequestID bounds what is taken over as a request id.
const maxRequestID = 128

// identify takes over the request id and trace context, or makes new ones.
func (x *exchange) identify() {
	if v, ok := x.req.Get(http1.XRequestID); ok && v.Len() > 0 && v.Len() <= maxRequestID && x.req.Count(http1.XRequestID) == 1 {
		x.id = v.Of(x.raw)
	} else {
		x.req.Drop(http1.XRequestID)
		x.id = telemetry.AppendRequestID(x.idMem[:0], rand.Uint64(), rand.Uint64())
	}
	if v, ok := x.req.Get(http1.Traceparent); ok && x.req.Count(http1.Traceparent) == 1 {
		x.parent, _ = telemetry.ParseTraceparent(v.Of(x.raw))
	}
	x.trace = x.s.srv.Tracer.Start(x.parent, rand.Uint64(), rand.Uint64(), rand.Uint64())
}

// CallerDeadline is the time that the caller leaves for the exchange, from
// x-outrigger-deadline: milliseconds from the moment of sending, so that no
// clocks are compared.
func CallerDeadline(r *http1.Request, raw []byte) (time.Duration, bool) {
	v, ok := r.Get(http1.XDeadline)
	if !ok || r.Count(http1.XDeadline) != 1 || v.Len() == 0 || v.Len() > 9 {
		return 0, false
	}
	ms := time.Duration(0)
	for _, c := range v.Of(raw) {
		if c < '0' || c > '9' {
			return 0, false
		}
		ms = ms*10 + time.Duration(c-'0')
	}
	return ms * time.Millisecond, true
}

// buildRequest writes the head into x.out, and to an HTTP/1.1 connection a body
// that is kept. It returns the length of the head.
func (x *exchange) buildRequest(span telemetry.SpanID) int {
	behind := x.body // goes out with the head
	if x.ust != nil {
		behind = nil // as a part of its own
	}
	x.grow(len(x.raw) + len(behind) + ownFields + x.s.peer.extra() + x.route.Extra() + x.payloads())
	r := &x.req
	r.Drop(http1.XForwardedFor)
	r.Drop(http1.XForwardedClientCert)
	r.Drop(http1.XDeadline)
	r.Drop(http1.XRetries)
	if x.grpc && x.deadline > 0 {
		r.Drop(http1.GRPCTimeout)
	}
	if x.earlier > 0 && x.grpc {
		x.dropEarlier()
	}
	if !x.stream && r.ExpectContinue {
		r.Drop(http1.Expect)
	}
	trace := x.trace
	if span != (telemetry.SpanID{}) {
		trace.Span = span
	}
	if trace != x.parent {
		r.Drop(http1.Traceparent)
	}
	if x.parent.IsZero() {
		r.Drop(http1.Tracestate) // of another trace
	}
	b := x.appendRequestHead(x.out[:0])
	if !r.HasHost {
		b = append(b, "Host: "...)
		b = append(b, x.cl.Name()...)
		b = append(b, "\r\n"...)
	}
	b = x.appendForwarded(b)
	if x.id != nil && !r.Has(http1.XRequestID) || r.Has(http1.XRequestID) && &x.id[0] == &x.idMem[0] {
		b = append(b, "x-request-id: "...)
		b = append(b, x.id...)
		b = append(b, "\r\n"...)
	}
	if trace != x.parent {
		b = append(b, "traceparent: "...)
		b = telemetry.AppendTraceparent(b, trace)
		b = append(b, "\r\n"...)
	}
	if len(x.tokens) > 0 {
		b = x.l.Route.Authz.AppendPayloads(b, x.tokens)
	}
	if x.grpc {
		b = x.appendCall(b)
	}
	b = x.appendHop(b)
	if x.deadline > 0 {
		b = append(b, "x-outrigger-deadline: "...)
		b = http1.AppendInt(b, max(int64((x.deadline-x.at)/time.Millisecond), 1))
		b = append(b, "\r\n"...)
	}
	if r.Framing == http1.FramingChunked {
		b = append(b, "transfer-encoding: chunked\r\n"...)
	}
	switch {
	case r.Upgrade:
		b = append(b, "connection: upgrade\r\nupgrade: "...)
		b = append(b, r.UpgradeProto.Of(x.raw)...)
		b = append(b, "\r\n"...)
	case r.TrailersTE:
		b = append(b, "connection: te\r\n"...)
	}
	b = append(b, "\r\n"...)
	head := len(b)
	if x.byStream() && x.ust == nil && r.Framing == http1.FramingChunked && !x.stream {
		x.out = http1.AppendLastChunk(http1.AppendChunk(b, x.body), x.behind())
	} else {
		x.out = append(b, behind...)
	}
	return head
}

// payloads is how many bytes the payloads of tokens take in the head.
func (x *exchange) payloads() int {
	if len(x.tokens) == 0 {
		return 0
	}
	return x.l.Route.Authz.PayloadSize(x.tokens)
}

// ownFields is room for the fields that the proxy adds, two cookies among them.
const ownFields = 1024

// appendForwarded writes what this hop says about the caller: its address, unless it
// came by a Unix socket, behind those that came, the scheme of the first hop, and its certificate,
// which is taken over from a request only where that is asked for.
func (x *exchange) appendForwarded(b []byte) []byte {
	const name, comma, end = "x-forwarded-for: ", ", ", "\r\n"
	start := len(b)
	b = append(b, name...)
	if x.req.Has(http1.XForwardedFor) {
		for i := range x.req.Fields {
			if f := &x.req.Fields[i]; f.ID == http1.XForwardedFor && f.Value.Len() > 0 {
				b = append(b, f.Value.Of(x.raw)...)
				b = append(b, comma...)
			}
		}
	}
	switch {
	case len(x.s.addr) > 0:
		b = append(append(b, x.s.addr...), end...)
	case len(b) == start+len(name):
		b = b[:start]
	default:
		b = append(b[:len(b)-len(comma)], end...)
	}
	if !x.req.Has(http1.XForwardedProto) {
		if x.s.peer.TLS != 0 {
			b = append(b, "x-forwarded-proto: https\r\n"...)
		} else {
			b = append(b, "x-forwarded-proto: http\r\n"...)
		}
	}
	if p := x.s.peer; len(p.ClientCert) > 0 || p.KeepClientCert {
		b = x.appendClientCert(b)
	}
	return b
}
