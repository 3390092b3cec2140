package compile

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/limiter"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

const global = `
service:   {name: web, port: 8080}
identity:  {files: {cert: a, key: b, bundle: c}}
rate_limiters:
  grpc: {address: "127.0.0.1:1", domain: shop, transport: plaintext}
inbound:
  rate_limits:
    - {name: all, scope: grpc}
    - {name: caller, scope: grpc, key: identity, on_error: refuse, tell: always, rate: {requests: 5, per: 1m}}
    - {name: tenant, scope: grpc, key: header, header: X-Tenant, hits: 3}
    - {name: pay, scope: grpc, descriptor: [{key: kind, value: pay}, {key: m, from: method}]}
    - {name: own, rate: {requests: 9}, key: path}
`

// Limits that others count are told what the configuration says, and have no
// buckets here.
func TestGlobalRateLimits(t *testing.T) {
	in := input(t, global)
	in.Limiters = limiter.NewSet(func() time.Duration { return 0 }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	p, r := build(t, in)
	defer func() {
		Release(p, r)
		in.Limiters.Use(limiter.Spec{})
		in.Limiters.Close()
	}()
	list := p.Listeners[0].Route.RateLimits
	var told []string
	for _, l := range list {
		if l.Scope == "proxy" {
			if l.Shared != nil || l.Table == nil || l.Key != plan.RatePath {
				t.Errorf("%s: %+v", l.Name, l)
			}
			continue
		}
		if l.Shared == nil || l.Table != nil || len(l.Entries) != len(l.Counted.Entries) {
			t.Errorf("%s: %+v", l.Name, l)
		}
		text := l.Name + ":"
		for i, e := range l.Entries {
			text += " " + l.Counted.Entries[i] + "=" + e.Kind.String() + e.Field + string(e.Value)
		}
		told = append(told, text)
	}
	want := []string{"all: generic_key=noneall", "caller: identity=identity", "tenant: x-tenant=headerx-tenant", "pay: kind=nonepay m=method"}
	if !slices.Equal(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
	if c := list[1]; !c.FailShut || c.Tell != plan.TellAlways || c.Policy != `"caller";q=5;w=60` || list[0].FailShut || list[0].Policy != "" || list[2].Counted.Hits != 3 || !list[2].OnlyHTTP || list[0].OnlyHTTP {
		t.Errorf("%+v", c)
	}
}

// Where a rate is divided among peers, discovery must find them.
func TestDividedRates(t *testing.T) {
	const text = `
service:   {name: web, port: 8080}
identity:  {files: {cert: a, key: b, bundle: c}}
discovery: {file: {path: catalog.yaml}}
inbound:   {rate_limits: [{name: all, rate: {requests: 9}, scope: peers, min_peers: 4}]}
outbound:  {upstreams: [{service: api, listen: "127.0.0.1:9001"}]}
policies:  {api: {rate_limits: [{name: all, rate: {requests: 9}}]}}
`
	for from, want := range map[string]string{"": "[api web]", ", scope: peers, min_peers: 4": "[api]"} {
		in := input(t, strings.Replace(text, from, "", 1))
		d, err := Compile(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(d.Services()); got != want {
			t.Errorf("without %q discovery follows %s, want %s", from, got, want)
		}
	}
	p, r := build(t, input(t, text))
	defer Release(p, r)
	l := p.RateLimits[0]
	if l.Cluster != "web" {
		l = p.RateLimits[1]
	}
	if l.Peers != 4 || l.Table == nil {
		t.Errorf("%+v", l)
	}
}

// How who counts is called: with the proxy's identity, or by name.
func TestCounterTLS(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, change, want string }{
		{"plaintext", "", "plaintext"},
		{"mtls", `transport: mtls, identities: ["spiffe://mesh.test/rl"]`, "mtls 1.3 spiffe://mesh.test/rl"},
		{"tls", "transport: tls", "tls 127.0.0.1"},
		{"named", "transport: tls, server_name: rl.test", "tls rl.test"},
		{"no such roots", "transport: tls, ca: " + filepath.Join(dir, "none"), "rate_limiters.grpc.ca: cannot be read"},
		{"no roots", "transport: tls, ca: " + write("empty", "x"), "rate_limiters.grpc.ca: has no certificate"},
	} {
		text := global
		if c.change != "" {
			text = strings.Replace(global, "transport: plaintext", c.change, 1)
		}
		d, err := Compile(input(t, text))
		if err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
			continue
		}
		if got := d.counting; got.GRPCKey != c.want || (got.GRPCTLS == nil) != (c.name == "plaintext") {
			t.Errorf("%s: %q, want %q", c.name, got.GRPCKey, c.want)
		}
	}
}
