package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	flag.Parse()
	testkit.VerifyNoLeaks(m)
}

// golden compares got with the file at path, or writes it with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update when that is meant\n--- got\n%s--- want\n%s", path, got, want)
	}
}

func files(t *testing.T, pattern string, atLeast int) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) < atLeast {
		t.Fatalf("%s: %d files, %v; want at least %d", pattern, len(names), err, atLeast)
	}
	return names
}

// badCase returns the input of a file in testdata/bad: what stands before the line "----".
func badCase(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	input, _, ok := strings.Cut(string(data), "----\n")
	if !ok {
		t.Fatalf("%s has no line of four dashes", path)
	}
	return input
}

// Each file in testdata/bad is a configuration and, below four dashes, every
// mistake that must be reported, in order.
func TestBad(t *testing.T) {
	for _, path := range files(t, "testdata/bad/*.txt", 60) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			input := badCase(t, path)
			l, err := Parse("web.yaml", []byte(input))
			var problems Problems
			if l != nil || !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("Parse = %v, %v; want problems", l, err)
			}
			golden(t, path, input+"----\n"+problems.Error()+"\n")
		})
	}
}

// Each file in testdata/good is valid; what it means stands in testdata/effective.
func TestGood(t *testing.T) {
	for _, path := range files(t, "testdata/good/*", 7) {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			l, err := Parse(name, data)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if err := l.WriteEffective(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/effective/"+name+".txt", b.String())
		})
	}
}

func TestLoadFile(t *testing.T) {
	l, err := Load("testdata/good/least.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if l.File != "testdata/good/least.yaml" || l.Config.Service.Name != "web" || len(l.Digest) != 64 {
		t.Errorf("loaded %+v", l)
	}

	missing := filepath.Join(t.TempDir(), "none.yaml")
	_, err = Load(missing)
	if want := missing + ":1:1: cannot be read: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
	if _, err = Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "cannot be read: is a directory") {
		t.Errorf("error %v for a directory", err)
	}
}

func TestFileTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "long.yaml")
	head := "service: {name: web}\n#"
	for _, c := range []struct {
		size int
		ok   bool
	}{{MaxFileBytes, true}, {MaxFileBytes + 1, false}} {
		if err := os.WriteFile(path, []byte(head+strings.Repeat("x", c.size-len(head))), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if c.ok && err != nil || !c.ok && (err == nil || !strings.Contains(err.Error(), "longer than 1048576 bytes")) {
			t.Errorf("%d bytes: %v", c.size, err)
		}
	}
}

// A mistake found later, as when a port is taken, is shown at its place.
func TestLaterProblem(t *testing.T) {
	l, err := Parse("web.yaml", []byte("service:\n  name: web\nadmin:\n  listen: 127.0.0.1:15000\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{"admin.listen", "web.yaml:4:11: admin.listen: is in use"},
		{"admin.pprof", "web.yaml:3:1: admin.pprof: is in use"},
		{"drain.delay", "web.yaml:1:1: drain.delay: is in use"},
	} {
		if got := l.Problem(c.path, "is in use").Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	if got := l.Origin("admin.listen").String(); got != "web.yaml:4:11" {
		t.Errorf("origin %s", got)
	}
	if got := l.Origin("admin.pprof").String(); got != "default" {
		t.Errorf("origin %s", got)
	}
}
