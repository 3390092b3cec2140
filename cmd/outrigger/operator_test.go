package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

var at = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// look is one look at a proxy that has so much behind it.
func look(after time.Duration, requests, failures, retries uint64) *admin.Overview {
	o := &admin.Overview{Now: at.Add(after), Ready: true}
	o.Process = admin.ProcessView{Service: "web", Version: "1.2.3", Started: at.Add(-time.Hour)}
	o.Reload.Version = 7
	durations := make([]uint64, 22)
	durations[2] = requests // 1 to 2 ms
	o.Clusters = []admin.ClusterView{{
		Name: "api", Direction: "outbound", Endpoints: 3, Available: 2, Ejected: 1, Active: 4,
		Requests: requests, Failures: failures, Retries: retries, Durations: durations,
		Breaker: &admin.BreakerView{State: "half_open"},
	}, {Name: "web", Direction: "inbound", Endpoints: 1, Available: 1}}
	o.Endpoints = []admin.EndpointView{
		{Cluster: "api", Address: "10.0.0.1:80", ID: "api-0", Requests: requests / 4 * 3, Standing: admin.StandingView{State: admin.StandHealthy}, EWMAMs: 1.5},
		{Cluster: "api", Address: "10.0.0.2:80", Requests: requests / 4, Failures: failures, Standing: admin.StandingView{State: admin.StandEjected}},
		{Cluster: "api", Address: "10.0.0.3:80", Standing: admin.StandingView{State: admin.StandByHand}},
		{Cluster: "web", Address: "127.0.0.1:8080", Standing: admin.StandingView{State: admin.StandHealthy}},
	}
	return o
}

func TestBetween(t *testing.T) {
	r := between(look(0, 1000, 10, 5), look(2*time.Second, 1400, 30, 9))
	c := r.Clusters[0]
	if c.Rate != 200 || *c.Success != 0.95 || c.Retries != 2 || *c.P50Ms != 1.5 || *c.P99Ms != 1.99 || c.ByHand != 1 || c.Breaker != "half_open" {
		t.Errorf("%+v", c)
	}
	if w := r.Clusters[1]; w.Rate != 0 || w.Success != nil || w.P50Ms != nil {
		t.Errorf("without requests %+v", w)
	}
	if e := r.Endpoints[1]; e.Rate != 50 || e.Share != 0.25 || *e.Success != 0.8 {
		t.Errorf("%+v", e)
	}
}

// A proxy that was started anew has counted since then.
func TestBetweenRestarts(t *testing.T) {
	now := look(2*time.Second, 40, 0, 0)
	now.Process.Started = at.Add(-2 * time.Second)
	r := between(look(0, 1000, 10, 5), now)
	if r.Seconds != 4 || r.Clusters[0].Rate != 10 {
		t.Errorf("%v s, %+v", r.Seconds, r.Clusters[0])
	}
	// An endpoint whose counters began anew does not count backwards.
	now = look(time.Second, 40, 0, 0)
	if r := between(look(0, 1000, 10, 5), now); r.Endpoints[0].Rate != 30 {
		t.Errorf("%+v", r.Endpoints[0])
	}
}

