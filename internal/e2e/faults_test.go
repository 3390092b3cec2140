package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// fault is one as "outrigger fault --json" has it.
type fault struct {
	Name, State, By string
	Injected        map[string]uint64
	Places          []struct {
		Cluster, Direction    string
		Before, During, After struct {
			Requests, Good, Failed uint64
			ByFault                uint64 `json:"ended_by_fault"`
			Met                    uint64 `json:"met_fault"`
		}
	}
}

// fault asks for the report of a fault.
func (s *sidecar) fault(name string) (f fault) {
	s.t.Helper()
	out := s.mustTell("fault", "report", name, "--json")
	if err := json.Unmarshal([]byte(out), &f); err != nil || f.Name != name {
		s.t.Fatalf("%v in %s", err, out)
	}
	return f
}

// An operator makes failures, which must be allowed, sees what they do and what
// they did, and ends them; they end by themselves at their time, and as soon as
// something else fails.
func TestFaultsByHand(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var broken atomic.Bool
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	m.catalog(map[string][]string{"api": {loopback(app)}})
	conf := sections{"identity": "", "policies": "{api: {transport: plaintext, retry: off, outlier: off}}"}
	web, call := m.outbound("web", "api", conf)
	web.ready()
	url := "http://" + call
	wants := func(path string, status int, reason string) {
		t.Helper()
		resp, body := fetch(t, http.MethodGet, url+path, nil)
		if resp.StatusCode != status || resp.Header.Get("x-outrigger-reason") != reason {
			t.Fatalf("%s: %d %q %s, want %d %q", path, resp.StatusCode, resp.Header.Get("x-outrigger-reason"), body, status, reason)
		}
	}

	if out, err := web.tell("fault", "start", "api", "--abort", "503"); err == nil || !strings.Contains(out, "faults: {allow: true}") {
		t.Fatalf("not allowed: %v %s", err, out)
	}
	web.rewrite(sections{"faults": "{allow: true}"})
	web.says("event=applied", "version=2")

	out := web.mustTell("fault", "start", "api", "--abort", "418", "--path-prefix", "/pay", "--name", "teapot", "--reason", "game day")
	if !strings.HasPrefix(out, "teapot: abort 418 for 100 % of outbound api, requests with path_prefix /pay\n") {
		t.Errorf("start says %s", out)
	}
	web.says("event=fault_started", "fault=teapot", "cluster=api", "by=127.0.0.1:")
	wants("/pay/1", 418, "fault_injected")
	wants("/", 200, "")
	if out := web.mustTell("fault", "status"); !strings.Contains(out, "attempts that met it: abort 1\n") {
		t.Errorf("status says %s", out)
	}
	if n := web.metric("outrigger_faults_injected_total", `kind="abort"`, `cluster="api"`); n != 1 {
		t.Errorf("%v aborts are counted", n)
	}
	web.mustTell("fault", "stop", "teapot")
	wants("/pay/1", 200, "")
	f := web.fault("teapot")
	if d := f.Places[0].During; f.State != "by_hand" || f.Places[0].Cluster != "api" || d.Requests != 2 || d.Good != 1 || d.ByFault != 1 || d.Met != 1 {
		t.Errorf("%+v", f)
	}
	if out := web.mustTell("fault", "report", "teapot"); !hasLine(out, "failed after it", "1") || !hasLine(out, "outbound api", "before", "during", "after") || !strings.Contains(out, "game day") {
		t.Errorf("report says %s", out)
	}

	web.mustTell("fault", "start", "api", "--abort", "503", "--for", "1s", "--name", "short")
	eventually(t, patience, "its time is over", func() (bool, string) { f := web.fault("short"); return f.State == "time_over", f.State })
	wants("/", 200, "")

	// The application turns to errors under a fault that has nothing to do with it.
	l := startLoad(t, url+"/", loadOptions{})
	web.mustTell("fault", "start", "api", "--delay", "1ms..5ms", "--percent", "50", "--stop-window", "2s", "--name", "slow")
	l.more(t, 60)
	if f := web.fault("slow"); f.State != "running" || f.Injected["delay"] == 0 {
		t.Fatalf("%+v", f)
	}
	broken.Store(true)
	eventually(t, patience, "the guard has stopped it", func() (bool, string) { f := web.fault("slow"); return f.State == "errors", f.State })
	web.says("event=fault_stopped", "fault=slow", "cause=errors")
	if failures, _ := l.end(); len(failures) == 0 {
		t.Error("nothing failed")
	}

	for _, args := range [][]string{
		{"start", "nobody", "--reset"},
		{"start", "api"},
		{"start", "api", "--delay", "2h"},
		{"start", "--inbound", "--reset"},
		{"stop", "teapot"},
		{"report", "nothing"},
	} {
		if out, err := web.tell(append([]string{"fault"}, args...)...); err == nil || !strings.Contains(out, "outrigger: ") || strings.Contains(out, "Usage:") {
			t.Errorf("%v: %v %q, want a refusal", args, err, out)
		}
	}
}

// A fault of the configuration begins with it, ends with it, and is no failure
// of the endpoint's.
func TestFaultsByConfiguration(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, echo("api")), sections{"policies": "{api: {retry: off, outlier: {consecutive_failures: 1, keep_endpoints: 0}}}"}, nil)
	conf := "{allow: true, rules: [{name: refused, inbound: true, from: [\"" + spiffe("web") + "\"], inject: {abort: 403}}]}"
	status := func(want int) {
		t.Helper()
		eventually(t, patience, "the configuration is in use", func() (bool, string) {
			resp, body := fetch(t, http.MethodGet, p.call, nil)
			return resp.StatusCode == want, body
		})
	}
	status(200)
	p.api.rewrite(sections{"faults": conf})
	status(403)
	if f := p.api.fault("refused"); f.State != "running" || f.By != "configuration" || f.Places[0].Direction != "inbound" {
		t.Errorf("%+v", f)
	}
	p.api.rewrite(sections{"faults": strings.ReplaceAll(conf, "/web", "/shop")})
	status(200)
	p.api.rewrite(sections{"faults": ""})
	eventually(t, patience, "the fault is taken away", func() (bool, string) { f := p.api.fault("refused"); return f.State == "removed", f.State })
}
