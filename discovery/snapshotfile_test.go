package discovery

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func sample() []*Service {
	return []*Service{
		{
			Name: "api", Protocol: "http", Identities: []string{"spiffe://example.org/api"}, Index: 42, Source: "consul",
			Updated: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC),
			Endpoints: []Endpoint{
				{Address: netip.MustParseAddrPort("10.0.0.1:80"), ID: "a", Weight: 2, Health: Warning, Tags: []string{"x"}, Meta: map[string]string{"k": "v"}, Node: "n", Datacenter: "dc1"},
				{Address: netip.MustParseAddrPort("[fe80::1%eth0]:443"), Weight: 65535, Health: Critical},
			},
		},
		{Name: "empty", Updated: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)},
	}
}

func encoded(t testing.TB) []byte {
	t.Helper()
	data, err := encodeSnapshot(sample(), "dc1", time.Date(2026, 5, 1, 13, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSnapshotRoundTrip(t *testing.T) {
	got, saved, err := decodeSnapshot(encoded(t), "dc1")
	if err != nil {
		t.Fatal(err)
	}
	if !saved.Equal(time.Date(2026, 5, 1, 13, 0, 0, 0, time.UTC)) {
		t.Errorf("saved %v", saved)
	}
	want := sample()
	if len(got) != len(want) {
		t.Fatalf("got %d services", len(got))
	}
	for i := range want {
		want[i].Stale = true
		if !got[i].Equal(want[i]) || got[i].Index != want[i].Index || !got[i].Updated.Equal(want[i].Updated) {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

// Any damage to the content and any shortening of the file is found.
func TestSnapshotDamage(t *testing.T) {
	data := encoded(t)
	for n := range data {
		if _, _, err := decodeSnapshot(data[:n], "dc1"); err == nil {
			t.Fatalf("a file cut to %d of %d bytes was taken", n, len(data))
		}
	}
	for i := bytes.IndexByte(data, '\n') + 1; i < len(data); i++ {
		bad := bytes.Clone(data)
		bad[i] ^= 0x20
		if _, _, err := decodeSnapshot(bad, "dc1"); err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Fatalf("a changed byte %d gave %v", i, err)
		}
	}
}

func TestSnapshotRefused(t *testing.T) {
	replaced := func(old, new string) []byte { return bytes.Replace(encoded(t), []byte(old), []byte(new), 1) }
	resealed := func(s *Service) []byte {
		data, err := encodeSnapshot([]*Service{s}, "dc1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	ok := netip.MustParseAddrPort("10.0.0.1:80")
	for _, tt := range []struct {
		name, want string
		data       []byte
	}{
		{"empty", "not a discovery snapshot", nil},
		{"other file", "not a discovery snapshot", []byte("services: {}\n")},
		{"other format", "not a discovery snapshot", replaced(snapshotFormat, "something-else")},
		{"newer version", "format version 2 and this program reads version 1", replaced(`"version":1`, `"version":2`)},
		{"other datacenter", `taken in datacenter "dc2" and this proxy is configured for "dc1"`, replaced(`"datacenter":"dc1"`, `"datacenter":"dc2"`)},
		{"more behind", "cut short or damaged", append(encoded(t), '\n')},
		{"no name", "no name", resealed(&Service{})},
		{"no address", "bad address", resealed(&Service{Name: "a", Endpoints: []Endpoint{{Weight: 1}}})},
		{"no port", "bad address", resealed(&Service{Name: "a", Endpoints: []Endpoint{{Weight: 1, Address: netip.AddrPortFrom(ok.Addr(), 0)}}})},
		{"weight 0", "weight", resealed(&Service{Name: "a", Endpoints: []Endpoint{{Address: ok}}})},
		{"weight above", "weight", resealed(&Service{Name: "a", Endpoints: []Endpoint{{Address: ok, Weight: 65536}}})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := decodeSnapshot(tt.data, "dc1")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestReadSnapshotFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deep", "er", "snapshot")
	if _, err := ReadKept(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a missing file gave %v", err)
	}
	if err := WriteKept(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := WriteKept(path, []byte("two")); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadKept(path); err != nil || string(got) != "two" {
		t.Fatalf("got %q, %v", got, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if info, err = os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the folder %v, %v; want 0700", info.Mode(), err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	refused := func(name, want, path string) {
		t.Helper()
		if _, err := ReadKept(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want one with %q", name, err, want)
		}
	}
	if err := os.Chmod(path, 0o620); err != nil {
		t.Fatal(err)
	}
	refused("writable by the group", "others may write", path)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	refused("symlink", "symbolic links", link)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("FIFO", "not a regular file", fifo)
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxSnapshot+1); err != nil {
		t.Fatal(err)
	}
	refused("too large", "the limit is", large)
}

// A temporary file that someone left as a symlink is not written through.
func TestWriteSnapshotFileReplacesTemp(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "snapshot")
	if err := os.Symlink(victim, path+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := WriteKept(path, []byte("content")); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(victim); string(got) != "precious" {
		t.Errorf("the target of the symlink holds %q", got)
	}
}

// A real full disk and a real read-only one leave the old file as it was.
func TestWriteSnapshotFileFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	path := filepath.Join(dir, "snapshot")
	if err := WriteKept(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := WriteKept(path, make([]byte, 1<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: got %v, want ENOSPC", err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatalf("remounting read-only: %v", err)
	}
	if err := WriteKept(path, []byte("new")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("read-only disk: got %v, want EROFS", err)
	}
	if got, err := ReadKept(path); err != nil || string(got) != "old" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}

func FuzzDecodeSnapshot(f *testing.F) {
	f.Add(encoded(f), true)
	f.Add([]byte(`[{"name":"a","endpoints":[{"address":"1.2.3.4:5","weight":1,"health":"warning"}]}]`), true)
	f.Add([]byte(`[null]`), true)
	f.Add([]byte("{}\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal {
			data = sealed(t, data)
		}
		services, _, err := decodeSnapshot(data, "dc1")
		if err != nil {
			return
		}
		for _, s := range services {
			if s.Name == "" || !s.Stale {
				t.Fatalf("took %+v", s)
			}
			for i, e := range s.Endpoints {
				if e.Weight < 1 || e.Weight > MaxWeight || e.Address.Port() == 0 {
					t.Fatalf("took %+v", e)
				}
				if i > 0 && s.Endpoints[i-1].Address.Compare(e.Address) > 0 {
					t.Fatal("not sorted")
				}
			}
		}
		again, err := encodeSnapshot(services, "dc1", time.Now())
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		back, _, err := decodeSnapshot(again, "dc1")
		if err != nil || len(back) != len(services) {
			t.Fatalf("came back as %d of %d services, %v", len(back), len(services), err)
		}
		for i := range back {
			if !back[i].Equal(services[i]) {
				t.Fatalf("%+v came back as %+v", services[i], back[i])
			}
		}
	})
}

// sealed puts a valid header before any body, so that the decoder behind the
// checksum is reached.
func sealed(t *testing.T, body []byte) []byte {
	data, err := encodeSnapshot(nil, "dc1", time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := bytes.Cut(data, []byte{'\n'})
	head = bytes.Replace(head, []byte(`"bytes":5`), []byte(`"bytes":`+itoa(len(body))), 1)
	i := bytes.Index(head, []byte(`"sha256":"`)) + len(`"sha256":"`)
	copy(head[i:], hexSum(body))
	return append(append(head, '\n'), body...)
}
