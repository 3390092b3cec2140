package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// source is one Go file.
type source struct {
	path string // below the repository's root
	pkg  string // the directory of path
	test bool
	file *ast.File
	fset *token.FileSet
}

func (s *source) at(n ast.Node) string {
	p := s.fset.Position(n.Pos())
	return s.path + ":" + itoa(p.Line)
}

// sources parses every Go file of the repository.
func sources(t *testing.T) []*source {
	t.Helper()
	var list []*source
	fset := token.NewFileSet()
	for _, path := range files(t) {
		if !strings.HasSuffix(path, ".go") {
			continue
		}
		f, err := parser.ParseFile(fset, filepath.Join(root, path), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, &source{path, filepath.Dir(path), strings.HasSuffix(path, "_test.go"), f, fset})
	}
	return list
}

// files returns the paths of all files of the repository, in order, without
// what is built or belongs to git.
func files(t *testing.T) (list []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", ".cache", "bin"}, rel) {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			list = append(list, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// variables are the package-level variables that change, or could, with why
// each may. Sentinel errors, tables written as literals, pools, embedded files
// and interface checks need no entry.
var variables = map[string]string{
	"proxy/relay.spare":         "idle pipes of all relays: a pool whose elements own descriptors, which sync.Pool would leak",
	"proxy/http2.huffman":       "a table made by a function, once",
	"proxy/http2.nameBytes":     "a table made by a function, once",
	"proxy/wire.longAgo":        "a constant; Go has none of type time.Time",
	"cmd/outrigger.version":     "set by the linker",
	"cmd/outrigger.commit":      "set by the linker",
	"cmd/outrigger-cni.version": "set by the linker",
	"config.durationType":       "a constant; Go has none of type reflect.Type",
	"config.textType":           "a constant; Go has none of type reflect.Type",

	"internal/testkit.findEnvoy": "the path of a program, looked for once a process: fetching may take minutes to fail",
}

func TestNoInitAndNoVariables(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s: func init; what must happen at the start happens in a constructor that the caller sees", s.at(d))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					v, ok := spec.(*ast.ValueSpec)
					if !ok || d.Tok != token.VAR {
						continue
					}
					for i, name := range v.Names {
						id := s.pkg + "." + name.Name
						if variables[id] != "" {
							used[id] = true
						} else if !constant(d, v, i) {
							t.Errorf("%s: package-level variable %s; make it a field, or give it a line with a reason in internal/archtest/source_test.go", s.at(v), id)
						}
					}
				}
			}
		}
	}
	for id := range variables {
		if !used[id] {
			t.Errorf("the list of variables names %s, which does not exist", id)
		}
	}
	assigned(t)
}

// constant reports whether variable i of v is as good as a constant by the way
// it is declared.
func constant(d *ast.GenDecl, v *ast.ValueSpec, i int) bool {
	n := v.Names[i].Name
	if n == "_" || strings.HasPrefix(n, "Err") || strings.HasPrefix(n, "err") {
		return true
	}
	if d.Doc != nil && strings.Contains(d.Doc.List[len(d.Doc.List)-1].Text, "go:embed") {
		return true
	}
	if i >= len(v.Values) {
		return false
	}
	switch x := v.Values[i].(type) {
	case *ast.CompositeLit:
		return true // tables and pools; assigned looks for writes to them
	case *ast.CallExpr:
		if a, ok := x.Fun.(*ast.ArrayType); ok && a.Len == nil {
			return true // []byte("..."), which assigned looks for writes to
		}
		switch name(x.Fun) {
		case "errors.New", "fmt.Errorf", "regexp.MustCompile", "strings.NewReplacer":
			return true
		}
	}
	return false
}

// assigned fails when a package-level variable is written to by the package
// it stands in.
func assigned(t *testing.T) {
	t.Helper()
	vars := map[string]bool{}
	all := sources(t)
	for _, s := range all {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, spec := range g.Specs {
					for _, n := range spec.(*ast.ValueSpec).Names {
						vars[s.pkg+"."+n.Name] = true
					}
				}
			}
		}
	}
	for _, s := range all {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			local := locals(f)
			ast.Inspect(f.Body, func(n ast.Node) bool {
				var written []ast.Expr
				switch n := n.(type) {
				case *ast.AssignStmt:
					if n.Tok != token.DEFINE {
						written = n.Lhs
					}
				case *ast.IncDecStmt:
					written = []ast.Expr{n.X}
				}
				for _, w := range written {
					if id := base(w); id != nil && id.Name != "_" && !local[id.Name] && vars[s.pkg+"."+id.Name] {
						t.Errorf("%s: writes to the package-level variable %s", s.at(w), id.Name)
					}
				}
				return true
			})
		}
	}
}

// base is the variable that an assignment to x changes.
func base(x ast.Expr) *ast.Ident {
	for {
		switch e := x.(type) {
		case *ast.Ident:
			return e
		case *ast.IndexExpr:
			x = e.X
		case *ast.SelectorExpr:
			x = e.X
		case *ast.ParenExpr:
			x = e.X
		default:
			return nil
		}
	}
}

