package peers

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/file"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func params(role Role, log bool) Params {
	return Params{
		Role: role, Dir: "/run/bench", AccessLog: log,
		Listen:    netip.MustParseAddrPort("127.0.0.1:8001"),
		Protocol:  HTTP,
		Cores:     1,
		Upstreams: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9000")},
		Admin:     netip.MustParseAddrPort("127.0.0.1:8002"),
		Certs: Certs{
			Cert: "/run/bench/web.pem", Key: "/run/bench/web.key", Pair: "/run/bench/web.pair.pem", Bundle: "/run/bench/ca.pem",
			PeerName: "origin", PeerID: "spiffe://bench.test/origin",
		},
	}
}

// all are the templates that stand for a subject, or a part of one.
var all = []string{"nginx", "haproxy", "envoy", "nghttpx", "caddy", "traefik", "traefik-dynamic", "outrigger", "outrigger-catalog"}

func TestGoldens(t *testing.T) {
	for _, name := range all {
		for _, role := range []Role{Plain, Outbound, Inbound} {
			// Each template is seen with access logs on in one role and off in the others.
			golden(t, name, string(role), params(role, role == Outbound))
		}
		// And with each protocol, with two endpoints and two cores.
		for _, protocol := range []Protocol{HTTP2, GRPC, TCP} {
			if protocol == TCP && (name == "nghttpx" || name == "caddy") || protocol == HTTP2 && name == "nginx" {
				continue // they do not carry it
			}
			p := params(Plain, false)
			p.Protocol, p.Cores = protocol, 2
			p.Upstreams = append(p.Upstreams, netip.MustParseAddrPort("127.0.0.2:9000"))
			golden(t, name, string(protocol), p)
		}
	}
	// Pairs that carry gRPC and TCP between them.
	for _, name := range all {
		for _, protocol := range []Protocol{GRPC, TCP} {
			if protocol == TCP && (name == "nghttpx" || name == "caddy") {
				continue
			}
			for _, role := range []Role{Outbound, Inbound} {
				p := params(role, false)
				p.Protocol = protocol
				golden(t, name, string(role)+"-"+string(protocol), p)
			}
		}
	}
	for _, name := range []string{"outrigger", "outrigger-catalog"} {
		for _, guards := range []string{"all", "none"} {
			p := params(Plain, false)
			p.Guards = guards
			golden(t, name, "guards-"+guards, p)
		}
	}
	for _, name := range []string{"haproxy", "envoy"} {
		for _, role := range []Role{Outbound, Inbound} {
			p := params(role, false)
			p.HopH2 = true
			golden(t, name, string(role)+"-h2", p)
		}
	}
}

func golden(t *testing.T, name, variant string, p Params) {
	t.Helper()
	got, err := Render(name, p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+"."+variant)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update and look at the difference. Got:\n%s", path, got)
	}
}

// TestGuards holds that with all guards on there is none that is off, and with none
// that there is none on.
func TestGuards(t *testing.T) {
	for _, guards := range []string{"all", "none"} {
		for _, protocol := range []Protocol{HTTP, GRPC} {
			p := params(Plain, false)
			p.Guards, p.Protocol = guards, protocol
			text, err := Render("outrigger", p)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "outrigger.yaml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			loaded, err := config.Load(path)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			c := loaded.Config
			policy := c.Policy("origin")
			for what, on := range map[string]bool{
				"timeout": policy.Timeout > 0, "retry": policy.Retry != nil, "hedge": policy.Hedge != nil, "outlier": policy.Outlier != nil,
				"caution": policy.Outlier != nil && policy.Outlier.Caution != nil, "health": policy.Health != nil, "breaker": policy.Breaker != nil,
				"admission": policy.Admission != nil, "adaptive": policy.Adaptive != nil, "queue": policy.Limits.Queue != nil,
				"limits": policy.Limits.MaxRequests+policy.Limits.MaxRequestsPerEndpoint+policy.Limits.MaxPending > 0, "priorities": len(policy.Priorities) > 0,
				"rate limits": len(policy.RateLimits) > 0, "zones": policy.Balance.Zones.Prefer, "faults": c.Faults.Allow,
				"ledger": c.Telemetry.Ledger.SizeBytes > 0, "outcomes": c.Telemetry.Outcomes.Path != "",
			} {
				if on != (guards == "all") {
					t.Errorf("%s over %s: %s is on: %v", guards, protocol, what, on)
				}
			}
		}
	}
}

// TestOutriggerTakesItsConfig holds the template to the configuration language.
func TestOutriggerTakesItsConfig(t *testing.T) {
	for _, role := range []Role{Plain, Outbound, Inbound} {
		for _, log := range []bool{true, false} {
			p := params(role, log)
			p.Profile = log
			text, err := Render("outrigger", p)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "outrigger.yaml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			loaded, err := config.Load(path)
			if err != nil {
				t.Errorf("%s: %v\n%s", role, err, text)
				continue
			}
			c := loaded.Config
			if (c.Inbound.Listen == "127.0.0.1:8001" && c.Service.Port == 9000) != (role == Inbound) || (len(c.Outbound.Upstreams) == 1) == (role == Inbound) {
				t.Errorf("%s: inbound %q to port %d, upstreams %v", role, c.Inbound.Listen, c.Service.Port, c.Outbound.Upstreams)
			}
			if c.Admin.Pprof != p.Profile {
				t.Errorf("%s: pprof %v", role, c.Admin.Pprof)
			}
			if c.Identity.Configured() != (role != Plain) {
				t.Errorf("%s: identity %+v", role, c.Identity)
			}
		}
	}
}

func TestOutriggerTakesItsCatalog(t *testing.T) {
	text, err := Render("outrigger-catalog", params(Plain, false))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	services, err := file.Load(path)
	if err != nil || len(services) != 1 || len(services[0].Endpoints) != 1 || services[0].Endpoints[0].Address.String() != "127.0.0.1:9000" {
		t.Fatalf("%+v, %v", services, err)
	}
}

// TestOutriggerTakesEveryProtocol holds the template to the protocols, as far
// as the configuration language has them.
func TestOutriggerTakesEveryProtocol(t *testing.T) {
	for _, protocol := range []Protocol{HTTP, HTTP2, GRPC, TCP} {
		p := params(Plain, false)
		p.Protocol = protocol
		text, err := Render("outrigger", p)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "outrigger.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := config.Load(path)
		if err != nil {
			if protocol == HTTP || protocol == TCP || !strings.Contains(err.Error(), "protocol") {
				t.Errorf("%s: %v", protocol, err)
			}
			continue
		}
		if got := loaded.Config.Outbound.Upstreams[0].Protocol; string(got) != string(protocol) {
			t.Errorf("%s came out as %s", protocol, got)
		}
	}
}

// TestTemplatesSayWhatTheyAre wants a comment at the top of each.
func TestTemplatesSayWhatTheyAre(t *testing.T) {
	entries, err := files.ReadDir(".")
	if err != nil || len(entries) != len(all) {
		t.Fatalf("%d templates, %v", len(entries), err)
	}
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# ") {
			t.Errorf("%s does not say what it is", e.Name())
		}
	}
}

func TestRenderUnknown(t *testing.T) {
	if _, err := Render("apache", Params{}); err == nil {
		t.Fatal("no error")
	}
}
