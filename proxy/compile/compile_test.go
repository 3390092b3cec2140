package compile

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

func load(t *testing.T, text string) *config.Loaded {
	t.Helper()
	l, err := config.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const full = `
service:   {name: web, port: 8080}
identity:  {files: {cert: a, key: b, bundle: c}}
discovery: {file: {path: catalog.yaml}}
inbound:   {listen: "127.0.0.1:15006", mtls: permissive}
outbound:
  upstreams:
    - {service: zoo, listen: "127.0.0.1:9003"}
    - {service: api, listen: "127.0.0.1:9001"}
    - {service: db, listen: "127.0.0.1:9002", protocol: tcp}
    - {service: old, listen: "127.0.0.1:9004"}
policies:
  zoo: {identities: ["spiffe://other.test/zoo"]}
  old: {transport: plaintext, retry: off, timeout: 3s}
authorization: {rules: [{name: all, from: ["*"]}]}
`

func input(t *testing.T, text string) Input {
	t.Helper()
	return Input{Loaded: load(t, text), Version: 7, Source: mtls.NewFeed("test"), TrustDomain: "mesh.test"}
}

// build makes the plan and returns it with its registry.
func build(t *testing.T, in Input) (*plan.Plan, *upstream.Registry) {
	t.Helper()
	d, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := upstream.NewRegistry(t.Context(), wire.NewSweeper(time.Now()), m, slog.New(slog.DiscardHandler))
	return d.Build(r, m), r
}

func TestPlan(t *testing.T) {
	in := input(t, full)
	in.ServerNames = map[string]string{"db": "db.default.dc1.internal.mesh.test"}
	in.Identities = map[string][]string{"api": {"spiffe://mesh.test/from/discovery"}, "zoo": {"spiffe://mesh.test/not/used"}}
	d, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Services(); !slices.Equal(got, []string{"api", "db", "old", "zoo"}) {
		t.Errorf("services %q", got)
	}
	p, r := build(t, in)
	if p.Version != 7 {
		t.Errorf("version %d", p.Version)
	}
	want := []struct {
		name, address string
		protocol      plan.Protocol
		security      plan.Security
		transport     string
	}{
		{"inbound", "127.0.0.1:15006", plan.HTTP, plan.Permissive, "plaintext"},
		{"outbound:api", "127.0.0.1:9001", plan.HTTP, plan.Plaintext, "mtls outrigger/1 http/1.1 1.3 spiffe://mesh.test/from/discovery"},
		{"outbound:db", "127.0.0.1:9002", plan.TCP, plan.Plaintext, "mtls outrigger-tcp/1 1.3 spiffe://mesh.test/db sni db.default.dc1.internal.mesh.test"},
		{"outbound:old", "127.0.0.1:9004", plan.HTTP, plan.Plaintext, "plaintext"},
		{"outbound:zoo", "127.0.0.1:9003", plan.HTTP, plan.Plaintext, "mtls outrigger/1 http/1.1 1.3 spiffe://other.test/zoo"},
	}
	if len(p.Listeners) != len(want) {
		t.Fatalf("%d listeners", len(p.Listeners))
	}
	for i, w := range want {
		l := p.Listeners[i]
		if l.Name != w.name || l.Address != w.address || l.Protocol != w.protocol || l.Security != w.security || l.Route.Cluster.Transport() != w.transport {
			t.Errorf("listener %d: %s %s %s %s %q; want %+v", i, l.Name, l.Address, l.Protocol, l.Security, l.Route.Cluster.Transport(), w)
		}
		if (l.TLS != nil) != (w.security != plan.Plaintext) {
			t.Errorf("%s: TLS %v", l.Name, l.TLS)
		}
		if (l.Route.Authz != nil) != (l.Direction == telemetry.Inbound) {
			t.Errorf("%s: rules %v", l.Name, l.Route.Authz)
		}
		if l.Metrics == nil {
			t.Errorf("%s has no metrics", l.Name)
		}
	}
	if pol := p.Listeners[3].Route.Cluster.Policy(); pol.Retry != nil || pol.Timeout != 3*time.Second {
		t.Errorf("the policy of old: %+v", pol)
	}
	// Clusters outlive a plan: the next one gets the same, and only what no
	// plan holds any more goes.
	in.Version++
	next, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	q := next.Build(r, m)
	Release(p, r)
	for i := range q.Listeners {
		if q.Listeners[i].Route.Cluster != p.Listeners[i].Route.Cluster {
			t.Errorf("%s has another cluster in the next plan", q.Listeners[i].Name)
		}
	}
	if clusters, endpoints := r.States(); len(clusters) != 5 || len(endpoints) != 1 {
		t.Errorf("%d clusters and %d endpoints; want 5, and the application", len(clusters), len(endpoints))
	}
	Release(q, r)
	if clusters, _ := r.States(); len(clusters) != 0 {
		t.Errorf("%d clusters are left", len(clusters))
	}
}

// Every mistake is told at its place.
func TestProblems(t *testing.T) {
	in := input(t, full)
	in.Identities = map[string][]string{"api": {"spiffe://mesh.test/a b"}, "db": {"http://mesh.test/db"}}
	_, err := Compile(in)
	problems, ok := err.(config.Problems)
	if !ok || len(problems) != 2 {
		t.Fatalf("error %v", err)
	}
	for i, want := range []string{"test.yaml:9:17: outbound.upstreams[1].service: ", "test.yaml:10:17: outbound.upstreams[2].service: "} {
		if got := problems[i].Error(); !strings.HasPrefix(got, want) {
			t.Errorf("problem %d is %q; want it to begin with %q", i, got, want)
		}
	}
}

// A configuration that asks for mTLS without an identity is refused, never
// served in plaintext.
func TestNoIdentity(t *testing.T) {
	in := input(t, full)
	in.Source = nil
	_, err := Compile(in)
	problems, ok := err.(config.Problems)
	if !ok || len(problems) != 4 {
		t.Fatalf("error %v", err)
	}
	for _, p := range problems {
		if !strings.Contains(p.Message, "needs an identity") {
			t.Errorf("problem %v", p)
		}
	}
}

// The own application is called again only where nothing was sent: the caller
// tries other instances.
func TestOnlyTheCallerRetries(t *testing.T) {
	p, _ := build(t, input(t, full))
	pol := p.Listeners[0].Route.Cluster.Policy()
	if len(pol.Retry.On) != 1 || pol.Retry.On[0].String() != "stale_connection" || pol.Outlier != nil || pol.Breaker != nil {
		t.Errorf("inbound policy: %+v", pol)
	}
}

// With auto a listener finds out what is spoken, but not on an opaque port, and
// its endpoints are spoken with in the same version.
func TestAuto(t *testing.T) {
	in := input(t, `
service:   {name: web, port: 8080, protocol: auto}
identity:  {files: {cert: a, key: b, bundle: c}}
discovery: {file: {path: catalog.yaml}}
detection: {wait: 20ms, opaque_ports: [3306]}
outbound:
  upstreams:
    - {service: api, listen: "127.0.0.1:9001", protocol: auto}
    - {service: db, listen: "127.0.0.1:3306", protocol: auto}
    - {service: old, listen: "127.0.0.1:9004", protocol: http}
`)
	p, r := build(t, in)
	want := []struct {
		name, transport string
		protocol        plan.Protocol
		wait            time.Duration
		same            bool
	}{
		{"inbound", "plaintext", plan.Auto, 20 * time.Millisecond, true},
		{"outbound:api", "mtls outrigger/1 auto 1.3 spiffe://mesh.test/api", plan.Auto, 20 * time.Millisecond, true},
		{"outbound:db", "mtls outrigger-tcp/1 1.3 spiffe://mesh.test/db", plan.TCP, 20 * time.Millisecond, false},
		{"outbound:old", "mtls outrigger/1 http/1.1 1.3 spiffe://mesh.test/old", plan.HTTP, 20 * time.Millisecond, false},
	}
	for i, w := range want {
		l := p.Listeners[i]
		c := l.Route.Cluster
		if l.Name != w.name || l.Protocol != w.protocol || l.DetectWait != w.wait || c.Policy().SameHTTP != w.same || c.Transport() != w.transport {
			t.Errorf("listener %d: %s %s %s, same %v, %q; want %+v", i, l.Name, l.Protocol, l.DetectWait, c.Policy().SameHTTP, c.Transport(), w)
		}
	}
	if got := p.Listeners[0].TLS.NextProtos; !slices.Equal(got, []string{"outrigger/1", "outrigger-tcp/1", "h2", "http/1.1"}) {
		t.Errorf("inbound takes %q", got)
	}
	if text := p.String(); !strings.Contains(text, "protocol     auto\n") || !strings.Contains(text, "when 20ms have passed") {
		t.Errorf("plan:\n%s", text)
	}
	Release(p, r)
}
