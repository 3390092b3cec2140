package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// inPlaceOf is a path at which the program has the name of another one.
func inPlaceOf(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(program, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// status waits for the status with which an address answers.
func (m *consulMesh) status(want int, url string) {
	m.t.Helper()
	settles(m.t, fmt.Sprint(url, " answers ", want), http.MethodGet, url, nil, gives(want))
}

// A pod of consul-k8s: the injector's arguments and variables, a registration in
// the catalog under a node without an agent, probes and hooks of the kubelet.
func TestConsulDataplane(t *testing.T) {
	m := &consulMesh{t: t, agent: testkit.Consul(t, testkit.ConsulOptions{Mesh: true})}
	m.protocol("http", "web", "api")
	api := m.join(ownKind, testkit.Sidecar{Service: "api", App: serve(t, echo("api-1"))}, "web")

	name := inPlaceOf(t, "consul-dataplane")
	admin, ready, graceful, inbound, calls := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	idFile := filepath.Join(t.TempDir(), "proxyid")
	writeFile(t, idFile, "web-0-sidecar-proxy\n")
	_, grpc, _ := strings.Cut(m.agent.GRPC, ":")
	cmd := exec.Command(name, "-addresses", "127.0.0.1", "-grpc-port", grpc, "-proxy-service-id-path="+idFile, "-log-level=info", "-log-json=false",
		"-envoy-concurrency=2", "-envoy-admin-bind-address=127.0.0.1", "-envoy-admin-bind-port", strconv.Itoa(admin),
		"-xds-bind-addr=127.0.0.1", "-consul-dns-bind-addr=127.0.0.1", "-tls-disabled", "-envoy-ready-bind-port="+strconv.Itoa(ready),
		"-graceful-addr=127.0.0.1", "-graceful-port="+strconv.Itoa(graceful), "-shutdown-drain-listeners", "-shutdown-grace-period-seconds=3",
		"-graceful-shutdown-path=/graceful_shutdown", "-startup-grace-period-seconds=5", "-graceful-startup-path=/graceful_startup",
		"-telemetry-prom-scrape-path=/metrics", "--", "--consul-http-addr", m.agent.Address)
	cmd.Env = append(os.Environ(), "DP_SERVICE_NODE_NAME=pod-virtual", "DP_ENVOY_READY_BIND_ADDRESS=127.0.0.1")
	p := &sidecar{t: t, admin: "http://" + loopback(admin), process: spawn(t, "consul-dataplane", cmd)}
	check := func() int {
		t.Helper()
		c := exec.Command(name, "-check-proxy-health", "-envoy-admin-bind-port", strconv.Itoa(admin))
		return spawn(t, "check-proxy-health", c).code(patience)
	}
	p.says("sidecar_waiting", "web-0-sidecar-proxy", "pod-virtual", "waiting for it")
	if code := check(); code != 1 {
		t.Errorf("-check-proxy-health of one that waits: exit code %d", code)
	}

	register := func(service object) {
		t.Helper()
		m.agent.Do(t, http.MethodPut, "/v1/catalog/register", object{"Node": "pod-virtual", "Address": "127.0.0.1", "NodeMeta": object{"synthetic-node": "true"}, "Service": service})
	}
	app := serve(t, echo("web-0"))
	register(object{"ID": "web-0", "Service": "web", "Address": "127.0.0.1", "Port": app})
	register(object{"ID": "web-0-sidecar-proxy", "Service": "web-sidecar-proxy", "Kind": "connect-proxy", "Address": "127.0.0.1", "Port": inbound, "Proxy": object{
		"DestinationServiceName": "web", "DestinationServiceID": "web-0", "LocalServiceAddress": "127.0.0.1", "LocalServicePort": app,
		"Upstreams": []object{{"DestinationName": "api", "LocalBindPort": calls}},
	}})
	p.ready()
	m.status(http.StatusOK, "http://"+loopback(graceful)+"/graceful_startup")
	m.status(http.StatusOK, "http://"+loopback(ready)+"/ready")
	if code := check(); code != 0 {
		t.Errorf("-check-proxy-health of one that serves: exit code %d", code)
	}
	m.status(http.StatusOK, "http://"+loopback(calls)+"/hello")
	m.status(http.StatusOK, api.url("web", "/hello"))

	resp, body := fetch(t, http.MethodGet, "http://"+loopback(graceful)+"/graceful_shutdown", nil)
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/graceful_shutdown: %d %s", resp.StatusCode, body)
	}
	if code := p.code(patience); code != 0 {
		t.Errorf("exit code %d after /graceful_shutdown", code)
	}
}

// Nobody is there: the log says so before anybody has to ask.
func TestConsulDataplaneAlone(t *testing.T) {
	_, port, _ := strings.Cut(freeAddress(t), ":")
	cmd := exec.Command(program, "consul-dataplane", "-addresses", "127.0.0.1", "-tls-disabled", "-proxy-service-id", "web-sidecar-proxy",
		"-envoy-admin-bind-port", strconv.Itoa(freePort(t)), "-graceful-port", strconv.Itoa(freePort(t)), "--", "--consul-http-addr=http://127.0.0.1:"+port)
	p := &sidecar{t: t, process: spawn(t, "consul-dataplane", cmd)}
	p.says("sidecar_asking")
	p.says("sidecar_waiting", "127.0.0.1:"+port, "connection refused")
	p.signal(syscall.SIGTERM)
	if code := p.code(patience); code != 0 {
		t.Errorf("exit code %d when the wait was called off", code)
	}
}

// An allocation of Nomad's: Consul's own bootstrap file and Nomad's arguments for
// Envoy, and nothing more than where Consul's HTTP API is.
func TestEnvoyCommandLine(t *testing.T) {
	m := &consulMesh{t: t, agent: testkit.Consul(t, testkit.ConsulOptions{Mesh: true, ACL: true})}
	m.protocol("http", "web", "api")
	m.agent.Intentions(t, "*", testkit.Source("*", "allow"))
	api := m.join(ownKind, testkit.Sidecar{Service: "api", App: serve(t, echo("api-1"))}, "web")
	metrics, ready := freeAddress(t), freePort(t)
	web := m.register(ownKind, testkit.Sidecar{
		Service: "web", App: serve(t, echo("web-1")), Config: object{"envoy_prometheus_bind_addr": metrics},
	}, "api")
	admin := freeAddress(t)
	file := m.agent.Bootstrap(t, web.ProxyID(), "-admin-bind", admin, "-envoy-ready-bind-address", "127.0.0.1", "-envoy-ready-bind-port", strconv.Itoa(ready))
	cmd := exec.Command(inPlaceOf(t, "envoy"), "-c", file, "-l", "info", "--concurrency", "1", "--disable-hot-restart")
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+m.agent.Address) // the token is in the file
	p := &sidecar{t: t, admin: "http://" + admin, process: spawn(t, "envoy", cmd)}
	p.ready()
	p.says("limits", "processors=1", "the command line")
	m.status(http.StatusOK, "http://"+loopback(ready)+"/ready")
	m.status(http.StatusOK, web.url("api", "/hello"))
	m.status(http.StatusOK, api.url("web", "/hello"))
	settles(t, "Prometheus gets metrics", http.MethodGet, "http://"+metrics+"/metrics", nil, func(a answer) bool {
		return a.status == http.StatusOK && strings.Contains(a.body, "outrigger_")
	})
	p.signal(syscall.SIGTERM)
	if code := p.code(3 * patience); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}
