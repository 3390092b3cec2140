package limit

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// runScript runs the blocks of a script: commands, a line "----", what they
// print, an empty line. Lines that begin with # are comments.
func runScript(t *testing.T, path string, run func(c command) string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
		input, want, found := strings.Cut(block+"\n", "----\n")
		var got strings.Builder
		for _, line := range strings.Split(strings.TrimSuffix(input, "\n"), "\n") {
			if line != "" && line[0] != '#' {
				got.WriteString(run(parse(t, line)))
			}
		}
		if found && got.String() != want && !*update {
			t.Errorf("%s, block %d:\n%s---- got\n%s---- want\n%s", path, i+1, input, got.String(), want)
		}
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(input)
		if found {
			out.WriteString("----\n" + got.String())
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// scripts returns the scripts of the package.
func scripts(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	return paths
}

// command is one line: a name, words, key=value pairs and a count "x3".
type command struct {
	t     *testing.T
	name  string
	words []string
	keys  map[string]string
	count int
}

func parse(t *testing.T, line string) command {
	f := strings.Fields(line)
	c := command{t: t, name: f[0], keys: map[string]string{}, count: 1}
	for _, w := range f[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			c.keys[k] = v
		} else if n, err := strconv.Atoi(strings.TrimPrefix(w, "x")); err == nil && w[0] == 'x' {
			c.count = n
		} else {
			c.words = append(c.words, w)
		}
	}
	return c
}

func (c command) has(word string) bool {
	for _, w := range c.words {
		if w == word {
			return true
		}
	}
	return false
}

func (c command) number(s string) float64 {
	c.t.Helper()
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		c.t.Fatalf("%s: %v", c.name, err)
	}
	return x
}

func (c command) unknown() string {
	c.t.Helper()
	c.t.Fatalf("unknown command %s %v %v", c.name, c.words, c.keys)
	return ""
}
