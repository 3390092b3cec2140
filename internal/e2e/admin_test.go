package e2e

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// The admin API answers what operators and orchestrators ask, and only those
// who may.
func TestAdmin(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, echo("api")), nil, nil)
	mustSee(t, p.call+"/")
	web := p.web
	for _, path := range []string{"/", "/ready", "/live", "/config", "/endpoints", "/clusters", "/connections", "/identity", "/discovery", "/metrics", "/log-level"} {
		if status, body := web.get(path); status != http.StatusOK || body == "" {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	if status, _ := web.get("/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("/debug/pprof/: %d; it is off by default", status)
	}
	t.Run("log level", func(t *testing.T) {
		if status, body := web.ask(http.MethodPut, "/log-level", "error", nil); status != 200 || strings.TrimSpace(body) != "error" {
			t.Fatalf("%d %s", status, body)
		}
		m.catalog(map[string][]string{"api": {p.inbound, freeAddress(t)}})
		eventually(t, patience, "the new endpoint is known", func() (bool, string) {
			_, body := web.get("/endpoints")
			return strings.Count(body, "127.0.0.1:") >= 2, body
		})
		if strings.Count(web.out.String(), "endpoints changed") != 1 {
			t.Error("a line of level info is written at level error")
		}
		if status, body := web.ask(http.MethodPut, "/log-level", "debug", nil); status != 200 || strings.TrimSpace(body) != "debug" {
			t.Errorf("%d %s", status, body)
		}
		if status, _ := web.ask(http.MethodPut, "/log-level", "loud", nil); status != http.StatusBadRequest {
			t.Errorf("an unknown level: %d", status)
		}
		m.catalog(map[string][]string{"api": {p.inbound}})
		web.says("level=INFO", "endpoints changed", "removed=1")
	})
	t.Run("rebinding", func(t *testing.T) {
		status, body := web.ask(http.MethodGet, "/config", "", func(r *http.Request) { r.Host = "attacker.example" })
		if status != http.StatusForbidden {
			t.Errorf("with a foreign Host: %d %s", status, body)
		}
		status, body = web.ask(http.MethodPut, "/log-level", "error", func(r *http.Request) {
			r.Header.Set("Origin", "http://attacker.example")
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		})
		if status != http.StatusForbidden {
			t.Errorf("a change from another site: %d %s", status, body)
		}
	})
	t.Run("pprof", func(t *testing.T) {
		s := m.sidecar("other", sections{"service": "{name: other}", "admin": `{listen: "127.0.0.1:0", pprof: true}`})
		s.says("event=applied")
		_, rest, _ := strings.Cut(s.out.String(), "admin=")
		s.admin = strings.TrimSuffix(strings.Fields(rest)[0], "/")
		if status, body := s.get("/debug/pprof/goroutine?debug=1"); status != http.StatusOK || !strings.Contains(body, "goroutine profile") {
			t.Errorf("%d %s", status, body)
		}
	})
}

// The page of metrics is one that Prometheus' own tool finds nothing wrong with.
func TestMetricsPage(t *testing.T) {
	t.Parallel()
	// Not among the programs that a test machine must have.
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	m := newMesh(t)
	p := m.pair(serve(t, echo("api")), nil, nil)
	mustSee(t, p.call+"/")
	for _, s := range []*sidecar{p.web, p.api} {
		_, page := s.get("/metrics")
		cmd := exec.Command(promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(page)
		if out, err := cmd.CombinedOutput(); err != nil {
			for line := range strings.Lines(string(out)) {
				// The runtime's own collectors are not ours.
				if !strings.HasPrefix(line, "go_") && !strings.HasPrefix(line, "process_") {
					t.Errorf("promtool: %s", line)
				}
			}
		}
	}
}
