package telemetry

import (
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
)

// RateResult is what a rate limit decided.
type RateResult uint8

// The results.
const (
	RatePassed RateResult = iota
	RateLimited
	// RateWouldLimit: beyond the rate, and let pass in observe mode.
	RateWouldLimit

	rateResultCount
)

var rateResultNames = [rateResultCount]string{"passed", "limited", "would_limit"}

// String returns the label value.
func (r RateResult) String() string { return nameOf(rateResultNames[:], int(r)) }

// RateLimit holds the metrics of one rate limit of a cluster.
type RateLimit struct {
	handle

	// Evicted counts the keys whose bucket had to go for another's.
	Evicted Counter
	keys    atomic.Pointer[func() float64]
	shards  []rateShard
	mask    uint32
}

type rateShard struct {
	decisions [rateResultCount]Counter
	_         pad
}

// RateLimit returns the handle of a cluster's rate limit; Release it when the
// plan that has it is replaced.
func (m *Metrics) RateLimit(cluster string, direction Direction, limit string) *RateLimit {
	cluster, limit = label(cluster), label(limit)
	labels := []attribute.KeyValue{
		attribute.String("cluster", cluster), attribute.String("direction", direction.String()), attribute.String("limit", limit),
	}
	return acquire(m, handleKey{kindRateLimit, direction, cluster, limit}, labels, func(h handle) *RateLimit {
		n := shardCount()
		return &RateLimit{handle: h, shards: make([]rateShard, n), mask: uint32(n - 1)}
	})
}

// Bind sets what is read at each scrape: how many keys have a bucket. The last
// call counts.
func (l *RateLimit) Bind(keys func() float64) { l.keys.Store(&keys) }

// Decided counts a decision. The shard is as in Cluster.Begin.
func (l *RateLimit) Decided(shard uint32, r RateResult) {
	if r < rateResultCount {
		l.shards[shard&l.mask].decisions[r].Inc()
	}
}

// Decisions returns how many decisions there were with that result.
func (l *RateLimit) Decisions(r RateResult) uint64 {
	var n uint64
	for i := range l.shards {
		n += l.shards[i].decisions[r].Value()
	}
	return n
}

func (l *RateLimit) collect(s *scrape) {
	for r := range rateResultCount {
		s.cell(mRateDecisions, uint16(r), l.Decisions(r), r.String(), "")
	}
	s.counter(mRateEvictions, l.Evicted.Value())
	if keys := l.keys.Load(); keys != nil {
		s.read(mRateKeys, *keys)
	}
}