func TestRatesTable(t *testing.T) {
	var b strings.Builder
	r := between(look(0, 1000, 10, 5), look(2*time.Second, 1400, 30, 9))
	if err := r.write(&b, 0, false); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(b.String(), "\n\n") // the first line has the local time
	want := `CLUSTER  DIRECTION  REQ/S  SUCCESS    P50    P99  RETRIES/S  ACTIVE  ENDPOINTS  EJECTED  BY-HAND  BREAKER
api      outbound     200  95.00 %  1.5ms  2.0ms        2.0       4        2/3        1        1  half-open
web      inbound        0        -      -      -          0       0        1/1        0        0  -

CLUSTER  ENDPOINT        ID     STATE            ATT/S  SHARE           SUCCESS  ACTIVE   EWMA  LAST
api      10.0.0.1:80     api-0  healthy            150  ██████░░  75 %    100 %       0  1.5ms  -
         10.0.0.2:80     -      ejected           50.0  ██░░░░░░  25 %  80.00 %       0  0.0ms  -
         10.0.0.3:80     -      ejected by hand      0  ░░░░░░░░   0 %        -       0  0.0ms  -
web      127.0.0.1:8080  -      healthy              0  ░░░░░░░░   0 %        -       0  0.0ms  -
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b.Reset()
	if err := r.write(&b, 30, false); err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(b.String()) {
		if n := len([]rune(strings.TrimRight(text, "\n"))); n > 30 {
			t.Errorf("%d columns of 30: %q", n, text)
		}
	}
}

// What waits, is shed or held back has columns where there is something that could.
func TestRatesOfLimits(t *testing.T) {
	bounded := func(o *admin.Overview, rejected uint64) *admin.Overview {
		c := &o.Clusters[0]
		c.Limits.Requests.Max = 4
		c.Gates = []admin.GateView{{Most: 4, Active: 4, Rejected: rejected, Queue: &admin.QueueView{Waiting: 3, Size: 10}}, {Route: "a", Rejected: 1, Queue: &admin.QueueView{Waiting: 2}}}
		c.Admission = []admin.AdmissionView{{Mode: "enforce", RejectionPercent: 33.4}, {Mode: "observe", RejectionPercent: 90}}
		o.Faults = []admin.FaultView{{Name: "slow", Does: "delay 1s", Percent: 20, Direction: "outbound", Cluster: "api\x1b[2J"}}
		return o
	}
	r := between(bounded(look(0, 1000, 10, 5), 10), bounded(look(2*time.Second, 1400, 30, 9), 30))
	var b strings.Builder
	if err := r.write(&b, 0, false); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(b.String(), "\n")
	got, _, _ = strings.Cut(got, "\n\nCLUSTER  ENDPOINT")
	want := `fault slow: delay 1s for 20 % of outbound api [2J

CLUSTER  DIRECTION  REQ/S  SUCCESS    P50    P99  RETRIES/S  ACTIVE  WAITING  SHED/S  HELD-BACK  ENDPOINTS  EJECTED  BY-HAND  BREAKER
api      outbound     200  95.00 %  1.5ms  2.0ms        2.0     4/4        5    10.0       33 %        2/3        1        1  half-open
web      inbound        0        -      -      -          0       0        0       0          0        1/1        0        0  -`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSuccessIsNotRoundedUp(t *testing.T) {
	for share, want := range map[float64]string{1: "100 %", 0.99999: "99.99 %", 0.5: "50.00 %", 0: "0.00 %"} {
		if c := success(&share); c.text != want {
			t.Errorf("%v: %q, want %q", share, c.text, want)
		}
	}
}

func TestFrame(t *testing.T) {
	if got := frame("a\nb\n", 10); got != "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J" {
		t.Errorf("%q", got)
	}
	got := frame("a\nb\nc\nd\n", 3)
	if strings.Count(got, "\r\n") != 2 || !strings.Contains(got, "2 more lines") {
		t.Errorf("%q", got)
	}
}

func TestWriteEndpoints(t *testing.T) {
	list := look(0, 8, 2, 0).Endpoints[:3]
	list[2].Standing = admin.StandingView{
		State: admin.StandByHand, Cause: "bad\x1b[2Jdisk, by 127.0.0.1:1", Since: at.Add(-3 * time.Second), Next: "end of order", NextAt: at.Add(5 * time.Minute),
		Also: []string{admin.StandEjected, admin.StandByCheck},
	}
	list[1].Standing.Next, list[1].Standing.NextAt = "probe", at
	var b strings.Builder
	if err := writeEndpoints(&b, list, at, false); err != nil {
		t.Fatal(err)
	}
	want := `CLUSTER  ENDPOINT     ID     STATE            SINCE  NEXT                ACTIVE  REQUESTS  FAILURES  LAST  CAUSE
api      10.0.0.1:80  api-0  healthy          -      -                        0         6         0  -     -
api      10.0.0.2:80  -      ejected          -      probe now                0         2         2  -     -
api      10.0.0.3:80  -      ejected by hand  3s     end of order in 5m       0         0         0  -     bad [2Jdisk, by 127.0.0.1:1; also ejected; also unhealthy by check
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestLoadColumn: what endpoints report is shown where a policy asks for it.
func TestLoadColumn(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	list := look(0, 8, 2, 0).Endpoints
	list[0].Reported = &admin.ReportedView{Mode: "enforce", State: "counted", WeightPercent: 132.4}
	list[1].Reported = &admin.ReportedView{Mode: "enforce", State: "silent", WeightPercent: 100}
	var b strings.Builder
	if err := writeEndpoints(&b, list, at, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	for i, want := range []string{"LOAD", "132%", "silent 100%"} {
		if !strings.Contains(lines[i], " "+want+" ") {
			t.Errorf("%q lacks %q", lines[i], want)
		}
	}
}

// api answers as an admin API and keeps the last order.
func api(t *testing.T) (address string, last func() (path, body string)) {
	t.Helper()
	var path, body string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && r.URL.Path == "/endpoints":
			_ = json.NewEncoder(w).Encode(look(0, 8, 2, 0).Endpoints)
		case r.Method == http.MethodPost && r.Header.Get("Content-Type") == "application/json":
			b, _ := io.ReadAll(r.Body)
			path, body = r.URL.Path, string(b)
			if strings.Contains(body, "nobody") {
				http.Error(w, "no outbound cluster\x1b nobody", http.StatusNotFound)
				return
			}
			_ = json.NewEncoder(w).Encode(admin.OrderView{Act: "release", Cluster: "api", Endpoints: []string{"a", "b"}})
		default:
			_, _ = io.WriteString(w, "<html>")
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() (string, string) { return path, body }
}

func TestOrderCommands(t *testing.T) {
	address, last := api(t)
	for _, c := range []struct {
		args       []string
		path, body string
	}{
		{[]string{"eject", "api", "a"}, "/endpoints/eject", `{"cluster":"api","endpoints":["a"],"for":"5m0s"}`},
		{[]string{"eject", "api", "a", "--for", "90s", "--reason", "disk"}, "/endpoints/eject", `{"cluster":"api","endpoints":["a"],"for":"1m30s","reason":"disk"}`},
		{[]string{"pin", "api", "a", "b"}, "/endpoints/pin", `{"cluster":"api","endpoints":["a","b"],"for":"5m0s"}`},
		{[]string{"release", "api"}, "/endpoints/release", `{"cluster":"api"}`},
	} {
		out, err := execute(t, newRoot(), append(c.args, "--admin", address+"/")...)
		if path, body := last(); err != nil || path != c.path || body != c.body || out != "api: released a, b\n" {
			t.Errorf("%v: %v, %s %s, %q", c.args, err, path, body, out)
		}
	}
	_, err := execute(t, newRoot(), "eject", "nobody", "a", "--admin", address)
	if err == nil || err.Error() != "no outbound cluster  nobody" {
		t.Errorf("%v", err)
	}
	if _, err := execute(t, newRoot(), "top", "--once", "--admin", address); err == nil || !strings.Contains(err.Error(), "does not answer as the admin API") {
		t.Errorf("another server: %v", err)
	}
	if _, err := execute(t, newRoot(), "top", "--admin", "::"); err == nil {
		t.Error("--admin :: is taken")
	}
}

func TestEndpointsCommand(t *testing.T) {
	address, _ := api(t)
	out, err := execute(t, newRoot(), "endpoints", "--admin", address, "--cluster", "web", "--json")
	var list []admin.EndpointView
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 || list[0].Cluster != "web" {
		t.Errorf("%v %s", err, out)
	}
	if _, err := execute(t, newRoot(), "endpoints", "--admin", address, "--cluster", "x"); err == nil || !strings.HasSuffix(err.Error(), "there are endpoints of: api, web") {
		t.Errorf("%v", err)
	}
}

func TestCompletion(t *testing.T) {
	address, _ := api(t)
	for want, args := range map[string][]string{
		"api\n":                     {"eject", "a"},
		"10.0.0.2:80\tejected\n":    {"pin", "api", "10.0.0.1:80", "10.0.0.2"},
		"web\n":                     {"endpoints", "--cluster", "w"},
		"10.0.0.1:80\tapi-0 health": {"release", "api", ""},
	} {
		full := append([]string{"__complete", args[0], "--admin", address}, args[1:]...)
		if out, err := execute(t, newRoot(), full...); err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%v: %v %q", args, err, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, err := execute(t, newRoot(), "completion", shell); err != nil || !strings.Contains(out, "outrigger") {
			t.Errorf("%s: %v", shell, err)
		}
	}
}

func TestManualPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	if _, err := execute(t, newRoot(), "man", dir); err != nil {
		t.Fatal(err)
	}
	for _, c := range documented(newRoot()) {
		b, err := os.ReadFile(filepath.Join(dir, manName(c)+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		page := string(b)
		for _, want := range []string{".TH ", ".SH NAME\n", ".SH SYNOPSIS\n.B outrigger", ".SH OPTIONS\n", ".SH SEE ALSO\n"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s has no %q", manName(c), want)
			}
		}
		for text := range strings.Lines(page) {
			if strings.HasPrefix(text, "'") || strings.HasPrefix(text, ".") && !strings.Contains("TH SH B PP TP nf fi BR", strings.Fields(text)[0][1:]) {
				t.Errorf("%s has the request %q", manName(c), text)
			}
		}
	}
	b, _ := os.ReadFile(filepath.Join(dir, "outrigger-eject.1"))
	for _, want := range []string{`\fB\-\-for\fR \fIduration\fR`, "(default 5m0s)", "(default 127.0.0.1:15000)", `outrigger eject api 10.1.4.22:20000 \-\-for 10m`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("eject's page has no %s:\n%s", want, b)
		}
	}
}

func TestRoff(t *testing.T) {
	for in, want := range map[string]string{"a-b": `a\-b`, `c:\d`: `c:\ed`, ".x": `\&.x`, "'x": `\&'x`, " .x": " .x"} {
		if got := roff(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A live view ends with its context and gives the terminal back.
func TestWatchEndsWithItsContext(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(look(0, 1, 0, 0)) }))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var b strings.Builder
	shown := &screen{w: writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "CLUSTER") {
			cancel()
		}
		return b.Write(p)
	}), live: true}
	c := &client{base: s.URL, http: http.Client{Transport: &http.Transport{}}}
	defer c.Close()
	if err := watch(ctx, c, shown, minInterval, false); err != nil {
		t.Error(err)
	}
	if got := b.String(); !strings.HasPrefix(got, "\x1b[?1049h\x1b[?25l") || !strings.HasSuffix(got, "\x1b[?25h\x1b[?1049l") {
		t.Errorf("the terminal is not given back: %q", got)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
