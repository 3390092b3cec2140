package devca

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/outrigger-mesh/outrigger/mtls"
)

func mustID(t testing.TB, s string) mtls.ID {
	t.Helper()
	id, err := mtls.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestIssue(t *testing.T) {
	ca, err := NewAuthority("d.test")
	if err != nil {
		t.Fatal(err)
	}
	root := ca.Root()
	if !root.IsCA || root.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || !root.MaxPathLenZero ||
		len(root.URIs) != 1 || root.URIs[0].String() != "spiffe://d.test" {
		t.Errorf("root: CA %t, usage %b, path length zero %t, URIs %v", root.IsCA, root.KeyUsage, root.MaxPathLenZero, root.URIs)
	}
	const name = "spiffe://d.test/ns/shop/web"
	before := time.Now()
	cert, err := ca.Issue(mustID(t, name), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf := cert.Leaf
	if leaf.IsCA || !leaf.BasicConstraintsValid || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 2 || len(leaf.Subject.Names) != 0 {
		t.Errorf("leaf: CA %t, usage %b, extended %v, subject %q", leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage, leaf.Subject)
	}
	if leaf.NotBefore.After(before) || leaf.NotAfter.Before(before.Add(time.Hour-2*time.Second)) || leaf.NotAfter.After(time.Now().Add(time.Hour)) {
		t.Errorf("valid from %s to %s for an hour from %s", leaf.NotBefore, leaf.NotAfter, before)
	}
	critical := map[string]bool{}
	for _, e := range leaf.Extensions {
		critical[e.Id.String()] = e.Critical
	}
	// An empty subject asks for a critical SAN; key usage is always critical.
	if !critical["2.5.29.17"] || !critical["2.5.29.15"] {
		t.Errorf("critical extensions: %v", critical)
	}
	// The reference implementation takes it.
	bundle := x509bundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString("d.test"), []*x509.Certificate{root})
	id, _, err := x509svid.Verify([]*x509.Certificate{leaf}, bundle)
	if err != nil || id.String() != name {
		t.Errorf("go-spiffe: %q, %v", id, err)
	}
	m, err := ca.Material(mustID(t, name), time.Minute)
	if err != nil || m.ID.String() != name {
		t.Errorf("Material: %v, %v", m, err)
	}
	for _, c := range []struct {
		id  string
		ttl time.Duration
	}{{"spiffe://o.test/web", time.Hour}, {"spiffe://d.test", time.Hour}, {name, 0}, {name, -time.Second}} {
		if _, err := ca.Issue(mustID(t, c.id), c.ttl); err == nil {
			t.Errorf("%s for %s was issued", c.id, c.ttl)
		}
	}
	late, err := ca.Issue(mustID(t, name), 20*365*24*time.Hour)
	if err != nil || late.Leaf.NotAfter.After(root.NotAfter) {
		t.Errorf("a leaf outlives its root: %v", err)
	}
	if _, err := NewAuthority("D.test"); err == nil {
		t.Error("an invalid trust domain was accepted")
	}
}

func TestOpenAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first, err := OpenAuthority("d.test", dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700 | os.ModeDir, rootFile: 0o600, keyFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%q has mode %s, want %s", name, info.Mode(), want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("the directory holds %v", entries)
	}
	again, err := OpenAuthority("d.test", dir)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Root().Equal(first.Root()) {
		t.Error("the root did not survive")
	}
	cert, err := again.Issue(mustID(t, "spiffe://d.test/web"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.Leaf.CheckSignatureFrom(first.Root()); err != nil {
		t.Errorf("the key did not survive: %v", err)
	}
	if _, err := OpenAuthority("o.test", dir); err == nil || !strings.Contains(err.Error(), "spiffe://o.test") {
		t.Errorf("root of another trust domain: %v", err)
	}

	path := filepath.Join(t.TempDir(), "bundle.pem")
	if err := again.WriteBundle(path); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, first.BundlePEM()) {
		t.Errorf("bundle file: %q, %v", b, err)
	}
	if err := again.WriteBundle(filepath.Join(path, "x")); err == nil {
		t.Error("writing below a file succeeded")
	}

	// A write that ended after the key is begun anew; a lost key is not.
	if err := os.Remove(filepath.Join(dir, rootFile)); err != nil {
		t.Fatal(err)
	}
	renewed, err := OpenAuthority("d.test", dir)
	if err != nil || renewed.Root().Equal(first.Root()) {
		t.Errorf("after an unfinished write: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority("d.test", dir); err == nil {
		t.Error("a root without its key was opened")
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority("d.test", dir); err == nil {
		t.Error("a root with a broken key was opened")
	}
}
