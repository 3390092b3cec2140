package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// Where records of exchanges go is changed in Consul while a sidecar runs.
func TestConsulMovesAccessLog(t *testing.T) {
	m := &consulMesh{t: t, agent: testkit.Consul(t, testkit.ConsulOptions{Mesh: true})}
	dir := t.TempDir()
	defaults := func(logs object) {
		m.agent.WriteEntry(t, entry("proxy-defaults", "global", "Config", object{"protocol": "http"}, "AccessLogs", logs))
	}
	file := func(name string) object {
		return object{"Enabled": true, "Type": "file", "Path": filepath.Join(dir, name)}
	}
	defaults(object{"Enabled": false})
	m.agent.Register(t, &testkit.Sidecar{Service: "api", ID: "api-1", Port: freePort(t), App: serve(t, echo("api"))})
	calls := freePort(t)
	web := &testkit.Sidecar{
		Service: "web", ID: "web-1", Port: freePort(t), App: freePort(t),
		Upstreams: []testkit.Upstream{{Service: "api", Port: calls}},
	}
	m.agent.Register(t, web)
	api := described(t, m.agent, &testkit.Sidecar{Service: "api", ID: "api-1"}, t.TempDir())
	own := described(t, m.agent, web, t.TempDir())
	api.ready()
	own.ready()
	settles(t, "a call", http.MethodGet, "http://"+loopback(calls)+"/before", nil, gives(http.StatusOK))
	for _, name := range []string{"one", "two"} {
		defaults(file(name))
		eventually(t, patience, "records go to file "+name, func() (bool, string) {
			fetch(t, http.MethodGet, "http://"+loopback(calls)+"/"+name, nil)
			b, err := os.ReadFile(filepath.Join(dir, name))
			return err == nil && strings.Contains(string(b), `"path":"/`+name+`"`), string(b)
		})
	}
	defaults(object{"Enabled": false})
	eventually(t, patience, "no more records", func() (bool, string) {
		_, config := own.get("/config")
		return strings.Contains(config, `path: off`), config
	})
	if out := own.mustTell("consul", "status"); strings.Contains(out, "telemetry") || strings.Contains(out, "NOT IN FORCE") {
		t.Errorf("the status speaks of a change that was not made:\n%s", out)
	}
	own.says("event=applied")
	if b, err := os.ReadFile(filepath.Join(dir, "two")); err != nil || strings.Contains(string(b), "/before") {
		t.Errorf("what went to the second file: %s, %v", b, err)
	}
}
