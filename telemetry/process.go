package telemetry

import (
	"runtime"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
)

// Process holds the metrics that concern the whole process.
type Process struct {
	handle
	version, commit string
	gauges          atomic.Pointer[ProcessGauges]

	// ConfigVersion is the number of the plan in use.
	ConfigVersion UpDown
	// IdentityUpdates counts the SVIDs received.
	IdentityUpdates Counter

	reloads    [2]Counter // failure, success
	lastReload [2]atomic.Int64
}

// ProcessGauges are read at each scrape; a nil one is left out. They must be
// safe to call at any time and must not call Metrics.
type ProcessGauges struct {
	IdentityExpiry   func() float64 // when the SVID expires, in Unix seconds
	AccessLogRecords func() uint64  // AccessLog.Written
	AccessLogDropped func() uint64  // AccessLog.Dropped
	SpansDropped     func() uint64  // Tracer.Dropped
	Floods           []Named        // connections ended by each of HTTP/2's bounds
	LedgerRecords    func() uint64  // ledger.Ring.Records
	LedgerBytes      func() float64 // ledger.Ring.Bytes

	// The outcome log: outcomes.Log.Stats.
	OutcomeRecords, OutcomeBytes, OutcomeDropped func() uint64
	OutcomeSize                                  func() float64

	DNSQueries []Named // by what became of them; empty without dns

	// What Consul says of a sidecar of its mesh; empty of any other proxy.
	MeshAges, MeshFindings []NamedGauge
	MeshRefused            func() float64

	// The memory budget; all nil without one.
	MemoryBudget, MemoryUsed, MemoryLevel func() float64
	MemoryLevels                          []Named // how often each level was entered
	MemoryGivenUp                         []Named // how often each thing was given up
}

// Named is a counter with the value of its own label. It is read at each scrape.
type Named struct {
	Name  string
	Value func() uint64
}

// NamedGauge is a gauge with the value of its own label.
type NamedGauge struct {
	Name  string
	Value func() float64
}

func newProcess(m *Metrics, r Resource) *Process {
	return acquire(m, handleKey{kind: kindProcess}, nil, func(h handle) *Process {
		return &Process{handle: h, version: r.version(), commit: orElse(clean(r.Commit), "unknown")}
	})
}

// Release does nothing: the process' handle lives as long as its Metrics.
func (p *Process) Release() {}

// Bind sets the gauges; the last call counts.
func (p *Process) Bind(g ProcessGauges) { p.gauges.Store(&g) }

// Reloaded counts an attempt to load the configuration.
func (p *Process) Reloaded(at time.Time, ok bool) {
	i := 0
	if ok {
		i = 1
	}
	p.reloads[i].Inc()
	p.lastReload[i].Store(at.UnixMilli())
}

func (p *Process) collect(s *scrape) {
	s.labelled(mBuildInfo, 1, p.version, p.commit, runtime.Version())
	s.gauge(mConfigVersion, float64(p.ConfigVersion.Value()))
	for i, word := range [...]string{"failure", "success"} {
		s.labelledCounter(mConfigReloads, uint16(i), p.reloads[i].Value(), word)
		if at := p.lastReload[i].Load(); at != 0 {
			s.cellGauge(mConfigLastReload, uint16(i), float64(at)/1000, word)
		}
	}
	s.counter(mIdentityUpdates, p.IdentityUpdates.Value())
	if g := p.gauges.Load(); g != nil {
		s.read(mIdentityExpiry, g.IdentityExpiry)
		s.readCounter(mAccessLogRecords, g.AccessLogRecords)
		s.readCounter(mAccessLogDropped, g.AccessLogDropped)
		s.readCounter(mSpansDropped, g.SpansDropped)
		s.named(mFloods, g.Floods)
		s.readCounter(mLedgerRecords, g.LedgerRecords)
		s.read(mLedgerBytes, g.LedgerBytes)
		s.readCounter(mOutcomeRecords, g.OutcomeRecords)
		s.readCounter(mOutcomeBytes, g.OutcomeBytes)
		s.readCounter(mOutcomeDropped, g.OutcomeDropped)
		s.read(mOutcomeSize, g.OutcomeSize)
		s.named(mDNSQueries, g.DNSQueries)
		s.namedGauges(mMeshAge, g.MeshAges)
		s.namedGauges(mMeshFindings, g.MeshFindings)
		s.read(mMeshRefused, g.MeshRefused)
		s.read(mMemoryBudget, g.MemoryBudget)
		s.read(mMemoryUsed, g.MemoryUsed)
		s.read(mMemoryLevel, g.MemoryLevel)
		s.named(mMemoryLevels, g.MemoryLevels)
		s.named(mMemoryGivenUp, g.MemoryGivenUp)
	}
}

func (s *scrape) named(id metricID, list []Named) {
	for i, n := range list {
		s.labelledCounter(id, uint16(i), n.Value(), n.Name)
	}
}

func (s *scrape) namedGauges(id metricID, list []NamedGauge) {
	for i, n := range list {
		s.cellGauge(id, uint16(i), n.Value(), n.Name)
	}
}

// Discovery holds the metrics of one service that is looked up.
type Discovery struct {
	handle
	gauges atomic.Pointer[DiscoveryGauges]
	// Updates counts the changes received.
	Updates Counter
	// Errors counts failed look-ups.
	Errors Counter
}

// DiscoveryGauges are read at each scrape; a nil one is left out. They must
// be safe to call at any time and must not call Metrics.
type DiscoveryGauges struct {
	Age       func() float64 // seconds since the data were last confirmed
	Endpoints func() float64 // endpoints in the data
}

// Discovery returns the handle of a service; Release it when the service is
// no longer looked up.
func (m *Metrics) Discovery(service string) *Discovery {
	service = label(service)
	labels := []attribute.KeyValue{attribute.String("service", service)}
	return acquire(m, handleKey{kindDiscovery, 0, service, ""}, labels, func(h handle) *Discovery { return &Discovery{handle: h} })
}

// Bind sets the gauges; the last call counts.
func (d *Discovery) Bind(g DiscoveryGauges) { d.gauges.Store(&g) }

func (d *Discovery) collect(s *scrape) {
	s.counter(mDiscoveryUpdates, d.Updates.Value())
	s.counter(mDiscoveryErrors, d.Errors.Value())
	if g := d.gauges.Load(); g != nil {
		s.read(mDiscoveryAge, g.Age)
		s.read(mDiscoveryEndpoints, g.Endpoints)
	}
}
