package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

var update = flag.Bool("update", false, "write the generated files anew")

// What is generated and committed must be what the sources say now.
func TestUpToDate(t *testing.T) {
	root, err := moduleRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := run(root); err != nil {
			t.Fatal(err)
		}
	}
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			t.Error(err)
		} else if string(got) != f.text {
			t.Errorf("%s is out of date; run go generate ./config, twice when descriptions changed", f.path)
		}
	}
}

func TestReferenceHasEveryKey(t *testing.T) {
	fields := config.Fields()
	text := configReference(fields)
	rows := strings.Count(text, "\n| `")
	top := 0
	for _, f := range fields {
		if parentOf(f.Path) == "" {
			top++
			if !strings.Contains(text, "\n## "+f.Path+"\n") {
				t.Errorf("no heading for %s", f.Path)
			}
		}
	}
	if rows != len(fields)-top {
		t.Errorf("%d rows for %d keys", rows, len(fields)-top)
	}
}

func TestOutcomesHaveEveryReason(t *testing.T) {
	text := outcomeReference()
	for i := range outcome.Count {
		if row := outcome.Reason(i).Row(); !strings.Contains(text, "\n| `"+row.Name+"` | "+row.Flag+" | ") {
			t.Errorf("%s is missing", row.Name)
		}
	}
}

func TestPlainDoc(t *testing.T) {
	words := map[string]string{"Window": "window", "MinimumRequests": "minimum_requests", "Tag": "tag", "Address": "address", "TTL": "ttl", "On": "on"}
	for _, c := range []struct{ doc, name, want string }{
		{"Window is the time over which\nMinimumRequests count.", "Window", "The time over which minimum_requests count."},
		{"Tag limits the instances.", "Tag", "tag limits the instances."},
		{"Address of the agent. TTL and On stay.", "Address", "Address of the agent. TTL and On stay."},
		{"MinimumRequests and Window are both.", "MinimumRequests", "minimum_requests and Window are both."},
		{"how long it takes.", "Window", "How long it takes."},
		{"", "Window", ""},
	} {
		if got := plainDoc(c.doc, c.name, words); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestFieldDocsReadSources(t *testing.T) {
	dir := t.TempDir()
	for _, p := range packages() {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
		src := "package p\n\n// T is one.\ntype T struct {\n\t// CertFile and KeyFile are a pair.\n\tCertFile string `yaml:\"cert_file\"`\n\tKeyFile string `yaml:\"key_file\"`\n\n\tC string `yaml:\"c,omitempty\"` // one word\n\tD string `yaml:\"-\"`\n\tE string\n}\n"
		if err := os.WriteFile(filepath.Join(dir, p, "p.go"), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := fieldDocs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"case \"" + module + "/config.T.CertFile\":\n\t\treturn \"cert_file and key_file are a pair.\"\n",
		"case \"" + module + "/config.T.KeyFile\":\n\t\treturn \"cert_file and key_file are a pair.\"\n",
		"case \"" + module + "/mtls/authz.T.C\":\n\t\treturn \"One word\"\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %s in\n%s", want, got[:min(len(got), 1500)])
		}
	}
	if strings.Contains(got, "T.D") || strings.Contains(got, "T.E") {
		t.Error("fields that are no keys are listed")
	}
	if _, err := fieldDocs(t.TempDir()); err == nil {
		t.Error("an empty tree is taken")
	}
}
