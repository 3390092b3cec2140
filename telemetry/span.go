package telemetry

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// spanText bounds each attribute, in bytes before what is not UTF-8 is replaced.
const spanText = 1024

// Export makes the spans of a sampled exchange: one of kind server for the
// exchange and one of kind client for each attempt that has a span id. It
// does nothing for other exchanges. Attribute names are those of the
// OpenTelemetry semantic conventions for HTTP, and outrigger.* for our own.
func (t *Tracer) Export(r *Record) {
	if t == nil || r.Trace.IsZero() || !r.Trace.Sampled() {
		return
	}
	ctx := context.Background()
	state, _ := trace.ParseTraceState(string(r.TraceState)) // a bad one is ignored, as the standard says
	if r.ParentSpan != (SpanID{}) {
		ctx = trace.ContextWithRemoteSpanContext(ctx, spanContext(r.Trace.Trace, r.ParentSpan, state))
	}
	method, known := methodName(r.Method)
	t.span(ctx, r.Trace, spanData{
		name: spanName(method, known, r.Route), kind: trace.SpanKindServer,
		start: r.Start, end: r.Start.Add(r.Duration),
		attrs: serverAttributes(r, method, known), reason: r.Reason,
		failed: r.Status >= 500 || r.Reason != outcome.OK && r.Status == 0, detail: r.Detail,
	})
	for i := range r.kept() {
		a := &r.Attempts[i]
		if a.Span == (SpanID{}) {
			continue
		}
		parent := trace.ContextWithRemoteSpanContext(context.Background(), spanContext(r.Trace.Trace, r.Trace.Span, state))
		start := r.Start.Add(a.Offset)
		t.span(parent, TraceContext{Trace: r.Trace.Trace, Span: a.Span}, spanData{
			name: spanName(method, known, r.Cluster), kind: trace.SpanKindClient,
			start: start, end: start.Add(a.Duration),
			attrs: clientAttributes(r, a, i, method, known), reason: a.Reason,
			failed: a.Reason != outcome.OK && a.Reason != outcome.Superseded,
		})
	}
}

type spanData struct {
	name       string
	kind       trace.SpanKind
	start, end time.Time
	attrs      []attribute.KeyValue
	reason     outcome.Reason
	failed     bool
	detail     string
}

func (t *Tracer) span(ctx context.Context, ids TraceContext, d spanData) {
	ctx = context.WithValue(ctx, idsKey{}, ids)
	if d.failed {
		d.attrs = append(d.attrs, attribute.String("error.type", d.reason.String()))
	}
	_, s := t.tracer.Start(ctx, d.name, trace.WithSpanKind(d.kind), trace.WithTimestamp(d.start), trace.WithAttributes(d.attrs...))
	if d.failed {
		s.SetStatus(codes.Error, clean(orElse(d.detail, d.reason.Row().Detail)))
	}
	s.End(trace.WithTimestamp(d.end))
}

func spanContext(id TraceID, span SpanID, state trace.TraceState) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(id), SpanID: trace.SpanID(span), TraceFlags: trace.FlagsSampled, TraceState: state, Remote: true,
	})
}

// methodName returns the method if it is a known one. Others are a caller's
// free text and must not become span names.
func methodName(m []byte) (string, bool) {
	switch s := string(m); s {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return s, true
	default:
		return s, false
	}
}

func spanName(method string, known bool, target string) string {
	switch {
	case method == "":
		method = "tcp"
	case !known:
		method = "HTTP"
	}
	return clean(strings.TrimSuffix(method+" "+target, " "))
}

func methodAttributes(kvs []attribute.KeyValue, method string, known bool) []attribute.KeyValue {
	switch {
	case method == "":
		return kvs
	case known:
		return append(kvs, attribute.String("http.request.method", method))
	}
	return append(kvs, attribute.String("http.request.method", "_OTHER"), attribute.String("http.request.method_original", clean(method)))
}

