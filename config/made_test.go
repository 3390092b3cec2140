package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func mustBase(t *testing.T, text string) *Base {
	t.Helper()
	b, err := ParseBase("base.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Of what is written, the file wins over layers and later layers over earlier
// ones, key by key; and the policy "*" is where all policies start.
func TestLayers(t *testing.T) {
	b := mustBase(t, `
policies:
  "*": {timeout: 3s}
  api: {retry: {attempts: 4}, outlier: off}
admin: {pprof: true}
`)
	m, err := b.Make(
		Layer{From: "Consul proxy-defaults/global outrigger", Data: []byte(`{"policies":{"*":{"timeout":"1s","connect_timeout":"2s"},"api":{"outlier":{"window":"5s"},"retry":{"attempts":9,"backoff_base":"1ms"}}},"admin":{"listen":""}}`)},
		Layer{From: "Consul registration web", Path: []string{"policies", "db.dc-two"}, Data: []byte(`{"tcp_idle_timeout":"7s"}`)},
	)
	if err != nil {
		t.Fatal(err)
	}
	api := m.Config.Policies["api"]
	if api.Retry.Attempts != 4 || api.Retry.BackoffBase != 1e6 || api.Outlier != nil || api.Timeout != 3e9 || api.ConnectTimeout != 2e9 {
		t.Errorf("api is %+v with retry %+v", api, api.Retry)
	}
	if db := m.Config.Policies["db.dc-two"]; db.TCPIdleTimeout != 7e9 || db.Timeout != 3e9 {
		t.Errorf("db is %+v", db)
	}
	if !m.Config.Admin.Pprof || m.Config.Admin.Listen != "" {
		t.Errorf("admin is %+v", m.Config.Admin)
	}
	for path, want := range map[string]string{
		"policies.api.retry.attempts":              "base.yaml:4:27",
		"policies.api.retry.backoff_base":          "Consul proxy-defaults/global outrigger",
		"policies.api.connect_timeout":             "Consul proxy-defaults/global outrigger (policies.*)",
		"policies.api.timeout":                     "base.yaml:3:18 (policies.*)",
		`policies."db.dc-two".tcp_idle_timeout`:    "Consul registration web",
		"policies.api.keepalive_timeout":           "default",
		`policies."db.dc-two".stream_idle_timeout`: "default",
	} {
		if got := m.origins.of(path).String(); got != want {
			t.Errorf("%s is from %s, want %s", path, got, want)
		}
	}
	if !m.Given("policies.api.retry.attempts") || m.Given("policies.api.connect_timeout") {
		t.Error("what is given at its own place is not told from what is inherited")
	}
	// A policy taken out is a copy.
	p := m.Policy("api")
	p.Retry.Attempts = 1
	if m.Config.Policies["api"].Retry.Attempts != 4 {
		t.Error("a policy that was taken out is shared")
	}
}

// Mistakes are told at the place where the value came from, whichever that is.
func TestMadeMistakes(t *testing.T) {
	var nobody *Base
	if _, err := nobody.Make(Layer{From: "Consul registration web Config.outrigger", Data: []byte(`{"polcies":{}, "drain":{"delay":7}}`)}); err == nil ||
		!strings.Contains(err.Error(), `Consul registration web Config.outrigger: polcies: is not a key that exists; did you mean "policies"?`) ||
		!strings.Contains(err.Error(), "Consul registration web Config.outrigger: drain.delay: ") {
		t.Errorf("a wrong layer gives %v", err)
	}
	m, err := nobody.Make()
	if err != nil {
		t.Fatal(err)
	}
	m.Config.Service.Name = "web"
	m.Config.Service.Address = "here"
	m.Came("service.address", "Consul registration web")
	_, err = m.Loaded("made")
	var all Problems
	if !errors.As(err, &all) || len(all) != 1 || all[0].Error() != `Consul registration web: service.address: is "here"; write an IP address such as 127.0.0.1, or the path of a Unix socket as unix:/PATH` {
		t.Errorf("a wrong value gives %v", err)
	}
}

// A configuration made in code is checked, completed and shown as one of a file.
func TestMade(t *testing.T) {
	c := Default()
	if _, err := Made("nothing", &c, nil); err == nil || err.Error() != "nothing: service.name: is required; name the service this proxy stands beside" {
		t.Errorf("one without name gives %v", err)
	}
	c = Default()
	c.Service.Name = "web"
	l, err := Made("made", &c, map[string]string{"service.name": "Consul registration web"})
	if err != nil {
		t.Fatal(err)
	}
	if o := l.Origin("service.name").String(); o != "Consul registration web" {
		t.Errorf("its name is from %s", o)
	}
	if o := l.Origin("service.port").String(); o != "default" {
		t.Errorf("its port is from %s", o)
	}
	if l.Config.Inbound.Protocol != ProtocolHTTP {
		t.Errorf("what follows from other values is not filled in: %q", l.Config.Inbound.Protocol)
	}
	var b strings.Builder
	if err := l.WriteEffective(&b); err != nil || !strings.Contains(b.String(), "# Consul registration web\n") {
		t.Errorf("it is shown as %s, %v", b.String(), err)
	}
}

// What lies below Consul's words for a sidecar is valid by itself without a
// name, an identity or the upstreams that its policies are for.
func TestBelowMesh(t *testing.T) {
	const text = "discovery: {consul: %s}\ninbound: {listen: \"127.0.0.1:7000\"}\npolicies: {api: {timeout: 5s}}\n"
	if _, err := Parse("base.yaml", []byte(fmt.Sprintf(text, "{sidecar: {for: web}}"))); err != nil {
		t.Error(err)
	}
	_, err := Parse("base.yaml", []byte(fmt.Sprintf(text, "{}")))
	var all Problems
	if !errors.As(err, &all) || len(all) != 4 {
		t.Errorf("without a sidecar it has the mistakes %v", err)
	}
}
