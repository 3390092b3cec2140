package archtest

import (
	"bytes"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Every word of the glossary that names something in code does so, and every
// package has its word there.
func TestGlossary(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/glossary.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := declarations(t)
	code := regexp.MustCompile("`([a-z0-9]+)(\\.[A-Z][A-Za-z0-9]*(\\.[A-Z][A-Za-z0-9]*)?)?`")
	explained := map[string]bool{}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "Word" {
			continue
		}
		rows++
		if strings.TrimSpace(cells[2]) == "" {
			t.Errorf("glossary: %s has no place in the code", strings.TrimSpace(cells[1]))
		}
		for _, m := range code.FindAllStringSubmatch(cells[2], -1) {
			explained[m[1]] = true
			if !declared[m[1]+m[2]] {
				t.Errorf("glossary: %s: %s is not declared", strings.TrimSpace(cells[1]), m[1]+m[2])
			}
		}
	}
	if rows < 20 {
		t.Errorf("the glossary has %d rows; its table was not understood", rows)
	}
	for path, p := range ours(t) {
		if p.Name == "main" || strings.HasPrefix(path, "bench/") || strings.HasPrefix(path, "internal/") || path == "examples" || slices.Contains(planned, path) {
			continue
		}
		if !explained[p.Name] {
			t.Errorf("the glossary has no row for the package %s", path)
		}
	}
}

// declarations returns "pkg", "pkg.Name" and "pkg.Type.Member" of all that is
// exported outside tests.
func declarations(t *testing.T) map[string]bool {
	t.Helper()
	m := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		pkg := s.file.Name.Name
		m[pkg] = true
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					m[pkg+"."+d.Name.Name] = true
				} else {
					recv := d.Recv.List[0].Type
					if star, ok := recv.(*ast.StarExpr); ok {
						recv = star.X
					}
					m[pkg+"."+name(recv)+"."+d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.ValueSpec:
						for _, n := range spec.Names {
							m[pkg+"."+n.Name] = true
						}
					case *ast.TypeSpec:
						m[pkg+"."+spec.Name.Name] = true
						if st, ok := spec.Type.(*ast.StructType); ok {
							for _, f := range st.Fields.List {
								for _, n := range f.Names {
									m[pkg+"."+spec.Name.Name+"."+n.Name] = true
								}
							}
						}
					}
				}
			}
		}
	}
	return m
}

// unwanted are words that tell of one machine or one place, where the code
// must work on every one. They are joined here so that this file is not found.
var unwanted = []struct{ word, reason string }{
	{"/wo" + "rk/", "a path of one machine"},
	{"/ro" + "ot/", "a path of one machine"},
	{"/home" + "/", "a path of one machine"},
	{"docker" + ".io/", "images are named without a registry; the reader has their own"},
	{"ghcr" + ".io/", "images are named without a registry; the reader has their own"},
	{"quay" + ".io/", "images are named without a registry; the reader has their own"},
	{"gcr" + ".io/", "images are named without a registry; the reader has their own"},
	{"arti" + "factory", "a registry of one place"},
	{"proxy." + "golang.org", "the module proxy is the reader's choice"},
	{"GO" + "PROXY=", "the module proxy is the reader's choice"},
	{"TO" + "DO", "finish it, or open an issue"},
	{"FIX" + "ME", "finish it, or open an issue"},
}

func TestUnwantedWords(t *testing.T) {
	for _, path := range files(t) {
		if slices.Contains([]string{".svg", ".png", ".sum"}, filepath.Ext(path)) || strings.Contains(path, "testdata/fuzz/") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range unwanted {
			if i := bytes.Index(text, []byte(u.word)); i >= 0 {
				t.Errorf("%s:%d: %q: %s", path, 1+bytes.Count(text[:i], []byte("\n")), u.word, u.reason)
			}
		}
	}
}

// Relative links in Markdown lead to files that exist.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)|(?:src|srcset)="([^"]+)"`)
	for _, path := range files(t) {
		if filepath.Ext(path) != ".md" || strings.Contains(path, "testdata/") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			to := m[1] + m[3]
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(path), to)); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, to)
			}
		}
	}
}
