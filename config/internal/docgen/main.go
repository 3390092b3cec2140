// Command docgen writes what is generated from the configuration's types and from the outcome table: field docs, schema, reference.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	root := flag.String("root", "", "the module's directory; default: the nearest one above with a go.mod")
	flag.Parse()
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// run writes every generated file below root. The field docs come first and
// are compiled into package config, so a run that changes them says that the
// other files follow with the next run.
func run(root string) error {
	if root == "" {
		var err error
		if root, err = moduleRoot("."); err != nil {
			return err
		}
	}
	files, err := generate(root)
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(root, f.path)
		old, err := os.ReadFile(path)
		if err == nil && string(old) == f.text {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", f.path)
		if strings.HasSuffix(f.path, ".go") {
			fmt.Println("run go generate once more: the descriptions have changed")
		}
	}
	return nil
}

// moduleRoot returns the nearest directory at or above dir with a go.mod.
func moduleRoot(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod at or above the working directory; use -root")
		}
		dir = up
	}
}
