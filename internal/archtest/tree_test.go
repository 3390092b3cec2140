package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/outrigger-mesh/outrigger"

// root is the repository's directory as seen from this package.
const root = "../.."

var update = flag.Bool("update", false, "write the tree of ARCHITECTURE.md anew")

// listed is what go list says about one package of ours.
type listed struct {
	ImportPath string
	Name       string
	Dir        string
	Doc        string // the first sentence of the package's doc
	Imports    []string
	GoFiles    []string

	TestGoFiles, XTestGoFiles []string
}

// path is the package's place in the repository.
func (p *listed) path() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

// ours returns the packages of this module by path. Packages that hold tests
// only, such as this one, are among them.
func ours(t *testing.T) map[string]*listed {
	t.Helper()
	pkgs, err := list()
	if err != nil {
		t.Fatal(err)
	}
	return pkgs
}

var list = sync.OnceValues(func() (map[string]*listed, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,Doc,Imports,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	pkgs := map[string]*listed{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		if len(p.GoFiles) == 0 {
			p.Doc = testDoc(&p)
		}
		pkgs[p.path()] = &p
	}
})

// testDoc is the first sentence of the doc of a package that has tests only.
func testDoc(p *listed) string {
	for _, file := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err == nil && f.Doc != nil {
			return new(doc.Package).Synopsis(f.Doc.Text())
		}
	}
	return ""
}

// The tree in ARCHITECTURE.md lists exactly the packages that exist, each with
// the sentence that its doc begins with.
func TestTree(t *testing.T) {
	var want strings.Builder
	pkgs := ours(t)
	for _, path := range slices.Sorted(maps.Keys(pkgs)) {
		p := pkgs[path]
		s, ok := sentence(p)
		if !ok {
			t.Errorf("%s: its doc begins with %q; begin with %q and say in one sentence what it is for", path, p.Doc, "Package "+p.Name+" ...")
			continue
		}
		fmt.Fprintf(&want, "| `%s` | %s |\n", path, s)
	}
	const begin, end = "<!-- tree: go test ./internal/archtest -update -->\n", "<!-- end of tree -->\n"
	file := filepath.Join(root, "ARCHITECTURE.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("ARCHITECTURE.md has no tree between %q and %q", begin, end)
	}
	wanted := "\n| Package | What it is for |\n|---|---|\n" + want.String() + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+wanted+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != wanted {
		t.Errorf("the tree in ARCHITECTURE.md is not that of the code; run go test ./internal/archtest -update and read the difference:\n%s", difference(got, wanted))
	}
}

// sentence is the first sentence of the package's doc without its subject.
func sentence(p *listed) (string, bool) {
	for _, subject := range []string{"Package " + p.Name + " ", "Command " + filepath.Base(p.path()) + " "} {
		if s, ok := strings.CutPrefix(p.Doc, subject); ok {
			return strings.ReplaceAll(s, "|", "\\|"), true
		}
	}
	return "", false
}

// difference shows the lines that only one of two texts has.
func difference(got, want string) string {
	var b strings.Builder
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, l := range g {
		if !slices.Contains(w, l) {
			b.WriteString("- " + l + "\n")
		}
	}
	for _, l := range w {
		if !slices.Contains(g, l) {
			b.WriteString("+ " + l + "\n")
		}
	}
	return b.String()
}
