package exchange

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// A cookie that a client is given to be known by is 128 random bits in base64.
const givenLen = 22

// given is a cookie that the client gets with the response; of is nil without one.
type given struct {
	of    *balance.HashCookie
	value [givenLen]byte
}

// wishes reads from the request what the cluster's balancing goes by.
func (x *exchange) wishes() {
	p := x.cl.Policy()
	x.wish.Only = x.s.peer.Instance
	if a := p.Balance.Affinity; a != nil {
		x.wish.Held = x.cookie(a.Name)
	}
	var k balance.Key
	for i := range p.Balance.Hash {
		h := &p.Balance.Hash[i]
		if key, ok := x.hashKey(h); k.Add(h, key, ok) {
			break
		}
	}
	x.wish.Key, x.wish.Keyed = k.Value, k.Some
}

// hashKey is the key of what h says; it reports false if the request has none.
func (x *exchange) hashKey(h *balance.HashOn) (key uint64, ok bool) {
	var v []byte
	switch {
	case h.Header != "":
		v = x.field(h.Header)
	case h.Cookie != nil:
		if v = x.cookie(h.Cookie.Name); len(v) == 0 && h.Cookie.Issued() {
			v = x.give(h.Cookie)
		}
	case h.Query != "":
		v, _ = named(x.req.Query.Of(x.raw), ampersand, h.Query)
	case h.SourceIP:
		v = x.s.addr
	default:
		return balance.KeyOf(x.s.peerID), x.s.peerID != ""
	}
	return balance.KeyOf(v), len(v) > 0
}

// field is the value of the first field line of that name, which is in lower case.
func (x *exchange) field(name string) []byte {
	if name == "host" {
		return x.req.Host.Of(x.raw)
	}
	for i := range x.req.Fields {
		l := &x.req.Fields[i]
		if http1.EqualFold(l.Name.Of(x.raw), name) {
			return l.Value.Of(x.raw)
		}
	}
	return nil
}

// cookie is the value of the client's first cookie of that name (RFC 6265
// section 5.4; HTTP/2 may have each in a line of its own, RFC 9113 section
// 8.2.3).
func (x *exchange) cookie(name string) []byte {
	if !x.req.Has(http1.Cookie) {
		return nil
	}
	for i := range x.req.Fields {
		l := &x.req.Fields[i]
		if l.ID != http1.Cookie {
			continue
		}
		if v, ok := named(l.Value.Of(x.raw), semicolon, name); ok {
			return v
		}
	}
	return nil
}

// named is the value of the first pair of that name in a list such as a=b;c=d.
func named(list, separator []byte, name string) (value []byte, ok bool) {
	for len(list) > 0 {
		var pair []byte
		pair, list, _ = bytes.Cut(list, separator)
		n, v, ok := bytes.Cut(bytes.Trim(pair, " \t"), equals)
		if ok && string(n) == name {
			return v, true
		}
	}
	return nil, false
}

var semicolon, ampersand, equals = []byte(";"), []byte("&"), []byte("=")

// give makes a value for a cookie that the client is to get.
func (x *exchange) give(c *balance.HashCookie) []byte {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	base64.RawURLEncoding.Encode(x.given.value[:], b[:])
	x.given.of = c
	return x.given.value[:]
}

// appendCookies appends the cookies that the client is given.
func (x *exchange) appendCookies(dst []byte) []byte {
	if c := x.given.of; c != nil {
		dst = append(dst, "set-cookie: "...)
		dst = append(dst, c.Name...)
		dst = append(dst, '=')
		dst = append(dst, x.given.value[:]...)
		dst = upstream.AppendCookieEnd(dst, c.Path, int64(c.TTL.Seconds()), c.Insecure)
	}
	return x.cl.AppendAffinity(dst, x.ep, x.wish.Held)
}

// heedRetryAfter tells the balancer that the endpoint asks to be left alone.
func (x *exchange) heedRetryAfter() {
	if x.status != 429 && x.status != 503 {
		return
	}
	if d, ok := x.retryAfter(); ok {
		x.cl.HoldOff(x.ep, x.at, d)
	}
}
