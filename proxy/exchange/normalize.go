package exchange

import (
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// normalize brings the head in b, which has just been parsed, into the form that
// the listener wants. What it refuses is answered when the exchange runs.
func (x *exchange) normalize(b []byte) {
	if n := x.l.HTTP.Normalize; n != nil {
		x.moved, x.unfit = x.req.Normalize(b, n)
	}
}

// redirect has the caller send the request again, to the path as it is now. Who
// may not make the request has been refused before.
func (x *exchange) redirect() {
	x.status = 307
	if x.hasBody() && x.stream {
		x.close = true // the body was not read
	}
	to := x.req.Resource(x.raw)
	x.grow(max(wire.Small, len(to)+ownFields+x.route.Response.Size()))
	b := append(x.out[:0], "HTTP/1.1 307 "...)
	b = append(b, http1.Phrase(307)...)
	b = append(b, "\r\ncontent-length: 0\r\nlocation: "...)
	if len(to) > 1 && (to[1] == '/' || to[1] == '\\') {
		b = append(b, "/."...) // or what follows would be read as another host
	}
	b = append(b, to...)
	b = x.appendOwnEnd(append(b, "\r\n"...))
	x.out = b
	x.say(len(b))
	x.finish(outcome.OK)
}
