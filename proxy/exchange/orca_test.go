package exchange_test

import (
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/resilience/orca"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// hearing makes a policy ask for reports that count at once.
func hearing(forward bool) func(*setup) {
	return func(s *setup) {
		c := orca.Default()
		c.BlackoutPeriod, c.Forward = 0, forward
		s.policy.Balance.ORCA = &c
	}
}

// burdened answers with a report, by the path in head or trailers, well or not.
func burdened(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("content-type", "application/grpc")
	w.Header().Set("x-other", "kept")
	w.Header().Set("Trailer", "grpc-status, x-last, "+orca.FieldBin) // else net/http sends a short body by its length
	switch r.URL.Path {
	case "/head/text":
		w.Header().Set("Endpoint-Load-Metrics", "TEXT cpu_utilization=0.5,rps_fractional=100")
	case "/head/bin": // cpu_utilization 0.5, rps_fractional 100
		w.Header().Set("Trailer", "grpc-status, x-last")
		w.Header().Set(orca.FieldBin, "CQAAAAAAAOA/MQAAAAAAAFlA")
	case "/head/bad":
		w.Header().Set("endpoint-load-metrics", "TEXT cpu_utilization=much")
	case "/head/short":
		w.Header().Set("endpoint-load-metrics", `JSON {"cpu_utilization":0.5}`)
	case "/alone":
		w.Header().Set("endpoint-load-metrics", `JSON {"cpu_utilization":0.5,"rps_fractional":100}`)
		w.Header().Del("Trailer")
		w.Header().Set("grpc-status", "0")
		return
	}
	if r.URL.Path != "/trailers/here" { // else all comes at once, from net/http's HTTP/2 with its length
		w.(http.Flusher).Flush()
	}
	_, _ = w.Write([]byte("body"))
	w.Header().Set("grpc-status", "0")
	w.Header().Set("x-last", "kept")
	if strings.HasPrefix(r.URL.Path, "/trailers/") {
		w.Header().Set(orca.FieldBin, "CQAAAAAAAOA/MQAAAAAAAFlA")
	}
}

// scrape returns all metrics.
func (b *bed) scrape() string {
	w := httptest.NewRecorder()
	b.metrics.Handler().ServeHTTP(w, httptest.NewRequestWithContext(b.t.Context(), http.MethodGet, "/metrics", http.NoBody))
	return w.Body.String()
}

// TestLoadReports: what an endpoint reports, in head or trailers, is heard, and
// taken out unless it is to be forwarded.
func TestLoadReports(t *testing.T) {
	for _, forward := range []bool{false, true} {
		name := "taken out"
		if forward {
			name = "forwarded"
		}
		t.Run(name, func(t *testing.T) {
			runLegs(t, allLegs, hearing(forward), burdened, func(t *testing.T, p *pair) {
				for _, path := range []string{"/head/text", "/head/bin", "/head/bad", "/head/short", "/alone", "/trailers/here", "/trailers/streamed", "/none"} {
					status, _, res := p.call(t, path, "hello")
					if path == "/trailers/here" && !p.down && p.up {
						continue // HTTP/1.1 has no trailers behind a body of known length
					}
					fields := res.Header
					if strings.HasPrefix(path, "/trailers/") {
						fields = res.Trailer
					}
					got := len(fields.Values(orca.Field)) + len(fields.Values(orca.FieldBin))
					want := 0
					if forward && path != "/none" {
						want = 1
					}
					if got != want || status != "0" || res.Header.Get("x-other") != "kept" {
						t.Errorf("%s: %d reports, want %d; status %q, %v, %v", path, got, want, status, res.Header, res.Trailer)
					}
					if path != "/alone" && res.Trailer.Get("x-last") != "kept" {
						t.Errorf("%s: trailers %v", path, res.Trailer)
					}
				}
				_, endpoints := p.registry.States()
				if r := endpoints[0].Reported; r == nil || r.State != orca.Counted || r.Age < 0 {
					t.Errorf("the endpoint is %+v", r)
				}
				text := p.scrape()
				for _, want := range []string{`result="ok"} 5`, `result="malformed"} 1`, `result="incomplete"} 1`} {
					if !strings.Contains(text, `outrigger_load_reports_total{cluster="api",direction="outbound",`+want) {
						t.Errorf("metrics lack %s", want)
					}
				}
			})
		})
	}
}

// TestLoadReportsUnasked: without a policy that asks, they are not read, and pass.
func TestLoadReportsUnasked(t *testing.T) {
	for _, dir := range []telemetry.Direction{telemetry.Outbound, telemetry.Inbound} {
		runLegs(t, []legs{{true, true}}, func(s *setup) { s.dir = dir }, burdened, func(t *testing.T, p *pair) {
			_, _, res := p.call(t, "/head/text", "hello")
			_, _, streamed := p.call(t, "/trailers/streamed", "hello")
			if res.Header.Get(orca.Field) == "" || streamed.Trailer.Get(orca.FieldBin) == "" {
				t.Errorf("%v, %v", res.Header, streamed.Trailer)
			}
			if strings.Contains(p.scrape(), `outrigger_load_reports_total{cluster="api",direction="outbound",result="ok"} 1`) {
				t.Error("they were counted")
			}
			if _, endpoints := p.registry.States(); endpoints[0].Reported != nil {
				t.Errorf("%+v", endpoints[0].Reported)
			}
		})
	}
}

// TestLoadReportedByRetried: the answer that is not passed on is heard, too, and
// counts for the endpoint that gave it.
func TestLoadReportedByRetried(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		hearing(false)(s)
		s.policy.Retry = retrying(2)
	})
	ill := b.another(answering("HTTP/1.1 503 Busy\r\nEndpoint-Load-Metrics: TEXT cpu_utilization=1,rps_fractional=10\r\nContent-Length: 0\r\n\r\n"))
	well := b.another(answering(okResponse))
	b.to(ill, well)
	c := b.dial()
	for range 10 {
		c.get("/")
		c.head()
		c.expect("ok")
	}
	heard := 0
	_, endpoints := b.registry.States()
	for _, e := range endpoints {
		if e.Reported.State == orca.Counted {
			heard++
		}
	}
	if heard != 1 {
		t.Errorf("%d endpoints have reported, want the one that was asked first at some time", heard)
	}
}

// TestNoAllocationReports: a report is read and taken out without allocating.
func TestNoAllocationReports(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBed(t, plain, hearing(false))
	const answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nEndpoint-Load-Metrics: JSON {\"cpu_utilization\":0.5,\"rps_fractional\":100}\r\n\r\n" +
		"2\r\nok\r\n0\r\nx-last: kept\r\nendpoint-load-metrics-bin: CQAAAAAAAOA/MQAAAAAAAFlA\r\n\r\n"
	const want = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-last: kept\r\n\r\n"
	b.start(steadyOrigin(answer))
	c := b.dial()
	request, buf := []byte("GET /x HTTP/1.1\r\nHost: a\r\n\r\n"), make([]byte, len(want))
	if err := exchanges(c.Conn, request, buf, 200); err != nil || string(buf) != want {
		t.Fatalf("%q, %v", buf, err)
	}
	least := uint64(math.MaxUint64)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector empties pools
	for range 4 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := exchanges(c.Conn, request, buf, 1000); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	if got := float64(least) / 1000; got > 0.05 {
		t.Errorf("%.3f allocations an exchange", got)
	}
}
