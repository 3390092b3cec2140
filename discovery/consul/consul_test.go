package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

type object = map[string]any

// put registers an instance of api with a check in a state.
func put(t *testing.T, c *testkit.ConsulAgent, id string, port int, state string, more object) {
	t.Helper()
	body := object{
		"ID": id, "Name": "api", "Address": "10.0.0.1", "Port": port,
		"Check": object{"CheckID": id, "TTL": "1h", "Status": state},
	}
	for k, v := range more {
		body[k] = v
	}
	c.Do(t, "PUT", "/v1/agent/service/register", body)
}

// list puts an instance of api straight into the catalog, on another node. An
// agent that has just started may take half a minute to pass on what is
// registered with it, and forgets the state that a check was registered with.
func list(t *testing.T, c *testkit.ConsulAgent, id string, port int) {
	t.Helper()
	c.Do(t, "PUT", "/v1/catalog/register", object{
		"Node": "node-2", "Address": "10.0.0.2",
		"Service": object{"ID": id, "Service": "api", "Address": "10.0.0.1", "Port": port},
	})
}

func TestConsulFollowsInstances(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{})
	put(t, agent, "a", 81, "passing", object{"Weights": object{"Passing": 3, "Warning": 2}})
	cfg := Default()
	cfg.Address = agent.Address
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, _ := follow(t, s, "api", "nothing")
	l.expect(t, "api 10.0.0.1:81*3")
	put(t, agent, "b", 82, "passing", nil)
	l.expect(t, "api 10.0.0.1:81*3 10.0.0.1:82")
	agent.Do(t, "PUT", "/v1/agent/check/warn/a", nil)
	l.expect(t, "api 10.0.0.1:81*2:warning 10.0.0.1:82")
	agent.Do(t, "PUT", "/v1/agent/check/fail/b", nil)
	l.expect(t, "api 10.0.0.1:81*2:warning 10.0.0.1:82:critical")
	agent.Do(t, "PUT", "/v1/agent/service/maintenance/a?enable=true", nil)
	l.expect(t, "api 10.0.0.1:81*3:critical 10.0.0.1:82:critical")
	agent.Do(t, "PUT", "/v1/agent/service/deregister/a", nil)
	l.expect(t, "api 10.0.0.1:82:critical")
	agent.Do(t, "PUT", "/v1/agent/service/deregister/b", nil)
	l.expect(t, "api")
	for _, w := range s.Status() {
		if w.LastError != "" || w.Warning != "" || w.Index == 0 || w.Age < 0 || w.Endpoints != 0 {
			t.Errorf("status %+v", w)
		}
	}
}

func TestConsulSelection(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{Datacenter: "north"})
	put(t, agent, "a", 81, "passing", object{"Tags": []string{"blue"}, "Meta": object{"v": "1"}})
	put(t, agent, "b", 82, "critical", object{"Tags": []string{"blue"}, "Meta": object{"v": "2"}})
	put(t, agent, "c", 83, "passing", object{"Tags": []string{"red"}, "Meta": object{"v": "2"}, "Address": ""})
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"all", func(c *Config) {}, "api 10.0.0.1:81 10.0.0.1:82:critical 127.0.0.1:83"},
		{"tag", func(c *Config) { c.Tag = "blue" }, "api 10.0.0.1:81 10.0.0.1:82:critical"},
		{"filter", func(c *Config) { c.Filter = `Service.Meta.v == "2"` }, "api 10.0.0.1:82:critical 127.0.0.1:83"},
		{"only passing", func(c *Config) { c.OnlyPassing = true }, "api 10.0.0.1:81 127.0.0.1:83"},
		{"datacenter", func(c *Config) { c.Datacenter = "north" }, "api 10.0.0.1:81 10.0.0.1:82:critical 127.0.0.1:83"},
		{"other datacenter", func(c *Config) { c.Datacenter = "south" }, "~No path to datacenter"},
		{"bad filter", func(c *Config) { c.Filter = "==" }, "~Failed to create boolean expression evaluator"},
		{"consistent", func(c *Config) { c.Stale = false }, "api 10.0.0.1:81 10.0.0.1:82:critical 127.0.0.1:83"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Default()
			cfg.Address = agent.Address
			tt.change(&cfg)
			s, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			l, stop := follow(t, s, "api")
			l.expect(t, tt.want)
			stop()
		})
	}
}

