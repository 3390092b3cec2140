package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// folder is a directory with identity files.
type folder struct {
	t   *testing.T
	dir string
}

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f folder) write(name string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), content, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f folder) rename(from, to string) {
	f.t.Helper()
	if err := os.Rename(f.path(from), f.path(to)); err != nil {
		f.t.Fatal(err)
	}
}

func (f folder) set(cert tls.Certificate, ca *testCA) {
	f.t.Helper()
	f.write("tls.crt", certPEM(cert))
	f.write("tls.key", keyPEM(f.t, cert))
	f.write("ca.crt", ca.pem())
}

func (f folder) config() FilesConfig {
	return FilesConfig{CertFile: f.path("tls.crt"), KeyFile: f.path("tls.key"), BundleFile: f.path("ca.crt"), StartupTimeout: -1, Poll: time.Hour}
}

// start runs a source until the test ends.
func start(t *testing.T, cfg FilesConfig) *Files {
	t.Helper()
	f := NewFiles(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	return f
}

// becomes waits until the source serves the certificate.
func becomes(t *testing.T, f *Files, cert tls.Certificate) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		changed := f.Changed()
		if m := f.Material(); m != nil && m.Cert.Leaf.Equal(cert.Leaf) {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("the source did not take the new certificate; status %+v", f.Status())
		}
	}
}

// complains waits until the status has an error that says so.
func complains(t *testing.T, f *Files, says string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		if err := f.Status().LastError; err != nil && strings.Contains(err.Error(), says) {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-late:
			t.Fatalf("the source did not complain of %q; status %+v", says, f.Status())
		}
	}
}

func TestFilesReload(t *testing.T) {
	ca := newTestCA(t)
	d := folder{t, t.TempDir()}
	first := ca.issue(webID, nil)
	d.set(first, ca)
	f := start(t, d.config())
	becomes(t, f, first)
	if s := f.Status(); s.Kind != "files" || s.ID.String() != webID || s.Updates != 1 || s.LastError != nil {
		t.Errorf("status %+v", s)
	}

	// Rewritten in place, one after the other: between the two they do not fit.
	second := ca.issue(webID, nil)
	d.write("tls.crt", certPEM(second))
	complains(t, f, "private key does not match")
	if !f.Material().Cert.Leaf.Equal(first.Leaf) {
		t.Error("the last good certificate is gone")
	}
	d.write("tls.key", keyPEM(t, second))
	becomes(t, f, second)
	if err := f.Status().LastError; err != nil {
		t.Errorf("the error stays after recovery: %v", err)
	}

	// Replaced by rename, with an intermediate.
	third := ca.intermediate().issue(webID, nil)
	d.write("tls.key.new", keyPEM(t, third))
	d.write("tls.crt.new", certPEM(third))
	d.rename("tls.key.new", "tls.key")
	d.rename("tls.crt.new", "tls.crt")
	becomes(t, f, third)

	for _, c := range []struct {
		name string
		file string
		with []byte
		says string
	}{
		{"half a certificate", "tls.crt", certPEM(third)[:200], "failed to find"},
		{"empty key", "tls.key", nil, "tls.key"},
		{"empty bundle", "ca.crt", nil, "no certificate"},
		{"half a bundle", "ca.crt", append(ca.pem(), ca.pem()[:100]...), "1 of 2 PEM blocks"},
		{"bundle of another CA", "ca.crt", newTestCA(t).pem(), "does not lead to the trust bundle"},
		{"leaf in the bundle", "ca.crt", certPEM(first), "is not a CA"},
		{"key in the bundle", "ca.crt", keyPEM(t, first), "PRIVATE KEY"},
	} {
		before, err := os.ReadFile(d.path(c.file))
		if err != nil {
			t.Fatal(err)
		}
		d.write(c.file, c.with)
		complains(t, f, c.says)
		if !f.Material().Cert.Leaf.Equal(third.Leaf) {
			t.Errorf("%s: the last good certificate is gone", c.name)
		}
		d.write(c.file, before)
		late := time.After(20 * time.Second)
		for f.Status().LastError != nil {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-late:
				t.Fatalf("%s: the error stays: %v", c.name, f.Status().LastError)
			}
		}
	}
	if got := f.Status().Updates; got != 3 {
		t.Errorf("%d updates, want 3", got)
	}
	if err := os.Remove(d.path("tls.key")); err != nil {
		t.Fatal(err)
	}
	complains(t, f, "no such file")
	d.write("tls.key", keyPEM(t, third))
	fourth := ca.issue(webID, nil)
	d.set(fourth, ca)
	becomes(t, f, fourth)
}

