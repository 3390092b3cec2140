package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// spans is a collector of traces over OTLP/gRPC.
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu   sync.Mutex
	list []span
}

type span struct {
	service string
	*tracepb.Span
}

func (s *spans) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		service := ""
		for _, a := range r.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range r.GetScopeSpans() {
			for _, sp := range scope.GetSpans() {
				s.list = append(s.list, span{service, sp})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// of returns the spans of a trace.
func (s *spans) of(trace string) []span {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []span
	for _, sp := range s.list {
		if hex.EncodeToString(sp.GetTraceId()) == trace {
			list = append(list, sp)
		}
	}
	return list
}

// Both sidecars send a server and a client span each, and together with the
// caller's they make one trace.
func TestTracing(t *testing.T) {
	t.Parallel()
	sink := &spans{}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, sink)
	l, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	m := newMesh(t)
	telemetry := sections{"telemetry": fmt.Sprintf(`{access_log: {path: "off"}, tracing: {endpoint: "http://%s", sampling_percent: 0}}`, l.Addr())}
	p := m.pair(serve(t, echo("api")), telemetry, telemetry)
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	resp, body := fetch(t, http.MethodGet, p.call+"/traced?secret=1", func(r *http.Request) {
		r.Header.Set("Traceparent", "00-"+trace+"-"+parent+"-01")
		r.Header.Set("Tracestate", "vendor=1")
	})
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	mustSee(t, p.call+"/not-sampled")
	eventually(t, patience, "four spans have come", func() (bool, string) {
		return len(sink.of(trace)) == 4, fmt.Sprintf("%d spans", len(sink.of(trace)))
	})
	// From the caller to the application each span is the parent of the next.
	at := parent
	for _, want := range []struct {
		service string
		kind    tracepb.Span_SpanKind
	}{
		{"web", tracepb.Span_SPAN_KIND_SERVER},
		{"web", tracepb.Span_SPAN_KIND_CLIENT},
		{"api", tracepb.Span_SPAN_KIND_SERVER},
		{"api", tracepb.Span_SPAN_KIND_CLIENT},
	} {
		found := false
		for _, sp := range sink.of(trace) {
			if sp.service == want.service && sp.GetKind() == want.kind {
				found = true
				if got := hex.EncodeToString(sp.GetParentSpanId()); got != at {
					t.Errorf("the parent of %s's %v is %s; it should be %s", want.service, want.kind, got, at)
				}
				at = hex.EncodeToString(sp.GetSpanId())
				if sp.GetEndTimeUnixNano() < sp.GetStartTimeUnixNano() {
					t.Errorf("%s's %v ends before it begins", want.service, want.kind)
				}
			}
		}
		if !found {
			t.Fatalf("%s has no %v", want.service, want.kind)
		}
	}
	seen := parseSeen(t, body)
	if got := seen.Header.Get("Traceparent"); got != "00-"+trace+"-"+at+"-01" || seen.Header.Get("Tracestate") != "vendor=1" {
		t.Errorf("the application got traceparent %q, tracestate %q", got, seen.Header.Get("Tracestate"))
	}
	sink.mu.Lock()
	defer sink.mu.Unlock()
	if len(sink.list) != 4 {
		t.Errorf("%d spans came; those of a request that is not sampled should not", len(sink.list))
	}
}
