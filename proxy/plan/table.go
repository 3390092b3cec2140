package plan

import (
	"cmp"
	"slices"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Table finds the route of a request: the first, in order, of whose conditions
// all are met. It does not allocate.
type Table struct {
	routes    []*Route
	last      *Route // when no other matches
	ambiguous *Route // for paths that can be read in more than one way; nil when no route looks at paths

	exact []exactPath // sorted by path
	scan  []int32     // the routes without an exact path, in order
}

// exactPath is a path with the routes that want exactly it, in order.
type exactPath struct {
	path   string
	routes []int32
}

// NewTable returns the table of routes with last behind them.
func NewTable(routes []*Route, last *Route) *Table {
	t := &Table{routes: routes, last: last}
	for i, r := range routes {
		p := &r.Match.Path
		if p.Kind != AnyText && t.ambiguous == nil {
			t.ambiguous = &Route{Name: last.Name, Why: "its path can be read in more than one way", Refuse: outcome.BadRequest}
		}
		if p.Kind != Exact || p.Fold {
			t.scan = append(t.scan, int32(i))
			continue
		}
		at, ok := slices.BinarySearchFunc(t.exact, p.Value, func(e exactPath, path string) int { return cmp.Compare(e.path, path) })
		if !ok {
			t.exact = slices.Insert(t.exact, at, exactPath{path: p.Value})
		}
		t.exact[at].routes = append(t.exact[at].routes, int32(i))
	}
	return t
}

// AmbiguousPath says why the table refuses a request.
const AmbiguousPath = "the path has a dot segment, a backslash or a control character, plain or encoded, so that it can be read in more than one way"

// Find returns the route of a request whose head is r in raw. Of a route with a
// split a destination is still to be chosen.
func (l *Listener) Find(r *http1.Request, raw []byte) *Route {
	if l.Routes == nil {
		return &l.Route
	}
	return l.Routes.Find(r, raw)
}

// Find returns the route of a request whose head is r in raw.
func (t *Table) Find(r *http1.Request, raw []byte) *Route {
	path := pathOf(r, raw)
	if t.ambiguous != nil && http1.AmbiguousPath(path) {
		return t.ambiguous
	}
	exact, scan := t.lookup(path), t.scan
	for len(exact) > 0 || len(scan) > 0 {
		var m *Route
		if len(scan) == 0 || len(exact) > 0 && exact[0] < scan[0] {
			m, exact = t.routes[exact[0]], exact[1:]
		} else {
			m, scan = t.routes[scan[0]], scan[1:]
			if p := &m.Match.Path; p.Kind != AnyText && (path == nil || !p.matches(path)) {
				continue
			}
		}
		if m.Match.beside(r, raw) {
			if m.Rewrite.escapes(path) {
				return t.ambiguous
			}
			return m
		}
	}
	return t.last
}

// lookup returns the routes that want exactly this path.
func (t *Table) lookup(path []byte) []int32 {
	lo, hi := 0, len(t.exact)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if e := &t.exact[mid]; string(path) > e.path {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(t.exact) && string(path) == t.exact[lo].path {
		return t.exact[lo].routes
	}
	return nil
}

// Routes returns the routes in order, without the last. It must not be changed.
func (t *Table) Routes() []*Route { return t.routes }

// Last returns the route of requests that no other takes.
func (t *Table) Last() *Route { return t.last }

// Bind gives the routes their metrics. Those of a split's destinations are the
// route's own, and an ambiguous path counts for the last.
func (t *Table) Bind(m *telemetry.Metrics, l *Listener) {
	for _, r := range append(slices.Clone(t.routes), t.last) {
		r.Metrics = m.Route(l.Direction, l.Name, r.Name)
		for _, s := range r.Split {
			s.Route.Metrics = r.Metrics
		}
	}
	if t.ambiguous != nil {
		t.ambiguous.Cluster, t.ambiguous.Metrics = t.last.Cluster, t.last.Metrics
	}
}

// Release gives the metrics back.
func (t *Table) Release() {
	for _, r := range t.routes {
		r.Metrics.Release()
	}
	t.last.Metrics.Release()
}
