package exchange

import (
	"math/rand/v2"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// refuse answers a request whose head is malformed and ends the exchange.
func (x *exchange) refuse(err error) {
	r := ReasonOfHead(err)
	x.status = http1.Status(err)
	x.detail = http1.Reason(err)
	x.cause = err
	x.close = true
	if x.st == nil {
		x.raw = x.s.conn.Buffered()
	}
	if x.st == nil && x.s.exchange.Load() == 1 && foreign(x.raw) {
		// The connection begins with neither HTTP/1 nor the HTTP/2 preface: an
		// answer in HTTP/1.1 would say nothing to its peer (RFC 9113 section 3.4).
		x.status = 0
	} else {
		x.reply(r, err)
	}
	x.finish(r)
}

// ReasonOfHead is the reason with which a request is refused whose head fails to
// parse with err.
func ReasonOfHead(err error) outcome.Reason {
	switch http1.Status(err) {
	case 431:
		return outcome.HeadTooLarge
	case 501, 505:
		return outcome.Unsupported
	}
	return outcome.BadRequest
}

// reply answers in place of an endpoint. The body says what happened, in the
// reason's own words, and carries the request id. What exactly failed is only
// said to the own application: it names addresses and identities.
func (x *exchange) reply(r outcome.Reason, cause error) {
	row := r.Row()
	if r == outcome.FaultInjected {
		row = x.faultRow(row)
	}
	if x.status == 0 || r != outcome.BadRequest && r != outcome.HeadTooLarge && r != outcome.Unsupported {
		x.status = int(row.Status)
	}
	if x.status == 0 || x.began {
		x.close = true
		return
	}
	switch {
	case x.upload == uploadRunning:
		x.close = x.close || !x.uploader.read.Load()
	case x.failed != outcome.OK, r == outcome.DownstreamTimeout, x.upload == uploadNone && x.stream && x.hasBody():
		x.close = true // the body was not read
	}
	if len(x.id) == 0 { // a request that could not be read
		x.id = telemetry.AppendRequestID(x.idMem[:0], rand.Uint64(), rand.Uint64())
	}
	var mem [1024]byte
	body := append(mem[:0], "outrigger: "...)
	body = append(body, row.Name...)
	body = append(body, ": "...)
	body = append(body, row.Detail...)
	body = append(body, '\n')
	if x.cl != nil && x.l.Direction == telemetry.Outbound {
		body = appendLine(body, "cluster", x.cl.Name())
	}
	if r == outcome.Denied {
		body = appendLine(body, "rule", x.rule)
	}
	if l := x.over.limit; l != nil {
		body = appendLine(body, "limit", l.Name)
	}
	switch {
	case x.detail != "":
		body = appendLine(body, "cause", x.detail)
	case cause != nil && x.l.Direction == telemetry.Outbound:
		body = appendLine(body, "cause", cause.Error())
	}
	body = append(body, "request-id: "...)
	body = append(body, x.id...)
	body = append(body, '\n')
	x.grow(wire.Small)
	if x.grpc {
		x.replyGRPC(row, cause)
		return
	}
	b := append(x.out[:0], "HTTP/1.1 "...)
	b = http1.AppendInt(b, int64(x.status))
	b = append(b, ' ')
	b = append(b, http1.Phrase(x.status)...)
	b = append(b, "\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: "...)
	b = http1.AppendInt(b, int64(len(body)))
	b = append(b, "\r\nx-outrigger-reason: "...)
	b = append(b, row.Name...)
	b = x.appendExceeded(b)
	b = x.appendHeldBack(b)
	b = append(b, "\r\nx-request-id: "...)
	b = append(b, x.id...)
	b = x.appendProxyStatus(b, row, cause)
	switch {
	case x.close:
		b = append(b, "\r\nconnection: close"...)
	case x.req.Minor == 0:
		b = append(b, "\r\nconnection: keep-alive"...)
	}
	b = append(b, "\r\n\r\n"...)
	head := len(b)
	if x.req.Method != http1.MethodHead {
		b = append(b, body...)
		x.rec.BytesOut = uint64(len(body))
	}
	x.out = b
	x.say(head)
}

// say sends a local reply that is in x.out.
func (x *exchange) say(head int) {
	x.began = true
	if x.pol != nil {
		x.down.setDeadline(x.idleBy())
	}
	if x.down.expired() {
		x.close = true
		x.down.lastWords(lastWords)
	}
	if err := x.down.respond(x.out, head, true); err != nil {
		x.close = true
	}
}

func appendLine(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	for i := range len(value) {
		if c := value[i]; c >= ' ' && c != 0x7f {
			b = append(b, c)
		}
	}
	return append(b, '\n')
}
