package mtls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// VerifyKind says which check a peer failed.
type VerifyKind uint8

const (
	// NoCertificate: the peer presented none.
	NoCertificate VerifyKind = iota + 1
	// BadCertificate: the leaf breaks a rule of the X509-SVID standard.
	BadCertificate
	// UnknownTrustDomain: there is no bundle for the peer's trust domain.
	UnknownTrustDomain
	// UntrustedChain: the chain does not lead to the bundle of its trust domain.
	UntrustedChain
	// Expired: the certificate or one of its chain is past its end.
	Expired
	// NotYetValid: the certificate or one of its chain has not begun.
	NotYetValid
	// WrongUsage: the extended key usage forbids this side of a handshake.
	WrongUsage
	// WrongTrustDomain: verified, but of a trust domain that is not expected here.
	WrongTrustDomain
	// WrongIdentity: verified, but not one of the identities expected here.
	WrongIdentity
)

// String returns the word used in logs and metrics.
func (k VerifyKind) String() string {
	switch k {
	case NoCertificate:
		return "no_certificate"
	case BadCertificate:
		return "bad_certificate"
	case UnknownTrustDomain:
		return "unknown_trust_domain"
	case UntrustedChain:
		return "untrusted_chain"
	case Expired:
		return "expired"
	case NotYetValid:
		return "not_yet_valid"
	case WrongUsage:
		return "wrong_usage"
	case WrongTrustDomain:
		return "wrong_trust_domain"
	case WrongIdentity:
		return "wrong_identity"
	}
	return "unknown"
}

// VerifyError is why a peer was refused. A failed handshake returns it to the
// side that refused; errors.As finds it.
type VerifyError struct {
	Kind VerifyKind
	// Want is what was expected, in words.
	Want string
	// Got is what the peer presented, in words.
	Got string
	// Peer is the identity that the peer claimed; it is proven only for the
	// kinds WrongTrustDomain and WrongIdentity.
	Peer ID
	// Err is the cause below, if there is one.
	Err error
}

// Error implements error.
func (e *VerifyError) Error() string {
	return fmt.Sprintf("mtls: peer refused (%s): expected %s, got %s", e.Kind, e.Want, e.Got)
}

// Unwrap returns the cause.
func (e *VerifyError) Unwrap() error { return e.Err }

// expectation is whom one side of a handshake accepts.
type expectation struct {
	ids     []ID
	domains []string
	// anyDomain accepts every identity that a bundle vouches for.
	anyDomain bool
	// optional accepts a peer without certificate.
	optional bool
	usage    x509.ExtKeyUsage
	now      func() time.Time
}

func (e *expectation) want() string {
	if e.anyDomain {
		return "an identity of a trusted domain"
	}
	var names []string
	for _, id := range e.ids {
		names = append(names, id.String())
	}
	for _, d := range e.domains {
		names = append(names, schemePrefix+d+"/*")
	}
	const most = 8
	if n := len(names); n > most {
		names = append(names[:most], fmt.Sprintf("%d more", n-most))
	}
	if len(names) == 0 {
		return "nobody (no identity is configured)"
	}
	return strings.Join(names, " or ")
}

// verify is the whole of peer verification: certificate, leaf rules, chain,
// time, usage and expectation. It runs in VerifyConnection, which crypto/tls
// calls on full and on resumed handshakes alike.
func (e *expectation) verify(m *Material, cs *tls.ConnectionState) error {
	if m == nil {
		return ErrNoMaterial
	}
	chain := cs.PeerCertificates
	if len(chain) == 0 {
		if e.optional {
			return nil
		}
		return &VerifyError{Kind: NoCertificate, Want: e.want(), Got: "no certificate"}
	}
	now := e.now()
	id, err := m.verifyChain(chain, e.usage, now)
	if err != nil {
		var v *VerifyError
		if errors.As(err, &v) && v.Want == "" {
			v.Want = e.want()
		}
		return err
	}
	switch {
	case e.anyDomain,
		slices.Contains(e.ids, id),
		slices.Contains(e.domains, id.TrustDomain()):
		return nil
	}
	kind := WrongTrustDomain
	if slices.Contains(e.domains, id.TrustDomain()) ||
		slices.ContainsFunc(e.ids, func(want ID) bool { return want.TrustDomain() == id.TrustDomain() }) {
		kind = WrongIdentity
	}
	return &VerifyError{Kind: kind, Want: e.want(), Got: id.String(), Peer: id}
}