// Consul stopped: the last good data stays and the trouble is shown. Started
// again, with the same data and then as a new cluster: followed again.
func TestConsulStoppedAndStarted(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{})
	list(t, agent, "a", 81)
	for i := range 50 { // brings the index of this cluster above that of a new one
		agent.Do(t, "PUT", "/v1/kv/x", i)
	}
	list(t, agent, "b", 82)
	cfg := Default()
	cfg.Address = agent.Address
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, _ := follow(t, s, "api")
	l.expect(t, "api 10.0.0.1:81 10.0.0.1:82")
	agent.Stop(t)
	l.expect(t, "~api failed: consul at "+agent.Address)
	if w := s.Status()[0]; w.Endpoints != 2 || w.LastError == "" {
		t.Errorf("status %+v", w)
	}
	agent.Start(t)
	l.expect(t, "api 10.0.0.1:81 10.0.0.1:82")
	list(t, agent, "c", 83)
	l.expect(t, "api 10.0.0.1:81 10.0.0.1:82 10.0.0.1:83")

	agent.Stop(t)
	agent.Wipe(t)
	agent.Start(t)
	list(t, agent, "d", 84)
	l.expect(t, "api 10.0.0.1:84")
	list(t, agent, "e", 85)
	l.expect(t, "api 10.0.0.1:84 10.0.0.1:85")
	if w := s.Status()[0]; w.LastError != "" {
		t.Errorf("status %+v", w)
	}
}

// token makes a token that may do what rules say; it returns accessor and secret.
func token(t *testing.T, agent *testkit.ConsulAgent, name, rules string) (string, string) {
	t.Helper()
	agent.Do(t, "PUT", "/v1/acl/policy", object{"Name": name, "Rules": rules})
	var got struct{ AccessorID, SecretID string }
	if err := json.Unmarshal(agent.Do(t, "PUT", "/v1/acl/token", object{"Policies": []object{{"Name": name}}}), &got); err != nil {
		t.Fatal(err)
	}
	return got.AccessorID, got.SecretID
}

func TestConsulTokens(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{ACL: true})
	put(t, agent, "a", 81, "passing", nil)
	accessor, good := token(t, agent, "reader", `service "api" { policy = "read" } node_prefix "" { policy = "read" }`)
	_, noNode := token(t, agent, "no-node", `service "api" { policy = "read" }`)
	_, other := token(t, agent, "other", `service "web" { policy = "read" } node_prefix "" { policy = "read" }`)
	path := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	run := func(cfg Config) (*Source, lines) {
		t.Helper()
		cfg.Address, cfg.Stale = agent.Address, true
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l, _ := follow(t, s, "api")
		return s, l
	}

	// Rights that are missing never look like a service without instances.
	for _, tt := range []struct{ name, token string }{
		{"of another service", other}, {"without node:read", noNode},
	} {
		_, l := run(Config{Token: tt.token})
		got := l.expect(t, "~api failed: ")
		if !strings.Contains(got, `403`) || !strings.Contains(got, `needs service:read on "api" and node:read`) {
			t.Errorf("%s: got %q", tt.name, got)
		}
	}

	// Consul does not tell the anonymous token what it hides.
	open, l := run(Config{})
	l.expect(t, "api")
	if w := open.Status()[0]; !strings.Contains(w.Warning, "there is no ACL token") {
		t.Errorf("status %+v", w)
	}

	// A wrong token in the file, replaced by a good one without a restart.
	write("00000000-0000-4000-8000-000000000bad")
	var s *Source
	s, l = run(Config{TokenFile: path})
	l.expect(t, "~api failed: consul at "+agent.Address+" answered Unexpected response code: 403 (ACL not found); the ACL token needs")
	if w := s.Status()[0]; !strings.Contains(w.LastError, "403") || w.Age != -1 {
		t.Errorf("status %+v", w)
	}
	write(good)
	l.expect(t, "api 10.0.0.1:81")
	put(t, agent, "b", 82, "passing", nil)
	l.expect(t, "api 10.0.0.1:81 10.0.0.1:82")

	// The token is revoked while a query waits with it: the endpoints stay.
	agent.Do(t, "DELETE", "/v1/acl/token/"+accessor, nil)
	l.expect(t, "~api failed: ")
	if w := s.Status()[0]; w.Endpoints != 2 || w.LastError == "" {
		t.Errorf("status %+v", w)
	}
	_, next := token(t, agent, "reader2", `service "api" { policy = "read" } node_prefix "" { policy = "read" }`)
	write(next)
	l.expect(t, "api 10.0.0.1:81 10.0.0.1:82")
	put(t, agent, "c", 83, "passing", nil)
	l.expect(t, "api 10.0.0.1:81 10.0.0.1:82 10.0.0.1:83")
}

