package archtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// floors says which of our packages may import which. It is a statement of
// policy in the shape of the standard library's go/build/deps_test.go:
// "a, b < c, d" means that c and d may import a and b and all that those may.
// Lowest floor first. A package that is not named here fails the test.
//
// Do not relax a line to make a build pass: an import that a rule forbids most
// often means that code stands in the wrong package.
const floors = `
	# Floor 0: words, and machines that import no other package of ours.
	NONE
	< internal/lifecycle, resilience/guard, resilience/hand, mtls, discovery,
	  proxy/outcome, proxy/http1, proxy/detect, proxy/memory, proxy/websocket, proxy/names, internal/cgroup,
	  resilience/ratelimit, resilience/queue, internal/hist, internal/chart;

	proxy/memory < proxy/wire;

	# What stands between an application and the proxy: the kernel. It knows neither.
	NONE < proxy/intercept;

	resilience/guard
	< resilience/adaptive, resilience/breaker, resilience/fault, resilience/health, resilience/outlier, resilience/retry;
	resilience/guard, resilience/queue < resilience/limit;
	resilience/guard < resilience/orca;
	resilience/orca < resilience/balance;

	resilience/retry < resilience/admission, resilience/hedge;

	# Floor 1: what outcomes mean to the machines, and all of them on a virtual clock.
	proxy/outcome, resilience/breaker, resilience/outlier, resilience/retry < resilience/verdict;
	resilience/verdict, resilience/balance, resilience/adaptive, resilience/admission, resilience/hedge, resilience/limit, resilience/queue, internal/hist < resilience/replay;

	# Floor 1: sources of identity and endpoints, authorization, telemetry.
	mtls < mtls/workload, mtls/consulca, mtls/devca;
	proxy/http1 < mtls/jwt < mtls/jwks;
	mtls, mtls/jwt, resilience/guard < mtls/authz;
	discovery < discovery/consul, discovery/dns, discovery/file;
	discovery/consul < discovery/consul/mesh;
	proxy/outcome < telemetry;
	mtls, proxy/http1, resilience/breaker, resilience/ratelimit < proxy/limiter;
	resilience/hand < telemetry/admin;
	proxy/outcome, resilience/breaker, resilience/retry < telemetry/ledger;
	proxy/outcome, resilience/breaker, resilience/outlier, resilience/retry < telemetry/outcomes;

	# Floor 2: the language of configuration. It embeds the Config of each
	# machine and each source: a knob lives beside what obeys it. The codec says
	# which names, values and paths there can be.
	mtls, mtls/authz, mtls/consulca, proxy/http1, proxy/memory, proxy/limiter, proxy/names, proxy/websocket,
	discovery/consul, discovery/dns, discovery/file,
	resilience/adaptive, resilience/admission, resilience/balance, resilience/breaker, resilience/fault, resilience/health, resilience/hedge, resilience/limit, resilience/outlier, resilience/ratelimit, resilience/retry,
	telemetry/ledger, telemetry/outcomes
	< config;
	config, proxy/outcome < config/internal/docgen;
	config, resilience/replay < resilience/scenario;
	resilience/scenario, internal/chart < resilience/simulate;

	# Floor 3: the data plane. None of it may import config or discovery.
	proxy/http1, proxy/wire < proxy/http2;
	proxy/http2, proxy/websocket < proxy/relay;
	mtls, telemetry, proxy/outcome, proxy/wire, proxy/http2, proxy/websocket,
	resilience/adaptive, resilience/admission, resilience/balance, resilience/breaker, resilience/hand, resilience/health, resilience/hedge, resilience/limit, resilience/outlier, resilience/ratelimit, resilience/verdict,
	telemetry/outcomes
	< proxy/upstream;
	proxy/http1, proxy/upstream < proxy/check;
	mtls/authz, proxy/http1, proxy/limiter, resilience/fault, proxy/upstream < proxy/plan;
	proxy/plan < proxy/faults, proxy/datagram;
	proxy/faults, proxy/detect, proxy/relay, telemetry/ledger < proxy/exchange;
	proxy/exchange < proxy/listener;

	# Floor 4: where configuration becomes a plan, and all of it a proxy.
	config < config/lint;
	config, discovery/consul/mesh, mtls/authz, mtls/consulca < proxy/sidecar;
	config, proxy/plan, mtls/jwks < proxy/compile;
	telemetry/admin, proxy/compile, proxy/exchange < proxy/explain;
	internal/lifecycle, mtls/workload, proxy/check, proxy/datagram, proxy/explain, proxy/listener, proxy/sidecar
	< proxy;

	# Floor 5: programs.
	proxy, mtls/devca < internal/demo;
	config, telemetry/outcomes, resilience/replay, internal/chart < internal/rerun;
	internal/rerun < internal/advise;
	NONE < internal/dropin;
	config/lint, internal/demo, internal/dropin, internal/cgroup, internal/advise, resilience/simulate, proxy/intercept < cmd/outrigger;
	proxy/intercept < cmd/outrigger-cni;

	# The benchmark knows no package of the product, but its histogram and its drawing: it runs the binary.
	NONE < bench/h2, bench/peers, bench/procstat, bench/socket;
	internal/chart < bench/report;
	bench/h2, bench/socket < bench/origin;
	internal/hist, bench/origin < bench/load;
	bench/load, bench/origin, bench/peers, bench/procstat, bench/report < bench;

	# For tests only.
	NONE < internal/testkit, internal/archtest, internal/e2e, examples;
`