// TestFilesSymlinkSwap rewrites as Kubernetes' atomic writer does: files are
// links through ..data, which is renamed over to point to a new directory.
func TestFilesSymlinkSwap(t *testing.T) {
	ca := newTestCA(t)
	d := folder{t, t.TempDir()}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, d.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	version := func(name string, cert tls.Certificate) {
		t.Helper()
		if err := os.Mkdir(d.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
		folder{t, d.path(name)}.set(cert, ca)
	}
	first := ca.issue(webID, nil)
	version("..v1", first)
	link("..v1", "..data")
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		link("..data/"+name, name)
	}
	f := start(t, d.config())
	becomes(t, f, first)
	old := "..v1"
	for _, next := range []string{"..v2", "..v3"} {
		cert := ca.issue(webID, nil)
		version(next, cert)
		link(next, "..data_tmp")
		d.rename("..data_tmp", "..data")
		if err := os.RemoveAll(d.path(old)); err != nil {
			t.Fatal(err)
		}
		becomes(t, f, cert)
		old = next
	}
}

func TestFilesBehindALinkedDirectory(t *testing.T) {
	ca := newTestCA(t)
	outside, d := folder{t, t.TempDir()}, folder{t, t.TempDir()}
	first := ca.issue(webID, nil)
	outside.set(first, ca)
	if err := os.Symlink(outside.dir, d.path("current")); err != nil {
		t.Fatal(err)
	}
	f := start(t, folder{t, d.path("current")}.config())
	becomes(t, f, first)
	next, second := folder{t, t.TempDir()}, ca.issue(webID, nil)
	next.set(second, ca)
	if err := os.Symlink(next.dir, d.path("current.new")); err != nil {
		t.Fatal(err)
	}
	d.rename("current.new", "current")
	becomes(t, f, second)
	// And in place, in the directory that was not watched at the beginning.
	third := ca.issue(webID, nil)
	next.set(third, ca)
	becomes(t, f, third)
}

func TestFilesAppearLater(t *testing.T) {
	ca := newTestCA(t)
	d := folder{t, filepath.Join(t.TempDir(), "late")}
	cfg := d.config()
	cfg.Poll = 200 * time.Millisecond
	f := start(t, cfg)
	complains(t, f, "no such file")
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cert := ca.issue(webID, nil)
	d.set(cert, ca)
	becomes(t, f, cert)
}

func TestFilesFederation(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	d := folder{t, t.TempDir()}
	cert := ca.issue(webID, nil)
	d.set(cert, ca)
	d.write("o.pem", other.pem())
	cfg := d.config()
	cfg.Bundles = map[string]string{"o.test": d.path("o.pem")}
	cfg.TrustDomain = "d.test"
	f := start(t, cfg)
	becomes(t, f, cert)
	if b := f.Material().Bundles; len(b) != 2 || !b["o.test"].Equal(pool(other)) || !b["d.test"].Equal(pool(ca)) {
		t.Errorf("bundles %v", b)
	}
}

func TestFilesStartup(t *testing.T) {
	ca := newTestCA(t)
	d := folder{t, t.TempDir()}
	cert := ca.issue(webID, nil)
	d.set(cert, ca)
	for _, c := range []struct {
		name   string
		change func(*FilesConfig)
		says   string
	}{
		{"missing file", func(c *FilesConfig) { c.KeyFile = d.path("nowhere") }, "nowhere"},
		{"wrong trust domain", func(c *FilesConfig) { c.TrustDomain = "o.test" }, `not of the trust domain "o.test"`},
		{"own trust domain among the others", func(c *FilesConfig) { c.Bundles = map[string]string{"d.test": d.path("ca.crt")} }, "own trust domain"},
	} {
		cfg := d.config()
		cfg.StartupTimeout = time.Millisecond
		c.change(&cfg)
		f := NewFiles(cfg)
		if err := f.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "within 1ms") {
			t.Errorf("%s: Run returned %v", c.name, err)
		}
	}
}