// locals are all names that f declares.
func locals(f *ast.FuncDecl) map[string]bool {
	m := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, id := range n.Names {
				m[id.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, x := range n.Lhs {
					if id, ok := x.(*ast.Ident); ok {
						m[id.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, x := range []ast.Expr{n.Key, n.Value} {
				if id, ok := x.(*ast.Ident); ok && n.Tok == token.DEFINE {
					m[id.Name] = true
				}
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				m[id.Name] = true
			}
		}
		return true
	})
	return m
}

// name writes a.b for a selector and a for an identifier.
func name(x ast.Expr) string {
	switch e := x.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return name(e.X) + "." + e.Sel.Name
	}
	return ""
}

// The machines are told the time and given random words, and start nothing.
func TestMachinesArePure(t *testing.T) {
	clock := []string{
		"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.NewTimer", "time.NewTicker", "time.Tick",
	}
	for _, s := range sources(t) {
		if s.test || !slices.Contains(machines, s.pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a machine starts a goroutine", s.at(n))
			case *ast.SelectorExpr:
				if slices.Contains(clock, name(n)) {
					t.Errorf("%s: %s; a machine is told the time", s.at(n), name(n))
				}
			}
			return true
		})
	}
}

// The environment is read where configuration is read, never on the way of a
// request.
func TestHotPathReadsNoEnvironment(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.Contains(hotPath, s.pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if x, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"os.Getenv", "os.LookupEnv", "os.Environ"}, name(x)) {
				t.Errorf("%s: %s", s.at(n), name(x))
			}
			return true
		})
	}
}

// goroutines are the functions that start one, each with who waits for it.
// ARCHITECTURE.md has them in a table.
var goroutines = map[string]string{
	"cmd/outrigger.run":            "end with contexts that run ends",
	"discovery/consul.Run":         "Run waits",
	"discovery/consul/mesh.Run":    "Run waits",
	"discovery/consul/mesh.follow": "follow waits",
	"discovery/dns.Run":            "Run waits",
	"discovery.Run":                "Run waits",
	"internal/lifecycle.Go":        "Group.Wait",
	"mtls/devca.Run":               "Run waits",
	"proxy/names.Run":              "Run waits",
	"mtls.Run":                     "Run waits",
	"mtls/consulca.Run":            "Run waits",
	"mtls/consulca.term":           "term waits",
	"mtls/consulca.watch":          "watch waits",
	"mtls/workload.Run":            "Run waits",
	"mtls/jwks.Run":                "Run waits",
	"proxy.Run":                    "waits for the end of telemetry, but not longer than flushTime: a log nobody reads must not keep the process",
	"proxy.follow":                 "follow waits",
	"proxy.followOn":               "followOn waits",
	"proxy.runDesks":               "runDesks waits, and with it Sidecar.Run",
	"proxy/exchange.dial":          "settle of the same detection",
	"proxy/exchange.startUpload":   "settleUpload or waitUpload of the same exchange",
	"proxy/http2.kickLocked":       "run waits for the last writer, and with it Serve and Run",
	"proxy/wire.Rouse":             "Listener.Run, through its WaitGroup: a connection at rest still counts",
	"proxy/http2.dispatch":         "run waits for its workers",
	"proxy/relay.Run":              "Run waits",
	"proxy/upstream.share":         "Registry.Run, through its WaitGroup",
	"telemetry/admin.Run":          "Run waits",
	"proxy/listener.take":          "Listener.Run, through its WaitGroup",
	"proxy/listener.early":         "Listener.Run, through its WaitGroup",
	"proxy/intercept.Do":           "Do waits: the goroutine is the thread that enters a network namespace",

	"discovery/consul/mesh.followOne": "followOne waits",
	"discovery/consul/mesh.run":       "run waits",
}

// Programs that measure, test and show are left out.
func TestGoroutinesAreKnown(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || strings.HasPrefix(s.pkg, "bench") || s.pkg == "internal/testkit" || s.pkg == "internal/demo" {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				_, starts := n.(*ast.GoStmt)
				if c, ok := n.(*ast.CallExpr); ok && name(c.Fun) == "wg.Go" {
					starts = true
				}
				if id := s.pkg + "." + f.Name.Name; starts && goroutines[id] == "" {
					t.Errorf("%s: %s starts a goroutine; say in internal/archtest/source_test.go and in ARCHITECTURE.md who waits for it", s.at(n), id)
				} else if starts {
					used[id] = true
				}
				return true
			})
		}
	}
	for id := range goroutines {
		if !used[id] {
			t.Errorf("the list of goroutines names %s, which starts none", id)
		}
	}
}

// long are the files above 400 lines, with the reason. None may pass 800.
var long = map[string]string{
	"discovery/consul/registrar.go": "one state machine: register, check, re-register, deregister",
}

func TestFileLength(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || ast.IsGenerated(s.file) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, s.path))
		if err != nil {
			t.Fatal(err)
		}
		switch n := strings.Count(string(text), "\n"); {
		case n > 800:
			t.Errorf("%s has %d lines; 800 is the most", s.path, n)
		case n > 400 && long[s.path] == "":
			t.Errorf("%s has %d lines; split it, or say in internal/archtest/source_test.go why it is above 400", s.path, n)
		case n <= 400 && long[s.path] != "":
			t.Errorf("%s has %d lines and needs no reason for its length any more", s.path, n)
		}
	}
}
