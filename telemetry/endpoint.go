package telemetry

import (
	"math"
	"sync/atomic"
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
	source EndpointSource // under m.mu
	// Ejections counts how often the endpoint was ejected.
	Ejections Counter
	// BecameHealthy and BecameUnhealthy count changes of what active checks say.
	BecameHealthy, BecameUnhealthy Counter

	attempts atomic.Pointer[attempts] // nil before the first
}

// attempts are counted by every core, away from what others write.
type attempts struct {
	_    pad
	ends [resultCount]Counter
	_    pad
}

// EndpointSource is asked for an endpoint's gauges at each scrape. It must be safe
// to call at any time and must not call Metrics.
type EndpointSource interface {
	Gauges() EndpointGauges
}

// EndpointGauges are those of one moment; what is not a number (Absent) is left out.
type EndpointGauges struct {
	State   float64 // 0 healthy, 1 ejected, 2 probation
	Active  float64 // attempts in flight
	EWMA    float64 // the balancer's estimate of the latency, in seconds
	Hand    float64 // by orders: 0 none, 1 ejected, 2 pinned, 3 others are pinned, 4 ejected but used, as all are
	Breaker float64 // of its own: 0 closed, 1 half-open, 2 open
	Health  float64 // by active checks: 0 unknown, 1 healthy, 2 unhealthy
	Drain   float64 // 1 while it gets nothing new
	Weight  float64 // what its reports of load make of its weight
	Share   float64 // the part of its share of the attempts that caution leaves it
}

// Absent is the value of a gauge that there is not.
func Absent() float64 { return math.NaN() }

// Endpoint returns the handle of an endpoint; Release it when the endpoint is
// gone.
func (m *Metrics) Endpoint(cluster, endpoint string) *Endpoint {
	// Its labels are made of the key when they are needed: there may be many.
	return acquire(m, handleKey{kindEndpoint, 0, label(cluster), label(endpoint)}, nil, func(h handle) *Endpoint { return &Endpoint{handle: h} })
}

// Bind sets who knows the gauges; the last call counts.
func (e *Endpoint) Bind(source EndpointSource) {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	e.source = source
}

// Attempt counts an attempt that ended.
func (e *Endpoint) Attempt(r Result) {
	if r >= resultCount {
		return
	}
	a := e.attempts.Load()
	if a == nil {
		e.attempts.CompareAndSwap(nil, new(attempts))
		a = e.attempts.Load()
	}
	a.ends[r].Inc()
}

// Attempts returns how many attempts ended in r.
func (e *Endpoint) Attempts(r Result) uint64 {
	a := e.attempts.Load()
	if a == nil || r >= resultCount {
		return 0
	}
	return a.ends[r].Value()
}

func (e *Endpoint) collect(s *scrape) {
	for r := range resultCount {
		s.cell(mEndpointAttempts, uint16(r), e.Attempts(r), r.String(), "")
	}
	s.counter(mEndpointEjections, e.Ejections.Value())
	s.cell(mHealthChanges, 0, e.BecameHealthy.Value(), "healthy", "")
	s.cell(mHealthChanges, 1, e.BecameUnhealthy.Value(), "unhealthy", "")
	if e.source == nil || s.retiring { // what it would read may be gone already
		return
	}
	g := e.source.Gauges()
	s.present(mEndpointState, g.State)
	s.present(mEndpointHand, g.Hand)
	s.present(mEndpointBreaker, g.Breaker)
	s.present(mEndpointActive, g.Active)
	s.present(mEndpointEWMA, g.EWMA)
	s.present(mEndpointHealth, g.Health)
	s.present(mEndpointDraining, g.Drain)
	s.present(mEndpointShare, g.Share)
	s.present(mEndpointWeight, g.Weight)
}
