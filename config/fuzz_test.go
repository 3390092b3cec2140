package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad: whatever the input, Parse returns; every problem has a place in
// the file; and what is valid means the same when it is printed and read again.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*", "testdata/bad/*.txt"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			input, _, _ := strings.Cut(string(data), "----\n")
			f.Add([]byte(input))
		}
	}
	for _, s := range []string{"a: &a\n  <<: *a\n", "- &x [*x]\n", "? ", "{", "[[", "a: |\n  x", "\ufeffservice: {name: a}", "a: !!binary x", "*", "&", "%YAML", "---\n...\n", "\"\\x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse("f.yaml", data)
		if err == nil {
			checkRoundTrip(t, l)
			return
		}
		var problems Problems
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("error without problems: %v", err)
		}
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 1
		for i, p := range problems {
			if p.File != "f.yaml" || p.Line < 1 || p.Line > lines+1 || p.Column < 1 || p.Message == "" {
				t.Fatalf("problem without a place: %+v", p)
			}
			if i > 0 && (p.Line < problems[i-1].Line) {
				t.Fatalf("problems out of order:\n%v", err)
			}
		}
	})
}
