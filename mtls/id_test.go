package mtls

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func TestParseID(t *testing.T) {
	for _, c := range []struct{ in, domain, path string }{
		{"spiffe://example.org", "example.org", ""},
		{"spiffe://example.org/web", "example.org", "/web"},
		{"spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web", "11111111-2222-3333-4444-555555555555.consul", "/ns/default/dc/dc1/svc/web"},
		{"spiffe://a_b/X.y-Z_0/...", "a_b", "/X.y-Z_0/..."},
		{"spiffe://" + strings.Repeat("d", 255) + "/p", strings.Repeat("d", 255), "/p"},
		{"spiffe://d/" + strings.Repeat("p", 2048-11), "d", "/" + strings.Repeat("p", 2048-11)},
	} {
		id, err := ParseID(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if id.String() != c.in || id.TrustDomain() != c.domain || id.Path() != c.path || id.IsZero() {
			t.Errorf("%q: got %q, trust domain %q, path %q", c.in, id, id.TrustDomain(), id.Path())
		}
		again, _ := ParseID(strings.Clone(c.in))
		if again != id {
			t.Errorf("%q: two parses are not equal", c.in)
		}
	}
}

func TestParseIDRefuses(t *testing.T) {
	for _, in := range []string{
		"", "spiffe:", "spiffe://", "spiffe:///web", "SPIFFE://d/web", "https://d/web", "spiffe:/d/web",
		"spiffe://D/web", "spiffe://d:1/web", "spiffe://u@d/web", "spiffe://d/", "spiffe://d//web", "spiffe://d/web/",
		"spiffe://d/./web", "spiffe://d/../web", "spiffe://d/web/..", "spiffe://d/w%65b", "spiffe://d/web?q", "spiffe://d/web#f",
		"spiffe://d?q", "spiffe://d#f", "spiffe://d/wéb", "spiffe://dé/web", "spiffe://d/w b", " spiffe://d/web", "spiffe://d/web\n",
		"spiffe://d/web\x00", "spiffe://[::1]/web", "spiffe://d/a*b",
		"spiffe://" + strings.Repeat("d", 256) + "/p",
		"spiffe://d/" + strings.Repeat("p", 2048-10),
	} {
		if id, err := ParseID(in); err == nil {
			t.Errorf("%q: accepted as %q", in, id)
		} else if !id.IsZero() {
			t.Errorf("%q: refused with a non-zero ID %q", in, id)
		}
	}
}

func TestIDText(t *testing.T) {
	var zero, id ID
	if zero.TrustDomain() != "" || zero.Path() != "" || zero.String() != "" || !zero.IsZero() {
		t.Errorf("zero ID is not empty: %+v", zero)
	}
	if err := id.UnmarshalText([]byte("spiffe://d/web")); err != nil {
		t.Fatal(err)
	}
	if b, err := id.MarshalText(); err != nil || string(b) != "spiffe://d/web" {
		t.Errorf("MarshalText: %q, %v", b, err)
	}
	if err := id.UnmarshalText([]byte("spiffe://d/")); err == nil {
		t.Error("a trailing slash was accepted")
	}
	if err := id.UnmarshalText(nil); err != nil || !id.IsZero() {
		t.Errorf("empty text: %v, %q", err, id)
	}
}

// FuzzParseID compares with go-spiffe, which knows the same grammar but no bounds on length.
func FuzzParseID(f *testing.F) {
	for _, s := range []string{"spiffe://example.org/ns/a/sa/b", "spiffe://d", "spiffe://d/", "spiffe://d/..", "spiffe://D/x", "spiffe://d/a%20b", "spiffe:///x", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		ref, refErr := spiffeid.FromString(s)
		tooLong := len(s) > MaxIDLength || refErr == nil && len(ref.TrustDomain().Name()) > MaxTrustDomainLength
		if tooLong {
			if err == nil {
				t.Fatalf("%q: too long, but accepted", s)
			}
			return
		}
		if (err == nil) != (refErr == nil) {
			t.Fatalf("%q: got error %v, reference %v", s, err, refErr)
		}
		if err == nil && (id.String() != ref.String() || id.TrustDomain() != ref.TrustDomain().Name() || id.Path() != ref.Path()) {
			t.Fatalf("%q: got %q %q %q, reference %q %q %q", s, id, id.TrustDomain(), id.Path(), ref, ref.TrustDomain(), ref.Path())
		}
	})
}
