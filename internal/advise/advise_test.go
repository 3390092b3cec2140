package advise

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/rerun"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

const base = `service: {name: web}
identity: {trust_domain: t.test, files: {cert: c, key: k, bundle: b}}
discovery: {file: {path: catalog.yaml}}
outbound: {upstreams: [{service: api, listen: "127.0.0.1:9001"}]}
`

// record writes a log of n requests 5 ms apart, each as ask makes it, and loads it.
func record(t *testing.T, policy string, n int, ask func(i int, r *rand.Rand) []outcomes.Attempt) (*rerun.Trace, *config.Loaded) {
	t.Helper()
	loaded, err := config.Parse("now.yaml", []byte(base+"policies: {api: {"+policy+"}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := loaded.WriteEffective(&text); err != nil {
		t.Fatal(err)
	}
	cfg := outcomes.Default()
	cfg.Path = filepath.Join(t.TempDir(), "outcomes")
	now := time.Second
	list := make([]outcomes.Endpoint, 4)
	for i := range list {
		list[i] = outcomes.Endpoint{Address: endpoint(i), Weight: 1, Usable: true}
	}
	log, err := outcomes.New(outcomes.Options{
		Config: cfg, Log: slog.New(slog.DiscardHandler), Now: func() time.Duration { return now },
		State: func(add func(outcomes.Event)) {
			add(outcomes.Event{Kind: outcomes.Configured, At: time.Second, Version: 1, Text: text.String()})
			add(outcomes.Event{Kind: outcomes.Endpoints, At: time.Second, Cluster: "api", List: list})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		now = 2*time.Second + time.Duration(i)*5*time.Millisecond
		attempts := ask(i, r)
		last := attempts[len(attempts)-1]
		x := outcomes.Exchange{
			At: now, Cluster: "api", Route: "api", Method: "GET", Marks: outcomes.Idempotent | outcomes.Replayable,
			Attempts: len(attempts), Reason: last.Reason, Status: last.Status, Duration: last.Offset + last.Duration,
		}
		log.Put(&x, attempts)
		if i%1000 == 999 { // as Run would
			log.Flush()
		}
	}
	if err := log.Configure(outcomes.Config{}); err != nil {
		t.Fatal(err)
	}
	tr, err := rerun.Load(cfg.Path, 0)
	if err != nil {
		t.Fatal(err)
	}
	return tr, loaded
}

func endpoint(i int) string { return fmt.Sprintf("10.0.0.%d:80", i+1) }

// usual is an answer as they mostly are: 5 ms or more, one in a hundred 60 ms more.
func usual(i int, r *rand.Rand) outcomes.Attempt {
	d := 5*time.Millisecond + time.Duration(r.ExpFloat64()*float64(2*time.Millisecond))
	if r.IntN(100) == 0 {
		d += 60 * time.Millisecond
	}
	return outcomes.Attempt{Endpoint: endpoint(i % 4), Duration: d, First: d, Status: 200}
}

func make1(t *testing.T, tr *rerun.Trace, loaded *config.Loaded) *ClusterAdvice {
	t.Helper()
	v, err := Make(tr, loaded)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Clusters) != 1 {
		t.Fatalf("%d clusters: %+v", len(v.Clusters), v)
	}
	return v.Clusters[0]
}

func (c *ClusterAdvice) on(setting string) Advice {
	for _, a := range c.Advice {
		if a.Setting == setting {
			return a
		}
	}
	return Advice{}
}

// One of four endpoints fails in a third of its requests for a while; neither retries
// nor ejection are on. Both are proposed, and together they end nearly all failures.
func TestGrayFailure(t *testing.T) {
	tr, loaded := record(t, "timeout: 30s, retry: off, outlier: off, balance: {algorithm: weighted_round_robin}", 6000, func(i int, r *rand.Rand) []outcomes.Attempt {
		a := usual(i, r)
		if i%4 == 2 && i > 1000 && i < 5000 && r.IntN(3) == 0 {
			a = outcomes.Attempt{Endpoint: a.Endpoint, Duration: time.Millisecond, First: time.Millisecond, Status: 503, Reason: outcome.UpstreamError}
		}
		return []outcomes.Attempt{a}
	})
	c := make1(t, tr, loaded)
	for setting, want := range map[string]Verdict{
		"outlier.failure_percent": Accepted, "retry.attempts": Accepted, "timeout": Accepted, "limits.max_requests": Accepted,
	} {
		if a := c.on(setting); a.Verdict != want || a.Evidence == "" || a.Proposed == "" {
			t.Errorf("%s: %+v", setting, a)
		}
	}
	if c.After == nil || c.After.Bad*10 > c.Before.Bad || c.After.Ejections == 0 || *c.After.RefusedGood != 0 || c.After.ExtraLoad > mayLoad {
		t.Errorf("before %+v\nafter %+v", c.Before, c.After)
	}
	if d, err := time.ParseDuration(c.on("timeout").Proposed); err != nil || d < 100*time.Millisecond || d > 500*time.Millisecond {
		t.Errorf("timeout %v, %v", d, err)
	}
	if !strings.Contains(c.on("outlier.failure_percent").Evidence, endpoint(2)) {
		t.Errorf("the endpoint that failed is not named: %s", c.on("outlier.failure_percent").Evidence)
	}
}

// What is proposed is a configuration, and with it nothing is left to propose.
func TestYAMLIsAConfiguration(t *testing.T) {
	tr, loaded := record(t, "timeout: 30s, retry: off", 3000, func(i int, r *rand.Rand) []outcomes.Attempt {
		a := usual(i, r)
		if i%100 == 7 {
			a.Reason, a.Status, a.First = outcome.ConnectFailed, 0, 0
		}
		return []outcomes.Attempt{a}
	})
	v, err := Make(tr, loaded)
	if err != nil {
		t.Fatal(err)
	}
	y := v.YAML()
	next, err := config.Parse("next.yaml", []byte(base+y))
	if err != nil {
		t.Fatalf("%v in\n%s", err, y)
	}
	p := next.Config.Policy("api")
	if p.Retry == nil || p.Retry.Attempts < 2 || p.Timeout >= 30*time.Second || p.Limits.MaxRequests == 0 {
		t.Errorf("%s", y)
	}
	again, err := Make(tr, next)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range again.Clusters[0].Advice {
		if a.Verdict == Accepted {
			t.Errorf("proposed once more: %+v", a)
		}
	}
	if (&Report{}).YAML() != "# nothing is proposed\n" {
		t.Error("an empty report proposes something")
	}
}

// Where all endpoints fail, another attempt is more load for nothing: it is told, and
// rejected.
func TestRetriesThatDoNotHelpAreRejected(t *testing.T) {
	tr, loaded := record(t, "timeout: 30s, retry: off, outlier: off", 4000, func(i int, r *rand.Rand) []outcomes.Attempt {
		a := usual(i, r)
		if i >= 2000 {
			a.Reason, a.Status = outcome.UpstreamError, 503
		}
		return []outcomes.Attempt{a}
	})
	c := make1(t, tr, loaded)
	if a := c.on("retry.attempts"); a.Verdict != Rejected || !strings.Contains(a.Why, "attempts") {
		t.Errorf("%+v", a)
	}
}

// Too little is said to be too little.
func TestNotEnough(t *testing.T) {
	tr, loaded := record(t, "", 900, func(i int, r *rand.Rand) []outcomes.Attempt { return []outcomes.Attempt{usual(i, r)} })
	v, err := Make(tr, loaded)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Clusters) != 0 || len(v.Skipped) != 1 || !strings.Contains(v.Skipped[0], "900 requests") {
		t.Errorf("%+v", v)
	}
	tr, loaded = record(t, "", 1200, func(i int, r *rand.Rand) []outcomes.Attempt {
		a := usual(i, r)
		if i < 700 {
			a.Reason, a.Status, a.First = outcome.DownstreamGone, 0, 0
		}
		return []outcomes.Attempt{a}
	})
	c := make1(t, tr, loaded)
	if a := c.on("timeout"); a.Verdict != Unknown || !strings.Contains(a.Evidence, "it takes 1000") {
		t.Errorf("%+v", a)
	}
}

// What is right is kept.
func TestKept(t *testing.T) {
	tr, loaded := record(t, "timeout: 200ms, limits: {max_requests: 32}, retry: {per_try_timeout: 0}", 3000, func(i int, r *rand.Rand) []outcomes.Attempt { return []outcomes.Attempt{usual(i, r)} })
	c := make1(t, tr, loaded)
	for _, s := range []string{"timeout", "limits.max_requests", "retry.attempts", "outlier"} {
		if a := c.on(s); a.Verdict != Kept || a.Proposed != "" {
			t.Errorf("%s: %+v", s, a)
		}
	}
}

func TestWorse(t *testing.T) {
	n := func(v uint64) *uint64 { return &v }
	a := rerun.Figures{Requests: 10_000, Bad: 10, RefusedGood: n(0), Attempts: 10_000, P50: 5, P99: 50, P999: 100}
	for _, c := range []struct {
		change func(*rerun.Figures)
		want   string
	}{
		{func(*rerun.Figures) {}, ""},
		{func(f *rerun.Figures) { f.Bad = 14 }, ""},
		{func(f *rerun.Figures) { f.Bad = 20 }, "20 requests would fail in place of 10"},
		{func(f *rerun.Figures) { f.Bad, f.ExtraLoad = 0, 3 }, ""},
		{func(f *rerun.Figures) { f.Bad, f.ExtraLoad = 0, 9 }, "9.0 % more attempts would be made in place of 0.0 %"},
		{func(f *rerun.Figures) { f.ExtraLoad = 2 }, "2.0 % more attempts would be made in place of 0.0 %, for nothing"},
		{func(f *rerun.Figures) { f.ExtraLoad, f.P99 = 2, 20 }, ""},
		{func(f *rerun.Figures) { f.RefusedGood = n(8) }, "8 good requests more would be refused"},
		{func(f *rerun.Figures) { f.P99 = 60 }, "the p99 would be 60.0 ms in place of 50.0 ms"},
		{func(f *rerun.Figures) { f.P99, f.Bad = 60, 2 }, ""},
	} {
		b := a
		c.change(&b)
		if got := worse(&a, &b); got != c.want {
			t.Errorf("%+v: %q, want %q", b, got, c.want)
		}
	}
}

func TestRounded(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		0: 0, 1: time.Millisecond, 99 * time.Millisecond: 99 * time.Millisecond, 101 * time.Millisecond: 110 * time.Millisecond,
		1234 * time.Millisecond: 1300 * time.Millisecond, 61 * time.Second: 61 * time.Second,
	} {
		if got := rounded(d); got != want {
			t.Errorf("%s is rounded to %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]int64{0: 0, 7: 7, 99: 99, 101: 110, 1234: 1300} {
		if got := twoDigits(n); got != want {
			t.Errorf("%d is rounded to %d, want %d", n, got, want)
		}
	}
}
