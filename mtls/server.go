package mtls

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ServerOptions is what the accepting side of a mesh connection may choose.
type ServerOptions struct {
	// NextProtos is offered by ALPN, in order of preference. A client that
	// offers only others is served without ALPN, as Envoy does, where
	// crypto/tls alone would abort the handshake.
	NextProtos []string
	// MinVersion is the lowest TLS version; default TLS 1.2, with ECDHE and AEAD
	// suites only. Two sidecars always agree on TLS 1.3.
	MinVersion uint16
	// MaxVersion is the highest TLS version; default TLS 1.3.
	MaxVersion uint16
	// CipherSuites are those of TLS 1.2, by Suite; default all of them.
	CipherSuites []uint16
	// TrustDomains are the trust domains accepted; empty accepts each that has a bundle.
	// Which identity may do what is for authorization to say.
	TrustDomains []string
	// AllowAnonymous accepts clients without certificate. One that presents a
	// certificate is verified all the same.
	AllowAnonymous bool
	// DisableResumption issues no session tickets.
	DisableResumption bool
	// Time is the clock for certificate validity; default time.Now.
	Time func() time.Time
}

// ticketKeyAge is how long one ticket key encrypts, and then still decrypts, as
// in crypto/tls's own rotation.
const ticketKeyAge = 24 * time.Hour

// ServerConfig returns the TLS configuration of a listener. Certificates and
// bundles are read from src at each handshake, so that a rotation needs no new
// listener. The peer is verified in VerifyConnection, on full and on resumed
// handshakes alike, against the bundle of its own trust domain; failures are
// *VerifyError. Session tickets are sealed with keys that are replaced with
// every change of the material. Before the first material handshakes fail with
// ErrNoMaterial.
func ServerConfig(src Source, o ServerOptions) *tls.Config {
	s := &serverSide{src: src, options: o, expect: expectation{
		domains:   slices.Clone(o.TrustDomains),
		anyDomain: len(o.TrustDomains) == 0,
		optional:  o.AllowAnonymous,
		usage:     x509.ExtKeyUsageClientAuth,
		now:       clock(o.Time),
	}}
	outer := s.base()
	outer.GetConfigForClient = s.configForClient
	outer.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		m := src.Material()
		if m == nil {
			return nil, ErrNoMaterial
		}
		return &m.Cert, nil
	}
	return outer
}

type serverSide struct {
	src     Source
	options ServerOptions
	expect  expectation

	mu      sync.RWMutex
	current *servedMaterial
}

// servedMaterial is the pair of configurations made from one material.
type servedMaterial struct {
	material *Material
	made     time.Time
	key      [32]byte
	withALPN *tls.Config
	without  *tls.Config
}

func (s *serverSide) base() *tls.Config {
	auth := tls.RequireAnyClientCert
	if s.options.AllowAnonymous {
		auth = tls.RequestClientCert
	}
	return &tls.Config{
		MinVersion:             minVersion(s.options.MinVersion),
		MaxVersion:             s.options.MaxVersion,
		CipherSuites:           suites(s.options.CipherSuites),
		NextProtos:             slices.Clone(s.options.NextProtos),
		ClientAuth:             auth,
		SessionTicketsDisabled: s.options.DisableResumption,
		Time:                   s.expect.now,
		// Sidecars are near each other: small first records only cost.
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return s.expect.verify(s.src.Material(), &cs)
		},
	}
}

func (s *serverSide) configForClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	served, err := s.served()
	if err != nil {
		return nil, err
	}
	for _, p := range s.options.NextProtos {
		if slices.Contains(hello.SupportedProtos, p) {
			return served.withALPN, nil
		}
	}
	return served.without, nil
}

func (s *serverSide) served() (*servedMaterial, error) {
	m := s.src.Material()
	if m == nil {
		return nil, ErrNoMaterial
	}
	now := s.expect.now()
	s.mu.RLock()
	current := s.current
	s.mu.RUnlock()
	if current.fits(m, now) {
		return current, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.fits(m, now) {
		return s.current, nil
	}
	next := &servedMaterial{material: m, made: now}
	if _, err := rand.Read(next.key[:]); err != nil {
		return nil, fmt.Errorf("mtls: session ticket key: %w", err)
	}
	keys := [][32]byte{next.key}
	if s.current != nil && s.current.material == m {
		// Only age has moved on: tickets of the last period stay good.
		keys = append(keys, s.current.key)
	}
	next.withALPN, next.without = s.inner(m, keys), s.inner(m, keys)
	next.without.NextProtos = nil
	s.current = next
	return next, nil
}

func (s *serverSide) inner(m *Material, keys [][32]byte) *tls.Config {
	c := s.base()
	c.Certificates = []tls.Certificate{m.Cert}
	if !s.options.DisableResumption {
		c.SetSessionTicketKeys(keys)
	}
	return c
}

func (s *servedMaterial) fits(m *Material, now time.Time) bool {
	return s != nil && s.material == m && now.Sub(s.made) < ticketKeyAge
}

func clock(f func() time.Time) func() time.Time {
	if f == nil {
		return time.Now
	}
	return f
}

func minVersion(v uint16) uint16 {
	if v == 0 {
		return tls.VersionTLS12
	}
	return v
}

func suites(chosen []uint16) []uint16 {
	if len(chosen) == 0 {
		return aeadSuites()
	}
	return slices.Clone(chosen)
}

// Suite returns the TLS 1.2 cipher suite with the IANA name, if it is one of those that are spoken here: with
// forward secrecy and authenticated encryption.
func Suite(name string) (id uint16, ok bool) {
	for _, id := range aeadSuites() {
		if tls.CipherSuiteName(id) == name {
			return id, true
		}
	}
	return 0, false
}

// aeadSuites are the TLS 1.2 suites with forward secrecy and authenticated
// encryption; TLS 1.3 has no others and is not configurable.
func aeadSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}
