package exchange

import (
	"errors"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// cutStream ends a response that has begun and cannot be completed. A gRPC
// caller gets the status as trailers, unless it was the endpoint that reset the
// stream: then the code is passed on, from which the caller tells what it would
// have without this proxy.
func (x *exchange) cutStream(r outcome.Reason) {
	code := http2.InternalError
	e, ok := errors.AsType[*http2.Error](x.cause)
	switch row := r.Row(); {
	case ok && e.Remote && !e.Conn && r == outcome.UpstreamReset && e.Code != http2.NoError && e.Code != http2.RefusedStream:
		code = e.Code
	case x.grpc && r != outcome.DownstreamGone:
		x.call.status = row.GRPC
		b := append(x.out[:0], "grpc-status: "...)
		b = http1.AppendInt(b, int64(row.GRPC))
		b = append(b, "\r\ngrpc-message: outrigger: "...)
		b = append(b, row.Name...)
		x.out = append(b, "\r\n"...)
		if x.st.WriteTrailers(x.out) == nil {
			return
		}
	}
	x.st.Reset(code)
}

// passBody passes the response's body on.
func (x *exchange) passBody(from source) outcome.Reason {
	var to sink = bodyOut{x.s.conn, x.chunked}
	if x.st != nil {
		to = streamOut{x.st}
	}
	if x.slowed() {
		to = pacedOut{to, x}
	}
	in, err := pump(x.hear(from), to, func(n int) {
		x.rec.BytesOut += uint64(n)
		x.down.setDeadline(x.idleBy())
		x.setUpstreamDeadline()
	})
	switch {
	case err == nil:
		return outcome.OK
	case !in:
		x.cause = err
		if err == errSlowed {
			return outcome.RequestTimeout
		}
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
