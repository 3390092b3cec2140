package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// svidID applies the leaf rules of the X509-SVID standard, sections 2, 4 and 5.2,
// and returns the identity. It does not verify signatures or times.
func svidID(leaf *x509.Certificate) (ID, error) {
	switch len(leaf.URIs) {
	case 0:
		return ID{}, errors.New("certificate has no URI SAN; an X509-SVID has exactly one")
	case 1:
	default:
		return ID{}, fmt.Errorf("certificate has %d URI SANs; an X509-SVID has exactly one", len(leaf.URIs))
	}
	id, err := ParseID(leaf.URIs[0].String())
	if err != nil {
		return ID{}, err
	}
	switch {
	case leaf.IsCA:
		return ID{}, fmt.Errorf("certificate of %s is a CA; a CA must not authenticate as a workload", id)
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return ID{}, fmt.Errorf("certificate of %s may sign certificates or CRLs; a leaf must not", id)
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return ID{}, fmt.Errorf("certificate of %s lacks the key usage digitalSignature", id)
	case id.Path() == "":
		return ID{}, fmt.Errorf("certificate of %s names a trust domain only; a leaf has a path", id)
	}
	return id, nil
}

// PeerID returns the identity in the certificate that the peer presented, by
// the leaf rules of the X509-SVID standard. Use it after a handshake made with
// ServerConfig or ClientConfig: it does not verify the chain again. A peer
// without certificate gives a *VerifyError of kind NoCertificate.
func PeerID(cs *tls.ConnectionState) (ID, error) {
	if len(cs.PeerCertificates) == 0 {
		return ID{}, &VerifyError{Kind: NoCertificate, Want: "an X509-SVID", Got: "no certificate"}
	}
	id, err := svidID(cs.PeerCertificates[0])
	if err != nil {
		return ID{}, &VerifyError{Kind: BadCertificate, Want: "an X509-SVID", Got: err.Error(), Err: err}
	}
	return id, nil
}