// planned have their floor before they are there.
var planned = []string{}

// hotPath is what a request passes through.
var hotPath = []string{
	"proxy/wire", "proxy/http1", "proxy/detect", "proxy/http2", "proxy/websocket", "proxy/relay", "proxy/outcome", "proxy/upstream", "proxy/plan", "proxy/faults", "proxy/check", "proxy/datagram", "proxy/exchange", "proxy/listener",
}

// machines are the pure ones: they are told the time and given random words.
var machines = []string{
	"resilience/adaptive",
	"resilience/admission",
	"resilience/balance",
	"resilience/breaker",
	"resilience/fault",
	"resilience/guard",
	"resilience/hand",
	"resilience/health",
	"resilience/hedge",
	"resilience/limit",
	"resilience/orca",
	"resilience/outlier",
	"resilience/queue",
	"resilience/ratelimit",
	"resilience/replay",
	"resilience/retry",
	"resilience/verdict",
}

// never are imports that no floor forbids by itself. A prefix that ends in a
// slash stands for all below it.
var never = []struct {
	in     []string
	banned []string
	reason string
}{
	{
		hotPath,
		[]string{
			module + "/config", module + "/discovery", module + "/discovery/", "flag",
			"github.com/goccy/", "github.com/hashicorp/", "google.golang.org/protobuf/", "google.golang.org/grpc",
		},
		"the request path reads compiled plans and atomic counters, nothing that must be interpreted",
	},
	{
		machines,
		[]string{"net", "net/", "os", "os/", "log", "log/", "io", "context", "math/rand", "math/rand/", "syscall", "runtime"},
		"a machine is a function of what it is told; only so can it be replayed",
	},
	{
		[]string{"mtls", "mtls/workload", "mtls/consulca", "mtls/authz", "mtls/jwt"},
		[]string{"net/http"},
		"identity is below the protocols that use it",
	},
	{
		[]string{"resilience/balance", "proxy/plan", "proxy/http1", "proxy/detect", "proxy/wire", "proxy/relay"},
		[]string{"log/slog", "log"},
		"what happens here is told by the record of the exchange, not by log lines",
	},
	{
		[]string{"discovery", "discovery/consul", "discovery/consul/mesh", "discovery/dns", "discovery/file"},
		[]string{module + "/proxy", module + "/proxy/"},
		"discovery and proxy meet only in config, compile and the facade",
	},
}

// libraries says where each outside module may be imported, so that a library
// can be replaced by changing one place. docs/adr/0006-dependencies.md argues each.
var libraries = map[string][]string{
	"github.com/fsnotify/fsnotify":    {"mtls", "discovery/file", "cmd/outrigger"},
	"github.com/go-jose/go-jose/v4":   {"mtls/jwt"},
	"github.com/goccy/go-yaml":        {"config", "discovery/file", "cmd/outrigger", "cmd/outrigger-cni"},
	"github.com/google/nftables":      {"proxy/intercept"},
	"github.com/mdlayher/netlink":     {"proxy/intercept"},
	"github.com/hashicorp/consul/api": {"discovery/consul"},
	"github.com/miekg/dns":            {"proxy/names"},
	"github.com/prometheus/":          {"telemetry"},
	"go.opentelemetry.io/":            {"telemetry"},
	"github.com/sony/gobreaker/v2":    {"resilience/breaker"},
	"github.com/spf13/cobra":          {"cmd/outrigger"},
	"github.com/spf13/pflag":          {"cmd/outrigger"},
	"github.com/spiffe/go-spiffe/v2/": {"mtls/workload", "mtls/devca"},
	"google.golang.org/grpc":          {"mtls/workload", "mtls/devca", "proxy/limiter", "mtls/consulca"},
	"golang.org/x/sys/unix":           {"internal/testkit", "mtls/devca", "proxy/intercept", "proxy/relay", "proxy/wire", "internal/demo", "bench", "bench/load", "bench/origin", "bench/procstat", "bench/socket"},
	"golang.org/x/net/http2/hpack":    {"proxy/http2", "bench/h2", "bench/load", "bench/origin"},
	"golang.org/x/term":               {"internal/demo", "cmd/outrigger"},
}

func TestFloors(t *testing.T) {
	allowed := parseFloors(t, floors)
	pkgs := ours(t)
	for _, path := range slices.Sorted(maps.Keys(pkgs)) {
		may, ok := allowed[path]
		if !ok {
			t.Errorf("%s stands on no floor; give it a line in internal/archtest/deps_test.go", path)
			continue
		}
		for _, imp := range pkgs[path].Imports {
			if below, ok := strings.CutPrefix(imp, module+"/"); ok && !may[below] {
				t.Errorf("%s imports %s, which is not on a floor below it", path, below)
			}
		}
	}
	for path := range allowed {
		if pkgs[path] == nil && !slices.Contains(planned, path) {
			t.Errorf("the floors name %s, which does not exist", path)
		}
	}
}

