package devca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	// skew is how far certificates are backdated, for clocks that differ.
	skew = time.Minute

	rootFile = "root.pem"
	keyFile  = "root-key.pem"
)

// Authority is a certificate authority of one trust domain with an ECDSA P-256
// root. Its methods may be called concurrently.
type Authority struct {
	domain string
	root   *x509.Certificate
	key    crypto.Signer
}

// NewAuthority returns an authority with a fresh root that lives in memory only.
func NewAuthority(trustDomain string) (*Authority, error) {
	domain, err := mtls.ParseTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{"Outrigger development CA"}, CommonName: domain},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: domain}},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(rootLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{domain: domain, root: root, key: key}, nil
}

// OpenAuthority returns the authority kept in dir, and makes it first if there
// is none. The directory is created with mode 0700; root.pem and root-key.pem
// in it have mode 0600.
func OpenAuthority(trustDomain, dir string) (*Authority, error) {
	certPath, keyPath := filepath.Join(dir, rootFile), filepath.Join(dir, keyFile)
	certPEM, certErr := os.ReadFile(certPath)
	keyPEM, keyErr := os.ReadFile(keyPath)
	switch {
	case errors.Is(certErr, fs.ErrNotExist):
		// The certificate is written last, so a key alone is an unfinished write.
		return createAuthority(trustDomain, dir, certPath, keyPath)
	case certErr != nil:
		return nil, fmt.Errorf("devca: %w", certErr)
	case keyErr != nil:
		return nil, fmt.Errorf("devca: %w; remove %s to begin with a new root", keyErr, certPath)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("devca: root in %s: %w", dir, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	want := "spiffe://" + trustDomain
	switch root := pair.Leaf; {
	case !ok || !root.IsCA:
		return nil, fmt.Errorf("devca: %s is not a CA", certPath)
	case len(root.URIs) != 1 || root.URIs[0].String() != want:
		return nil, fmt.Errorf("devca: %s is the root of %v, not of %s; use another directory", certPath, root.URIs, want)
	case time.Now().After(root.NotAfter):
		return nil, fmt.Errorf("devca: %s expired on %s; remove it to begin with a new root", certPath, root.NotAfter.Format(time.DateOnly))
	default:
		return &Authority{domain: trustDomain, root: root, key: key}, nil
	}
}

func createAuthority(trustDomain, dir, certPath, keyPath string) (*Authority, error) {
	a, err := NewAuthority(trustDomain)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("devca: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("devca: %w", err)
	}
	if err := writeAtomic(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("devca: %w", err)
	}
	if err := writeAtomic(certPath, a.BundlePEM(), 0o600); err != nil {
		return nil, fmt.Errorf("devca: %w", err)
	}
	return a, nil
}

// TrustDomain returns the name of the trust domain.
func (a *Authority) TrustDomain() string { return a.domain }

// Root returns the root certificate.
func (a *Authority) Root() *x509.Certificate { return a.root }

// BundlePEM returns the trust bundle in PEM form.
func (a *Authority) BundlePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

// WriteBundle writes the trust bundle to a PEM file, at once or not at all.
func (a *Authority) WriteBundle(path string) error {
	if err := writeAtomic(path, a.BundlePEM(), 0o644); err != nil {
		return fmt.Errorf("devca: bundle: %w", err)
	}
	return nil
}

// Issue returns a new X509-SVID of id, valid for ttl from now, with a fresh
// ECDSA P-256 key and the fields that the X509-SVID standard asks for.
func (a *Authority) Issue(id mtls.ID, ttl time.Duration) (tls.Certificate, error) {
	switch {
	case id.TrustDomain() != a.domain:
		return tls.Certificate{}, fmt.Errorf("devca: %q is not of the trust domain %q", id, a.domain)
	case id.Path() == "":
		return tls.Certificate{}, fmt.Errorf("devca: %q has no path; a workload needs one", id)
	case ttl <= 0:
		return tls.Certificate{}, fmt.Errorf("devca: life of %s for %q; use a positive one", ttl, id)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("devca: %w", err)
	}
	now := time.Now()
	notAfter := now.Add(ttl)
	if notAfter.After(a.root.NotAfter) {
		notAfter = a.root.NotAfter
	}
	// Backdating is kept small beside short lives, so that thresholds on the
	// share of life left keep their meaning.
	template := &x509.Certificate{
		SerialNumber:          serial(),
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: id.TrustDomain(), Path: id.Path()}},
		NotBefore:             now.Add(-min(skew, ttl/4)),
		NotAfter:              notAfter,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("devca: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("devca: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Material issues an X509-SVID of id and returns it with the authority's own
// bundle, ready for mtls.Feed.Publish.
func (a *Authority) Material(id mtls.ID, ttl time.Duration) (*mtls.Material, error) {
	cert, err := a.Issue(id, ttl)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.root)
	return mtls.NewMaterial(cert, map[string]*x509.CertPool{a.domain: roots})
}

// serial returns 127 random bits: positive and within the 20 bytes of RFC 5280 §4.1.2.2.
func serial() *big.Int {
	var b [16]byte
	// crypto/rand.Read never fails; it ends the program instead.
	_, _ = rand.Read(b[:])
	b[0] &= 0x7f
	b[15] |= 1
	return new(big.Int).SetBytes(b[:])
}

// writeAtomic replaces path by a file with the content, through a temporary one beside it.
func writeAtomic(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
