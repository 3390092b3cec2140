package compile

import (
	"crypto/tls"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls"
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
