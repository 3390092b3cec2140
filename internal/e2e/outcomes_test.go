package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// runProgram runs the program and returns what it prints.
func runProgram(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(within(t, patience), program, args...)
	var e strings.Builder
	cmd.Stderr = &e
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("outrigger %s: %v\n%s%s", strings.Join(args, " "), err, out, &e)
	}
	return string(out), e.String()
}

type outcomeLine struct {
	Event, Cluster, Reason, Method string
	Status                         int
	Attempts                       []struct {
		Endpoint, Reason, Retry string
		Status                  int
	}
}

func readOutcomes(t *testing.T, path string) (list []outcomeLine) {
	t.Helper()
	out, _ := runProgram(t, "outcomes", "--json", path)
	for line := range strings.Lines(out) {
		var o outcomeLine
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		list = append(list, o)
	}
	return list
}

// A sidecar without an outcome log gets one by a reload, keeps what happens in it,
// and writes all of it before it ends; the program prints it, also when it is cut off.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var n atomic.Int64
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 && r.URL.Path == "/once" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	m.catalog(map[string][]string{"api": {fmt.Sprintf("127.0.0.1:%d", app)}})
	web, call := m.outbound("web", "api", plaintext(""))
	web.ready()
	path := filepath.Join(m.dir, "outcomes")
	before := web.overview().Reload.Version
	web.rewrite(sections{"telemetry": fmt.Sprintf(`{outcomes: {path: "%s"}, access_log: {path: "%s"}}`, path, web.access)})
	web.applied(before)
	for _, p := range []string{"/once", "/a", "/b"} {
		if resp, _ := fetch(t, http.MethodGet, "http://"+call+p, nil); resp.StatusCode != 200 {
			t.Fatalf("%s: %d", p, resp.StatusCode)
		}
	}
	web.counts(3, "outrigger_outcomes_records_total")
	web.signal(syscall.SIGTERM)
	web.code(patience)

	list := readOutcomes(t, path)
	var events []string
	var exchanges []outcomeLine
	for _, o := range list {
		if o.Event != "" {
			events = append(events, o.Event)
		} else {
			exchanges = append(exchanges, o)
		}
	}
	if s := strings.Join(events, " "); !strings.HasPrefix(s, "began configured endpoints") || !strings.HasSuffix(s, "ended") {
		t.Errorf("events: %s", s)
	}
	if len(exchanges) != 3 {
		t.Fatalf("%d exchanges, want 3: %+v", len(exchanges), list)
	}
	// They are in the order in which they were written, after their answers.
	first := exchanges[max(0, slices.IndexFunc(exchanges, func(x outcomeLine) bool { return len(x.Attempts) > 1 }))]
	if first.Reason != "ok" || first.Method != "GET" || first.Cluster != "api" || len(first.Attempts) != 2 ||
		first.Attempts[0].Status != 503 || first.Attempts[0].Retry != "again" || first.Attempts[1].Status != 200 {
		t.Errorf("the first exchange: %+v", first)
	}

	var report struct {
		Requests int
		Clusters []struct {
			Cluster  string
			Off      float64 `json:"off_percent"`
			Replayed struct{ Retries, Good, Failed int }
			New      struct {
				Retries, Good, Failed int
				Confidence            struct {
					Observed float64 `json:"observed_percent"`
				}
			}
		}
	}
	other := filepath.Join(m.dir, "other.yaml")
	writeFile(t, other, web.conf.with(plaintext("retry: off")).yaml())
	chart := filepath.Join(m.dir, "chart.svg")
	out, _ := runProgram(t, "replay", "--outcomes", path, "--config", other, "--json", "--chart", chart)
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if c := report.Clusters; report.Requests != 3 || len(c) != 1 || c[0].Cluster != "api" || c[0].Off != 0 || c[0].Replayed.Retries != 1 ||
		c[0].New.Failed != 1 || c[0].New.Good != 2 || c[0].New.Retries != 0 || c[0].New.Confidence.Observed != 100 {
		t.Errorf("replay: %s", out)
	}
	if b, err := os.ReadFile(chart); err != nil || !strings.HasPrefix(string(b), "<svg") {
		t.Errorf("chart: %v", err)
	}
	text, _ := runProgram(t, "replay", "--outcomes", path, "--config", other)
	for _, want := range []string{"api (outbound)", "failed for the caller", "differs by 0.00 %", "Confidence in the new configuration's figures: high"} {
		if !strings.Contains(text, want) {
			t.Errorf("the replay does not say %q:\n%s", want, text)
		}
	}

	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(m.dir, "cut")
	if err := os.WriteFile(cut, b[:len(b)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	out, said := runProgram(t, "outcomes", cut)
	if !strings.Contains(out, "* configured plan") || !strings.Contains(said, "1 blocks damaged or cut off") {
		t.Errorf("of a file that was cut off:\n%s%s", out, said)
	}
}

// Advice from the traffic of a sidecar is a configuration that it takes, and too
// little traffic is said to be too little.
func TestAdvise(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var n atomic.Int64
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%50 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	m.catalog(map[string][]string{"api": {fmt.Sprintf("127.0.0.1:%d", app)}})
	path := filepath.Join(m.dir, "outcomes")
	conf := plaintext("retry: off, timeout: 1m")
	web, call := m.outbound("web", "api", conf.with(sections{"telemetry": fmt.Sprintf(`{outcomes: {path: "%s"}, access_log: {path: "off"}}`, path)}))
	web.ready()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	ask := func(count int) {
		t.Helper()
		for range count {
			resp, err := client.Get("http://" + call + "/")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
	}
	ask(100)
	web.counts(100, "outrigger_outcomes_records_total")
	if out, _ := runProgram(t, "advise", "--outcomes", path); !strings.Contains(out, "Not enough data: api has") {
		t.Errorf("of 100 requests:\n%s", out)
	}
	ask(1100)
	web.counts(1200, "outrigger_outcomes_records_total")
	out, _ := runProgram(t, "advise", "--outcomes", path)
	for _, want := range []string{"retry.attempts", "off", "first attempts failed so that another may be made", "failed for the caller", "policies:", "attempts: 2"} {
		if !strings.Contains(out, want) {
			t.Errorf("the advice does not say %q:\n%s", want, out)
		}
	}
	yaml, _ := runProgram(t, "advise", "--outcomes", path, "--yaml")
	next := strings.Replace(yaml, "api:", "api:\n    transport: plaintext", 1)
	_, policies, _ := strings.Cut(next, "policies:")
	before := web.overview().Reload.Version
	web.rewrite(sections{"policies": policies})
	web.applied(before)
}
