package telemetry

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
)

// Counter only grows. The zero value is ready.
type Counter struct{ n atomic.Uint64 }

// Inc adds one.
func (c *Counter) Inc() { c.n.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Value returns the sum so far.
func (c *Counter) Value() uint64 { return c.n.Load() }

// UpDown goes up and down. The zero value is ready.
type UpDown struct{ n atomic.Int64 }

// Inc adds one.
func (g *UpDown) Inc() { g.n.Add(1) }

// Dec takes one away.
func (g *UpDown) Dec() { g.n.Add(-1) }

// Add adds n, which may be negative.
func (g *UpDown) Add(n int64) { g.n.Add(n) }

// Value returns the present value.
func (g *UpDown) Value() int64 { return g.n.Load() }

// pad keeps groups that different cores write apart.
type pad [64]byte

type handleKind uint8

const (
	kindListener handleKind = iota
	kindCluster
	kindEndpoint
	kindDiscovery
	kindProcess
	kindRoute
	kindRateLimit
	kindSubset
)

type handleKey struct {
	kind      handleKind
	direction Direction
	a, b      string
}

// bound is a handle as the collector sees it.
type bound interface {
	collect(*scrape)
	core() *handle
}

// handle is the bookkeeping part of every handle. All but m, key, labels and
// start is guarded by m.mu.
type handle struct {
	m      *Metrics
	key    handleKey
	labels []attribute.KeyValue // nil of an endpoint
	start  time.Time
	refs   int
	series map[seriesKey]*series // nil before the first scrape
}

// attributes returns the labels, with room for more.
func (h *handle) attributes(more int) []attribute.KeyValue {
	if h.key.kind == kindEndpoint {
		return append(make([]attribute.KeyValue, 0, 2+more), attribute.String("cluster", h.key.a), attribute.String("endpoint", h.key.b))
	}
	return append(make([]attribute.KeyValue, 0, len(h.labels)+more), h.labels...)
}

func (h *handle) core() *handle { return h }

// Release gives the handle back. When everyone who got it has done so, its
// series disappear. The handle may still be written to, without effect.
func (h *handle) Release() {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.refs == 0 {
		return
	}
	if h.refs--; h.refs > 0 {
		return
	}
	b := h.m.handles[h.key]
	h.m.retire(b)
	delete(h.m.handles, h.key)
	h.m.order = slices.DeleteFunc(h.m.order, func(o bound) bool { return o == b })
}

// label makes a name fit to be a label's value: Prometheus refuses a whole
// scrape for one that is not UTF-8, and the overflow series' own is taken.
// Handles are found by it too, so that no two have the same labels.
func label(name string) string {
	if name == overflowValue {
		return "_" + name
	}
	return strings.ToValidUTF8(name, "\ufffd")
}

// acquire returns the handle of key, made by create if there is none.
func acquire[T bound](m *Metrics, key handleKey, labels []attribute.KeyValue, create func(handle) T) T {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.handles[key]; ok {
		b.core().refs++
		return b.(T)
	}
	t := create(handle{m: m, key: key, labels: labels, start: m.now(), refs: 1})
	m.handles[key] = t
	m.order = append(m.order, t)
	return t
}
