package config

import "slices"

// ClientCertHeader says what becomes of x-forwarded-client-cert, in Envoy's words.
type ClientCertHeader string

// The ways.
const (
	// ClientCertSanitize removes the field.
	ClientCertSanitize ClientCertHeader = "sanitize"
	// ClientCertSanitizeSet replaces what came by the caller's own certificate.
	ClientCertSanitizeSet ClientCertHeader = "sanitize_set"
	// ClientCertAppendForward keeps what came and adds the caller's own certificate behind it.
	ClientCertAppendForward ClientCertHeader = "append_forward"
	// ClientCertForwardOnly keeps what came and adds nothing.
	ClientCertForwardOnly ClientCertHeader = "forward_only"
)

// ClientCert is what the application is told of its callers' certificates.
type ClientCert struct {
	// What becomes of the field x-forwarded-client-cert. sanitize_set: what a caller claims is replaced by its
	// certificate. append_forward: its certificate comes behind what it claims, which is to be believed of callers
	// that say the truth only. forward_only: what it claims is all there is. sanitize: there is none. Plaintext callers
	// have theirs always removed.
	Header ClientCertHeader `yaml:"header" enum:"sanitize,sanitize_set,append_forward,forward_only"`
	// What the element for the caller holds beside By (the own identity) and Hash: uri (its identity), and cert, chain,
	// subject and dns, of which the first two make it some kilobytes long.
	Fields []string `yaml:"fields"`
}

// ClientCertFields are the words of ClientCert.Fields.
func ClientCertFields() []string { return []string{"cert", "chain", "subject", "uri", "dns"} }

func (v *validator) clientCert() {
	c := &v.Inbound.ClientCert
	for i, f := range c.Fields {
		path := joinIndex("inbound.client_cert.fields", i)
		switch {
		case !slices.Contains(ClientCertFields(), f):
			v.say(path, "is %q; must be one of cert, chain, subject, uri and dns", f)
		case slices.Contains(c.Fields[:i], f):
			v.say(path, "is there twice")
		}
	}
}
