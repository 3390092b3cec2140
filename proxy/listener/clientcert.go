package listener

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"strings"
	"sync"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

const (
	// maxElements bounds the elements that are remembered.
	maxElements = 256
	// maxElement is how long an element may be; a chain that makes it longer is left out, and then the certificate.
	maxElement = 16 << 10
	// longElement is from where on elements are remembered: shorter ones are sooner made than found.
	longElement = 512
)

// elements are those of x-forwarded-client-cert for callers of late, so that the connections of one caller share the
// kilobytes that its chain may take.
type elements struct {
	mu   sync.Mutex
	made map[elementKey][]byte
}

type elementKey struct {
	chain [sha256.Size]byte
	what  plan.ClientCert
	by    string
}

// element is the one for a caller with chain, in Envoy's form. It must not be changed.
func (e *elements) element(chain []*x509.Certificate, what plan.ClientCert, by string) []byte {
	if !what.Cert && !what.Chain {
		return makeElement(chain, what, by)
	}
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw)
	}
	key := elementKey{what: what, by: by}
	h.Sum(key.chain[:0])
	e.mu.Lock()
	defer e.mu.Unlock()
	if b, ok := e.made[key]; ok {
		return b
	}
	b := makeElement(chain, what, by)
	for what.Chain && len(b) > maxElement {
		what.Chain = false
		b = makeElement(chain, what, by)
	}
	if what.Cert && len(b) > maxElement {
		what.Cert = false
		b = makeElement(chain, what, by)
	}
	if len(b) < longElement {
		return b
	}
	if e.made == nil {
		e.made = map[elementKey][]byte{}
	}
	if len(e.made) >= maxElements {
		// Whatever the map yields first makes room: cheap, and no peer can steer it.
		for k := range e.made {
			delete(e.made, k)
			break
		}
	}
	e.made[key] = b
	return b
}

func makeElement(chain []*x509.Certificate, what plan.ClientCert, by string) []byte {
	leaf := chain[0]
	sum := sha256.Sum256(leaf.Raw)
	var b strings.Builder
	if by != "" {
		b.WriteString("By=" + by + ";")
	}
	b.WriteString("Hash=" + hex.EncodeToString(sum[:]))
	if what.Cert {
		b.WriteString(`;Cert="` + escaped(chain[:1]) + `"`)
	}
	if what.Chain {
		b.WriteString(`;Chain="` + escaped(chain) + `"`)
	}
	if what.Subject {
		b.WriteString(`;Subject="` + quotable(leaf.Subject.String()) + `"`)
	}
	if what.URI && len(leaf.URIs) > 0 {
		b.WriteString(";URI=" + leaf.URIs[0].String())
	}
	if what.DNS {
		for _, name := range leaf.DNSNames {
			if plainName(name) {
				b.WriteString(";DNS=" + name)
			}
		}
	}
	return []byte(b.String())
}

// escaped is certificates as URL-encoded PEM.
func escaped(chain []*x509.Certificate) string {
	var b strings.Builder
	for _, c := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return strings.ReplaceAll(url.QueryEscape(b.String()), "+", "%20")
}

// quotable makes s fit between quotes in a field: what could end either is escaped, what is no printable ASCII replaced.
func quotable(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// plainName reports whether a DNS name has nothing in it that means something in the field.
func plainName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '*':
		default:
			return false
		}
	}
	return s != ""
}
