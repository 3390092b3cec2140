package mtls

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
	"testing"
	"time"
)

// testCA signs whatever a test asks for, right or wrong.
type testCA struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
	// chain is sent after a leaf; empty for a root.
	chain [][]byte
}

func newTestCA(t testing.TB) *testCA {
	return signCA(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "test root"}})
}

func (ca *testCA) intermediate() *testCA {
	return signCA(ca.t, ca, x509.Certificate{Subject: pkix.Name{CommonName: "test intermediate"}})
}

func signCA(t testing.TB, parent *testCA, template x509.Certificate) *testCA {
	t.Helper()
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.NotBefore, template.NotAfter = time.Now().Add(-24*time.Hour), time.Now().Add(24*time.Hour)
	ca := &testCA{t: t}
	ca.cert, ca.key = sign(t, parent, &template)
	if parent != nil {
		ca.chain = append([][]byte{ca.cert.Raw}, parent.chain...)
	}
	return ca
}

func sign(t testing.TB, parent *testCA, template *x509.Certificate) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	signer, issuer := crypto.Signer(key), template
	if parent != nil {
		signer, issuer = parent.key, parent.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// issue signs a leaf that follows every rule, after change has had its way with it.
func (ca *testCA) issue(id string, change func(*x509.Certificate)) tls.Certificate {
	ca.t.Helper()
	u, err := url.Parse(id)
	if err != nil {
		ca.t.Fatal(err)
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
	cert, key := sign(ca.t, ca, template)
	return tls.Certificate{Certificate: append([][]byte{cert.Raw}, ca.chain...), PrivateKey: key, Leaf: cert}
}

func pool(cas ...*testCA) *x509.CertPool {
	p := x509.NewCertPool()
	for _, ca := range cas {
		p.AddCert(ca.cert)
	}
	return p
}

// trust is a bundle map of one trust domain.
func trust(domain string, cas ...*testCA) map[string]*x509.CertPool {
	return map[string]*x509.CertPool{domain: pool(cas...)}
}

func mustID(t testing.TB, s string) ID {
	t.Helper()
	id, err := ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// fixed is a source with one material that NewMaterial accepts.
func fixed(t testing.TB, cert tls.Certificate, bundles map[string]*x509.CertPool) *Feed {
	t.Helper()
	m, err := NewMaterial(cert, bundles)
	if err != nil {
		t.Fatal(err)
	}
	f := NewFeed("test")
	f.Publish(m)
	return f
}

// forced is a source with a material that no check has seen.
func forced(cert tls.Certificate, bundles map[string]*x509.CertPool) *Feed {
	f := NewFeed("test")
	f.Publish(&Material{Cert: cert, Bundles: bundles, NotBefore: cert.Leaf.NotBefore, NotAfter: cert.Leaf.NotAfter})
	return f
}

func certPEM(cert tls.Certificate) []byte {
	var out []byte
	for _, der := range cert.Certificate {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

func keyPEM(t testing.TB, cert tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (ca *testCA) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}
