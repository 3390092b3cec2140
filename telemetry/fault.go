package telemetry

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// FaultKind is what a fault made on purpose does, in the order of the machine
// that decides it.
type FaultKind uint8

// The kinds.
const (
	FaultDelay FaultKind = iota
	FaultAbort
	FaultReset
	FaultBandwidth

	faultKindCount
)

var faultKindNames = [faultKindCount]string{"delay", "abort", "reset", "bandwidth"}

// String returns the label value.
func (k FaultKind) String() string { return nameOf(faultKindNames[:], int(k)) }

// faulted counts what faults made on purpose do in a cluster.
type faulted struct {
	kinds  [faultKindCount]Counter // attempts that met one
	met    Counter                 // exchanges that ended and had met one
	failed Counter                 // of them, that failed and not by the caller's doing
}

// Injected counts an attempt that meets a fault of that kind.
func (c *Cluster) Injected(k FaultKind) {
	if k < faultKindCount {
		c.count().faulted.kinds[k].Inc()
	}
}

// MetFault counts an exchange that has met a fault and ended with r. It comes
// beside Finish.
func (c *Cluster) MetFault(r outcome.Reason) {
	c.count().faulted.met.Inc()
	if failure(r) {
		c.count().faulted.failed.Inc()
	}
}

// failure reports whether an outcome is one, and not the caller's doing.
func failure(r outcome.Reason) bool {
	s := r.Row().Source
	return s == outcome.SourceUpstream || s == outcome.SourceLocal
}

// FaultTotals are what concerns faults of a cluster's sums.
type FaultTotals struct {
	ClusterTotals
	Injected  [faultKindCount]uint64 // attempts, by FaultKind
	Failed    uint64                 // exchanges that failed and not by the caller's doing
	Met       uint64                 // exchanges that met a fault
	MetFailed uint64                 // of Failed, the same
	Ended     uint64                 // exchanges whose outcome is a fault itself
	Again     uint64                 // attempts after one that a fault had ended
	Openings  uint64                 // of the breaker
}

// FaultTotals returns the sums so far.
func (c *Cluster) FaultTotals() FaultTotals {
	counts := c.counted()
	// What has met a fault is read first, so that it is never more than all.
	t := FaultTotals{Met: counts.faulted.met.Value(), MetFailed: counts.faulted.failed.Value(), Openings: c.BreakerOpened.Value()}
	for k := range counts.faulted.kinds {
		t.Injected[k] = counts.faulted.kinds[k].Value()
	}
	t.ClusterTotals = c.Totals()
	for r := range counts.others {
		n := uint64(0)
		for k := range counts.others[r] {
			n += counts.others[r][k].Value()
		}
		if failure(outcome.Reason(r)) {
			t.Failed += n
		}
		if outcome.Reason(r) == outcome.FaultInjected {
			t.Ended = n
		}
	}
	t.Again = counts.retries[outcome.FaultInjected].Value()
	return t
}

func (f *faulted) collect(s *scrape) {
	for k := range f.kinds {
		s.cell(mFaults, uint16(k), f.kinds[k].Value(), FaultKind(k).String(), "")
	}
	failed := f.failed.Value()
	s.cell(mFaultExchanges, 0, f.met.Value()-failed, "ok", "")
	s.cell(mFaultExchanges, 1, failed, "failed", "")
}

// Above returns how many durations were longer than d, interpolated within
// their bucket.
func (d *Distribution) Above(than time.Duration) uint64 {
	n := float64(d.counts[bucketCount])
	lower := time.Duration(0)
	for i, bound := range bounds {
		switch {
		case than <= lower:
			n += float64(d.counts[i])
		case than < bound:
			n += float64(d.counts[i]) * float64(bound-than) / float64(bound-lower)
		}
		lower = bound
	}
	return uint64(n)
}
