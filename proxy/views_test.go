package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// identityFiles writes an SVID as a configuration's identity section wants it.
func identityFiles(t *testing.T, id string) string {
	t.Helper()
	rootKey, leafKey := newKey(t), newKey(t)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: root.NotBefore, NotAfter: root.NotAfter, URIs: []*url.URL{u},
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, root, leafKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]pem.Block{
		"cert.pem":   {Type: "CERTIFICATE", Bytes: leafDER},
		"key.pem":    {Type: "PRIVATE KEY", Bytes: key},
		"bundle.pem": {Type: "CERTIFICATE", Bytes: rootDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf(`{files: {cert: "%[1]s/cert.pem", key: "%[1]s/key.pem", bundle: "%[1]s/bundle.pem"}}`, dir)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A caller without mTLS is on the page for the operator who is about to make
// the listener strict.
func TestPlaintextCallersAreListed(t *testing.T) {
	in := address(t)
	_, port, err := net.SplitHostPort(address(t))
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, fmt.Sprintf("service: {name: api, port: %s}\nidentity: %s\ninbound: {listen: \"%s\", mtls: permissive}\n"+
		"admin: {listen: \"\"}\ntelemetry: {access_log: {path: \"off\"}}\ndrain: {delay: 0s, timeout: 1s}\n",
		port, identityFiles(t, "spiffe://example.test/api"), in))
	if v := r.viewPlaintext(); len(v) != 0 {
		t.Errorf("before any caller: %v", v)
	}
	start := time.Now()
	for n := range uint64(2) {
		c, err := net.Dial("tcp", in)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		soon(t, "the caller is listed", func() bool {
			v := r.viewPlaintext()
			return len(v) == 1 && v[0].Connections == n+1
		})
	}
	v := r.viewPlaintext()[0]
	if v.Listener != "inbound" || v.Address != "127.0.0.1" || v.Last.Before(start) {
		t.Errorf("listed as %+v", v)
	}
}
