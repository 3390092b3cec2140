package lint

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(t *testing.T, names ...string) (list []*config.Loaded) {
	t.Helper()
	for _, name := range names {
		l, err := config.Load(filepath.Join("testdata", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, l)
	}
	return list
}

func text(list []Finding) string {
	var b strings.Builder
	for i := range list {
		b.WriteString(list[i].String() + "\n")
	}
	return b.String()
}

// A mesh with one of everything that is looked for.
func TestMesh(t *testing.T) {
	m := Mesh{Configs: load(t, "web", "api", "db"), Instances: map[string]int{"web": 2, "api": 3, "db": 1, "stock": 2, "cache": 1}}
	got := text(Run(m))
	golden := filepath.Join("testdata", "mesh.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	slices.Reverse(m.Configs)
	if again := text(Run(m)); again != got {
		t.Errorf("in another order of files:\n%s", again)
	}
}

// What is asked about alone is all that decides.
func TestRules(t *testing.T) {
	const head = "service: {name: web}\ndiscovery: {consul: {}}\npolicies:\n  \"*\": {transport: plaintext}\n"
	for _, c := range []struct {
		name, policy, rule string
		instances          int
		severity           Severity
		want               bool
	}{
		{"two attempts do not fit", "{timeout: 1s, retry: {attempts: 3, per_try_timeout: 600ms}}", "attempts-do-not-fit", 0, Warning, true},
		{"three just do", "{timeout: 1s, retry: {attempts: 3, per_try_timeout: 400ms}}", "attempts-do-not-fit", 0, 0, false},
		{"no timeout for each", "{timeout: 1s, retry: {attempts: 3}}", "attempts-do-not-fit", 0, 0, false},
		{"observed", "{timeout: 1s, retry: {mode: observe, attempts: 3, per_try_timeout: 900ms}}", "attempts-do-not-fit", 0, 0, false},
		{"repeats", "{retry: {non_idempotent: true}}", "repeats-non-idempotent", 0, Warning, true},
		{"repeats nothing", "{retry: {attempts: 1, non_idempotent: true}}", "repeats-non-idempotent", 0, 0, false},
		{"all ejected", "{outlier: {max_ejected_percent: 100, keep_endpoints: 0}, balance: {panic_percent: 0}}", "ejection-empties-pool", 4, Error, true},
		{"all ejected, and used then", "{outlier: {max_ejected_percent: 100, keep_endpoints: 0}}", "ejection-empties-pool", 4, 0, false},
		{"most ejected", "{outlier: {max_ejected_percent: 75, keep_endpoints: 0}, balance: {panic_percent: 0}}", "ejection-empties-pool", 4, Warning, true},
		{"half ejected", "{outlier: {max_ejected_percent: 50, keep_endpoints: 0}, balance: {panic_percent: 0}}", "ejection-empties-pool", 4, 0, false},
		{"unknown how many", "{outlier: {max_ejected_percent: 100, keep_endpoints: 0}, balance: {panic_percent: 0}}", "ejection-empties-pool", 0, 0, false},
		{"kept all", "{outlier: {keep_endpoints: 3}}", "guard-never-acts", 3, Note, true},
		{"a hedge that comes too late", "{retry: {per_try_timeout: 100ms}, hedge: {delay: 100ms}}", "guard-never-acts", 0, Note, true},
		{"a hedge that never comes sooner", "{retry: {per_try_timeout: 100ms}, hedge: {min_delay: 150ms}}", "guard-never-acts", 0, Note, true},
		{"a hedge in time", "{retry: {per_try_timeout: 100ms}, hedge: {delay: 99ms}}", "guard-never-acts", 0, 0, false},
		{"a hedge to nobody else", "{hedge: {delay: 9ms}, outlier: off}", "guard-never-acts", 1, Note, true},
		{"a hedge to one other", "{hedge: {delay: 9ms}, outlier: off}", "guard-never-acts", 2, 0, false},
		{"kept all but one", "{outlier: {keep_endpoints: 3}}", "guard-never-acts", 4, 0, false},
	} {
		l, err := config.Parse("web.yaml", []byte(head+"  api: "+c.policy+"\noutbound: {upstreams: [{service: api, listen: \"127.0.0.1:1\"}]}\n"))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		m := Mesh{Configs: []*config.Loaded{l}}
		if c.instances > 0 {
			m.Instances = map[string]int{"api": c.instances}
		}
		list := Run(m)
		i := slices.IndexFunc(list, func(f Finding) bool { return f.Rule == c.rule })
		switch {
		case (i >= 0) != c.want:
			t.Errorf("%s: %s", c.name, text(list))
		case c.want && (list[i].Severity != c.severity || list[i].Line < 5 || list[i].Remedy == ""):
			t.Errorf("%s: %s", c.name, text(list))
		}
	}
}

// A chain of services multiplies its attempts; a ring of them is followed once.
func TestAmplification(t *testing.T) {
	identity, transport := "", "plaintext"
	chain := func(n int, retry string, ring bool) (list []*config.Loaded) {
		for i := range n {
			next := fmt.Sprintf("s%d", i+1)
			if ring && i == n-1 {
				next = "s0"
			}
			l, err := config.Parse(fmt.Sprintf("s%d.yaml", i), fmt.Appendf(nil, "service: {name: s%d}\ndiscovery: {consul: {}}\n%spolicies: {\"*\": {transport: %s, timeout: 1s, retry: %s}}\noutbound: {upstreams: [{service: %s, listen: \"127.0.0.1:1\"}]}\n", i, identity, transport, retry, next))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, l)
		}
		return list
	}
	find := func(list []Finding, part string) *Finding {
		for i := range list {
			if list[i].Rule == "retry-amplification" && strings.Contains(list[i].Message, part) {
				return &list[i]
			}
		}
		return nil
	}
	five := Run(Mesh{Configs: chain(5, "{attempts: 3, budget_percent: 100}", false)})
	if f := find(five, "3 x 3 x 3 x 3 x 3 = 243 at s5"); f == nil || f.Severity != Warning || !strings.Contains(f.Message, "32.00 times") || f.File != "s0.yaml" {
		t.Errorf("five layers: %s", text(five))
	}
	if f := find(Run(Mesh{Configs: chain(2, "{attempts: 3}", false)}), "= 9 at s2"); f == nil || f.Severity != Note {
		t.Errorf("two layers with budgets: %v", f)
	}
	if f := find(Run(Mesh{Configs: chain(5, "off", false)}), ""); f != nil {
		t.Errorf("without retries: %v", f)
	}
	// One layer repeats where sidecars can tell each other, and applications pass it on.
	meshed := func(layer string) []Finding {
		identity, transport = "identity: {trust_domain: t.test, files: {cert: c, key: k, bundle: b}}\n", "mtls"
		defer func() { identity, transport = "", "plaintext" }()
		list := chain(3, "{attempts: 3, budget_percent: 100"+layer+"}", false)
		return Run(Mesh{Configs: list})
	}
	if f := find(meshed(""), "= 27 at s3"); f == nil || f.Severity != Warning || !strings.Contains(f.Message, "it is 3 and 2.00 times") || !strings.Contains(f.Remedy, "fewer attempts") {
		t.Errorf("one layer, with a budget that allows twice the load: %+v", f)
	}
	if f := find(meshed(", budget_min_per_second: 0, layer: outermost"), "= 9 at s2"); f == nil || !strings.Contains(f.Message, "it is 3 and") {
		t.Errorf("one layer: %+v", f)
	}
	if f := find(meshed(", layer: every"), "= 27 at s3"); f == nil || f.Severity != Warning || strings.Contains(f.Message, "outermost") {
		t.Errorf("every layer: %+v", f)
	}
	ring := Run(Mesh{Configs: chain(3, "{attempts: 3}", true)})
	if find(ring, "s0 -> s1 -> s2:") == nil || find(ring, "s0 -> s1 -> s2 -> s0 -> s1") != nil {
		t.Errorf("a ring: %s", text(ring))
	}
}

func TestSeverities(t *testing.T) {
	for _, word := range []string{"note", "warning", "error"} {
		if s, err := ParseSeverity(word); err != nil || s.String() != word {
			t.Errorf("%s: %v %v", word, s, err)
		}
	}
	if _, err := ParseSeverity("fatal"); err == nil {
		t.Error("fatal is taken")
	}
}
