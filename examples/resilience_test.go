package examples

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/scenario"
	"github.com/outrigger-mesh/outrigger/resilience/simulate"
)

var update = flag.Bool("update", false, "write the figures and charts of docs/RESILIENCE.md anew")

// Every scenario beside this file meets what it expects, and docs/RESILIENCE.md
// shows what comes out of it today: its table stands there between two marks, and
// its chart in docs/resilience. With -update they are written.
func TestResilience(t *testing.T) {
	const page = "../docs/RESILIENCE.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("simulate/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	doc := string(text)
	// Other processors round exponentials in another way; a run then goes another
	// way too, and its figures are others of the same kind.
	exact := runtime.GOARCH == "amd64"
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		s, err := scenario.Load(path)
		if err != nil {
			t.Error(err)
			continue
		}
		res := simulate.Simulate(s)
		for _, r := range res.Runs {
			for _, c := range r.Checks {
				if !c.Held {
					t.Errorf("%s: %s: %s: %s", path, r.Name, c.Expected, c.Found)
				}
			}
		}
		from, to := fmt.Sprintf("<!-- %s: make docs -->\n", name), "<!-- end -->\n"
		before, rest, ok := strings.Cut(doc, from)
		old, after, ok2 := strings.Cut(rest, to)
		if !ok || !ok2 {
			t.Errorf("%s has no place for %s: write %s%s", page, name, from, to)
			continue
		}
		table := tableOf(res, s.Entry())
		if old != table && !*update && exact {
			t.Errorf("%s shows other figures for %s than come out; run make docs\n%s", page, name, table)
		}
		doc = before + from + table + to + after
		chart := filepath.Join("../docs/resilience", name+".svg")
		had, err := os.ReadFile(chart)
		if svg := res.Chart(); *update {
			if err := os.WriteFile(chart, svg, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if err != nil || exact && !bytes.Equal(had, svg) {
			t.Errorf("%s is not what is drawn now; run make docs (%v)", chart, err)
		}
	}
	if *update {
		if err := os.WriteFile(page, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The scenarios that the docs show are valid and come out as they say.
func TestShownScenarios(t *testing.T) {
	text, err := os.ReadFile("../docs/simulate.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(shown) == 0 {
		t.Fatal("docs/simulate.md shows no scenario")
	}
	for _, m := range shown {
		s, err := scenario.Parse("docs/simulate.md", m[1])
		if err != nil {
			t.Error(err)
			continue
		}
		if res := simulate.Simulate(s); !res.Met() {
			t.Errorf("%+v", res.Runs[0].Checks)
		}
	}
}

// tableOf writes the figures of the service that is called from outside.
func tableOf(res *simulate.Result, entry string) string {
	var b strings.Builder
	b.WriteString("\n| | good | failed | refused | attempts each | mean | p50 | p99 | p99.9 |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range res.Runs {
		n := r.Service(entry).Summary
		share := func(k uint64) string { return fmt.Sprintf("%.2f %%", 100*float64(k)/float64(n.Began)) }
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.2f | %s | %s | %s | %s |\n", r.Name, share(n.Good), share(n.Failed), share(n.Refused),
			float64(n.Attempts)/float64(n.Began), rounded(n.Mean), rounded(n.P50), rounded(n.P99), rounded(n.P999))
	}
	b.WriteString("\n| expected | of | found |\n|---|---|---|\n")
	for _, r := range res.Runs {
		for _, c := range r.Checks {
			expected, _, _ := strings.Cut(c.Expected, " in ")
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", expected, r.Name, c.Found)
		}
	}
	return b.String() + "\n"
}

// rounded writes a time with three figures.
func rounded(d time.Duration) string {
	switch {
	case d == 0:
		return "–"
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.2f ms", float64(d)/1e6)
}
