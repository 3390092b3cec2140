package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// saying is a follower that gives what a test says.
type saying struct {
	say chan *mesh.Snapshot
	discovery.Tracker
}

func (f *saying) Run(ctx context.Context, give func(*mesh.Snapshot)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-f.say:
			give(s)
		}
	}
}

// nothing is a source that finds nothing.
type nothing struct{}

func (nothing) Run(ctx context.Context, _ []string, _ discovery.Sink) error {
	<-ctx.Done()
	return nil
}
func (nothing) Status() []discovery.WatchStatus { return nil }

// described is a sidecar that a test describes.
type described struct {
	*Sidecar
	*saying
	file string
	ids  string // the folder of its certificate
}

func describe(t testing.TB) *described {
	t.Helper()
	d := prepared(t)
	d.follow(t)
	return d
}

// prepared is a sidecar that does not follow yet.
func prepared(t testing.TB) *described {
	t.Helper()
	ids := testkit.NewCA(t).Files("spiffe://example.test/web")
	d := &described{ids: ids, saying: &saying{say: make(chan *mesh.Snapshot)}, file: filepath.Join(t.TempDir(), "base.yaml")}
	d.write(t, "")
	base, err := config.LoadBase(d.file)
	if err != nil {
		t.Fatal(err)
	}
	d.Sidecar = newSidecar(base, d.saying, slog.New(slog.DiscardHandler))
	d.source = nothing{}
	return d
}

// follow runs d until the test ends.
func (d *described) follow(t testing.TB) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Sidecar.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
}

