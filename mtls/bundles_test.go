package mtls

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWithBundles(t *testing.T) {
	own, other, ignored := newTestCA(t), newTestCA(t), newTestCA(t)
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f := NewFeed("test")
	files := map[string]string{
		"d.test": write("own", ignored.pem()), // the source itself comes first
		"o.test": filepath.Join(dir, "other"), // not there yet
	}
	b := WithBundles(f, files, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	until := func(what string, want func() bool) {
		t.Helper()
		deadline := time.After(time.Minute)
		for !want() {
			select {
			case <-b.Changed():
			case <-time.After(5 * time.Millisecond):
			case <-deadline:
				t.Fatalf("%s: not within a minute; %+v", what, b.Status())
			}
		}
	}
	until("the missing file", func() bool { return b.Status().LastError != nil })
	publish(t, f, own.issue(webID, nil), trust("d.test", own))
	until("the material", func() bool { return b.Material() != nil })
	if m := b.Material(); len(m.Bundles) != 1 || !m.Bundles["d.test"].Equal(pool(own)) {
		t.Errorf("bundles %v", m.Bundles)
	}
	if err := b.Status().LastError; err == nil || !strings.Contains(err.Error(), "roots of o.test") {
		t.Errorf("the missing file is told as %v", err)
	}

	write("other", other.pem())
	until("the other domain", func() bool { return len(b.Material().Bundles) == 2 })
	until("the end of the trouble", func() bool { return b.Status().LastError == nil })
	if !b.Material().Bundles["o.test"].Equal(pool(other)) {
		t.Error("the roots of o.test are not those of the file")
	}
	write("other", []byte("rubbish"))
	until("the trouble", func() bool { return b.Status().LastError != nil })
	if len(b.Material().Bundles) != 2 {
		t.Error("a broken file took the roots away")
	}
	// What the source says of a domain replaces the file's.
	publish(t, f, own.issue(webID, nil), map[string]*x509.CertPool{"d.test": pool(own), "o.test": pool(own)})
	until("the source's own word", func() bool { return b.Material().Bundles["o.test"].Equal(pool(own)) })
	f.Fail(errors.New("gone"))
	if err := b.Status().LastError; err == nil || err.Error() != "gone" || b.Status().Kind != "test" || b.Status().ID.String() != webID {
		t.Errorf("status %+v", b.Status())
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
}
