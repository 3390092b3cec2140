package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	one    = "services: {api: {protocol: http, endpoints: [{address: \"10.0.0.1:80\"}]}, web: {}}\n"
	two    = "services: {api: {protocol: http, endpoints: [{address: \"10.0.0.1:80\"}, {address: \"10.0.0.2:80\", weight: 3}]}, web: {}}\n"
	noAPI  = "services: {web: {}}\n"
	broken = "services: [\n"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace writes beside the file and renames, as editors and deploy tools do.
func replace(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, l lines, want string) {
	t.Helper()
	if got := l.next(t); !strings.HasPrefix(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestChangesAreFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.yaml")
	write(t, path, one)
	s, l := run(t, path, "api")
	expect(t, l, "api http 10.0.0.1:80*1:passing")
	replace(t, path, two)
	expect(t, l, "api http 10.0.0.1:80*1:passing 10.0.0.2:80*3:passing")
	if st := s.Status(); len(st) != 1 || st[0].Endpoints != 2 || st[0].LastError != "" || st[0].Age < 0 {
		t.Errorf("status %+v", st)
	}

	// A broken file keeps the last good one and says so once.
	replace(t, path, broken)
	expect(t, l, "api failed: "+path+":1:11: ")
	if st := s.Status(); st[0].Endpoints != 2 || !strings.Contains(st[0].LastError, ":1:11: ") {
		t.Errorf("status %+v", st)
	}
	// The same content again ends the trouble although nothing differs.
	replace(t, path, two)
	expect(t, l, "api http 10.0.0.1:80*1:passing 10.0.0.2:80*3:passing")
	if st := s.Status(); st[0].LastError != "" {
		t.Errorf("status %+v", st)
	}

	// Removed, then there again; rewritten in place.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(t, l, "api failed: open ")
	replace(t, path, one)
	expect(t, l, "api http 10.0.0.1:80*1:passing")
	replace(t, path, noAPI)
	expect(t, l, "api failed: "+path+`: service "api" is not in the catalog`)
	if st := s.Status(); st[0].Endpoints != 1 {
		t.Errorf("status of a service that left the catalog: %+v", st)
	}
}

func TestMissingFileIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.yaml")
	_, l := run(t, path, "web", "api")
	expect(t, l, "api failed: open ")
	expect(t, l, "web failed: open ")
	replace(t, path, one)
	expect(t, l, "api http 10.0.0.1:80*1:passing")
	expect(t, l, "web ")
}

// A ConfigMap volume: the file is a symlink through ..data, which is replaced.
func TestConfigMapVolume(t *testing.T) {
	dir := t.TempDir()
	put := func(version, content string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "catalog.yaml"), content)
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	put("..v1", one)
	path := filepath.Join(dir, "catalog.yaml")
	if err := os.Symlink("..data/catalog.yaml", path); err != nil {
		t.Fatal(err)
	}
	_, l := run(t, path, "api")
	expect(t, l, "api http 10.0.0.1:80*1:passing")
	put("..v2", two)
	expect(t, l, "api http 10.0.0.1:80*1:passing 10.0.0.2:80*3:passing")
}

// The folder itself appears later and is replaced: the poll finds it.
func TestFolderReplaced(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "conf")
	path := filepath.Join(dir, "catalog.yaml")
	_, l := run(t, path, "api")
	expect(t, l, "api failed: open ")
	other := filepath.Join(root, "next")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(other, "catalog.yaml"), one)
	if err := os.Rename(other, dir); err != nil {
		t.Fatal(err)
	}
	expect(t, l, "api http 10.0.0.1:80*1:passing")
}
