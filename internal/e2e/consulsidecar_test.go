package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// described starts a sidecar that has no file: all it knows is its service's ID
// and where Consul is.
func described(t *testing.T, agent *testkit.ConsulAgent, s *testkit.Sidecar, dir string) *sidecar {
	t.Helper()
	own := &sidecar{t: t, admin: "http://" + freeAddress(t)}
	cmd := exec.Command(program, "run", "--consul-sidecar-for", s.ID, "--admin", strings.TrimPrefix(own.admin, "http://"),
		"--snapshot", filepath.Join(dir, s.ID+".snapshot"))
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+agent.Address, "CONSUL_GRPC_ADDR="+agent.GRPC)
	own.process = spawn(t, s.ProxyID(), cmd)
	return own
}

// Two sidecars that Consul alone describes: calls pass, an intention and the
// central configuration take effect while they run, and one starts again from
// what it has kept while Consul is away.
func TestConsulDescribesSidecars(t *testing.T) {
	agent, dir := testkit.Consul(t, testkit.ConsulOptions{Mesh: true}), t.TempDir()
	agent.WriteEntry(t, entry("proxy-defaults", "global", "Config", object{"protocol": "http"}))
	api := &testkit.Sidecar{Service: "api", ID: "api-1", Port: freePort(t), App: serve(t, named("api", echo("api")))}
	calls := freePort(t)
	web := &testkit.Sidecar{
		Service: "web", ID: "web-1", Port: freePort(t), App: freePort(t), Upstreams: []testkit.Upstream{{Service: "api", Port: calls}},
		Config: object{"envoy_public_listener_json": "{}"},
	}
	agent.Register(t, api)
	agent.Register(t, web)
	callee, caller := described(t, agent, api, dir), described(t, agent, web, dir)
	callee.ready()
	caller.ready()
	url := "http://" + loopback(calls) + "/bytes/5"
	get := func(what string, want func(answer) bool) { settles(t, what, http.MethodGet, url, nil, want) }
	get("a call through both", gives(http.StatusOK))

	agent.Intentions(t, "api", testkit.Source("web", "deny"))
	get("an intention refuses", func(a answer) bool {
		return a.status == http.StatusForbidden && strings.Contains(a.body, "rule: intention web => api")
	})
	if out := callee.mustTell("consul", "status"); !strings.Contains(out, "intentions, otherwise allow") || !strings.Contains(out, "deny") {
		t.Errorf("the status does not tell of the intention:\n%s", out)
	}
	agent.Intentions(t, "api", testkit.Source("web", "allow"))
	get("it may call again", gives(http.StatusOK))

	// What the program cannot do is told, and where each value is from.
	out := caller.mustTell("consul", "status")
	for _, words := range []string{"sidecar web-1-sidecar-proxy of web in dc1", "refused: registration web-1-sidecar-proxy Proxy.Config.envoy_public_listener_json"} {
		if !strings.Contains(out, words) {
			t.Errorf("the status does not say %q:\n%s", words, out)
		}
	}
	if out := caller.mustTell("consul", "show"); !strings.Contains(out, "# Consul registration web-1-sidecar-proxy Proxy.Config.protocol") {
		t.Errorf("the configuration does not say where the protocol is from:\n%s", out)
	}

	agent.WriteEntry(t, entry("proxy-defaults", "global", "Config", object{
		"protocol": "http", "outrigger": object{"policies": object{"*": object{"timeout": "7s"}}},
	}))
	eventually(t, patience, "the central configuration is in force", func() (bool, string) {
		_, config := caller.get("/config")
		return strings.Contains(config, "timeout: 7s"), ""
	})
	// One that cannot be served changes nothing, and is told.
	agent.WriteEntry(t, entry("proxy-defaults", "global", "Config", object{"protocol": "http", "outrigger": object{"polices": 1}}))
	eventually(t, patience, "the refusal is told", func() (bool, string) {
		out := caller.mustTell("consul", "status")
		return strings.Contains(out, "NOT IN FORCE") && strings.Contains(out, `did you mean "policies"?`), out
	})
	get("the last good one serves", gives(http.StatusOK))
	agent.WriteEntry(t, entry("proxy-defaults", "global", "Config", object{"protocol": "http"}))
	eventually(t, patience, "the refusal is over", func() (bool, string) {
		out := caller.mustTell("consul", "status")
		return !strings.Contains(out, "NOT IN FORCE"), out
	})

	eventually(t, patience, "all is kept on disk", func() (bool, string) {
		files, _ := filepath.Glob(filepath.Join(dir, "web-1.snapshot*"))
		return len(files) == 3, strings.Join(files, " ")
	})
	agent.Stop(t)
	get("without Consul", gives(http.StatusOK))
	caller.signal(syscall.SIGTERM)
	caller.code(patience)
	caller = described(t, agent, web, dir)
	get("after a restart without Consul", gives(http.StatusOK))
	if out := caller.mustTell("consul", "status"); !strings.Contains(out, "from disk: Consul has not confirmed it") {
		t.Errorf("the status does not say that all is from disk:\n%s", out)
	}
}
