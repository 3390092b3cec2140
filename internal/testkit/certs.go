package testkit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a certificate authority in memory. It signs whatever a test asks for,
// right or wrong.
type CA struct {
	tb   testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

// NewCA returns an authority with a fresh root.
func NewCA(tb testing.TB) *CA {
	tb.Helper()
	ca := &CA{tb: tb}
	ca.cert, ca.key = ca.sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "test root"},
		NotBefore:             time.Now().Add(-24 * time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
	return ca
}

// Issue returns a certificate of the SPIFFE ID id that follows every rule of
// the X509-SVID standard, after change, if there is one, has had its way with
// the template.
func (ca *CA) Issue(id string, change func(*x509.Certificate)) tls.Certificate {
	ca.tb.Helper()
	u, err := url.Parse(id)
	if err != nil {
		ca.tb.Fatal(err)
	}
	template := &x509.Certificate{
		URIs:                  []*url.URL{u},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	cert, key := ca.sign(template)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// Files writes a certificate of the SPIFFE ID id, its key and the authority's
// root as PEM files into a folder that goes with the test: cert.pem, key.pem and
// bundle.pem.
func (ca *CA) Files(id string) (dir string) {
	ca.tb.Helper()
	c := ca.Issue(id, nil)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		ca.tb.Fatal(err)
	}
	dir = ca.tb.TempDir()
	for name, block := range map[string]pem.Block{
		"cert.pem":   {Type: "CERTIFICATE", Bytes: c.Certificate[0]},
		"key.pem":    {Type: "PRIVATE KEY", Bytes: key},
		"bundle.pem": {Type: "CERTIFICATE", Bytes: ca.cert.Raw},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&block), 0o600); err != nil {
			ca.tb.Fatal(err)
		}
	}
	return dir
}

// Pool returns the root as a trust bundle.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// MutualTLS returns configurations of two peers that verify each other's chain
// but look at no name: enough for tests of what lies under the identity.
func (ca *CA) MutualTLS() (server, client *tls.Config) {
	ca.tb.Helper()
	server = &tls.Config{
		Certificates: []tls.Certificate{ca.Issue("spiffe://test.example/server", nil)},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    ca.Pool(),
		MinVersion:   tls.VersionTLS12,
	}
	roots := ca.Pool()
	client = &tls.Config{
		Certificates:       []tls.Certificate{ca.Issue("spiffe://test.example/client", nil)},
		InsecureSkipVerify: true, // by name; VerifyConnection does the rest
		MinVersion:         tls.VersionTLS12,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
			return err
		},
	}
	return server, client
}

func (ca *CA) sign(template *x509.Certificate) (*x509.Certificate, crypto.Signer) {
	ca.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.tb.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		ca.tb.Fatal(err)
	}
	signer, issuer := crypto.Signer(key), template
	if ca.cert != nil {
		signer, issuer = ca.key, ca.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		ca.tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.tb.Fatal(err)
	}
	return cert, key
}