func TestNever(t *testing.T) {
	pkgs := ours(t)
	for _, rule := range never {
		for _, path := range rule.in {
			p := pkgs[path]
			if p == nil {
				t.Errorf("a rule names %s, which does not exist", path)
				continue
			}
			for _, imp := range p.Imports {
				for _, bad := range rule.banned {
					if matches(imp, bad) {
						t.Errorf("%s imports %s: %s", path, imp, rule.reason)
					}
				}
			}
		}
	}
}

// The hot path does not reach configuration or discovery by way of others
// either.
func TestHotPathReach(t *testing.T) {
	pkgs := ours(t)
	for _, path := range hotPath {
		seen := map[string]bool{}
		var walk func(string, []string)
		walk = func(p string, way []string) {
			if seen[p] || pkgs[p] == nil {
				return
			}
			seen[p] = true
			way = append(way, p)
			if p == "config" || strings.HasPrefix(p, "discovery") {
				t.Errorf("%s", strings.Join(way, " imports "))
			}
			for _, imp := range pkgs[p].Imports {
				if below, ok := strings.CutPrefix(imp, module+"/"); ok {
					walk(below, slices.Clone(way))
				}
			}
		}
		walk(path, nil)
	}
}

func TestLibraries(t *testing.T) {
	for path, p := range ours(t) {
		for _, imp := range p.Imports {
			first, _, _ := strings.Cut(imp, "/")
			if strings.HasPrefix(imp, module) || !strings.Contains(first, ".") {
				continue
			}
			in, ok := libraryOf(imp)
			switch {
			case !ok:
				t.Errorf("%s imports %s, which no decision covers; argue it in docs/adr and add it here", path, imp)
			case !slices.Contains(in, path):
				t.Errorf("%s imports %s, which belongs in %s only", path, imp, strings.Join(in, ", "))
			}
		}
	}
}

// libraryOf returns where imp may be imported, by the longest entry that
// covers it.
func libraryOf(imp string) (in []string, ok bool) {
	longest := ""
	for lib, where := range libraries {
		if (imp == lib || strings.HasPrefix(imp, strings.TrimSuffix(lib, "/")+"/")) && len(lib) > len(longest) {
			longest, in, ok = lib, where, true
		}
	}
	return in, ok
}

func matches(imp, rule string) bool {
	return imp == rule || strings.HasSuffix(rule, "/") && strings.HasPrefix(imp, rule)
}

// parseFloors returns what every package may import.
func parseFloors(t *testing.T, text string) map[string]map[string]bool {
	t.Helper()
	allowed := map[string]map[string]bool{"NONE": {}}
	var clean []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		clean = append(clean, strings.TrimSpace(line))
	}
	for stmt := range strings.SplitSeq(strings.Join(clean, " "), ";") {
		if strings.TrimSpace(stmt) == "" {
			continue
		}
		levels := strings.Split(stmt, "<")
		for i := 1; i < len(levels); i++ {
			for _, upper := range names(levels[i]) {
				if allowed[upper] == nil {
					allowed[upper] = map[string]bool{}
				}
				for _, lower := range names(levels[i-1]) {
					if allowed[lower] == nil {
						t.Fatalf("floors: %s is used before it has a floor, in %q", lower, stmt)
					}
					allowed[upper][lower] = true
					maps.Copy(allowed[upper], allowed[lower])
				}
			}
		}
	}
	delete(allowed, "NONE")
	return allowed
}

func names(s string) (list []string) {
	for n := range strings.SplitSeq(s, ",") {
		if n = strings.TrimSpace(n); n != "" {
			list = append(list, n)
		}
	}
	return list
}

// The rules must be able to fail.
func TestParseFloors(t *testing.T) {
	got := parseFloors(t, "NONE < a, b; # low\n a < c < d; b, c < e;")
	for path, want := range map[string]string{"a": "[NONE]", "c": "[NONE a]", "d": "[NONE a c]", "e": "[NONE a b c]"} {
		if s := fmt.Sprint(slices.Sorted(maps.Keys(got[path]))); s != want {
			t.Errorf("%s may import %s, want %s", path, s, want)
		}
	}
	if got["b"]["a"] || got["c"]["b"] {
		t.Error("packages of one floor may import each other")
	}
}

// Every direct requirement of go.mod is argued in the decision about
// dependencies.
func TestDependenciesAreArgued(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	adr, err := os.ReadFile(filepath.Join(root, "docs/adr/0006-dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) != 2 || !strings.HasPrefix(f[1], "v") {
			continue // anything else, and what is marked as indirect
		}
		if !strings.Contains(string(adr), f[0]) {
			t.Errorf("docs/adr/0006-dependencies.md says nothing about %s", f[0])
		}
	}
}
