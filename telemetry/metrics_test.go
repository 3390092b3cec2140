package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newMetrics(t testing.TB, maxSeries int) *Metrics {
	t.Helper()
	m, err := New(Options{
		Resource:  Resource{Service: "web", Instance: "web-1", Version: "1.2.3", Commit: "abcdef0", Attributes: map[string]string{"zone": "a"}},
		MaxSeries: maxSeries,
		Now:       func() time.Time { return testStart },
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func scrapeAs(t testing.TB, m *Metrics, accept string) (string, string) {
	t.Helper()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String(), w.Header().Get("Content-Type")
}

// text returns the page without what the runtime says of itself.
func text(t testing.TB, m *Metrics) string {
	t.Helper()
	page, _ := scrapeAs(t, m, "text/plain")
	var b strings.Builder
	for line := range strings.Lines(page) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "promhttp_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// lines returns the series of one metric, its buckets included.
func lines(t testing.TB, m *Metrics, name string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(text(t, m)) {
		if strings.HasPrefix(line, name) && strings.ContainsAny(line[len(name):len(name)+1], " {_") {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	return found
}

func wantLines(t *testing.T, m *Metrics, name string, want ...string) {
	t.Helper()
	for i := range want {
		want[i] = name + want[i]
	}
	slices.Sort(want) // as the page is
	if got := strings.Join(lines(t, m, name), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func constant(v float64) func() float64    { return func() float64 { return v } }
func constantCount(n uint64) func() uint64 { return func() uint64 { return n } }

// gauges sets those of an endpoint that there are.
type gauges func(*EndpointGauges)

// Gauges implements EndpointSource.
func (f gauges) Gauges() EndpointGauges {
	no := Absent()
	g := EndpointGauges{no, no, no, no, no, no, no, no, no}
	f(&g)
	return g
}

// updateAll touches every metric of the table but the overflow.
func updateAll(m *Metrics) {
	l := m.Listener(Inbound, "public")
	l.Connections.Add(5)
	l.Active.Inc()
	l.Active.Inc()
	l.Active.Dec()
	l.Plaintext.Inc()
	l.AcceptErrors.Inc()
	l.Refused.Add(2)
	l.Intercept(InterceptedVirtual)
	l.Intercept(InterceptedLoop)
	l.Held.Inc()
	l.BytesIn.Add(1000)
	l.BytesOut.Add(2000)
	r := m.Route(Outbound, "outbound:api", "reads")
	r.Finish(0, outcome.OK, 200, 3*time.Millisecond)
	r.Finish(1, outcome.OK, 404, 3*time.Millisecond)
	r.Finish(2, outcome.BadRequest, 400, 0)
	r.Finish(3, outcome.UpstreamReset, 503, time.Second)
	r.Finish(4, outcome.NoRoute, 404, 0)
	rate := m.RateLimit("api", Outbound, "caller")
	rate.Bind(func() float64 { return 7 })
	for k := range rateResultCount {
		rate.Decided(uint32(k), k)
		rate.Decided(9, k)
	}
	rate.Evicted.Inc()
	rate.BindShares(true, func() float64 { return 3 })
	for f := range RateFailure(rateFailureCount) {
		rate.Asked(f, 3*time.Millisecond)
	}
	for k := range handshakeFailureCount {
		l.HandshakeFailed(k)
	}
	l.HandshakeFailed(handshakeFailureCount) // not one: ignored
	for p := range spokenCount {
		for by := range foundCount {
			l.Speaks(p, by)
		}
	}
	l.Speaks(spokenCount, FoundDeclared) // ignored as well
	l.Speaks(SpokenTCP, foundCount)

	c := m.Cluster("api", Outbound)
	for i, d := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 2 * time.Minute} {
		c.Begin(uint32(i))
		c.Finish(uint32(i), outcome.OK, 200, d)
	}
	for i, status := range []uint16{0, 101, 302, 404, 503, 999} {
		c.Begin(uint32(i))
		c.Finish(uint32(i), outcome.OK, status, 0)
	}
	c.Begin(7)
	c.Finish(7, outcome.UpstreamReset, 503, 0)
	c.Begin(8)
	c.Finish(8, outcome.Reason(255), 500, 0) // not one: a defect
	c.Begin(9)                               // under way
	c.TunnelOpened()
	c.TunnelOpened()
	c.TunnelEnded(outcome.StreamIdle)
	c.TunnelOpened()
	c.TunnelEnded(outcome.Reason(255)) // not one: only not under way any more
	c.Call(1, []byte("/shop.Cart/Add"), 0, true, 3*time.Millisecond)
	c.Call(2, []byte("/shop.Cart/Missing"), 12, true, 0)
	for p := range priorityCount {
		c.Queued(Priority(p), QueueResult(p), time.Duration(p)*time.Millisecond)
	}
	c.Queued(priorityCount, 0, time.Second) // neither is one
	c.Queued(0, queueResultCount, time.Second)
	c.Retried(outcome.ConnectFailed)
	c.Retried(outcome.Reason(255))
	for w := range retryWithheldCount {
		c.RetryWithheld(w)
	}
	c.RetryWithheld(retryWithheldCount)
	for k := range limitCount {
		c.Limited(k)
	}
	c.Limited(limitCount)
	for g := range guardKindCount {
		c.WouldHave(g)
	}
	for r := range hedgeResultCount {
		c.Hedged(r)
	}
	c.Hedged(hedgeResultCount)
	for a := range HedgeAnswer(hedgeAnswerCount) {
		c.HedgeWithheld(a)
	}
	c.HedgeWithheld(hedgeAnswerCount)
	c.WouldHave(guardKindCount)
	for o := range orderCount {
		c.Ordered(o)
	}
	c.Ordered(orderCount)
	for k := range faultKindCount {
		c.Injected(k)
	}
	c.Injected(faultKindCount)
	c.MetFault(outcome.OK)
	c.MetFault(outcome.DownstreamGone)
	c.MetFault(outcome.FaultInjected)
	for r := range CheckResult(checkResultCount) {
		c.Checked(r)
	}
	c.Checked(checkResultCount)
	for r := range affinityCount {
		c.Affinity(r)
	}
	c.Affinity(affinityCount)
	for r := range loadResultCount {
		c.LoadReport(r)
	}
	c.LoadReport(loadResultCount)
	c.Spilled.Inc()
	c.ConnectFailed(outcome.ConnectTimeout)
	c.ConnectFailed(outcome.Reason(255))
	c.BreakerOpened.Inc()
	c.UpstreamConnections.Add(3)
	c.Bind(ClusterGauges{
		BreakerState: constant(2), Rejection: constant(0.25), RetryBudget: constant(2.5), Pending: constant(4),
		UpstreamActive: constant(5), UpstreamIdle: constant(6), Endpoints: constant(7), Available: constant(8),
		Most: constant(12), Queue: constant(3),
		Adaptive: func() (AdaptiveState, bool) {
			return AdaptiveState{Limit: 14, Baseline: 10 * time.Millisecond, Latency: 15 * time.Millisecond}, true
		},
	})

	e := m.Endpoint("api", "10.0.0.1:8080")
	for r := range resultCount {
		e.Attempt(r)
	}
	e.Attempt(resultCount)
	e.Ejections.Inc()
	e.BecameHealthy.Inc()
	e.BecameUnhealthy.Inc()
	e.Bind(gauges(func(g *EndpointGauges) {
		*g = EndpointGauges{State: 1, Active: 3, EWMA: 0.0125, Health: 2, Hand: 1, Breaker: 2, Drain: 1, Share: 0.5, Weight: 1.5}
	}))

	c.Placed(PlaceRegion, true)

	sub := m.Subset("api", Outbound, "v2")
	sub.Fallbacks.Inc()
	sub.Refused.Add(2)
	sub.Bind(constant(3), constant(2))

	d := m.Discovery("api")
	d.Updates.Add(4)
	d.Errors.Inc()
	d.Bind(DiscoveryGauges{Age: constant(1.5), Endpoints: constant(7)})

	p := m.Process()
	p.ConfigVersion.Add(3)
	p.IdentityUpdates.Inc()
	p.Reloaded(testStart, true)
	p.Reloaded(testStart.Add(1500*time.Millisecond), false)
	p.Bind(ProcessGauges{
		IdentityExpiry:   constant(1772370000),
		AccessLogRecords: constantCount(11), AccessLogDropped: constantCount(12), SpansDropped: constantCount(13),
		Floods:     []Named{{"rapid_reset", constantCount(15)}},
		DNSQueries: []Named{{"answered", constantCount(33)}},
		MeshAges:   []NamedGauge{{"chains", constant(2.5)}}, MeshFindings: []NamedGauge{{"refused", constant(1)}}, MeshRefused: constant(1),
		LedgerRecords: constantCount(14), LedgerBytes: constant(65536),
		OutcomeRecords: constantCount(15), OutcomeBytes: constantCount(16), OutcomeDropped: constantCount(17), OutcomeSize: constant(131072),
		MemoryBudget: constant(48 << 20), MemoryUsed: constant(36 << 20), MemoryLevel: constant(1),
		MemoryLevels: []Named{{"trim", constantCount(3)}, {"shed", constantCount(0)}}, MemoryGivenUp: []Named{{"streams", constantCount(14)}},
	})
}

func TestMetricsGolden(t *testing.T) {
	m := newMetrics(t, 0)
	updateAll(m)
	got := strings.ReplaceAll(text(t, m), runtime.Version(), "GO")
	golden(t, "testdata/metrics.txt", []byte(got))
	if again := strings.ReplaceAll(text(t, m), runtime.Version(), "GO"); again != got {
		t.Error("a second scrape says something else")
	}
}

func TestMetricsAreValidText(t *testing.T) {
	m := newMetrics(t, 0)
	updateAll(m)
	page, contentType := scrapeAs(t, m, "")
	if !strings.HasPrefix(contentType, "text/plain; version=0.0.4") {
		t.Errorf("content type %s", contentType)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for id := range metricCount {
		row := &table[id]
		f := families[row.name]
		delete(families, row.name)
		if id == mSeriesOverflowed {
			if f != nil {
				t.Error("something overflowed")
			}
			continue
		}
		if f == nil {
			t.Errorf("%s is missing; updateAll should touch it", row.name)
			continue
		}
		if f.GetHelp() != row.help || strings.ToLower(f.GetType().String()) != row.typ.String() {
			t.Errorf("%s: %v %q", row.name, f.GetType(), f.GetHelp())
		}
		for _, series := range f.Metric {
			names := map[string]bool{}
			for _, l := range series.Label {
				names[l.GetName()] = true
			}
			if len(names) != len(row.labelNames()) {
				t.Errorf("%s: labels %v, want %s", row.name, names, row.labels)
			}
			for _, name := range row.labelNames() {
				if !names[name] {
					t.Errorf("%s: label %s is missing", row.name, name)
				}
			}
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "outrigger_") {
			t.Errorf("%s is not in the table", name)
		}
	}
	for _, name := range []string{"go_goroutines", "process_cpu_seconds_total", "target_info"} {
		if runtime.GOOS == "linux" && families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestMetricsInOpenMetrics(t *testing.T) {
	m := newMetrics(t, 0)
	updateAll(m)
	page, contentType := scrapeAs(t, m, "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(contentType, "application/openmetrics-text") || !strings.HasSuffix(page, "# EOF\n") {
		t.Errorf("%s, ending in %q", contentType, page[max(len(page)-40, 0):])
	}
	for _, want := range []string{
		"# TYPE outrigger_retries counter\n",
		`outrigger_retries_total{cluster="api",direction="outbound",reason="connect_failed"} 1.0` + "\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestGaugesAreReadAtEachScrape(t *testing.T) {
	m := newMetrics(t, 0)
	e := m.Endpoint("api", "x")
	state, read := 0.0, 0
	e.Bind(gauges(func(g *EndpointGauges) { read++; g.State = state }))
	if read != 0 {
		t.Error("read before the scrape")
	}
	for _, state = range []float64{0, 1, 2} {
		wantLines(t, m, "outrigger_endpoint_state", fmt.Sprintf(`{cluster="api",endpoint="x"} %v`, state))
	}
	wantLines(t, m, "outrigger_endpoint_attempts_active") // not bound
	n := read
	e.Release()
	if read != n {
		t.Error("read when it may be gone")
	}
}

func TestClusterTotals(t *testing.T) {
	m := newMetrics(t, 0)
	updateAll(m)
	c := m.Cluster("api", Outbound)
	got := c.Totals()
	if got.Exchanges != 11 || got.Failures != 2 || got.Retries != 1 || got.Durations.Count() != 11 || c.Active() != 1 {
		t.Errorf("%d exchanges, %d failures, %d retries, %d durations, %d active",
			got.Exchanges, got.Failures, got.Retries, got.Durations.Count(), c.Active())
	}
	e := m.Endpoint("api", "10.0.0.1:8080")
	if e.Attempts(ResultFailure) != 1 || e.Attempts(resultCount) != 0 {
		t.Errorf("%d attempts, %d of no kind", e.Attempts(ResultFailure), e.Attempts(resultCount))
	}
}

func TestLabelValuesAreEscaped(t *testing.T) {
	m := newMetrics(t, 0)
	m.Discovery("a\"b\\c\nd").Updates.Inc()
	// Prometheus refuses the whole page for a byte that is not UTF-8, and for
	// two series of one name.
	m.Discovery("bad \xff byte").Updates.Inc()
	m.Discovery("bad \xfe byte").Updates.Inc()
	page, _ := scrapeAs(t, m, "")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, s := range families["outrigger_discovery_updates_total"].GetMetric() {
		found[s.Label[0].GetValue()] = true
	}
	if !found["a\"b\\c\nd"] || !found["bad \ufffd byte"] || len(found) != 2 {
		t.Errorf("%v", found)
	}
}

func TestWordsOfUnknownValues(t *testing.T) {
	if s := HandshakeFailure(200).String() + Limit(200).String() + Guard(200).String() + Result(200).String() + RetryWithheld(200).String(); s != strings.Repeat("unknown", 5) {
		t.Error(s)
	}
	if Inbound.String() != "inbound" || Outbound.String() != "outbound" {
		t.Error("directions")
	}
}

func TestShutdownLeavesTheRuntimeMetrics(t *testing.T) {
	m := newMetrics(t, 0)
	c := m.Cluster("api", Outbound)
	if err := m.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	page, _ := scrapeAs(t, m, "")
	if strings.Contains(page, "outrigger_") || !strings.Contains(page, "go_goroutines") {
		t.Errorf("after Shutdown:\n%s", page)
	}
	c.Begin(0)
	c.Finish(0, outcome.OK, 200, 0)
	c.Release()
}

func TestDefaults(t *testing.T) {
	m, err := New(Options{Resource: Resource{Attributes: map[string]string{"bad": "\xff"}}})
	if err != nil {
		t.Fatal(err)
	}
	if m.max != DefaultMaxSeries {
		t.Errorf("%d series", m.max)
	}
	page := text(t, m)
	for _, want := range []string{`commit="unknown"`, `version="unknown"`, `"outrigger"`} {
		if !strings.Contains(page, want) {
			t.Errorf("%s is missing in\n%s", want, page)
		}
	}
}

// Counts are exact however many write, scrape, acquire and release at once.
func TestConcurrentUpdates(t *testing.T) {
	m := newMetrics(t, 0)
	const workers, each = 4, 500
	c := m.Cluster("api", Outbound)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				c.Begin(uint32(w))
				same := m.Cluster("api", Outbound)
				c.Finish(uint32(w), outcome.OK, 200, time.Duration(i)*time.Microsecond)
				same.Release()
				e := m.Endpoint("api", fmt.Sprint(w))
				e.Attempt(ResultSuccess)
				e.Release()
			}
		})
	}
	for range 5 {
		text(t, m)
	}
	wg.Wait()
	if got := c.Totals(); got.Exchanges != workers*each || c.Active() != 0 {
		t.Errorf("%d exchanges, %d active", got.Exchanges, c.Active())
	}
	if !bytes.Contains([]byte(text(t, m)), fmt.Appendf(nil, `class="2xx",cluster="api",direction="outbound",reason="ok"} %d`, workers*each)) {
		t.Error("the page has another count")
	}
}
