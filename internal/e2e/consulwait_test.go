package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// A sidecar that starts while Consul is away tells so at all of its addresses,
// and goes on at them when Consul has come back.
func TestConsulComesLater(t *testing.T) {
	agent := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	web := &testkit.Sidecar{Service: "web", ID: "web-1", Port: freePort(t), App: serve(t, echo("web"))}
	agent.Register(t, web)
	agent.Stop(t)
	own := &sidecar{t: t, admin: "http://" + freeAddress(t)}
	base, probes := t.TempDir()+"/base.yaml", freeAddress(t)
	writeFile(t, base, `admin: {probe_listen: "`+probes+`"}`)
	cmd := exec.Command(program, "run", "--consul-sidecar-for", web.ID, "--admin", strings.TrimPrefix(own.admin, "http://"), "--config", base)
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+agent.Address, "CONSUL_GRPC_ADDR="+agent.GRPC)
	own.process = spawn(t, "web", cmd)

	waits := "waiting for Consul at " + agent.Address + " since "
	says := func(url string, status int, words ...string) {
		t.Helper()
		settles(t, url+" tells what it waits for", http.MethodGet, url, nil, func(a answer) bool {
			for _, w := range words {
				if !strings.Contains(a.body, w) {
					return false
				}
			}
			return a.status == status
		})
	}
	says(own.admin+"/ready", http.StatusServiceUnavailable, waits, "last error: sidecar/", "connection refused")
	says("http://"+probes+"/ready", http.StatusServiceUnavailable, waits)
	says("http://"+probes+"/live", http.StatusOK, "live")
	says(own.admin+"/metrics", http.StatusOK, `outrigger_consul_age_seconds{watch="registration"} -1`)
	if out := own.mustTell("consul", "status"); !strings.Contains(out, "NOT IN FORCE: "+waits) {
		t.Errorf("consul status does not say what it waits for:\n%s", out)
	}
	if out, err := own.tell("endpoints"); err == nil || !strings.Contains(out, "not known yet: "+waits) {
		t.Errorf("endpoints does not say what it waits for: %v\n%s", err, out)
	}

	agent.Start(t)
	own.ready()
	says("http://"+probes+"/ready", http.StatusOK, "ready")
	if out := own.mustTell("consul", "status"); !strings.Contains(out, "sidecar web-1-sidecar-proxy of web in dc1") {
		t.Errorf("consul status after Consul's answer:\n%s", out)
	}
}
