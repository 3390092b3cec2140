package proxy

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls/consulca"
)

// watchIdentity keeps the own SPIFFE ID for records.
func (p *Proxy) watchIdentity(ctx context.Context) error {
	var shown *x509.Certificate
	for {
		changed := p.identity.Changed()
		if m := p.identity.Material(); m != nil {
			if shown != nil && !m.Cert.Leaf.Equal(shown) {
				p.registry.Renew()
			}
			shown = m.Cert.Leaf
			id := m.ID.String()
			p.localID.Store(&id)
			p.metrics.Process().IdentityUpdates.Inc()
			p.log.Info("identity in use", "event", "identity", "id", id, "not_after", m.NotAfter.Format(time.RFC3339))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// trustDomain is the own one: as configured, else that of the certificate.
func (p *Proxy) trustDomain(cfg *config.Config) string {
	if cfg.Identity.TrustDomain != "" || p.identity == nil {
		return cfg.Identity.TrustDomain
	}
	if m := p.identity.Material(); m != nil {
		return m.ID.TrustDomain()
	}
	return ""
}

// datacenter is the own one by a certificate of Consul's CA, else "".
func (p *Proxy) datacenter() string {
	if p.identity == nil {
		return ""
	}
	m := p.identity.Material()
	if m == nil {
		return ""
	}
	return consulca.Datacenter(m.ID)
}
