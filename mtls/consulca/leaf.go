package consulca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
)

// place is whose identity is asked for, without the trust domain.
type place struct {
	service, datacenter, namespace, partition string
}

// Datacenter is the one in the SPIFFE ID of a service of Consul's; "" of another ID.
func Datacenter(id mtls.ID) string { return datacenterOf(id.String()) }

// ServiceID is the SPIFFE ID that Consul gives service in the own namespace and partition.
func (c *Config) ServiceID(domain, datacenter, service string) string {
	return place{service, datacenter, namespace(c), partition(c)}.id(domain)
}

// id is the SPIFFE ID that Consul gives a service. The default partition is not written.
func (p place) id(domain string) string {
	ap := ""
	if p.partition != "default" {
		ap = "/ap/" + p.partition
	}
	return "spiffe://" + domain + ap + "/ns/" + p.namespace + "/dc/" + p.datacenter + "/svc/" + p.service
}

// datacenterOf is the datacenter in a service's SPIFFE ID; "" when there is none.
func datacenterOf(id string) string {
	_, rest, _ := strings.Cut(id, "/dc/")
	dc, _, ok := strings.Cut(rest, "/svc/")
	if !ok || strings.Contains(dc, "/") {
		return ""
	}
	return dc
}

// leaf is an own certificate with its key.
type leaf struct {
	cert tls.Certificate // chain, leaf first, Leaf set
	from Method
	// due is when a new one is asked for.
	due time.Time
}

// newKey makes a key and a request for a certificate of id over it.
func newKey(id string) (key *ecdsa.PrivateKey, csr string, err error) {
	uri, err := url.Parse(id)
	if err != nil {
		return nil, "", err
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		URIs: []*url.URL{uri}, SignatureAlgorithm: x509.ECDSAWithSHA256,
	}, key)
	if err != nil {
		return nil, "", err
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// newLeaf takes a chain as Consul gives it.
func newLeaf(chain []byte, key crypto.PrivateKey, from Method) (*leaf, error) {
	certs, err := parseCerts(chain)
	if err != nil {
		return nil, err
	}
	l := &leaf{from: from, cert: tls.Certificate{PrivateKey: key, Leaf: certs[0]}}
	for _, c := range certs {
		l.cert.Certificate = append(l.cert.Certificate, c.Raw)
	}
	return l, nil
}

// uri is the identity in the certificate, as it stands there.
func (l *leaf) uri() string {
	if len(l.cert.Leaf.URIs) != 1 {
		return ""
	}
	return l.cert.Leaf.URIs[0].String()
}

// The span of a certificate's life in which it is renewed.
const (
	renewFrom = 0.6
	renewTo   = 0.9
)

// renewal is when a certificate is to be renewed: at a random point between 60 % and 90 % of its life, so that those
// that were issued together are not renewed together. word is from [0, 1).
func renewal(from, to time.Time, word float64) time.Time {
	return from.Add(time.Duration(float64(to.Sub(from)) * (renewFrom + (renewTo-renewFrom)*word)))
}

// leadsTo reports whether the leaf's chain ends at one of roots.
func (l *leaf) leadsTo(roots *x509.CertPool) bool {
	between := x509.NewCertPool()
	for _, der := range l.cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	_, err := l.cert.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		CurrentTime: middle(l.cert.Leaf),
	})
	return err == nil
}

// middle is a moment at which c is valid: whether it leads somewhere is asked apart from whether its time is over.
func middle(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2)
}

// roots is one state of Consul's authorities.
type roots struct {
	domain string
	pems   []string // in order of the list
	pool   *x509.CertPool
	// active holds the root that signs now, alone.
	active    *x509.CertPool
	activePEM string
}

// newRoots checks a list. Every root in it is trusted: those that are rotated out stay in it until nobody can have a
// certificate of theirs any more.
func newRoots(domain, activeID string, list []rootMessage) (*roots, error) {
	if _, err := mtls.ParseTrustDomain(domain); err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	r := &roots{domain: domain, pool: x509.NewCertPool()}
	for _, m := range list {
		certs, err := parseCerts([]byte(m.cert))
		if err != nil {
			return nil, fmt.Errorf("root %s: %w", m.id, err)
		}
		if !certs[0].IsCA {
			return nil, fmt.Errorf("root %s is no certificate authority", m.id)
		}
		r.pool.AddCert(certs[0])
		r.pems = append(r.pems, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[0].Raw})))
		if m.id == activeID {
			r.active = x509.NewCertPool()
			r.active.AddCert(certs[0])
			r.activePEM = r.pems[len(r.pems)-1]
		}
	}
	switch {
	case len(list) == 0:
		return nil, errors.New("roots: the list is empty")
	case r.active == nil:
		return nil, fmt.Errorf("roots: the active one, %q, is not in the list", activeID)
	}
	return r, nil
}

// maxChain bounds the certificates in one answer.
const maxChain = 16

func parseCerts(b []byte) (list []*x509.Certificate, err error) {
	for len(list) <= maxChain {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q where only certificates belong", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(list)+1, err)
		}
		list = append(list, c)
	}
	switch {
	case len(list) == 0:
		return nil, errors.New("no certificate")
	case len(list) > maxChain:
		return nil, fmt.Errorf("more than %d certificates", maxChain)
	}
	return list, nil
}

// parseKey reads a private key as Consul (SEC 1, PKCS #1) and the snapshot (PKCS #8) write it.
func parseKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no PEM block with a private key")
	}
	if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		if s, ok := k.(crypto.Signer); ok {
			return s, nil
		}
	}
	if k, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	return nil, fmt.Errorf("PEM block %q holds no private key that can be read", block.Type)
}
