package compile

import (
	"crypto/tls"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

// spokenTLS is what may be spoken in one direction.
type spokenTLS struct {
	min, max uint16
	suites   []uint16
	words    string // equal for two exactly when all of it is
}

func tlsOf(r *config.TLSRange) spokenTLS {
	t := spokenTLS{min: tls.VersionTLS13, max: tls.VersionTLS13}
	if r.Min == "1.2" {
		t.min = tls.VersionTLS12
	}
	if r.Max == "1.2" {
		t.max = tls.VersionTLS12
	}
	for _, name := range r.CipherSuites {
		if id, ok := mtls.Suite(name); ok {
			t.suites = append(t.suites, id)
		}
	}
	t.words = r.Min
	if t.max != tls.VersionTLS13 {
		t.words += "-" + r.Max
	}
	t.words = strings.Join(append([]string{t.words}, r.CipherSuites...), " ")
	return t
}

func clientCert(c *config.ClientCert) plan.ClientCert {
	has := func(field string) bool { return slices.Contains(c.Fields, field) }
	return plan.ClientCert{
		Keep: c.Header == config.ClientCertAppendForward || c.Header == config.ClientCertForwardOnly,
		Set:  c.Header == config.ClientCertAppendForward || c.Header == config.ClientCertSanitizeSet,
		Cert: has("cert"), Chain: has("chain"), Subject: has("subject"), URI: has("uri"), DNS: has("dns"),
	}
}
