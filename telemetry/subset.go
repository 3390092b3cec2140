package telemetry

import (
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
)

// Subset holds the metrics of a named part of a cluster's endpoints.
type Subset struct {
	handle

	gauges atomic.Pointer[subsetGauges]
	// Fallbacks counts the attempts that went to the whole cluster, as none of the
	// subset may be used.
	Fallbacks Counter
	// Refused counts the attempts for which there was no endpoint.
	Refused Counter
}

type subsetGauges struct{ endpoints, available func() float64 }

// Subset returns the handle of a cluster's subset; Release it when the policy
// that has it is replaced.
func (m *Metrics) Subset(cluster string, direction Direction, subset string) *Subset {
	cluster, subset = label(cluster), label(subset)
	labels := []attribute.KeyValue{
		attribute.String("cluster", cluster), attribute.String("direction", direction.String()), attribute.String("subset", subset),
	}
	return acquire(m, handleKey{kindSubset, direction, cluster, subset}, labels, func(h handle) *Subset { return &Subset{handle: h} })
}

// Bind sets what is read at each scrape; the last call counts.
func (t *Subset) Bind(endpoints, available func() float64) {
	t.gauges.Store(&subsetGauges{endpoints, available})
}

func (t *Subset) collect(s *scrape) {
	s.counter(mSubsetFallbacks, t.Fallbacks.Value())
	s.counter(mSubsetRefused, t.Refused.Value())
	if g := t.gauges.Load(); g != nil {
		s.read(mSubsetEndpoints, g.endpoints)
		s.read(mSubsetAvailable, g.available)
	}
}
