package exchange

import "github.com/outrigger-mesh/outrigger/proxy/http1"

// usualCert is the length of a caller's element for which ownFields has room.
const usualCert = 512

// extra is the room that the peer's element needs beyond what is usual.
func (p *Peer) extra() int {
	if n := len(p.ClientCert); n > usualCert {
		return n
	}
	return 0
}

// appendClientCert writes x-forwarded-client-cert: what came, where that is kept, and
// the element of the peer.
func (x *exchange) appendClientCert(b []byte) []byte {
	p := x.s.peer
	next, start := "x-forwarded-client-cert: ", len(b)
	if p.KeepClientCert && x.req.Has(http1.XForwardedClientCert) {
		for i := range x.req.Fields {
			if f := &x.req.Fields[i]; f.ID == http1.XForwardedClientCert && f.Value.Len() > 0 {
				b = append(b, next...)
				b = append(b, f.Value.Of(x.raw)...)
				next = ","
			}
		}
	}
	if len(p.ClientCert) > 0 {
		b = append(b, next...)
		b = append(b, p.ClientCert...)
	}
	if len(b) > start {
		b = append(b, "\r\n"...)
	}
	return b
}

// From is where it came from, for people: its address, or "unix".
func (p *Peer) From() string {
	if !p.Addr.IsValid() {
		return "unix"
	}
	return p.Addr.String()
}
