package telemetry

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Bounds of the span export.
const (
	spanQueue     = 2048 // spans that wait; more are dropped
	spanBatch     = 512  // spans in one request
	spanInterval  = time.Second
	exportTimeout = 10 * time.Second
)

// TracerConfig configures a Tracer.
type TracerConfig struct {
	// Endpoint is the collector's URL, such as "http://127.0.0.1:4317". With
	// http the connection is not encrypted, with https it is verified against
	// the system's roots.
	Endpoint string
	// Protocol is "grpc" (default) or "http", which is OTLP/HTTP with
	// protobuf; its path is /v1/traces if the URL has none.
	Protocol string
	// Headers are sent with each request.
	Headers map[string]string
	// SamplingPercent is the share of the traces begun here that is recorded,
	// 0 to 100. Traces begun by a caller follow the caller's decision.
	SamplingPercent float64
	// FlushTimeout bounds the export of what is left at the end. Default 5s.
	FlushTimeout time.Duration
	// Resource names this process.
	Resource Resource
}

// Tracer decides which exchanges are traced and exports their spans. A nil
// Tracer records nothing and passes the callers' context on as it is.
type Tracer struct {
	threshold uint64 // of 1<<63
	flush     time.Duration
	exporter  *otlptrace.Exporter
	provider  *sdktrace.TracerProvider
	tracer    trace.Tracer
	queue     chan sdktrace.ReadOnlySpan
	dropped   atomic.Uint64
	lastErr   atomic.Pointer[error]
}

// NewTracer returns a Tracer. The caller must call Run, which exports.
func NewTracer(cfg TracerConfig) (*Tracer, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("tracing: endpoint %q is not a URL such as http://127.0.0.1:4317", cfg.Endpoint)
	}
	if !(cfg.SamplingPercent >= 0 && cfg.SamplingPercent <= 100) {
		return nil, fmt.Errorf("tracing: sampling_percent %v is not within 0 and 100", cfg.SamplingPercent)
	}
	t := &Tracer{flush: cfg.FlushTimeout, queue: make(chan sdktrace.ReadOnlySpan, spanQueue)}
	if t.flush <= 0 {
		t.flush = 5 * time.Second
	}
	// As the SDK's TraceIDRatioBased: the same ids are taken by every process
	// that samples at the same ratio.
	t.threshold = uint64(cfg.SamplingPercent / 100 * (1 << 63))
	switch cfg.Protocol {
	case "", "grpc":
		t.exporter = otlptracegrpc.NewUnstarted(
			otlptracegrpc.WithEndpointURL(cfg.Endpoint), otlptracegrpc.WithHeaders(cfg.Headers), otlptracegrpc.WithTimeout(exportTimeout))
	case "http":
		if u.Path == "" || u.Path == "/" {
			u.Path = "/v1/traces"
		}
		t.exporter = otlptracehttp.NewUnstarted(
			otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithHeaders(cfg.Headers), otlptracehttp.WithTimeout(exportTimeout))
	default:
		return nil, fmt.Errorf("tracing: protocol %q is not known; use grpc or http", cfg.Protocol)
	}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(enqueuer{t}),
		sdktrace.WithIDGenerator(givenIDs{}),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // Start has decided before
		sdktrace.WithResource(cfg.Resource.otel()),
	)
	t.tracer = t.provider.Tracer("outrigger")
	return t, nil
}

// Start returns the trace context of an exchange: in the caller's trace if
// there is one (parent is not zero), in a new one otherwise, made from three
// random words. Without a Tracer a caller's context is returned unchanged.
func (t *Tracer) Start(parent TraceContext, r1, r2, r3 uint64) TraceContext {
	switch {
	case parent.IsZero():
		c := TraceContext{Trace: newTraceID(r1, r2), Span: NewSpanID(r3), Flags: FlagRandom}
		if t != nil && binary.BigEndian.Uint64(c.Trace[8:])>>1 < t.threshold {
			c.Flags |= FlagSampled
		}
		return c
	case t == nil:
		return parent
	default:
		parent.Span = NewSpanID(r3)
		return parent
	}
}

// Child returns what is sent upstream with one attempt of an exchange: the
// same trace with a span of the attempt's own, made from a random word.
// Without a Tracer, c is returned unchanged.
func (t *Tracer) Child(c TraceContext, r uint64) TraceContext {
	if t != nil {
		c.Span = NewSpanID(r)
	}
	return c
}

// Dropped returns how many spans were lost because the collector was too slow
// or failed.
func (t *Tracer) Dropped() uint64 {
	if t == nil {
		return 0
	}
	return t.dropped.Load()
}

// LastError returns why spans could not be exported the last time that was
// tried, or nil.
func (t *Tracer) LastError() error {
	if t == nil {
		return nil
	}
	if p := t.lastErr.Load(); p != nil {
		return *p
	}
	return nil
}

// Run exports spans until ctx ends, then what is left within FlushTimeout.
func (t *Tracer) Run(ctx context.Context) error {
	if t == nil {
		<-ctx.Done()
		return nil
	}
	// Exports outlive ctx, but not by more than the flush timeout.
	exporting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	flushed := make(chan struct{})
	defer close(flushed)
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(t.flush)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-flushed:
		}
	})
	defer stop()
	if err := t.exporter.Start(exporting); err != nil {
		return fmt.Errorf("tracing: cannot start the exporter: %w", err)
	}
	batch := make([]sdktrace.ReadOnlySpan, 0, spanBatch)
	tick := time.NewTicker(spanInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case s := <-t.queue:
			if batch = append(batch, s); len(batch) == spanBatch {
				batch = t.export(exporting, batch)
			}
		case <-tick.C:
			batch = t.export(exporting, batch)
		}
	}
	for left := true; left; {
		select {
		case s := <-t.queue:
			if batch = append(batch, s); len(batch) == spanBatch {
				batch = t.export(exporting, batch)
			}
		default:
			left = false
		}
	}
	t.export(exporting, batch)
	return errors.Join(t.LastError(), t.exporter.Shutdown(exporting))
}

// export sends a batch and returns it emptied.
func (t *Tracer) export(ctx context.Context, batch []sdktrace.ReadOnlySpan) []sdktrace.ReadOnlySpan {
	if len(batch) == 0 {
		return batch
	}
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	err := t.exporter.ExportSpans(ctx, batch)
	if err != nil {
		t.dropped.Add(uint64(len(batch)))
		err = fmt.Errorf("tracing: cannot export spans: %w", err)
	}
	t.lastErr.Store(&err)
	clear(batch)
	return batch[:0]
}

// enqueuer hands ended spans to Run.
type enqueuer struct{ t *Tracer }

func (enqueuer) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

func (e enqueuer) OnEnd(s sdktrace.ReadOnlySpan) {
	select {
	case e.t.queue <- s:
	default:
		e.t.dropped.Add(1)
	}
}

func (enqueuer) Shutdown(context.Context) error   { return nil }
func (enqueuer) ForceFlush(context.Context) error { return nil }

// idsKey is the context key of the ids that the next span shall have.
type idsKey struct{}

// givenIDs gives spans the ids that were already sent upstream.
type givenIDs struct{}

func (givenIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	c, _ := ctx.Value(idsKey{}).(TraceContext)
	return trace.TraceID(c.Trace), trace.SpanID(c.Span)
}

func (g givenIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	_, span := g.NewIDs(ctx)
	return span
}
