package telemetry

import (
	"sync/atomic"
	"time"

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
	// RateUnknownPassed: who counts gave no answer, and it was let pass.
	RateUnknownPassed
	// RateUnknownRefused: who counts gave no answer, and it was refused.
	RateUnknownRefused

	rateResultCount
)

var rateResultNames = [rateResultCount]string{"passed", "limited", "would_limit", "unknown_passed", "unknown_refused"}

// RateFailure is why one who counts for several proxies gave no answer, in the
// order and with the words of the machine that says it.
type RateFailure uint8

const rateFailureCount = 7

var rateFailureNames = [rateFailureCount]string{"none", "timeout", "unreachable", "refused", "malformed", "open", "busy"}

// String returns the label value.
func (f RateFailure) String() string { return nameOf(rateFailureNames[:], int(f)) }

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

	shares   atomic.Pointer[func() float64]
	shared   atomic.Bool // somebody else has been asked
	failures [rateFailureCount]Counter
	took     histogram
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

// BindShares sets what is read at each scrape where the rate is divided: into
// how many parts. The last call counts.
func (l *RateLimit) BindShares(divided bool, shares func() float64) {
	if !divided {
		l.shares.Store(nil)
		return
	}
	l.shares.Store(&shares)
}

// Decided counts a decision. The shard is as in Cluster.Begin.
func (l *RateLimit) Decided(shard uint32, r RateResult) {
	if r < rateResultCount {
		l.shards[shard&l.mask].decisions[r].Inc()
	}
}

// Asked counts a question to one who counts for several proxies, and how long
// the answer took.
func (l *RateLimit) Asked(f RateFailure, took time.Duration) {
	if !l.shared.Load() {
		l.shared.Store(true)
	}
	l.took.observe(took)
	if f != 0 && f < rateFailureCount {
		l.failures[f].Inc()
	}
}

// Failures returns how many questions were not answered, in all.
func (l *RateLimit) Failures() (n uint64) {
	for f := range l.failures {
		n += l.failures[f].Value()
	}
	return n
}

// Times returns how long answers took.
func (l *RateLimit) Times() (d Distribution) {
	l.took.addTo(&d)
	return d
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
	if shares := l.shares.Load(); shares != nil {
		s.read(mRateShares, *shares)
	}
	if !l.shared.Load() {
		return
	}
	for f := RateFailure(1); f < rateFailureCount; f++ {
		s.cell(mRateErrors, uint16(f), l.failures[f].Value(), f.String(), "")
	}
	d := l.Times()
	s.histogram(mRateAsked, &d)
}
