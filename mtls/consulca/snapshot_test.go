package consulca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

const webID = "spiffe://td.consul/ns/default/dc/dc1/svc/web"

// issued is a leaf of a new CA with the CA's root, as Consul would give them.
func issued(t *testing.T, change func(*x509.Certificate)) (*leaf, *roots) {
	t.Helper()
	ca := testkit.NewCA(t)
	root, err := os.ReadFile(filepath.Join(ca.Files(webID), "bundle.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.Issue(webID, change)
	l, err := newLeaf(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), cert.PrivateKey, MethodSign)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRoots("td.consul", "a", []rootMessage{{"a", string(root)}})
	if err != nil {
		t.Fatal(err)
	}
	return l, r
}

func TestSnapshot(t *testing.T) {
	l, r := issued(t, nil)
	path := filepath.Join(t.TempDir(), "web.json")
	if _, _, err := restore(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for range 2 { // the second time over the first
		if err := save(path, l, r); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("files beside it are left: %v, %v", list, err)
	}
	l2, r2, err := restore(path)
	if err != nil || !bytes.Equal(l2.cert.Certificate[0], l.cert.Certificate[0]) || !l2.leadsTo(r2.active) || !r2.pool.Equal(r.pool) || r2.domain != "td.consul" {
		t.Fatalf("%+v, %+v, %v", l2, r2, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := restore(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others may read: %v", err)
	}
}

// begin takes what is on disk only where it is this service's and still good.
func TestSnapshotOfAnother(t *testing.T) {
	old := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	for _, c := range []struct {
		name   string
		place  place
		domain string
		change func(*x509.Certificate)
		want   string
	}{
		{"good", place{"web", "", "default", "default"}, "", nil, ""},
		{"another service", place{"api", "", "default", "default"}, "", nil, "not of spiffe://td.consul/ns/default/dc/dc1/svc/api"},
		{"another datacenter", place{"web", "dc2", "default", "default"}, "", nil, "not of"},
		{"expired", place{"web", "dc1", "default", "default"}, "", old, "has expired"},
		{"another trust domain", place{"web", "dc1", "default", "default"}, "other.consul", nil, "identity.trust_domain"},
	} {
		l, r := issued(t, c.change)
		s := New(Config{Method: MethodLeaf, Snapshot: "/x"}, Options{TrustDomain: c.domain})
		s.place = c.place
		err := s.begin(l, r)
		if c.want == "" && (err != nil || s.Material() == nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || s.Material() != nil) {
			t.Errorf("%s: %v, material %v; want %q", c.name, err, s.Material() != nil, c.want)
		}
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add([]byte(`{"version":1,"trust_domain":"td.consul","roots":["x"],"chain":"","key":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, r, err := parseSnapshot(b); err == nil && (l == nil || r == nil || r.active == nil) {
			t.Fatal("neither an error nor an identity")
		}
	})
}

func TestRenewal(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	to := from.Add(100 * time.Hour)
	for word, want := range map[float64]time.Duration{0: 60 * time.Hour, 0.5: 75 * time.Hour, 0.999999: 90 * time.Hour} {
		if got := renewal(from, to, word).Sub(from); (got - want).Abs() > time.Minute {
			t.Errorf("word %v: after %s, want %s", word, got, want)
		}
	}
	var p pause
	for i := range 30 {
		if d := p.next(pauseLong); d < min(pauseFirst<<i, pauseLong)/2 && i < 20 || d > pauseLong {
			t.Errorf("pause %d is %s", i, d)
		}
	}
	if d := p.next(pauseShort); d > pauseShort {
		t.Errorf("with little life left the pause is %s", d)
	}
}

// Another root spreads the renewals; one that is not trusted any more does not wait.
func TestRootsChange(t *testing.T) {
	l, r := issued(t, nil)
	_, other := issued(t, nil)
	s := New(Config{Method: MethodLeaf}, Options{Service: "web"})
	due := time.Now().Add(time.Hour)
	s.own, s.roots, l.due = l, r, due
	both, err := newRoots("td.consul", "b", []rootMessage{{"a", r.pems[0]}, {"b", other.pems[0]}})
	if err != nil {
		t.Fatal(err)
	}
	s.takeRoots(both)
	if wait := time.Until(l.due); wait > rootsJitter || l.due.Equal(due) {
		t.Errorf("after a change of the active root the certificate is due in %s", wait)
	}
	l.due = due
	s.takeRoots(other)
	if wait := time.Until(l.due); wait > 0 {
		t.Errorf("a certificate that nobody trusts is due in %s", wait)
	}
}