// verifyChain checks the certificate chain against the bundle of the trust
// domain that its leaf names. Want is left empty in its errors.
func (m *Material) verifyChain(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) (ID, error) {
	key := chainKey(chain, usage)
	if id, ok := m.verified.get(key, now); ok {
		return id, nil
	}
	leaf := chain[0]
	id, err := svidID(leaf)
	if err != nil {
		return ID{}, &VerifyError{Kind: BadCertificate, Got: err.Error(), Err: err}
	}
	roots := m.Bundles[id.TrustDomain()]
	if roots == nil {
		return ID{}, &VerifyError{
			Kind: UnknownTrustDomain, Peer: id,
			Got: fmt.Sprintf("%s, and there is no bundle for its trust domain", id),
		}
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates(chain),
		KeyUsages:     []x509.ExtKeyUsage{usage},
		CurrentTime:   now,
	})
	if err != nil {
		return ID{}, chainError(id, leaf, err, now)
	}
	m.verified.put(key, id, chains)
	return id, nil
}

func chainError(id ID, leaf *x509.Certificate, err error, now time.Time) error {
	e := &VerifyError{Kind: UntrustedChain, Peer: id, Err: err}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch {
		case invalid.Reason == x509.Expired && invalid.Cert != nil && now.Before(invalid.Cert.NotBefore):
			e.Kind = NotYetValid
		case invalid.Reason == x509.Expired:
			e.Kind = Expired
		case invalid.Reason == x509.IncompatibleUsage:
			e.Kind = WrongUsage
		}
	}
	switch e.Kind {
	case Expired:
		e.Got = fmt.Sprintf("%s, valid until %s (%v)", id, leaf.NotAfter.UTC().Format(time.RFC3339), err)
	case NotYetValid:
		e.Got = fmt.Sprintf("%s, valid from %s (%v)", id, leaf.NotBefore.UTC().Format(time.RFC3339), err)
	default:
		e.Got = fmt.Sprintf("%s (%v)", id, err)
	}
	return e
}

// chainCache remembers chains that were verified against one material, for as
// long as every certificate in them is valid. Signatures over the same bytes by
// the same keys need no second look; the handshake itself still proves that
// the peer holds the key. Only chains that a trusted root vouches for enter, and
// at most chainCacheSize of them.
type chainCache struct {
	mu      sync.RWMutex
	entries map[[sha256.Size]byte]verifiedChain
}

type verifiedChain struct {
	id                  ID
	notBefore, notAfter time.Time
}

const chainCacheSize = 4096

func newChainCache() *chainCache {
	return &chainCache{entries: make(map[[sha256.Size]byte]verifiedChain)}
}

func chainKey(chain []*x509.Certificate, usage x509.ExtKeyUsage) [sha256.Size]byte {
	if len(chain) == 1 {
		sum := sha256.Sum256(chain[0].Raw)
		sum[0] ^= byte(usage)
		return sum
	}
	h := sha256.New()
	for _, c := range chain {
		// DER carries its own length, so the concatenation is unambiguous.
		h.Write(c.Raw)
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	sum[0] ^= byte(usage)
	return sum
}

func (c *chainCache) get(key [sha256.Size]byte, now time.Time) (ID, bool) {
	if c == nil {
		return ID{}, false
	}
	c.mu.RLock()
	e, ok := c.entries[key]
	c.mu.RUnlock()
	if !ok || now.Before(e.notBefore) || now.After(e.notAfter) {
		return ID{}, false
	}
	return e.id, true
}

func (c *chainCache) put(key [sha256.Size]byte, id ID, chains [][]*x509.Certificate) {
	if c == nil || len(chains) == 0 {
		return
	}
	e := verifiedChain{id: id, notBefore: chains[0][0].NotBefore, notAfter: chains[0][0].NotAfter}
	for _, cert := range chains[0] {
		if cert.NotBefore.After(e.notBefore) {
			e.notBefore = cert.NotBefore
		}
		if cert.NotAfter.Before(e.notAfter) {
			e.notAfter = cert.NotAfter
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= chainCacheSize {
		// Whatever the map yields first makes room: cheap, and no peer can steer it.
		for k := range c.entries {
			delete(c.entries, k)
			break
		}
	}
	c.entries[key] = e
}
