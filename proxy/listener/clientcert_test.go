package listener

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

func TestElement(t *testing.T) {
	ca := testkit.NewCA(t)
	cert := ca.Issue(callerID, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "we\"b\r\nEvil: 1", Organization: []string{"a\\b"}}
		c.DNSNames = []string{"web.test", "*.web.test"}
	})
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	chain := []*x509.Certificate{leaf, leaf}
	sum := sha256.Sum256(leaf.Raw)
	hash := "Hash=" + hex.EncodeToString(sum[:])
	var e elements
	for _, c := range []struct {
		what plan.ClientCert
		want string
	}{
		{plan.ClientCert{}, "By=me;" + hash},
		{plan.ClientCert{URI: true}, "By=me;" + hash + ";URI=" + callerID},
		{plan.ClientCert{DNS: true}, "By=me;" + hash + ";DNS=web.test;DNS=*.web.test"},
	} {
		if got := string(e.element(chain, c.what, "me")); got != c.want {
			t.Errorf("%+v: %q, want %q", c.what, got, c.want)
		}
	}
	all := plan.ClientCert{Cert: true, Chain: true, Subject: true, URI: true, DNS: true}
	got := e.element(chain, all, "me")
	if bytes.ContainsAny(got, "\r\n") || !strings.Contains(string(got), `Subject="CN=we`) {
		t.Errorf("element %q", got)
	}
	// What is read back is what there was, with Envoy's encoding: no plus sign for a space.
	for field, want := range map[string]int{`;Cert="`: 1, `;Chain="`: 2} {
		_, rest, _ := strings.Cut(string(got), field)
		value, _, _ := strings.Cut(rest, `"`)
		text, err := url.PathUnescape(value)
		if err != nil || strings.Contains(value, "+") {
			t.Errorf("%s is %q, %v", field, value, err)
		}
		n := 0
		for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
			if n++; !bytes.Equal(block.Bytes, leaf.Raw) {
				t.Errorf("%s holds another certificate", field)
			}
		}
		if n != want {
			t.Errorf("%s holds %d certificates, want %d", field, n, want)
		}
	}
	if again := e.element(chain, all, "me"); &again[0] != &got[0] {
		t.Error("the same caller's element was made twice")
	}
	if other := e.element(chain, all, "you"); !bytes.HasPrefix(other, []byte("By=you;")) {
		t.Errorf("after a change of the own identity: %q", other[:20])
	}
	// A chain without end is left out; the certificate stays.
	var endless []*x509.Certificate
	for range 40 {
		endless = append(endless, leaf)
	}
	if b := e.element(endless, all, "me"); len(b) > maxElement || bytes.Contains(b, []byte("Chain=")) || !bytes.Contains(b, []byte("Cert=")) {
		t.Errorf("an element of %d bytes", len(b))
	}
	// However many callers come, no more than a bounded number is remembered.
	for i := range 3 * maxElements {
		e.element(chain, all, strings.Repeat("x", i%maxElements)+string(rune('a'+i/maxElements)))
	}
	if len(e.made) > maxElements {
		t.Errorf("%d elements are remembered", len(e.made))
	}
}

func TestClientCertIsAsTold(t *testing.T) {
	r := start(t, func(l *plan.Listener) { l.ClientCert = plan.ClientCert{Keep: true} })
	echoes(t, r.caller(), "hello")
	if s := r.l.States(10); len(s) != 1 || len(s[0].Peer.ClientCert) > 0 || !s[0].Peer.KeepClientCert {
		t.Errorf("peers %+v", s)
	}
}