// startRegistrar runs a registrar until the returned function is called or the test ends.
func startRegistrar(t *testing.T, cfg Config, in Instance) (*Registrar, func()) {
	t.Helper()
	in.Logger = slog.New(slog.DiscardHandler)
	r, err := NewRegistrar(cfg, in)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	ended := false
	stop := func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return r, stop
}

func watchAPI(t *testing.T, agent *testkit.ConsulAgent) (*Source, lines) {
	t.Helper()
	s, err := New(Config{Address: agent.Address, Token: agent.Token})
	if err != nil {
		t.Fatal(err)
	}
	l, _ := follow(t, s, "api")
	return s, l
}

func TestConsulRegistration(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{ACL: true})
	_, l := watchAPI(t, agent)
	l.expect(t, "api")
	_, secret := token(t, agent, "writer", `service "api" { policy = "write" }`)
	cfg := Config{Address: agent.Address, Token: secret, Register: &Register{
		Tags: []string{"v1"}, Meta: map[string]string{"zone": "a"}, Check: &Check{TTL: 3 * time.Second},
	}}
	in := Instance{Service: "api", Listen: netip.MustParseAddrPort("127.0.0.1:7001")}
	r, stop := startRegistrar(t, cfg, in)
	l.expect(t, "api 127.0.0.1:7001")
	if got := r.Status(); got.ID != "api-127.0.0.1-7001" || !got.Registered || got.LastError != "" {
		t.Errorf("status %+v", got)
	}
	var have struct {
		Port int
		Tags []string
		Meta map[string]string
	}
	if err := json.Unmarshal(agent.Do(t, "GET", "/v1/agent/service/api-127.0.0.1-7001", nil), &have); err != nil {
		t.Fatal(err)
	}
	if len(have.Tags) != 1 || have.Tags[0] != "v1" || have.Meta["zone"] != "a" {
		t.Errorf("the agent has %+v", have)
	}

	// What the TTL check reports.
	r.SetStatus(discovery.Warning, "busy")
	l.expect(t, "api 127.0.0.1:7001:warning")
	r.SetStatus(discovery.Passing, "fine")
	l.expect(t, "api 127.0.0.1:7001")

	// Lost, changed by someone, and lost with its check only. What others see
	// in between is too short to be relied on.
	again := func(how string, do func()) {
		t.Helper()
		before := r.Status().Registrations
		do()
		await(t, how, func() bool { return r.Status().Registrations > before })
		if err := json.Unmarshal(agent.Do(t, "GET", "/v1/agent/service/api-127.0.0.1-7001", nil), &have); err != nil {
			t.Fatal(err)
		}
		if have.Port != 7001 || len(have.Tags) != 1 {
			t.Errorf("%s: the agent has %+v", how, have)
		}
	}
	again("lost", func() { agent.Do(t, "PUT", "/v1/agent/service/deregister/api-127.0.0.1-7001", nil) })
	again("changed", func() {
		agent.Do(t, "PUT", "/v1/agent/service/register", object{"ID": "api-127.0.0.1-7001", "Name": "api", "Address": "127.0.0.1", "Port": 9})
	})
	again("lost its check", func() { agent.Do(t, "PUT", "/v1/agent/check/deregister/service:api-127.0.0.1-7001", nil) })
	r.SetStatus(discovery.Warning, "the check must be there for this")
	l.expect(t, "api 127.0.0.1:7001:warning")
	stop()
	l.expect(t, "api")
	if got := r.Status(); got.Registered {
		t.Errorf("status after the end %+v", got)
	}
}