func serverAttributes(r *Record, method string, known bool) []attribute.KeyValue {
	kvs := methodAttributes(make([]attribute.KeyValue, 0, 24), method, known)
	kvs = appendAttr(kvs, "url.path", string(pathOf(r.Path, false)))
	kvs = appendAuthority(kvs, string(r.Authority))
	kvs = appendAttr(kvs, "http.route", r.Route)
	kvs = appendPeer(kvs, "client", r.DownstreamAddr)
	kvs = appendAttr(kvs, "outrigger.direction", r.Direction.String())
	kvs = appendAttr(kvs, "outrigger.listener", r.Listener)
	kvs = appendAttr(kvs, "outrigger.cluster", r.Cluster)
	kvs = appendAttr(kvs, "outrigger.protocol", r.Protocol)
	kvs = appendAttr(kvs, "outrigger.reason", r.Reason.String())
	kvs = appendAttr(kvs, "outrigger.rule", r.Rule)
	kvs = appendAttr(kvs, "outrigger.request_id", string(r.RequestID))
	kvs = appendAttr(kvs, "outrigger.downstream_id", r.DownstreamID)
	kvs = appendAttr(kvs, "outrigger.local_id", r.LocalID)
	kvs = append(kvs, attribute.Int64("outrigger.bytes_in", int64(r.BytesIn)), attribute.Int64("outrigger.bytes_out", int64(r.BytesOut)))
	if r.Status != 0 {
		kvs = append(kvs, attribute.Int("http.response.status_code", int(r.Status)))
	}
	return kvs
}

func clientAttributes(r *Record, a *Attempt, i int, method string, known bool) []attribute.KeyValue {
	kvs := methodAttributes(make([]attribute.KeyValue, 0, 12), method, known)
	if addr, err := netip.ParseAddrPort(a.Endpoint); err == nil {
		kvs = appendPeer(kvs, "server", addr)
	} else {
		kvs = appendAttr(kvs, "server.address", a.Endpoint)
	}
	kvs = appendAttr(kvs, "outrigger.cluster", cmp.Or(a.Cluster, r.Cluster))
	kvs = appendAttr(kvs, "outrigger.reason", a.Reason.String())
	if a.Endpoint == r.Endpoint {
		kvs = appendAttr(kvs, "outrigger.upstream_id", r.UpstreamID)
	}
	if i > 0 {
		kvs = append(kvs, attribute.Int("http.request.resend_count", i))
	}
	if a.Status != 0 {
		kvs = append(kvs, attribute.Int("http.response.status_code", int(a.Status)))
	}
	if a.Hedge {
		kvs = append(kvs, attribute.Bool("outrigger.hedge", true))
	}
	return kvs
}

func appendAttr(kvs []attribute.KeyValue, key, value string) []attribute.KeyValue {
	if value == "" {
		return kvs
	}
	return append(kvs, attribute.String(key, clean(value)))
}

// appendAuthority takes the host and the port, if there is one, of what the
// caller asked for.
func appendAuthority(kvs []attribute.KeyValue, authority string) []attribute.KeyValue {
	if host, port, err := net.SplitHostPort(authority); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			return append(appendAttr(kvs, "server.address", host), attribute.Int("server.port", int(n)))
		}
	}
	return appendAttr(kvs, "server.address", authority)
}

func appendPeer(kvs []attribute.KeyValue, side string, a netip.AddrPort) []attribute.KeyValue {
	if !a.IsValid() {
		return kvs
	}
	return append(kvs, attribute.String(side+".address", a.Addr().String()), attribute.Int(side+".port", int(a.Port())))
}

// clean bounds s and makes it valid UTF-8: protobuf refuses a whole batch of
// spans, and Prometheus a whole scrape, for one string that is not.
func clean(s string) string {
	if len(s) > spanText {
		s = s[:spanText]
	}
	return strings.ToValidUTF8(s, "\ufffd")
}
