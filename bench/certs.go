package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/peers"
)

const trustDomain = "bench.test"

// certs are the two identities of the mesh hop.
type certs struct {
	web    peers.Certs // the client's sidecar; it talks to origin
	origin peers.Certs // the origin's sidecar; it talks to web
}

// makeCerts writes a CA and two leaf certificates into dir, all ECDSA P-256
// and valid for a day. A leaf is an X.509-SVID with its SPIFFE ID as the only
// URI, and a DNS name beside it for peers that verify names only.
func makeCerts(dir string, now time.Time) (*certs, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "benchmark CA"},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		NotBefore:             now.Add(-time.Minute),
		NotAfter:              now.Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	bundle := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	leaf := func(serial int64, name, peer string) (peers.Certs, error) {
		c := peers.Certs{
			Cert:     filepath.Join(dir, name+".pem"),
			Key:      filepath.Join(dir, name+".key"),
			Pair:     filepath.Join(dir, name+".pair.pem"),
			Bundle:   bundle,
			PeerName: peer,
			PeerID:   "spiffe://" + trustDomain + "/" + peer,
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return c, err
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(serial),
			Subject:      pkix.Name{CommonName: name},
			DNSNames:     []string{name},
			URIs:         []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/" + name}},
			NotBefore:    ca.NotBefore,
			NotAfter:     ca.NotAfter,
			KeyUsage:     x509.KeyUsageDigitalSignature,
			ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}, ca, key.Public(), caKey)
		if err != nil {
			return c, err
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return c, err
		}
		certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
		return c, errors.Join(
			os.WriteFile(c.Cert, certPEM, 0o600),
			os.WriteFile(c.Key, keyPEM, 0o600),
			os.WriteFile(c.Pair, append(certPEM, keyPEM...), 0o600))
	}
	var all certs
	var err1, err2 error
	all.web, err1 = leaf(2, "web", "origin")
	all.origin, err2 = leaf(3, "origin", "web")
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	return &all, nil
}

// tlsConfig is one side of mutual TLS 1.3 with the given identity, over
// HTTP/1.1: verified by chain, and by DNS name towards a server.
func tlsConfig(c peers.Certs) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	text, err := os.ReadFile(c.Bundle)
	if err != nil {
		return nil, fmt.Errorf("trust bundle: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("trust bundle %s: no certificate in it", c.Bundle)
	}
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		Certificates:     []tls.Certificate{pair},
		RootCAs:          roots,
		ClientCAs:        roots,
		ClientAuth:       tls.RequireAndVerifyClientCert,
		ServerName:       c.PeerName,
		CurvePreferences: []tls.CurveID{tls.X25519},
		NextProtos:       []string{"http/1.1"},
	}, nil
}
