// Package telemetry tells what the proxy does: pre-bound metrics, one access-log record an exchange, and trace context.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
)

// Direction says which side of the service traffic is on.
type Direction uint8

// The directions.
const (
	// Inbound traffic comes from the mesh and goes to the local application.
	Inbound Direction = iota
	// Outbound traffic comes from the local application and goes to the mesh.
	Outbound
)

// String returns the word used in metrics, logs and the admin API.
func (d Direction) String() string {
	if d == Outbound {
		return "outbound"
	}
	return "inbound"
}

// Resource describes this process to the systems that receive its telemetry.
type Resource struct {
	Service    string            // service.name; default "outrigger"
	Instance   string            // service.instance.id; left out if empty
	Version    string            // service.version and build_info; default "unknown"
	Commit     string            // build_info; default "unknown"
	Attributes map[string]string // further resource attributes
}

func (r Resource) version() string { return orElse(clean(r.Version), "unknown") }

func (r Resource) otel() *resource.Resource {
	kvs := []attribute.KeyValue{
		attribute.String("service.name", orElse(clean(r.Service), "outrigger")),
		attribute.String("service.version", r.version()),
	}
	if r.Instance != "" {
		kvs = append(kvs, attribute.String("service.instance.id", clean(r.Instance)))
	}
	for k, v := range r.Attributes {
		kvs = append(kvs, attribute.String(clean(k), clean(v)))
	}
	return resource.NewSchemaless(kvs...)
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// DefaultMaxSeries is the series budget of each metric unless Options says
// otherwise.
const DefaultMaxSeries = 2000

// Options configures Metrics.
type Options struct {
	// Resource becomes target_info and build_info.
	Resource Resource
	// MaxSeries is how many series one metric may have. What goes beyond is
	// added up in one more series whose labels all say "_overflow"; gauges
	// beyond are left out. Default 2000.
	MaxSeries int
	// Now is the clock for series start times; default time.Now.
	Now func() time.Time
}

// Metrics hands out metric handles and exports them. A handle is bound once,
// when a plan is compiled; updating it afterwards is an atomic addition.
// All methods may be called concurrently.
type Metrics struct {
	mu       sync.Mutex
	max      int
	now      func() time.Time
	handles  map[handleKey]bound
	order    []bound // in order of creation, so that the series budget goes to the oldest
	families [metricCount]family
	process  *Process
	nothing  *clusterCounts // of clusters that have none; never written
	beyond   *series        // of all that found no room

	provider *sdkmetric.MeterProvider
	handler  http.Handler
}

// New returns Metrics whose Handler serves them. It starts no goroutine.
func New(o Options) (*Metrics, error) {
	m := &Metrics{
		max: o.MaxSeries, now: o.Now, handles: make(map[handleKey]bound),
		nothing: new(clusterCounts), beyond: &series{overflowed: true},
	}
	if m.max <= 0 {
		m.max = DefaultMaxSeries
	}
	if m.now == nil {
		m.now = time.Now
	}
	registry := prometheus.NewRegistry()
	if err := errors.Join(
		registry.Register(collectors.NewGoCollector()),
		registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	); err != nil {
		return nil, fmt.Errorf("metrics: cannot register the runtime collectors: %w", err)
	}
	exporter, err := otelprom.New(
		otelprom.WithRegisterer(registry),
		otelprom.WithProducer(producer{m}),
		// The table holds the final Prometheus names.
		otelprom.WithTranslationStrategy(otlptranslator.NoTranslation),
		otelprom.WithoutScopeInfo(),
	)
	if err != nil {
		return nil, fmt.Errorf("metrics: cannot make the Prometheus exporter: %w", err)
	}
	m.provider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(o.Resource.otel()))
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, EnableOpenMetrics: true})
	m.process = newProcess(m, o.Resource)
	return m, nil
}

// Handler serves the metrics in the format that the client asks for:
// Prometheus text or OpenMetrics.
func (m *Metrics) Handler() http.Handler { return m.handler }

// Shutdown ends the export; Handler then serves only the runtime's metrics.
// Handles stay usable.
func (m *Metrics) Shutdown(ctx context.Context) error { return m.provider.Shutdown(ctx) }

// Process returns the handle of what concerns the whole process. It is never
// released.
func (m *Metrics) Process() *Process { return m.process }
