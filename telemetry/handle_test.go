package telemetry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

func TestHandlesAreShared(t *testing.T) {
	m := newMetrics(t, 0)
	a, b := m.Cluster("api", Outbound), m.Cluster("api", Outbound)
	if a != b {
		t.Fatal("two handles of one cluster")
	}
	if a == m.Cluster("api", Inbound) || a == m.Cluster("db", Outbound) {
		t.Fatal("one handle of two clusters")
	}
	if m.Endpoint("api", "x") == m.Endpoint("db", "x") || m.Listener(Inbound, "x") == m.Listener(Outbound, "x") {
		t.Error("one handle of two")
	}
	if first, second := m.Discovery("x"), m.Discovery("x"); first != second {
		t.Error("two handles of one service")
	}
}

func TestReleaseRemovesTheSeries(t *testing.T) {
	m := newMetrics(t, 0)
	before := text(t, m)
	l, d, e := m.Listener(Inbound, "public"), m.Discovery("api"), m.Endpoint("api", "10.0.0.1:80")
	c := m.Cluster("api", Outbound)
	same := m.Cluster("api", Outbound)
	c.UpstreamConnections.Add(2)
	e.Attempt(ResultFailure)
	e.Bind(gauges(func(g *EndpointGauges) { g.State = 1 }))
	l.HandshakeFailed(HandshakeClosed)
	d.Bind(DiscoveryGauges{Age: constant(1)})

	c.Release()
	wantLines(t, m, "outrigger_upstream_connections_total", `{cluster="api",direction="outbound"} 2`)
	same.Release()
	wantLines(t, m, "outrigger_upstream_connections_total")
	l.Release()
	d.Release()
	e.Release()
	if after := text(t, m); after != before {
		t.Errorf("something is left:\n%s", after)
	}
	// Once more than acquired, and updates afterwards, do nothing.
	c.Release()
	c.UpstreamConnections.Inc()
	c.Begin(0)
	c.Finish(0, outcome.OK, 200, 0)
	if after := text(t, m); after != before {
		t.Errorf("a released handle is shown:\n%s", after)
	}
	// The next one begins anew, and a late Release of the old one leaves it.
	next := m.Cluster("api", Outbound)
	c.Release()
	if next == c {
		t.Error("a released handle is handed out")
	}
	wantLines(t, m, "outrigger_upstream_connections_total", `{cluster="api",direction="outbound"} 0`)
	m.Process().Release()
	if len(lines(t, m, "outrigger_build_info")) != 1 {
		t.Error("the process was released")
	}
}

func TestSeriesBudget(t *testing.T) {
	const name = "outrigger_endpoint_ejections_total"
	m := newMetrics(t, 2)
	var e [5]*Endpoint
	for i := range e {
		e[i] = m.Endpoint("api", fmt.Sprint(i))
		e[i].Ejections.Add(uint64(1) << i)
		e[i].Bind(gauges(func(g *EndpointGauges) { g.State = float64(i) }))
	}
	over := func(n int) string { return fmt.Sprintf(`{cluster="_overflow",endpoint="_overflow"} %d`, n) }
	wantLines(t, m, name, `{cluster="api",endpoint="0"} 1`, `{cluster="api",endpoint="1"} 2`, over(4+8+16))
	// Gauges cannot be added up.
	wantLines(t, m, "outrigger_endpoint_state", `{cluster="api",endpoint="0"} 0`, `{cluster="api",endpoint="1"} 1`)
	wantLines(t, m, "outrigger_metric_series_overflowed_total",
		`{metric="outrigger_endpoint_ejections_total"} 3`, `{metric="outrigger_endpoint_state"} 3`)

	// A place that comes free is not for those that overflowed before: their
	// counts would leave the overflow counter, which must not go back.
	e[0].Release()
	e[2].Ejections.Inc()
	wantLines(t, m, name, `{cluster="api",endpoint="1"} 2`, over(5+8+16))
	// It is for the next. What a retired one had counted stays.
	e[3].Release()
	m.Endpoint("api", "new").Ejections.Inc()
	wantLines(t, m, name, `{cluster="api",endpoint="1"} 2`, `{cluster="api",endpoint="new"} 1`, over(5+8+16))
	for i := range e {
		e[i].Release()
	}
	wantLines(t, m, name, `{cluster="api",endpoint="new"} 1`, over(5+8+16))
}

// A name that is the overflow's own must not make two series of one name.
func TestSeriesBudgetBesideTheReservedName(t *testing.T) {
	m := newMetrics(t, 1)
	m.Discovery("_overflow").Updates.Inc()
	m.Discovery("other").Updates.Add(2)
	wantLines(t, m, "outrigger_discovery_updates_total", `{service="__overflow"} 1`, `{service="_overflow"} 2`)
}

func TestSeriesBudgetOfHistograms(t *testing.T) {
	const name = "outrigger_exchange_duration_seconds"
	m := newMetrics(t, 1)
	m.Cluster("a", Outbound)
	b, c := m.Cluster("b", Outbound), m.Cluster("c", Outbound)
	for _, x := range []*Cluster{b, c} {
		x.Begin(0)
		x.Finish(0, outcome.OK, 200, time.Second)
	}
	sums := func() string {
		var found []string
		for _, l := range lines(t, m, name) {
			if strings.HasPrefix(l, name+"_sum") || strings.HasPrefix(l, name+"_count") {
				found = append(found, strings.TrimPrefix(l, name))
			}
		}
		return strings.Join(found, "\n")
	}
	want := `_sum{cluster="_overflow",direction="_overflow"} 2
_count{cluster="_overflow",direction="_overflow"} 2
_sum{cluster="a",direction="outbound"} 0
_count{cluster="a",direction="outbound"} 0`
	if got := sums(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b.Release()
	if got := sums(); got != want {
		t.Errorf("after one was released\n%s\nwant\n%s", got, want)
	}
}

// Each series gives its place back, also that of a gauge which was bound once
// and is not any more.
func TestBudgetIsGivenBack(t *testing.T) {
	m := newMetrics(t, 1)
	text(t, m)
	want := m.families
	for range 3 {
		updateOne := func(g ClusterGauges) *Cluster {
			c := m.Cluster("api", Outbound)
			c.Bind(g)
			c.Begin(0)
			c.Finish(0, outcome.OK, 200, 0)
			text(t, m)
			return c
		}
		c := updateOne(ClusterGauges{Pending: constant(1), Endpoints: constant(1)})
		c.Bind(ClusterGauges{Endpoints: constant(2)})
		text(t, m)
		c.Release()
		// Never scraped: it had no place.
		m.Endpoint("api", "x").Release()
	}
	for id := range want {
		if got := m.families[id]; got.live != want[id].live || got.overflowed != want[id].overflowed {
			t.Errorf("%s: %d live, %d overflowed; want %d, %d", table[id].name, got.live, got.overflowed, want[id].live, want[id].overflowed)
		}
	}
}
