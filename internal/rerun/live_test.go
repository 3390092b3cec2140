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

// ask sends requests from several callers for so long, with the verbs by turns.
func (l *live) ask(d time.Duration) {
	l.t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for w := range 8 {
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
func TestReplayReproducesALiveProxy(t *testing.T) {
	l := startLive(t)
	l.ask(300 * time.Millisecond)
	l.bad[0].Store(1)
	l.ask(time.Second)
	l.bad[0].Store(0)
	l.bad[1].Store(2)
	l.ask(500 * time.Millisecond)
	for i := range l.bad {
		l.bad[i].Store(1)
	}
	l.ask(500 * time.Millisecond)
	for i := range l.bad {
		l.bad[i].Store(0)
	}
	l.ask(700 * time.Millisecond)
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
	t.Logf("recorded: %+v", *a)
	t.Logf("replayed: %+v", *b)
	if a.Ejections == 0 || a.Retries == 0 || a.Refused == 0 || a.BreakerOpened == 0 || a.Bad == 0 {
		t.Fatalf("the scenario does not have what it is for: %+v", *a)
	}
	// Mostly nothing differs. Two attempts that ended within a microsecond may have
	// been counted in the other order, and tip a threshold.
	if a.Requests != b.Requests || c.Off > 5 {
		t.Errorf("the replay is off by %.2f %% of the requests", c.Off)
	}
	for what, p := range map[string][2]uint64{"ejections": {a.Ejections, b.Ejections}, "breaker openings": {a.BreakerOpened, b.BreakerOpened}} {
		if d := int64(p[0]) - int64(p[1]); d > 2 || d < -2 {
			t.Errorf("%s: recorded %d, replayed %d", what, p[0], p[1])
		}
	}
	// A threshold that tipped may eject another endpoint for a second, whose answers
	// were not seen then.
	if share := float64(result.Clusters[0].Ends[rerun.Observed]) / float64(b.Attempts); share < .75 {
		t.Errorf("only %.3f of the ends were observed", share)
	}
}
