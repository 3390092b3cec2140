package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
	"time"
)

// ClientOptions is what the dialling side of a mesh connection may choose.
type ClientOptions struct {
	// Expected are the identities accepted. With TrustDomains empty too, nobody
	// is accepted.
	Expected []ID
	// TrustDomains are trust domains of which every identity is accepted.
	TrustDomains []string
	// ServerName is sent as SNI; it plays no part in verification. Sessions are
	// remembered by it, or by the remote address when it is empty: dial with what
	// ForPeer returns where several endpoints share it without sharing ticket keys.
	ServerName string
	// NextProtos is offered by ALPN, in order of preference.
	NextProtos []string
	// MinVersion is the lowest TLS version; default TLS 1.2, with ECDHE and AEAD
	// suites only. Two sidecars always agree on TLS 1.3.
	MinVersion uint16
	// MaxVersion is the highest TLS version; default TLS 1.3.
	MaxVersion uint16
	// CipherSuites are those of TLS 1.2, by Suite; default all of them.
	CipherSuites []uint16
	// Sessions bounds the TLS sessions remembered for resumption; default 256,
	// negative for none.
	Sessions int
	// Time is the clock for certificate validity; default time.Now.
	Time func() time.Time
}

const defaultSessions = 256

// ClientConfig returns the TLS configuration for dialling peers of one expected
// set. Make it once for the set and use it for every dial: certificate and
// bundles are read from src at each handshake, and the sessions it remembers are
// forgotten with every change of the material. The peer is verified in
// VerifyConnection, on full and on resumed handshakes alike; failures are
// *VerifyError. Before the first material handshakes fail with ErrNoMaterial.
func ClientConfig(src Source, o ClientOptions) *tls.Config {
	e := expectation{
		ids:     slices.Clone(o.Expected),
		domains: slices.Clone(o.TrustDomains),
		usage:   x509.ExtKeyUsageServerAuth,
		now:     clock(o.Time),
	}
	c := &tls.Config{
		ServerName:   o.ServerName,
		NextProtos:   slices.Clone(o.NextProtos),
		MinVersion:   minVersion(o.MinVersion),
		MaxVersion:   o.MaxVersion,
		CipherSuites: suites(o.CipherSuites),
		Time:         e.now,
		// Sidecars are near each other: small first records only cost.
		DynamicRecordSizingDisabled: true,
		// crypto/tls's own check is by host name. VerifyConnection below does the
		// whole verification, and does it on resumed sessions too.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return e.verify(src.Material(), &cs)
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			m := src.Material()
			if m == nil {
				return nil, ErrNoMaterial
			}
			return &m.Cert, nil
		},
	}
	switch {
	case o.Sessions == 0:
		c.ClientSessionCache = &sessions{src: src, size: defaultSessions}
	case o.Sessions > 0:
		c.ClientSessionCache = &sessions{src: src, size: o.Sessions}
	}
	return c
}

// ForPeer returns c for a dial to one of several peers that have c's ServerName in common: their sessions are
// remembered apart. Without a ServerName it is c itself.
func ForPeer(c *tls.Config, peer string) *tls.Config {
	if c.ServerName == "" || c.ClientSessionCache == nil {
		return c
	}
	c = c.Clone()
	c.ClientSessionCache = peerSessions{c.ClientSessionCache, peer}
	return c
}

// peerSessions are those with one peer.
type peerSessions struct {
	all  tls.ClientSessionCache
	peer string
}

// Get implements tls.ClientSessionCache.
func (p peerSessions) Get(string) (*tls.ClientSessionState, bool) { return p.all.Get(p.peer) }

// Put implements tls.ClientSessionCache.
func (p peerSessions) Put(_ string, cs *tls.ClientSessionState) { p.all.Put(p.peer, cs) }

// sessions is a bounded client session cache that forgets everything when the
// material changes, so that no session outlives the own certificate it was
// made with or the bundle its peer was verified against.
type sessions struct {
	src  Source
	size int

	mu       sync.Mutex
	material *Material
	cache    tls.ClientSessionCache
}

// Get implements tls.ClientSessionCache.
func (s *sessions) Get(key string) (*tls.ClientSessionState, bool) {
	return s.fresh().Get(key)
}

// Put implements tls.ClientSessionCache.
func (s *sessions) Put(key string, cs *tls.ClientSessionState) {
	s.fresh().Put(key, cs)
}

func (s *sessions) fresh() tls.ClientSessionCache {
	m := s.src.Material()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cache == nil || s.material != m {
		s.material, s.cache = m, tls.NewLRUClientSessionCache(s.size)
	}
	return s.cache
}
