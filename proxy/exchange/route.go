package exchange

import (
	"math/rand/v2"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// policy pins the route of the exchange, and with it the policy: how a body is
// kept depends on it. The head has been parsed.
func (x *exchange) policy() *upstream.Policy {
	if x.pol == nil {
		if x.route = x.l.Find(&x.req, x.raw); len(x.route.Split) > 0 {
			x.route = x.route.Choose(rand.Uint64())
		}
		if x.route.Partial {
			x.tried.Draw = guard.DrawOf(rand.Uint64())
		}
		x.cl, x.wish.Subset = x.route.Cluster, x.route.Subset
		if x.pol = x.route.Policy; x.pol == nil {
			x.pol = x.cl.Policy()
		}
	}
	return x.pol
}

// routable is why the route refuses the request, if it does.
func (x *exchange) routable() outcome.Reason {
	if x.route.Refuse == outcome.BadRequest {
		x.detail = plan.AmbiguousPath
	}
	return x.route.Refuse
}

// appendRequestHead writes the request's head as the route has it.
func (x *exchange) appendRequestHead(dst []byte) []byte {
	x.route.Request.Drop(&x.req.Head, x.raw)
	return x.route.Request.Append(x.route.AppendHead(dst, &x.req, x.raw))
}

// appendResponseHead writes the final response's head, which is raw, as the
// route has it.
func (x *exchange) appendResponseHead(dst, raw []byte) []byte {
	x.route.Response.Drop(&x.res.Head, raw)
	return x.appendTold(x.appendCookies(x.route.Response.Append(x.res.AppendHead(dst, raw))))
}

// awaitEndpoint gives a cluster that has come with a reload the time of a
// connection to learn its endpoints; nil when that leads nowhere.
func (x *exchange) awaitEndpoint() *upstream.Endpoint {
	wait := x.pol.ConnectTimeout
	if x.deadline > 0 {
		wait = min(wait, x.deadline-x.at)
	}
	if wait <= 0 || !x.cl.AwaitListed(wait) {
		return nil
	}
	return x.cl.Pick(x.now(), &x.wish, &x.tried)
}

// answerFixed answers with the text that the route gives.
func (x *exchange) answerFixed(r *plan.Reply) {
	x.status = r.Status
	if x.stream && x.hasBody() {
		x.close = true // the body was not read
	}
	x.grow(wire.Small)
	b := append(x.out[:0], "HTTP/1.1 "...)
	b = http1.AppendInt(b, int64(r.Status))
	b = append(b, ' ')
	b = append(b, r.Reason...)
	b = append(b, "\r\n"...)
	if len(r.Body) > 0 {
		b = append(b, "content-type: "...)
		b = append(b, r.Type...)
		b = append(b, "\r\n"...)
	}
	if r.Status != 204 && r.Status != 304 {
		b = append(b, "content-length: "...)
		b = http1.AppendInt(b, int64(len(r.Body)))
		b = append(b, "\r\n"...)
	}
	b = x.appendOwnEnd(b)
	head := len(b)
	if x.req.Method != http1.MethodHead {
		b = append(b, r.Body...)
		x.rec.BytesOut = uint64(len(r.Body))
	}
	x.out = b
	x.say(head)
	x.finish(outcome.OK)
}

// appendOwnEnd ends the head of an answer that is not an error.
func (x *exchange) appendOwnEnd(b []byte) []byte {
	b = x.appendTold(x.route.Response.Append(b))
	b = append(b, "x-request-id: "...)
	b = append(b, x.id...)
	b = append(b, "\r\n"...)
	switch {
	case x.st != nil:
	case x.close:
		b = append(b, "connection: close\r\n"...)
	case x.req.Minor == 0:
		b = append(b, "connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}
