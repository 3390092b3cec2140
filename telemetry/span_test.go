package telemetry

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

func attributes(kvs []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range kvs {
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			m[kv.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			m[kv.Key] = string(appendNumber(nil, "", v.IntValue)[len(`,"":`):])
		}
	}
	return m
}

func wantAttributes(t *testing.T, s *tracepb.Span, want map[string]string) {
	t.Helper()
	got := attributes(s.Attributes)
	for k, v := range want {
		if g, ok := got[k]; !ok && v != "" || g != v {
			t.Errorf("%s: %s is %q, want %q", s.Name, k, g, v)
		}
	}
}

func TestExportOverGRPC(t *testing.T) {
	c := startCollector(t)
	tr := newTracer(t, TracerConfig{
		Endpoint: c.url, Headers: map[string]string{"x-tenant": "blue"},
		Resource: Resource{Service: "web", Instance: "web-1", Version: "1.2.3", Attributes: map[string]string{"zone": "a"}},
	})
	end := runTracer(t, tr)
	r := fullRecord()
	tr.Export(r)
	unsampled := fullRecord()
	unsampled.Trace.Flags = 0
	tr.Export(unsampled)
	tr.Export(&Record{}) // no trace at all
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if tr.Dropped() != 0 || len(c.spans) != 3 {
		t.Fatalf("%d spans, %d dropped", len(c.spans), tr.Dropped())
	}
	if got := c.headers.Get("x-tenant"); len(got) != 1 || got[0] != "blue" {
		t.Errorf("headers %v", c.headers)
	}
	for k, v := range map[string]string{"service.name": "web", "service.instance.id": "web-1", "service.version": "1.2.3", "zone": "a"} {
		if c.resource[k] != v {
			t.Errorf("resource %v", c.resource)
		}
	}
	server, first, second := c.spans[0], c.spans[1], c.spans[2]
	for _, s := range c.spans {
		if !bytes.Equal(s.TraceId, r.Trace.Trace[:]) || s.TraceState != "vendor=1" {
			t.Errorf("%s: trace %x, state %q", s.Name, s.TraceId, s.TraceState)
		}
	}
	for _, x := range []struct {
		s            *tracepb.Span
		name         string
		kind         tracepb.Span_SpanKind
		id, parent   SpanID
		start, end   time.Duration
		status       tracepb.Status_StatusCode
		wantInErrors string
	}{
		{server, "GET api-v1", tracepb.Span_SPAN_KIND_SERVER, r.Trace.Span, r.ParentSpan, 0, r.Duration, tracepb.Status_STATUS_CODE_UNSET, ""},
		{first, "GET api", tracepb.Span_SPAN_KIND_CLIENT, SpanID{2}, r.Trace.Span, 0, time.Millisecond, tracepb.Status_STATUS_CODE_ERROR, "upstream_reset"},
		{second, "GET api", tracepb.Span_SPAN_KIND_CLIENT, SpanID{3}, r.Trace.Span, 2 * time.Millisecond, 12 * time.Millisecond, tracepb.Status_STATUS_CODE_UNSET, ""},
	} {
		if x.s.Name != x.name || x.s.Kind != x.kind {
			t.Errorf("%q of kind %v, want %q, %v", x.s.Name, x.s.Kind, x.name, x.kind)
		}
		if !bytes.Equal(x.s.SpanId, x.id[:]) || !bytes.Equal(x.s.ParentSpanId, x.parent[:]) {
			t.Errorf("%s: span %x under %x, want %x under %x", x.name, x.s.SpanId, x.s.ParentSpanId, x.id, x.parent)
		}
		if x.s.StartTimeUnixNano != uint64(r.Start.Add(x.start).UnixNano()) || x.s.EndTimeUnixNano != uint64(r.Start.Add(x.end).UnixNano()) {
			t.Errorf("%s: from %d to %d", x.name, x.s.StartTimeUnixNano, x.s.EndTimeUnixNano)
		}
		if x.s.Status.GetCode() != x.status || (x.s.Status.GetMessage() != "") != (x.wantInErrors != "") {
			t.Errorf("%s: status %v", x.name, x.s.Status)
		}
		wantAttributes(t, x.s, map[string]string{"error.type": x.wantInErrors, "http.request.method": "GET", "outrigger.cluster": "api"})
	}
	wantAttributes(t, server, map[string]string{
		"url.path": "/items", "url.query": "", "server.address": "api.test", "server.port": "80", "http.route": "api-v1",
		"client.address": "fe80::1%eth0", "client.port": "40000", "http.response.status_code": "200",
		"outrigger.direction": "outbound", "outrigger.listener": "egress", "outrigger.protocol": "HTTP/1.1", "outrigger.reason": "ok",
		"outrigger.rule": "allow-web", "outrigger.request_id": string(r.RequestID), "outrigger.bytes_in": "1",
		"outrigger.downstream_id": "spiffe://test.example/web", "outrigger.local_id": "spiffe://test.example/web",
	})
	wantAttributes(t, first, map[string]string{
		"server.address": "10.0.0.1", "server.port": "8080", "http.response.status_code": "503", "http.request.resend_count": "", "outrigger.upstream_id": "",
	})
	wantAttributes(t, second, map[string]string{
		"server.address": "10.0.0.2", "http.response.status_code": "", "http.request.resend_count": "1", "outrigger.upstream_id": "spiffe://test.example/api",
	})
}

