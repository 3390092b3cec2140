package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is written of a configuration in force is read as the same one, secrets apart.
func TestParseEffective(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Parse(file, data)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var b strings.Builder
		if err := l.WriteEffective(&b); err != nil {
			t.Fatal(err)
		}
		again, err := ParseEffective("effective.yaml", []byte(b.String()))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		want, got := l.Effective(), again.Effective()
		if len(got) != len(want) {
			t.Errorf("%s: %d values, want %d", file, len(got), len(want))
			continue
		}
		for i := range want {
			if got[i].Path != want[i].Path || got[i].Value != want[i].Value {
				t.Errorf("%s: %s = %s, want %s = %s", file, got[i].Path, got[i].Value, want[i].Path, want[i].Value)
			}
		}
	}
	if _, err := ParseEffective("bad.yaml", []byte("service: {name: web}\nnot_there: 1\n")); err == nil {
		t.Error("a key that does not exist was taken")
	}
	if _, err := ParseEffective("bad.yaml", []byte("a: [")); err == nil {
		t.Error("what is no YAML was taken")
	}
}
