package exchange

import (
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// finish records the exchange. It is called once for each.
func (x *exchange) finish(r outcome.Reason) {
	rec := &x.rec
	rec.Start = x.s.srv.Sweeper.Wall(x.start)
	if r != outcome.OK {
		x.now()
	}
	rec.Duration = x.at - x.start
	rec.Reason = r
	if x.route != nil && x.route.Metrics != nil {
		x.route.Metrics.Finish(x.s.shard, r, uint16(x.status), rec.Duration)
	}
	rec.Status = uint16(x.status)
	if x.fate.rule != nil {
		x.cl.Metrics().MetFault(r)
	}
	if x.counted {
		x.cl.Metrics().Finish(x.s.shard, r, rec.Status, rec.Duration)
		if x.grpc {
			x.cl.Metrics().Call(x.s.shard, x.req.Path.Of(x.raw), x.callStatus(r), x.heard, rec.Duration)
		}
	}
	rec.BytesIn += uint64(len(x.body))
	if m := x.l.Metrics; m != nil {
		m.BytesIn.Add(rec.BytesIn)
		m.BytesOut.Add(rec.BytesOut)
	}
	x.logOutcome()
	x.remember()
	logged := x.s.srv.logs(r)
	if !logged && !x.trace.Sampled() {
		return
	}
	rec.RequestID = x.id
	rec.Trace, rec.ParentSpan = x.trace, x.parent.Span
	if v, ok := x.req.Get(http1.Tracestate); ok && !x.parent.IsZero() {
		rec.TraceState = v.Of(x.raw)
	}
	rec.Method = x.req.MethodSpan.Of(x.raw)
	rec.Authority = x.req.Host.Of(x.raw)
	rec.Path = x.req.Target.Of(x.raw)
	rec.Protocol = x.protocol()
	rec.Rule, rec.Queued = x.rule, x.turn.waited
	x.s.srv.describe(rec, x.l, *x.s.peer, x.s.peerID, x.cause)
	if x.route != nil {
		rec.Route = x.route.Name
	}
	if x.cl != nil {
		rec.Cluster = x.cl.Name()
	}
	if x.ep != nil {
		rec.Endpoint, rec.UpstreamAddr, rec.UpstreamID = x.ep.Address(), x.ep.AddrPort(), x.upID
	}
	if logged {
		x.s.srv.AccessLog.Write(rec)
	}
	x.s.srv.Tracer.Export(rec)
}

// protocol is what the caller spoke.
func (x *exchange) protocol() string {
	switch {
	case x.st != nil && x.st.Origin != http2.FromHTTP1:
		return "HTTP/2"
	case x.req.Minor == 0:
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// logs decides whether the access log records an exchange.
func (s *Server) logs(r outcome.Reason) bool {
	return s.AccessLog.Takes(r == outcome.OK)
}
