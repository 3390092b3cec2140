package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// tellFault runs a command against an admin API that answers all with a fault,
// and returns what was said and what was asked.
func tellFault(t *testing.T, args ...string) (out, path, body string, err error) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		path, body = r.Method+" "+r.URL.RequestURI(), string(b)
		v := admin.FaultView{Name: "slow", Cluster: "api", Direction: "outbound", Does: "delay 1s", Percent: 100, State: "running"}
		if r.URL.Path == "/faults/start" || r.URL.Query().Has("name") {
			_ = json.NewEncoder(w).Encode(v)
		} else {
			_ = json.NewEncoder(w).Encode([]admin.FaultView{v})
		}
	}))
	defer srv.Close()
	root := newRoot()
	var b strings.Builder
	root.SetOut(&b)
	root.SetErr(&b)
	root.SetArgs(append([]string{"fault"}, append(args, "--admin", srv.URL)...))
	err = root.Execute()
	return b.String(), path, body, err
}

// Every flag becomes a key of a fault as the configuration has it.
func TestFaultStart(t *testing.T) {
	_, path, body, err := tellFault(
		t, "start", "api", "--name", "slow", "--delay", "1s", "--percent", "20", "--seed", "7", "--count", "--path-prefix", "/pay",
		"--method", "GET,POST", "-H", "x-a: b", "-H", "x-c", "--route", "pay", "--endpoint", "10.0.0.1:80", "--for", "30s", "--reason", "game day",
		"--stop-errors", "5", "--stop-success", "90", "--stop-p99", "2s", "--stop-ejections", "3", "--stop-breaker=false", "--stop-panic=false",
		"--stop-window", "20s", "--stop-min-requests", "9", "--observe",
	)
	if err != nil || path != "POST /faults/start" {
		t.Fatalf("%s: %v", path, err)
	}
	var o admin.FaultOrder
	if err := json.Unmarshal([]byte(body), &o); err != nil || o.Reason != "game day" {
		t.Fatalf("%v in %s", err, body)
	}
	l, err := config.Parse("web.yaml", []byte(`
service: {name: web}
discovery: {file: {path: c.yaml}}
outbound: {upstreams: [{service: api, listen: "127.0.0.1:9001", routes: [{name: pay, match: {path: /pay}}]}]}
policies: {api: {transport: plaintext}}
faults:
  allow: true
  rules:
    - name: slow
      to: api
      route: pay
      endpoint: "10.0.0.1:80"
      match: {path_prefix: /pay, methods: [GET, POST], headers: [{name: x-a, exact: b}, {name: x-c, present: true}]}
      inject: {delay: 1s, percent: 20, seed: 7, count: true}
      for: 30s
      stop: {mode: observe, errors_percent: 5, success_percent: 90, p99: 2s, ejections: 3, breaker: false, panic: false, window: 20s, min_requests: 9}
`))
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.Config.ParseFault(o.Fault)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.Summary(), l.Config.Faults.Rules[0].Summary(); got != want {
		t.Errorf("ordered\n%s\nwant\n%s", got, want)
	}
	// Without flags the defaults are those of the configuration.
	_, _, body, err = tellFault(t, "start", "api", "--abort", "UNAVAILABLE")
	if err != nil || json.Unmarshal([]byte(body), &o) != nil {
		t.Fatal(err, body)
	}
	plain, err := l.Config.ParseFault([]byte(`{to: api, inject: {abort_grpc: UNAVAILABLE}}`))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := l.Config.ParseFault(o.Fault); err != nil || f.Inject != plain.Inject || f.Stop != plain.Stop || f.For != plain.For {
		t.Errorf("%+v, %v; want %+v", f, err, plain)
	}
}

func TestFaultCommands(t *testing.T) {
	for _, c := range []struct {
		args, path, body, says, wrong string
	}{
		{"start --inbound --abort 503 --from spiffe://a/b", "POST /faults/start", `"abort":503`, "slow: delay 1s", ""},
		{"start --inbound --reset --json", "POST /faults/start", `"reset":true`, `"name": "slow"`, ""},
		{"stop slow", "POST /faults/stop", `{"name":"slow"}`, "slow: delay 1s", ""},
		{"stop --all", "POST /faults/stop", `{"all":true}`, "slow: delay 1s", ""},
		{"status", "GET /faults", "", "slow: delay 1s", ""},
		{"status --json", "GET /faults", "", `"name": "slow"`, ""},
		{"report slow", "GET /faults?name=slow", "", "ordered by", ""},
		{"start", "", "", "", "give the service"},
		{"start api --inbound --reset", "", "", "", "give the service"},
		{"start api --abort never", "", "", "", `--abort is "never"`},
		{"start api --reset -H :x", "", "", "", "--header"},
		{"stop", "", "", "", "--all"},
		{"stop slow --all", "", "", "", "--all"},
		{"report", "", "", "", "accepts 1 arg"},
		{"status slow", "", "", "", "unknown command"},
	} {
		out, path, body, err := tellFault(t, strings.Fields(c.args)...)
		switch {
		case c.wrong != "":
			if err == nil || !strings.Contains(err.Error(), c.wrong) || path != "" {
				t.Errorf("%s: %v, asked %q; want %q", c.args, err, path, c.wrong)
			}
		case err != nil || path != c.path || !strings.Contains(body, c.body) || !strings.Contains(out, c.says):
			t.Errorf("%s: %v, asked %s %s, says %q", c.args, err, path, body, out)
		}
	}
}
