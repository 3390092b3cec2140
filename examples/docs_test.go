package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
)

// Every configuration that the docs and the deployment files show is valid.
func TestShownConfigurations(t *testing.T) {
	fenced := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	inMap := regexp.MustCompile(`(?m)^  [a-z]+\.yaml: \|\n((?:    .*\n|\n)+)`)
	inJob := regexp.MustCompile(`(?s)<<-YAML\n(.*?)\n *YAML`)
	found := map[string]int{}
	for _, dir := range []string{"..", "../docs", "../deploy/kubernetes", "../deploy/nomad", "../deploy/systemd", "edge", "redis", "routes", "two-sidecars"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil || info.IsDir() || info.Size() > 1<<20 {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var shown []string
			switch {
			case filepath.Ext(path) == ".md":
				for _, m := range fenced.FindAllSubmatch(text, -1) {
					shown = append(shown, string(m[1]))
				}
			case strings.Contains(dir, "kubernetes"):
				for _, m := range inMap.FindAllSubmatch(text, -1) {
					shown = append(shown, dedent(string(m[1])))
				}
			case strings.HasSuffix(path, ".hcl"):
				for _, m := range inJob.FindAllSubmatch(text, -1) {
					shown = append(shown, dedent(string(m[1])))
				}
			case filepath.Ext(path) == ".yaml" && !strings.Contains(path, "catalog"):
				shown = append(shown, string(text))
			}
			for _, s := range shown {
				if !strings.HasPrefix(s, "service:") && !strings.Contains(s, "\nservice:") {
					continue
				}
				found[dir]++
				file := filepath.Join(t.TempDir(), "outrigger.yaml")
				if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := config.Load(file); err != nil {
					t.Errorf("%s shows a configuration that is not valid: %v\n%s", path, err, s)
				}
			}
		}
	}
	for _, dir := range []string{"../docs", "../deploy/kubernetes", "../deploy/nomad", "../deploy/systemd", "edge", "redis", "routes", "two-sidecars"} {
		if found[dir] == 0 {
			t.Errorf("no configuration was found in %s", dir)
		}
	}
}

// dedent removes the indentation of the first line from all.
func dedent(s string) string {
	indent := s[:len(s)-len(strings.TrimLeft(s, " "))]
	return strings.TrimPrefix(strings.ReplaceAll(s, "\n"+indent, "\n"), indent)
}