// write writes the file below what Consul says.
func (d *described) write(t testing.TB, more string) {
	t.Helper()
	if err := os.WriteFile(d.file, []byte(d.text("admin: {listen: \"\"}\n"+more)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// text is a file below what Consul says.
func (d *described) text(more string) string {
	return fmt.Sprintf("identity: {files: {cert: %[1]s/cert.pem, key: %[1]s/key.pem, bundle: %[1]s/bundle.pem}}\n", d.ids) + "discovery: {consul: {}}\ndrain: {delay: 0s, timeout: 1s}\n" +
		"inbound: {mtls: \"off\"}\npolicies: {\"*\": {transport: plaintext}}\n" + more
}

// web is a sidecar that calls each of the upstreams: name and address by turns.
func web(t testing.TB, pairs ...string) *mesh.Snapshot {
	t.Helper()
	s := &mesh.Snapshot{Datacenter: "dc1", TrustDomain: "example.consul", DefaultAllow: true, Chains: map[string]*mesh.Chain{}}
	s.Proxy = mesh.Registration{Kind: "connect-proxy", ID: "web-sidecar-proxy", Datacenter: "dc1"}
	s.Proxy.Proxy.DestinationServiceName = "web"
	for i := 0; i < len(pairs); i += 2 {
		name, addr := pairs[i], parseAddrPort(pairs[i+1])
		s.Proxy.Proxy.Upstreams = append(s.Proxy.Proxy.Upstreams, mesh.Upstream{
			DestinationName: name, LocalBindAddress: addr.Addr().String(), LocalBindPort: int(addr.Port()),
		})
		id := name + ".default.default.dc1"
		s.Chains[name] = &mesh.Chain{
			ServiceName: name, Protocol: "http", StartNode: "resolver:" + id,
			Nodes:   map[string]*mesh.Node{"resolver:" + id: {Type: "resolver", Name: id, Resolver: &mesh.Resolver{Default: true, Target: id}}},
			Targets: map[string]*mesh.Target{id: {ID: id, Service: name, Namespace: "default", Datacenter: "dc1"}},
		}
	}
	return s
}

// A sidecar starts when Consul has described it, and follows what changes there.
func TestSidecarFollows(t *testing.T) {
	d := describe(t)
	// On addresses that nobody calls from, so that no dial takes their ports.
	port := fmt.Sprint(":", parseAddrPort(address(t)).Port())
	addr := []string{"127.73.0.1" + port, "127.73.0.2" + port}
	gateway := web(t)
	gateway.Proxy.Kind = "mesh-gateway"
	go func() {
		d.say <- gateway // which is told, and waited out
		d.say <- web(t, "api", addr[0])
	}()
	loaded, err := d.First(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Config: loaded, Log: slog.New(slog.DiscardHandler), Sidecar: d.Sidecar})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, context.Background()) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	soon(t, "the upstream is listened for", func() bool { return p.current.Load() != nil && open(addr[0]) })
	detail := func() string {
		_, checks := p.Ready()
		for _, c := range checks {
			if c.Name == "consul" {
				return fmt.Sprint(c.OK, " ", c.Detail)
			}
		}
		return ""
	}
	if got := detail(); !strings.HasPrefix(got, "true web-sidecar-proxy; ") {
		t.Errorf("readiness says %q", got)
	}

	d.say <- web(t, "api", addr[0], "db", addr[1])
	soon(t, "a new upstream is listened for", func() bool { return len(p.current.Load().Listeners) == 2 && open(addr[1]) })
	version := p.current.Load().Version

	// What cannot be served leaves the last good plan in use, and is told.
	d.say <- web(t, "api", addr[0], "db", addr[0])
	soon(t, "the refusal is told", func() bool { return strings.Contains(detail(), "the last good description is in force: ") })
	if !open(addr[0]) || !open(addr[1]) || p.current.Load().Version != version {
		t.Error("what cannot be served has changed the plan")
	}
	if v := p.viewMesh(); v.Refused == "" || len(v.Upstreams) != 2 || v.Upstreams[1].Listen != addr[1] {
		t.Errorf("it is shown as %+v", v)
	}
	if p.viewReload().LastError == "" {
		t.Error("the refusal is no failed reload")
	}
	if text := metricsOf(t, p); !strings.Contains(text, "outrigger_consul_refused 1\n") || !strings.Contains(text, `outrigger_consul_findings{kind="differs"} 1`) {
		t.Errorf("the metrics do not tell of the refusal: %s", text)
	}

	// The same as what is in force is no new plan.
	d.say <- web(t, "api", addr[0], "db", addr[1])
	soon(t, "the refusal is over", func() bool { return p.viewMesh().Refused == "" && p.viewReload().LastError == "" })
	if p.current.Load().Version != version {
		t.Error("what is in force already has made a new plan")
	}

	// The file below can be changed, too, but not what is fixed.
	d.write(t, "http: {max_fields: 50}\nmemory: {budget: 100MiB}\n")
	if err := p.Reload(d.file); err != nil {
		t.Fatal(err)
	}
	if c := p.loaded.Config; c.HTTP.MaxFields != 50 || c.Memory.Bytes() != 0 {
		t.Errorf("after a reload the file's values are %d and %d", c.HTTP.MaxFields, c.Memory.Bytes())
	}
	if v := p.viewMesh(); !slices.ContainsFunc(v.Findings, func(f admin.MeshFindingView) bool { return f.Field == "memory" }) {
		t.Errorf("what needs a restart is not told: %+v", v.Findings)
	}

	// Another service's description is not for this process.
	other := web(t, "api", addr[0])
	other.Proxy.Proxy.DestinationServiceName = "shop"
	d.say <- other
	soon(t, "another service is refused", func() bool { return strings.Contains(p.viewMesh().Refused, "this proxy runs for web; restart it") })

	d.say <- web(t, "api", addr[0])
	soon(t, "an upstream that is gone is closed", func() bool { return !open(addr[1]) })
}

// Waiting for Consul ends with the process.
func TestSidecarWaits(t *testing.T) {
	d := describe(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := d.First(ctx); err == nil {
		t.Error("a sidecar that nobody has described has a configuration")
	}
}

// metricsOf are the metrics about Consul.
func metricsOf(t *testing.T, p *Proxy) string {
	t.Helper()
	w := httptest.NewRecorder()
	p.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	var b strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "outrigger_consul_") {
			b.WriteString(line)
		}
	}
	return b.String()
}
