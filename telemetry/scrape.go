package telemetry

import (
	"context"
	"math"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// overflowValue is the value of every label of an overflow series.
const overflowValue = "_overflow"

// seriesKey is a series within a handle: the metric and the place in its own
// label's fixed set of values.
type seriesKey struct {
	metric metricID
	cell   uint16
}

// series is one label set, made when it is first seen by a scrape. Whether it
// has its own place in the metric's budget is decided then and for good, so
// that no counter ever goes back.
type series struct {
	set        attribute.Set
	overflowed bool
}

// family is what a metric keeps between scrapes.
type family struct {
	live       int          // series with a place of their own
	overflowed uint64       // series that found none, ever
	base       uint64       // what retired series left in the overflow counter
	baseHist   Distribution // the same of a histogram
}

// scrape is one collection, or the retirement of one handle.
type scrape struct {
	m        *Metrics
	h        *handle
	now      time.Time
	retiring bool
	points   [metricCount]points
}

// points is what a scrape found for one metric.
type points struct {
	sums   []metricdata.DataPoint[int64]
	gauges []metricdata.DataPoint[float64]
	hists  []metricdata.HistogramDataPoint[float64]
	over   uint64
	overH  Distribution
}

// series finds or makes the series of a cell. It returns nil for one that a
// retiring handle never showed.
func (s *scrape) series(id metricID, cell uint16, values ...string) *series {
	key := seriesKey{id, cell}
	if e, ok := s.h.series[key]; ok || s.retiring {
		return e
	}
	e := s.m.beyond
	f := &s.m.families[id]
	// The self-metric has one series a metric and needs no budget.
	if f.live < s.m.max || id == mSeriesOverflowed {
		f.live++
		kvs := s.h.attributes(len(values))
		names := table[id].labelNames()[len(kvs):]
		for i, name := range names {
			kvs = append(kvs, attribute.String(name, values[i]))
		}
		e = &series{set: attribute.NewSet(kvs...)}
	} else {
		f.overflowed++
	}
	if s.h.series == nil {
		s.h.series = make(map[seriesKey]*series)
	}
	s.h.series[key] = e
	return e
}

func (s *scrape) addSum(id metricID, e *series, n uint64) {
	f, p := &s.m.families[id], &s.points[id]
	switch {
	case e == nil:
	case s.retiring:
		if e.overflowed {
			f.base += n
		}
	case e.overflowed:
		p.over += n
	default:
		p.sums = append(p.sums, metricdata.DataPoint[int64]{Attributes: e.set, StartTime: s.h.start, Time: s.now, Value: int64(n)})
	}
}

func (s *scrape) addGauge(id metricID, e *series, v float64) {
	if e == nil || s.retiring || e.overflowed {
		return
	}
	p := &s.points[id]
	p.gauges = append(p.gauges, metricdata.DataPoint[float64]{Attributes: e.set, Time: s.now, Value: v})
}

// counter takes a counter that has only the handle's labels.
func (s *scrape) counter(id metricID, n uint64) { s.addSum(id, s.series(id, 0), n) }

// gauge takes a gauge that has only the handle's labels.
func (s *scrape) gauge(id metricID, v float64) { s.addGauge(id, s.series(id, 0), v) }

// cell takes one place of an array of counters; it is not shown before it was
// first counted. v2 is for metrics with two labels of their own.
func (s *scrape) cell(id metricID, cell uint16, n uint64, v1, v2 string) {
	s.cells(id, cell, n, v1, v2)
}

// cells is cell with any number of labels.
func (s *scrape) cells(id metricID, cell uint16, n uint64, values ...string) {
	if n != 0 {
		s.addSum(id, s.series(id, cell, values...), n)
	}
}

// labelledCounter is cell, shown from the start.
func (s *scrape) labelledCounter(id metricID, cell uint16, n uint64, value string) {
	s.addSum(id, s.series(id, cell, value), n)
}

// cellGauge is gauge with a label of the metric's own.
func (s *scrape) cellGauge(id metricID, cell uint16, v float64, value string) {
	s.addGauge(id, s.series(id, cell, value), v)
}

// labelled is a gauge with several labels of the metric's own.
func (s *scrape) labelled(id metricID, v float64, values ...string) {
	s.addGauge(id, s.series(id, 0, values...), v)
}

// read takes a gauge from a callback, if there is one.
func (s *scrape) read(id metricID, f func() float64) {
	// When retiring, what it would read may be gone already.
	if f != nil && !s.retiring {
		s.gauge(id, f())
	}
}

// present takes a gauge, if there is one.
func (s *scrape) present(id metricID, v float64) {
	if !math.IsNaN(v) {
		s.gauge(id, v)
	}
}

// readCounter takes a counter from a callback, if there is one.
func (s *scrape) readCounter(id metricID, f func() uint64) {
	if f != nil {
		s.counter(id, f())
	}
}

// histogram takes one that has only the handle's labels.
func (s *scrape) histogram(id metricID, d *Distribution) { s.distribution(id, 0, d) }

// distribution is histogram with labels of the metric's own.
func (s *scrape) distribution(id metricID, cell uint16, d *Distribution, values ...string) {
	e := s.series(id, cell, values...)
	f, p := &s.m.families[id], &s.points[id]
	switch {
	case e == nil:
	case s.retiring:
		if e.overflowed {
			f.baseHist.add(d)
		}
	case e.overflowed:
		p.overH.add(d)
	default:
		p.hists = append(p.hists, d.point(e.set, s.h.start, s.now))
	}
}

func (d *Distribution) add(o *Distribution) {
	for i := range d.counts {
		d.counts[i] += o.counts[i]
	}
	d.nanos += o.nanos
}

func (d *Distribution) point(set attribute.Set, start, now time.Time) metricdata.HistogramDataPoint[float64] {
	seconds := make([]float64, bucketCount)
	for i, b := range bounds {
		seconds[i] = b.Seconds()
	}
	return metricdata.HistogramDataPoint[float64]{
		Attributes: set, StartTime: start, Time: now,
		Count: d.Count(), Bounds: seconds, BucketCounts: append([]uint64(nil), d.counts[:]...),
		Sum: float64(d.nanos) / 1e9,
	}
}

// retire takes the series of b out of the budgets, those of gauges that are
// no longer bound included, and keeps what overflowed. m.mu is held.
func (m *Metrics) retire(b bound) {
	h := b.core()
	b.collect(&scrape{m: m, h: h, retiring: true})
	for key, e := range h.series {
		if !e.overflowed {
			m.families[key.metric].live--
		}
	}
	clear(h.series)
}

// producer gives the handles' state to the OpenTelemetry SDK.
type producer struct{ m *Metrics }

// Produce implements the SDK's metric.Producer.
func (p producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	m := p.m
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &scrape{m: m, now: m.now()}
	for _, b := range m.order {
		s.h = b.core()
		b.collect(s)
	}
	s.h = m.process.core()
	for id := range m.families {
		if n := m.families[id].overflowed; n != 0 {
			s.labelledCounter(mSeriesOverflowed, uint16(id), n, table[id].name)
		}
	}
	out := make([]metricdata.Metrics, 0, metricCount)
	for id := range metricCount {
		if data := s.data(id); data != nil {
			out = append(out, metricdata.Metrics{Name: table[id].name, Description: table[id].help, Unit: table[id].unit, Data: data})
		}
	}
	return []metricdata.ScopeMetrics{{Scope: instrumentation.Scope{Name: "outrigger"}, Metrics: out}}, nil
}

// data returns the points of a metric, its overflow series included, or nil
// if there are none.
func (s *scrape) data(id metricID) metricdata.Aggregation {
	f, p := &s.m.families[id], &s.points[id]
	over := f.overflowed != 0 && table[id].typ != gauge
	if len(p.sums)+len(p.gauges)+len(p.hists) == 0 && !over {
		return nil
	}
	var set attribute.Set
	if over {
		var kvs []attribute.KeyValue
		for _, name := range table[id].labelNames() {
			kvs = append(kvs, attribute.String(name, overflowValue))
		}
		set = attribute.NewSet(kvs...)
	}
	switch table[id].typ {
	case gauge:
		return metricdata.Gauge[float64]{DataPoints: p.gauges}
	case histogramType:
		if over {
			p.overH.add(&f.baseHist)
			p.hists = append(p.hists, p.overH.point(set, time.Time{}, s.now))
		}
		return metricdata.Histogram[float64]{DataPoints: p.hists, Temporality: metricdata.CumulativeTemporality}
	default:
		if over {
			p.sums = append(p.sums, metricdata.DataPoint[int64]{Attributes: set, Time: s.now, Value: int64(p.over + f.base)})
		}
		return metricdata.Sum[int64]{DataPoints: p.sums, Temporality: metricdata.CumulativeTemporality, IsMonotonic: true}
	}
}