// exported returns the spans of one record.
func exported(t *testing.T, r *Record) []*tracepb.Span {
	t.Helper()
	c := startCollector(t)
	tr := newTracer(t, TracerConfig{Endpoint: c.url})
	end := runTracer(t, tr)
	tr.Export(r)
	if err := end(); err != nil {
		t.Fatal(err)
	}
	return c.spans
}

func TestExportOfARootThatFailed(t *testing.T) {
	r := &Record{Start: testStart, Trace: TraceContext{TraceID{1}, SpanID{2}, FlagSampled}, Reason: outcome.DownstreamGone, Protocol: "tcp", Cluster: "db"}
	r.AddAttempt(Attempt{Endpoint: "db.test"})                                                      // no span of its own
	r.AddAttempt(Attempt{Endpoint: "/run/db.sock", Span: SpanID{3}, Reason: outcome.ConnectFailed}) // not an address and port
	spans := exported(t, r)
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	s := spans[0]
	if len(s.ParentSpanId) != 0 || !bytes.Equal(s.SpanId, r.Trace.Span[:]) || !bytes.Equal(s.TraceId, r.Trace.Trace[:]) {
		t.Errorf("root %x of %x under %x", s.SpanId, s.TraceId, s.ParentSpanId)
	}
	if s.Name != "tcp" || spans[1].Name != "tcp db" || s.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || s.Status.Message != outcome.DownstreamGone.Row().Detail {
		t.Errorf("%q, %q: %v", s.Name, spans[1].Name, s.Status)
	}
	wantAttributes(t, s, map[string]string{"error.type": "downstream_gone", "http.request.method": ""})
	wantAttributes(t, spans[1], map[string]string{"server.address": "/run/db.sock", "http.request.resend_count": "1"})
}

// What a caller wrote neither becomes a span's name nor spoils the batch.
func TestExportOfHostileText(t *testing.T) {
	r := &Record{
		Start: testStart, Trace: TraceContext{TraceID{1}, SpanID{2}, FlagSampled}, TraceState: []byte("=,\xff"), Status: 500,
		Method: []byte("BREW\xff"), Path: []byte("/\xff" + strings.Repeat("a", 5000)), Authority: []byte("[::1]:99999"), Detail: "\xfe",
		Reason: outcome.UpstreamError, Route: "r",
	}
	spans := exported(t, r)
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	s := spans[0]
	if s.Name != "HTTP r" || s.TraceState != "" || s.Status.GetMessage() != "\ufffd" {
		t.Errorf("%q, %q, %v", s.Name, s.TraceState, s.Status)
	}
	wantAttributes(t, s, map[string]string{
		"http.request.method": "_OTHER", "http.request.method_original": "BREW\ufffd", "error.type": "upstream_error",
		"url.path": "/\ufffd" + strings.Repeat("a", spanText-2), "server.address": "[::1]:99999", "server.port": "",
	})
}

func TestExportOverHTTP(t *testing.T) {
	for path, want := range map[string]string{"": "/v1/traces", "/": "/v1/traces", "/custom": "/custom"} {
		type request struct {
			path, contentType, tenant string
			body                      []byte
		}
		got := make(chan request, 1)
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			got <- request{r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("X-Tenant"), b}
		}))
		tr := newTracer(t, TracerConfig{Endpoint: s.URL + path, Protocol: "http", Headers: map[string]string{"X-Tenant": "blue"}})
		end := runTracer(t, tr)
		tr.Export(fullRecord())
		if err := end(); err != nil {
			t.Error(err)
		}
		s.Close()
		select {
		case r := <-got:
			if r.path != want || r.contentType != "application/x-protobuf" || r.tenant != "blue" || !bytes.Contains(r.body, []byte("GET api-v1")) {
				t.Errorf("%q: %+v", path, r)
			}
		default:
			t.Errorf("%q: nothing came", path)
		}
	}
}
