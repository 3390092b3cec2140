package mtls

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Material is one consistent set of own certificate and trust bundles. It is
// immutable once a Source has published it.
type Material struct {
	// Cert is the own X509-SVID with its chain, leaf first, Leaf set.
	Cert tls.Certificate
	// ID is the identity in Cert.
	ID ID
	// NotBefore and NotAfter bound the validity of the leaf.
	NotBefore, NotAfter time.Time
	// Bundles holds the roots of each trust domain. A peer is verified against
	// the roots of its own trust domain only; all are never pooled.
	Bundles map[string]*x509.CertPool
	// Serial numbers the materials of one source from 1 up.
	Serial uint64

	verified *chainCache
}

// NewMaterial checks that the certificate is an X509-SVID leaf, that its key
// fits, and that its chain leads to a root of its own trust domain in bundles,
// so that files caught between two rewrites are not taken for a set. An expired
// certificate is accepted: Expired tells, and peers refuse it.
func NewMaterial(cert tls.Certificate, bundles map[string]*x509.CertPool) (*Material, error) {
	chain := make([]*x509.Certificate, 0, len(cert.Certificate))
	for i, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain: %w", i+1, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("certificate chain is empty")
	}
	leaf := chain[0]
	id, err := svidID(leaf)
	if err != nil {
		return nil, err
	}
	signer, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("private key cannot sign")
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return nil, errors.New("private key does not belong to the certificate; write both files before they are read again")
	}
	roots := bundles[id.TrustDomain()]
	if roots == nil {
		return nil, fmt.Errorf("no trust bundle for the own trust domain %q", id.TrustDomain())
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates(chain),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		// The middle of its life: an expired certificate is not an unknown one.
		CurrentTime: leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2),
	})
	var invalid x509.CertificateInvalidError
	if err != nil && (!errors.As(err, &invalid) || invalid.Reason != x509.Expired) {
		return nil, fmt.Errorf("certificate of %s does not lead to the trust bundle of %q: %w", id, id.TrustDomain(), err)
	}
	cert.Leaf = leaf
	return &Material{
		Cert:      cert,
		ID:        id,
		NotBefore: leaf.NotBefore,
		NotAfter:  leaf.NotAfter,
		Bundles:   bundles,
		verified:  newChainCache(),
	}, nil
}

// Expired reports whether the certificate's life is over.
func (m *Material) Expired(now time.Time) bool { return now.After(m.NotAfter) }

func (m *Material) equal(o *Material) bool {
	if len(m.Cert.Certificate) != len(o.Cert.Certificate) || len(m.Bundles) != len(o.Bundles) {
		return false
	}
	for i, der := range m.Cert.Certificate {
		if !bytes.Equal(der, o.Cert.Certificate[i]) {
			return false
		}
	}
	for domain, roots := range m.Bundles {
		if !roots.Equal(o.Bundles[domain]) {
			return false
		}
	}
	return true
}

func intermediates(chain []*x509.Certificate) *x509.CertPool {
	if len(chain) < 2 {
		return nil
	}
	pool := x509.NewCertPool()
	for _, c := range chain[1:] {
		pool.AddCert(c)
	}
	return pool
}
