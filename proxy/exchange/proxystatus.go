package exchange

import (
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// maxDetails bounds what Proxy-Status says of a cause.
const maxDetails = 256

// appendProxyStatus appends the Proxy-Status field of a local reply (RFC 9209).
// Others than the own application are told the type of the error and what is
// wrong with their own request: addresses and identities are not theirs to know.
func (x *exchange) appendProxyStatus(b []byte, row *outcome.Row, cause error) []byte {
	if row.Proxy == "" {
		return b
	}
	b = append(b, "\r\nproxy-status: outrigger; error="...)
	b = append(b, row.Proxy...)
	own := x.l.Direction == telemetry.Outbound
	if own && x.ep != nil {
		b = appendQuoted(append(b, "; next-hop="...), x.ep.Address())
	}
	switch {
	case x.detail != "":
		b = appendQuoted(append(b, "; details="...), x.detail)
	case own && cause != nil:
		b = appendQuoted(append(b, "; details="...), cause.Error())
	}
	return b
}

// appendQuoted appends s as a String of RFC 9651 section 3.3.3, which is ASCII
// that can be printed; a mark stands for all else.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range min(len(s), maxDetails) {
		switch c := s[i]; {
		case c == '"', c == '\\':
			b = append(b, '\\', c)
		case c < ' ', c > '~':
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