func TestConsulRegistrationSurvivesANewAgent(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{})
	_, l := watchAPI(t, agent)
	health, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer health.Close()
	go func() {
		for {
			c, err := health.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	cfg := Config{Address: agent.Address, Register: &Register{
		ID: "mine", Port: 7002, Check: &Check{TCP: health.Addr().String(), Interval: time.Second},
	}}
	r, stop := startRegistrar(t, cfg, Instance{Service: "api", Listen: netip.MustParseAddrPort("0.0.0.0:1")})
	l.expect(t, "api 127.0.0.1:7002") // passing after the agent's first check
	agent.Stop(t)
	agent.Wipe(t)
	agent.Start(t)
	// Who watches may see no difference: the new entry can be as the old one was.
	await(t, "a second registration", func() bool { return r.Status().Registrations > 1 })
	await(t, "the new entry to pass", func() bool {
		return strings.Contains(string(agent.Do(t, "GET", "/v1/health/service/api?passing", nil)), "7002")
	})

	// Before a drain: taken away, and not put back although Run goes on.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Deregister(ctx); err != nil {
		t.Fatalf("Deregister: %v", err)
	}
	l.expect(t, "api")
	if err := r.Deregister(ctx); err != nil {
		t.Errorf("a second Deregister: %v", err)
	}
	n := r.Status().Registrations
	stop()
	if got := r.Status(); got.Registrations != n || got.Registered {
		t.Errorf("status after the end %+v", got)
	}
}

func TestRegistrarWithoutAgent(t *testing.T) {
	addr := testkit.Nobody(0).String()
	r, stop := startRegistrar(t, Config{Address: addr, Register: &Register{Port: 1}}, Instance{Service: "api"})
	await(t, "an error to be shown", func() bool { return r.Status().LastError != "" })
	if got := r.Status(); got.Registered || !strings.Contains(got.LastError, "consul at "+addr) {
		t.Errorf("status %+v", got)
	}
	stop() // returns although the agent cannot be told
}

func TestNewRegistrar(t *testing.T) {
	for _, tt := range []struct {
		name string
		reg  *Register
		in   Instance
		want string
	}{
		{"no section", nil, Instance{Service: "api"}, "is not set"},
		{"no name", &Register{Port: 1}, Instance{}, "cannot be the name"},
		{"a path", &Register{Port: 1}, Instance{Service: "a/b"}, "cannot be the name"},
		{"no port", &Register{}, Instance{Service: "api"}, "register.port is not set"},
		{"bad section", &Register{Port: -1}, Instance{Service: "api"}, "register.port is -1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewRegistrar(Config{Register: tt.reg}, tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want one with %q", err, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		reg        Register
		listen, id string
	}{
		{Register{}, "10.0.0.1:80", "api-10.0.0.1-80"},
		{Register{}, "0.0.0.0:80", "api-80"},
		{Register{Address: "10.9.9.9"}, "[::]:80", "api-10.9.9.9-80"},
		{Register{ID: "x", Port: 81}, "0.0.0.0:80", "x"},
	} {
		got, err := registration(tt.reg, Instance{Service: "api", Listen: netip.MustParseAddrPort(tt.listen)})
		if err != nil || got.ID != tt.id {
			t.Errorf("%+v: got %q, %v", tt.reg, fmt.Sprint(got), err)
		}
	}
}
