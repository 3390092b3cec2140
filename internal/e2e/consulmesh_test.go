package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// The sidecars that a Consul mesh of a test is made of.
const (
	envoyKind = "envoy"
	ownKind   = "outrigger"
)

// sidecarKinds are those that each test of a Consul mesh pairs with each other.
var sidecarKinds = []string{envoyKind, ownKind}

// consulMesh is a mesh that a real Consul runs. Nothing but the kind of a sidecar
// says which program it is: registration, entries and calls are the same.
type consulMesh struct {
	t     *testing.T
	agent *testkit.ConsulAgent
}

func newConsulMesh(t *testing.T, opts testkit.ConsulOptions) *consulMesh {
	t.Helper()
	testkit.FindEnvoy(t)
	opts.Mesh = true
	return &consulMesh{t: t, agent: testkit.Consul(t, opts)}
}

// member is an instance of a service with its sidecar.
type member struct {
	testkit.Sidecar
	m     *consulMesh
	kind  string
	envoy *testkit.Envoy
	own   *sidecar
	calls map[string]string // the addresses on which its application calls others
}

// join registers an instance, which calls the upstreams, and starts its sidecar.
func (m *consulMesh) join(kind string, s testkit.Sidecar, upstreams ...string) *member {
	m.t.Helper()
	x := m.register(kind, s, upstreams...)
	x.start()
	return x
}

// register registers an instance whose sidecar is started later.
func (m *consulMesh) register(kind string, s testkit.Sidecar, upstreams ...string) *member {
	m.t.Helper()
	if s.ID == "" {
		s.ID = s.Service + "-1"
	}
	x := &member{Sidecar: s, m: m, kind: kind, calls: map[string]string{}}
	if x.Port == 0 {
		x.Port = freePort(m.t)
	}
	if x.App == 0 {
		x.App = freePort(m.t) // nobody calls it
	}
	for _, u := range upstreams {
		port := freePort(m.t)
		x.calls[u] = loopback(port)
		x.Upstreams = append(x.Upstreams, testkit.Upstream{Service: u, Port: port})
	}
	m.agent.Register(m.t, &x.Sidecar)
	return x
}

// start starts the sidecar and waits until it serves.
func (x *member) start() {
	x.m.t.Helper()
	if x.kind == envoyKind {
		x.envoy = x.m.agent.Envoy(x.m.t, x.ProxyID())
		return
	}
	dir, admin := x.m.t.TempDir(), freeAddress(x.m.t)
	x.own = &sidecar{t: x.m.t, admin: "http://" + admin, config: filepath.Join(dir, x.ID+".yaml"), access: filepath.Join(dir, "log", "access")}
	if err := os.Mkdir(filepath.Dir(x.own.access), 0o700); err != nil {
		x.m.t.Fatal(err)
	}
	x.own.conf = sections{
		"admin":     fmt.Sprintf(`{listen: "%s", pprof: true}`, admin),
		"telemetry": fmt.Sprintf(`{access_log: {path: "%s"}}`, x.own.access),
		"drain":     `{delay: 0s, timeout: 5s}`,
	}
	writeFile(x.m.t, x.own.config, x.own.conf.yaml())
	cmd := exec.Command(program, "run", "--consul-sidecar-for", x.ID, "--config", x.own.config)
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+x.m.agent.Address, "CONSUL_GRPC_ADDR="+x.m.agent.GRPC, "CONSUL_HTTP_TOKEN="+x.m.agent.Token)
	x.own.process = spawn(x.m.t, x.ID+"-sidecar-proxy", cmd)
	x.own.ready()
}

// stop ends the sidecar at once.
func (x *member) stop() {
	x.m.t.Helper()
	if x.envoy != nil {
		x.envoy.Stop(x.m.t)
	} else {
		x.own.kill()
	}
}

// url is where the application of x calls a service.
func (x *member) url(service, path string) string { return "http://" + x.calls[service] + path }

// protocol writes the protocol of services.
func (m *consulMesh) protocol(protocol string, services ...string) {
	m.t.Helper()
	for _, s := range services {
		m.agent.WriteEntry(m.t, entry("service-defaults", s, "Protocol", protocol))
	}
}

// entry is a config entry with pairs of keys and values.
func entry(kind, name string, pairs ...any) map[string]any {
	e := map[string]any{"Kind": kind, "Name": name}
	for i := 0; i < len(pairs); i += 2 {
		e[pairs[i].(string)] = pairs[i+1]
	}
	return e
}

// object is what entries are made of.
type object = map[string]any

// answer is what came of one request.
type answer struct {
	status int
	body   string
	header http.Header
}

func ask(t *testing.T, client *http.Client, method, url string, header http.Header) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(b), resp.Header}, err
}

// settles asks until a request has the outcome that a change in Consul asks
// for: neither Consul nor Envoy says when it is in force everywhere.
func settles(t *testing.T, what, method, url string, header http.Header, ok func(answer) bool) answer {
	t.Helper()
	return settlesWithin(t, patience, what, method, url, header, ok)
}

func settlesWithin(t *testing.T, d time.Duration, what, method, url string, header http.Header, ok func(answer) bool) answer {
	t.Helper()
	var a answer
	eventually(t, d, what, func() (bool, string) {
		var err error
		if a, err = ask(t, adminClient, method, url, header); err != nil {
			return false, err.Error()
		}
		return ok(a), fmt.Sprintf("%d %s", a.status, tail(a.body, 300))
	})
	return a
}

// gives is a condition for settles.
func gives(want int) func(answer) bool { return func(a answer) bool { return a.status == want } }
