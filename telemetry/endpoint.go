package telemetry

import (
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
)

// Result is how one attempt against an endpoint went, in the order and with
// the words of outlier detection.
type Result uint8

// The results.
const (
	ResultSuccess      Result = iota
	ResultFailure             // the endpoint answered with an error
	ResultLocalFailure        // it could not be reached, reset, or was too slow
	ResultIgnored             // cancelled; says nothing about the endpoint

	resultCount
)

var resultNames = [resultCount]string{"success", "failure", "local_failure", "ignored"}

// String returns the label value.
func (r Result) String() string { return nameOf(resultNames[:], int(r)) }

// Endpoint holds the metrics of one endpoint of one cluster.
type Endpoint struct {
	handle
	gauges atomic.Pointer[EndpointGauges]
	// Ejections counts how often the endpoint was ejected.
	Ejections Counter
	// BecameHealthy and BecameUnhealthy count changes of what active checks say.
	BecameHealthy, BecameUnhealthy Counter

	_        pad
	attempts [resultCount]Counter
	_        pad
}

// EndpointGauges are read at each scrape; a nil one is left out. They must be
// safe to call at any time and must not call Metrics.
type EndpointGauges struct {
	State   func() float64 // 0 healthy, 1 ejected, 2 probation
	Active  func() float64 // attempts in flight
	EWMA    func() float64 // the balancer's estimate of the latency, in seconds
	Hand    func() float64 // by orders: 0 none, 1 ejected, 2 pinned, 3 others are pinned, 4 ejected but used, as all are
	Breaker func() float64 // of its own: 0 closed, 1 half-open, 2 open
	Health  func() float64 // by active checks: 0 unknown, 1 healthy, 2 unhealthy
	Drain   func() float64 // 1 while it gets nothing new
	Weight  func() float64 // what its reports of load make of its weight
	Share   func() float64 // the part of its share of the attempts that caution leaves it
}

// Endpoint returns the handle of an endpoint; Release it when the endpoint is
// gone.
func (m *Metrics) Endpoint(cluster, endpoint string) *Endpoint {
	cluster, endpoint = label(cluster), label(endpoint)
	labels := []attribute.KeyValue{attribute.String("cluster", cluster), attribute.String("endpoint", endpoint)}
	return acquire(m, handleKey{kindEndpoint, 0, cluster, endpoint}, labels, func(h handle) *Endpoint { return &Endpoint{handle: h} })
}

// Bind sets the gauges; the last call counts.
func (e *Endpoint) Bind(g EndpointGauges) { e.gauges.Store(&g) }

// Attempt counts an attempt that ended.
func (e *Endpoint) Attempt(r Result) {
	if r < resultCount {
		e.attempts[r].Inc()
	}
}

// Attempts returns how many attempts ended in r.
func (e *Endpoint) Attempts(r Result) uint64 {
	if r >= resultCount {
		return 0
	}
	return e.attempts[r].Value()
}

func (e *Endpoint) collect(s *scrape) {
	for r := range e.attempts {
		s.cell(mEndpointAttempts, uint16(r), e.attempts[r].Value(), Result(r).String(), "")
	}
	s.counter(mEndpointEjections, e.Ejections.Value())
	s.cell(mHealthChanges, 0, e.BecameHealthy.Value(), "healthy", "")
	s.cell(mHealthChanges, 1, e.BecameUnhealthy.Value(), "unhealthy", "")
	if g := e.gauges.Load(); g != nil {
		s.read(mEndpointState, g.State)
		s.read(mEndpointHand, g.Hand)
		s.read(mEndpointBreaker, g.Breaker)
		s.read(mEndpointActive, g.Active)
		s.read(mEndpointEWMA, g.EWMA)
		s.read(mEndpointHealth, g.Health)
		s.read(mEndpointDraining, g.Drain)
		s.read(mEndpointShare, g.Share)
		s.read(mEndpointWeight, g.Weight)
	}
}
