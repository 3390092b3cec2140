package telemetry

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func newTracer(t testing.TB, cfg TracerConfig) *Tracer {
	t.Helper()
	if cfg.Endpoint == "" {
		cfg.Endpoint = "http://127.0.0.1:4317"
	}
	tr, err := NewTracer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestNewTracerErrors(t *testing.T) {
	for _, c := range []struct {
		cfg  TracerConfig
		want string
	}{
		{TracerConfig{}, "endpoint"},
		{TracerConfig{Endpoint: "127.0.0.1:4317"}, "endpoint"},
		{TracerConfig{Endpoint: "collector"}, "endpoint"},
		{TracerConfig{Endpoint: "http://"}, "endpoint"},
		{TracerConfig{Endpoint: "unix:///run/collector"}, "endpoint"},
		{TracerConfig{Endpoint: "http://c", SamplingPercent: -1}, "sampling_percent"},
		{TracerConfig{Endpoint: "http://c", SamplingPercent: 100.1}, "sampling_percent"},
		{TracerConfig{Endpoint: "http://c", SamplingPercent: math.NaN()}, "sampling_percent"},
		{TracerConfig{Endpoint: "http://c", Protocol: "udp"}, "use grpc or http"},
	} {
		if tr, err := NewTracer(c.cfg); tr != nil || err == nil || !strings.HasPrefix(err.Error(), "tracing: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}

// The decision is the SDK's own for the same ratio, so that every process
// takes the same traces.
func TestSamplingDecidesAsTheSDKDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, percent := range []float64{0, 0.001, 1, 12.5, 50, 99.9, 100} {
		tr := newTracer(t, TracerConfig{SamplingPercent: percent})
		reference := sdktrace.TraceIDRatioBased(percent / 100)
		words := []uint64{0, 1, math.MaxUint64, 1 << 63, 1<<63 - 1}
		for range 2000 {
			words = append(words, r.Uint64())
		}
		taken := 0
		for _, w := range words {
			c := tr.Start(TraceContext{}, 7, w, 9)
			want := reference.ShouldSample(sdktrace.SamplingParameters{ParentContext: context.Background(), TraceID: trace.TraceID(c.Trace)})
			if c.Sampled() != (want.Decision == sdktrace.RecordAndSample) {
				t.Fatalf("%v%% of %x: %v", percent, w, c.Sampled())
			}
			if c.Sampled() {
				taken++
			}
			if c.Trace != newTraceID(7, w) || c.Span != NewSpanID(9) || c.Flags&FlagRandom == 0 {
				t.Fatalf("%+v", c)
			}
		}
		if percent == 0 && taken != 0 || percent == 100 && taken != len(words) {
			t.Errorf("%v%%: %d of %d", percent, taken, len(words))
		}
	}
}

func TestSamplingFollowsTheCaller(t *testing.T) {
	for _, percent := range []float64{0, 100} {
		tr := newTracer(t, TracerConfig{SamplingPercent: percent})
		for _, flags := range []byte{0, FlagSampled, FlagRandom, FlagSampled | FlagRandom} {
			parent := TraceContext{Trace: TraceID{1}, Span: SpanID{2}, Flags: flags}
			c := tr.Start(parent, 5, 6, 7)
			if c.Trace != parent.Trace || c.Flags != flags || c.Span != NewSpanID(7) {
				t.Errorf("%v%%, flags %x: %+v", percent, flags, c)
			}
			child := tr.Child(c, 8)
			if child.Trace != c.Trace || child.Flags != c.Flags || child.Span != NewSpanID(8) {
				t.Errorf("child %+v of %+v", child, c)
			}
		}
	}
}

func TestNilTracer(t *testing.T) {
	var tr *Tracer
	parent := TraceContext{Trace: TraceID{1}, Span: SpanID{2}, Flags: FlagSampled}
	if c := tr.Start(parent, 5, 6, 7); c != parent {
		t.Errorf("the caller's context became %+v", c)
	}
	if c := tr.Child(parent, 8); c != parent {
		t.Errorf("the child is %+v", c)
	}
	if c := tr.Start(TraceContext{}, 5, 6, 7); c.IsZero() || c.Sampled() {
		t.Errorf("a new trace is %+v", c)
	}
	tr.Export(fullRecord())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := errors.Join(tr.Run(ctx), tr.LastError()); err != nil || tr.Dropped() != 0 {
		t.Errorf("%v, %d", err, tr.Dropped())
	}
}

// collectorServer is an OTLP collector in memory.
type collectorServer struct {
	collector.UnimplementedTraceServiceServer
	url string

	mu       sync.Mutex
	fail     error         // answered instead, if not nil
	block    chan struct{} // waited for, if not nil
	got      chan struct{} // one token a request
	headers  metadata.MD
	resource map[string]string
	spans    []*tracepb.Span
}

func (c *collectorServer) Export(ctx context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	block, fail := c.block, c.fail
	if fail == nil && block == nil {
		c.headers, _ = metadata.FromIncomingContext(ctx)
		for _, rs := range r.ResourceSpans {
			c.resource = attributes(rs.Resource.Attributes)
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	}
	c.mu.Unlock()
	select {
	case c.got <- struct{}{}:
	default:
	}
	if block != nil {
		<-block
	}
	return &collector.ExportTraceServiceResponse{}, fail
}

func (c *collectorServer) set(fail error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

func startCollector(t *testing.T) *collectorServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collectorServer{url: "http://" + ln.Addr().String(), got: make(chan struct{}, 100)}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, c)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

// runTracer starts tr.Run and returns a function that ends it and returns its
// error.
func runTracer(t *testing.T, tr *Tracer) func() error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	end := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = end() })
	return end
}

func TestFullQueueDropsSpans(t *testing.T) {
	c := startCollector(t)
	tr := newTracer(t, TracerConfig{Endpoint: c.url, FlushTimeout: time.Minute}) // where others have the processor, too
	r := fullRecord()                                                            // 3 spans
	for range spanQueue {
		tr.Export(r) // nobody sends them
	}
	if got := tr.Dropped(); got != 2*spanQueue {
		t.Errorf("%d dropped, want %d", got, 2*spanQueue)
	}
	if err := runTracer(t, tr)(); err != nil {
		t.Fatal(err)
	}
	if len(c.spans) != spanQueue {
		t.Errorf("%d spans came, want %d", len(c.spans), spanQueue)
	}
}

func TestCollectorThatFails(t *testing.T) {
	c := startCollector(t)
	c.set(status.Error(codes.InvalidArgument, "no"))
	tr := newTracer(t, TracerConfig{Endpoint: c.url})
	end := runTracer(t, tr)
	fill := func() { // a whole batch is sent at once
		for range spanBatch {
			tr.Export(&Record{Start: testStart, Trace: TraceContext{TraceID{1}, SpanID{2}, FlagSampled}})
		}
	}
	fill()
	<-c.got
	c.set(nil)
	fill()
	<-c.got
	if err := end(); err != nil {
		t.Errorf("the last export went well, but: %v", err)
	}
	if tr.Dropped() != spanBatch || len(c.spans) != spanBatch || tr.LastError() != nil {
		t.Errorf("%d dropped, %d came, last error %v", tr.Dropped(), len(c.spans), tr.LastError())
	}

	c.set(status.Error(codes.InvalidArgument, "no"))
	tr = newTracer(t, TracerConfig{Endpoint: c.url})
	tr.Export(fullRecord())
	if err := runTracer(t, tr)(); err == nil || !strings.HasPrefix(err.Error(), "tracing: cannot export spans: ") || tr.LastError() == nil || tr.Dropped() != 3 {
		t.Errorf("%v, %d dropped", err, tr.Dropped())
	}
}

// Neither a collector that is not there nor one that never answers holds the
// end up for longer than the flush timeout.
func TestFlushIsBounded(t *testing.T) {
	gone := "http://" + testkit.Nobody(0).String()
	silent := startCollector(t)
	silent.block = make(chan struct{})
	t.Cleanup(func() { close(silent.block) })
	for name, url := range map[string]string{"gone": gone, "silent": silent.url} {
		tr := newTracer(t, TracerConfig{Endpoint: url, FlushTimeout: 20 * time.Millisecond})
		tr.Export(fullRecord())
		// Cancelled, that is, and not ended by the export's own, longer timeout.
		if err := runTracer(t, tr)(); err == nil || !strings.Contains(err.Error(), "cancel") || tr.Dropped() != 3 {
			t.Errorf("%s: %v, %d dropped", name, err, tr.Dropped())
		}
	}
}
