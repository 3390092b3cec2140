package exchange

import (
	"errors"
	"io"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// forwardInterim passes a 1xx response on (RFC 9110 section 15.2). HTTP/1.0
// clients do not know them.
func (x *exchange) forwardInterim(raw []byte) outcome.Reason {
	if x.req.Minor == 0 || x.rival.of != nil {
		return outcome.OK
	}
	b := wire.GetSmall()
	defer wire.Put(b)
	head := append(x.res.AppendHead(b[:0], raw), "\r\n"...)
	r := x.respond(head, len(head), false)
	if x.st != nil {
		x.down.setDeadline(0) // the endpoint is waited for again
	}
	return r
}

// send writes b downstream, by HTTP/1.1.
func (x *exchange) send(b []byte) outcome.Reason { return x.respond(b, 0, false) }

// respond sends a head, which takes the first bytes of b, and the body behind it
// downstream; with last nothing follows.
func (x *exchange) respond(b []byte, head int, last bool) outcome.Reason {
	x.down.setDeadline(x.idleBy())
	if err := x.down.respond(b, head, last); err != nil {
		x.cause = err
		if errors.Is(err, wire.ErrExpired) {
			return x.expired(outcome.StreamIdle)
		}
		return outcome.DownstreamGone
	}
	return outcome.OK
}

// discardResponse gets rid of an error response that another attempt follows.
// A short one is skipped so that its connection can be used again.
func (x *exchange) discardResponse() {
	if x.ust != nil {
		x.dropUpstream()
	}
	if x.up == nil {
		x.status = 0
		return
	}
	rest := len(x.up.Buffered()) - x.headLen
	switch {
	case x.res.Framing == http1.FramingNone:
		x.up.Consume(x.headLen)
		x.keepUpstream(true)
	case x.res.Framing == http1.FramingLength && int64(rest) >= x.res.Length:
		x.up.Consume(x.headLen + int(x.res.Length))
		x.keepUpstream(true)
	default:
		x.dropUpstream()
	}
	x.status = 0
}

func statusReason(status int) outcome.Reason {
	if status >= 500 && status != 501 && status != 505 {
		return outcome.UpstreamError
	}
	return outcome.OK
}

// deliver is forward, with the clock read at its end.
func (x *exchange) deliver(r outcome.Reason) outcome.Reason {
	x.timed = false
	if r = x.forward(r); !x.timed {
		x.now()
	}
	return r
}

// forward passes the response on. r is what the attempt has come to so far and
// is returned unless passing on fails.
func (x *exchange) forward(r outcome.Reason) outcome.Reason {
	if x.stream {
		x.uploader.commit()
	}
	switch {
	case x.res.Status == 101:
		return x.tunnel()
	case x.st != nil || x.ust != nil || x.slowed():
		return x.forwardStream(r)
	}
	up := x.up
	b := up.Buffered()
	if x.upload == uploadRunning && !x.uploader.read.Load() {
		x.close = true // an early response: the rest of the body is not awaited
	}
	if x.s.draining() {
		x.close = true
	}
	body := b[x.headLen:]
	framing := x.res.Framing
	x.chunked = framing == http1.FramingChunked || framing == http1.FramingUntilClose
	if x.chunked && x.req.Minor == 0 {
		x.chunked, x.close = false, true
	}
	x.grow(x.headLen + len(body) + ownFields + x.route.Response.Size())
	out := x.appendResponseHead(x.out[:0], b[:x.headLen])
	if x.chunked {
		out = append(out, "transfer-encoding: chunked\r\n"...)
	}
	switch {
	case x.close:
		out = append(out, "connection: close\r\n"...)
	case x.req.Minor == 0:
		out = append(out, "connection: keep-alive\r\n"...)
	}
	out = append(out, "\r\n"...)
	x.began = true
	var got outcome.Reason
	switch framing {
	case http1.FramingNone:
		x.out = out
		got = x.flush(x.headLen)
	case http1.FramingLength:
		n := int(min(int64(len(body)), x.res.Length))
		x.out = append(out, body[:n]...)
		x.rec.BytesOut = uint64(n)
		if got = x.flush(x.headLen + n); got == outcome.OK && int64(n) < x.res.Length {
			got = x.copyLength(x.res.Length - int64(n))
		}
	default:
		x.out = out
		if got = x.flush(x.headLen); got == outcome.OK {
			got = x.copyCoded(framing == http1.FramingChunked)
		}
	}
	x.keepUpstream(got == outcome.OK)
	if got != outcome.OK {
		x.s.abort = framing != http1.FramingLength && !x.chunked
		return got
	}
	return r
}

// grow makes x.out at least n bytes long, without keeping what is in it.
func (x *exchange) grow(n int) {
	if cap(x.out) >= n {
		return
	}
	if x.out != nil {
		wire.Put(x.out)
	}
	if n <= wire.Small {
		x.out = wire.GetSmall()
	} else {
		x.out = wire.GetLarge()
	}
}

// flush writes x.out downstream and drops n bytes of the upstream's buffer.
func (x *exchange) flush(n int) outcome.Reason {
	r := x.send(x.out)
	if r == outcome.OK {
		x.up.Consume(n)
	}
	return r
}

// expired is why the downstream connection has been ended: idle unless this
// proxy is shutting down.
func (x *exchange) expired(idle outcome.Reason) outcome.Reason {
	if x.s.draining() {
		return outcome.Draining
	}
	return idle
}

// more reads more of the response body into the upstream's buffer.
func (x *exchange) more() (ended bool, r outcome.Reason) {
	x.setUpstreamDeadline()
	x.up.Widen()
	err := x.up.Fill()
	switch {
	case err == nil:
		return false, outcome.OK
	case errors.Is(err, io.EOF):
		return true, outcome.OK
	}
	return false, x.upstreamFailed(err)
}

// copyLength passes left more bytes on.
func (x *exchange) copyLength(left int64) outcome.Reason {
	for left > 0 {
		ended, r := x.more()
		if r != outcome.OK {
			return r
		}
		if ended {
			x.cause = io.ErrUnexpectedEOF
			return outcome.UpstreamReset
		}
		b := x.up.Buffered()
		n := int(min(int64(len(b)), left))
		if r := x.send(b[:n]); r != outcome.OK {
			return r
		}
		x.up.Consume(n)
		x.rec.BytesOut += uint64(n)
		left -= int64(n)
	}
	return outcome.OK
}

// copyCoded passes on a body whose length is not known: chunked, or until the
// upstream closes.
func (x *exchange) copyCoded(chunked bool) outcome.Reason {
	if chunked {
		x.resp.Reset(&x.l.HTTP.Limits)
	}
	for {
		b := x.up.Buffered()
		if len(b) > 0 {
			used, done, r := x.recodeResponse(b, chunked)
			if r != outcome.OK {
				return r
			}
			if len(x.out) > 0 {
				if r := x.flush(used); r != outcome.OK {
					return r
				}
			} else {
				x.up.Consume(used)
			}
			if done {
				return outcome.OK
			}
			continue
		}
		// Between parts, which may be far apart, no memory is held.
		wire.Put(x.out)
		x.out = nil
		ended, r := x.more()
		if r != outcome.OK {
			return r
		}
		if !ended {
			continue
		}
		if chunked {
			x.cause = io.ErrUnexpectedEOF
			return outcome.UpstreamReset
		}
		if x.chunked {
			x.grow(wire.Small)
			x.out = http1.AppendLastChunk(x.out[:0], nil)
			return x.flush(0)
		}
		return outcome.OK
	}
}

// recodeResponse takes a part of b that fits and puts it, coded for the
// downstream, into x.out.
func (x *exchange) recodeResponse(b []byte, chunked bool) (used int, done bool, r outcome.Reason) {
	x.grow(wire.Large)
	out := x.out[:0]
	b = codable(b, out)
	if !chunked {
		x.rec.BytesOut += uint64(len(b))
		if x.chunked {
			x.out = http1.AppendChunk(out, b)
		} else {
			x.out = append(out, b...)
		}
		return len(b), false, outcome.OK
	}
	used, res, data, done, err := recode(&x.resp, b, out, x.chunked)
	if err != nil {
		x.cause = err
		return used, false, outcome.UpstreamProtocol
	}
	if done {
		if trailers := x.hearTrailers(x.resp.Trailers()); x.chunked {
			res = http1.AppendLastChunk(res, trailers)
		}
	}
	x.out = res
	x.rec.BytesOut += data
	return used, done, outcome.OK
}

// parseAnswer parses the response head on the upstream's stream. One that another
// sidecar sends as it is must be exactly one head.
func (x *exchange) parseAnswer() (int, error) {
	k, err := x.res.Parse(x.ust.Head, &x.l.HTTP.Limits, x.req.Method)
	switch {
	case err != nil:
		return 0, err
	case k != len(x.ust.Head):
		return 0, http1.ErrStream
	case x.res.Status == 101 && !x.switched(x.ust.Head):
		return 0, errUnasked
	}
	return k, nil
}
