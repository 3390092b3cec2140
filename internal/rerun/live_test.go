package rerun_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/rerun"
	"github.com/outrigger-mesh/outrigger/proxy"
)

// live is a proxy in this process before three servers, with an outcome log.
type live struct {
	t    *testing.T
	log  string
	url  string
	bad  [3]atomic.Int32 // what a server does: 0 answers, 1 fails with 503, 2 is slow
	stop func()
}

const livePolicy = `
  api:
    transport: plaintext
    timeout: 400ms
    retry: {attempts: 3, per_try_timeout: 60ms, backoff_base: 2ms, backoff_max: 4ms, budget_percent: 20, budget_min_per_second: 2}
    outlier: {consecutive_failures: 4, window: 1s, base_ejection: 200ms, max_ejection: 400ms}
    breaker: {window: 500ms, minimum_requests: 10, failure_percent: 60, open_for: 100ms}
    limits: {max_requests: 40}
`

func startLive(t *testing.T) *live {
	t.Helper()
	l := &live{t: t}
	dir := t.TempDir()
	l.log = filepath.Join(dir, "outcomes")
	var catalog strings.Builder
	catalog.WriteString("services:\n  api:\n    endpoints:\n")
	for i := range l.bad {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch l.bad[i].Load() {
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2:
				select {
				case <-time.After(150 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
		}))
		t.Cleanup(s.Close)
		fmt.Fprintf(&catalog, "      - {address: \"%s\"}\n", s.Listener.Addr())
	}
	path := filepath.Join(dir, "catalog.yaml")
	if err := os.WriteFile(path, []byte(catalog.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`
service: {name: web}
admin: {listen: ""}
drain: {delay: 0s, timeout: 2s}
discovery: {file: {path: "%s"}}
telemetry: {access_log: {path: "off"}, outcomes: {path: "%s"}}
outbound: {upstreams: [{service: api, listen: "127.0.0.1:0"}]}
policies:%s`, path, l.log, livePolicy)
	loaded, err := config.Parse("live.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(proxy.Options{Config: loaded, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, context.Background()) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(l.stop)
	wait, cancelWait := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancelWait()
	for {
		if ready, _ := p.Ready(); ready {
			break
		}
		select {
		case <-wait.Done():
			t.Fatal("the proxy does not become ready")
		case <-time.After(5 * time.Millisecond):
		}
	}
	l.url = "http://" + p.Listen()["outbound:api"].(*net.TCPAddr).String() + "/"
	return l
}

// ask sends requests from so many callers for so long, with the verbs by turns.
func (l *live) ask(callers int, d time.Duration) {
	l.t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			for i, until := 0, time.Now().Add(d); time.Now().Before(until); i++ {
				method := http.MethodGet
				if (i+w)%5 == 0 {
					method = http.MethodPost
				}
				req, err := http.NewRequestWithContext(l.t.Context(), method, l.url, nil)
				if err != nil {
					l.t.Error(err)
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					l.t.Error(err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
}

// What happened to a live proxy with failures, ejections, retries and an open breaker
// is what a replay of its log under the recorded configuration comes to.
//
// Times are read before a machine is told of them. Where the proxy has to wait for a
// processor in between, two ends may be counted in the other order than that of
// their times, which can tip a threshold and so much after it. That is seldom, and
// seldomer with one caller, and then another run is looked at.
func TestReplayReproducesALiveProxy(t *testing.T) {
	for _, c := range []struct {
		callers       int
		off, observed float64 // percent of the requests at most, share of the ends at least
	}{{1, 0, .999}, {8, .5, .95}} {
		t.Run(fmt.Sprintf("%d callers", c.callers), func(t *testing.T) {
			for try := 1; ; try++ {
				problem := reproduce(t, c.callers, c.off, c.observed)
				switch {
				case problem == "":
					return
				case try == 3:
					t.Fatal(problem)
				}
				t.Logf("run %d: %s", try, problem)
			}
		})
	}
}

// reproduce replays one run of a live proxy and says what differs.
func reproduce(t *testing.T, callers int, off, observed float64) string {
	l := startLive(t)
	l.ask(callers, 300*time.Millisecond)
	l.bad[0].Store(1)
	l.ask(callers, time.Second)
	l.bad[0].Store(0)
	l.bad[1].Store(2)
	l.ask(callers, 500*time.Millisecond)
	for i := range l.bad {
		l.bad[i].Store(1)
	}
	l.ask(callers, 500*time.Millisecond)
	for i := range l.bad {
		l.bad[i].Store(0)
	}
	l.ask(callers, 700*time.Millisecond)
	l.stop()

	trace, err := rerun.Load(l.log, 0)
	if err != nil {
		t.Fatal(err)
	}
	if trace.Damage.Any() {
		t.Errorf("damage: %v", trace.Damage)
	}
	result, err := trace.Recorded()
	if err != nil {
		t.Fatal(err)
	}
	report := trace.Compare(result, nil)
	c := &report.Clusters[0]
	a, b := &c.Recorded, &c.Replayed
	share := float64(result.Clusters[0].Ends[rerun.Observed]) / float64(b.Attempts)
	t.Logf("recorded: %+v", *a)
	t.Logf("replayed: %+v", *b)
	t.Logf("off by %.3f %%, %.4f of the ends were observed", c.Off, share)
	if a.Requests != b.Requests {
		t.Errorf("%d of %d requests were replayed", b.Requests, a.Requests)
	}
	switch {
	case a.Ejections == 0 || a.Retries == 0 || a.Refused == 0 || a.BreakerOpened == 0 || a.Bad == 0:
		return fmt.Sprintf("the scenario does not have what it is for: %+v", *a)
	case c.Off > off:
		return fmt.Sprintf("the replay is off by %.3f %% of the requests", c.Off)
	case a.Ejections != b.Ejections || a.Readmissions != b.Readmissions || a.BreakerOpened != b.BreakerOpened:
		return fmt.Sprintf("recorded %d ejections, %d readmissions and %d openings of the breaker, replayed %d, %d and %d",
			a.Ejections, a.Readmissions, a.BreakerOpened, b.Ejections, b.Readmissions, b.BreakerOpened)
	case share < observed:
		return fmt.Sprintf("only %.4f of the ends were observed", share)
	}
	return ""
}
