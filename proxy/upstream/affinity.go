package upstream

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/netip"
	"slices"
	"strconv"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Wish is what a request says about the endpoint that it is to go to.
type Wish struct {
	Key   uint64 // balance.KeyOf what it is known by, where Keyed
	Keyed bool
	Held  []byte // the value of its affinity cookie; nil without one
	// Subset is the part of the cluster that it is to go to; nil for the whole.
	Subset *Subset
	// Only is the address of the one endpoint that it is to go to; the zero value
	// leaves the choice.
	Only netip.AddrPort
}

// AffinityKey is the secret that affinity cookies are made with.
type AffinityKey [sha256.Size]byte

// tokenLen is the length of an affinity cookie's value: 144 bits in base64.
const tokenLen = 24

type token [tokenLen]byte

// stamp is an endpoint's token under a key.
type stamp struct {
	key   AffinityKey
	token token
}

// tokenOf returns the value that stands for the endpoint, which nobody can make
// or understand without the key.
func tokenOf(key *AffinityKey, cluster, address string) token {
	h := hmac.New(sha256.New, key[:])
	_, _ = h.Write([]byte("affinity\x00" + cluster + "\x00" + address))
	var t token
	base64.RawURLEncoding.Encode(t[:], h.Sum(nil)[:base64.RawURLEncoding.DecodedLen(tokenLen)])
	return t
}

// holder is an endpoint that may be picked, with its token.
type holder struct {
	token    token
	endpoint *Endpoint
}

// affinity is the cookie of a policy and who may be held by it.
type affinity struct {
	before, after []byte   // of the value in a Set-Cookie line
	holders       []holder // in the order of their tokens
}

// newAffinity returns the affinity to the members of p; nil without one.
func (c *Cluster) newAffinity(pol *Policy, p *balance.Picker, endpoints []*Endpoint) *affinity {
	cfg := pol.Balance.Affinity
	if cfg == nil {
		return nil
	}
	key := &c.registry.affinityKey
	if pol.AffinityKey != nil {
		key = pol.AffinityKey
	}
	a := &affinity{
		before:  []byte("set-cookie: " + cfg.Name + "="),
		after:   AppendCookieEnd(nil, cfg.Path, int64(cfg.TTL.Seconds()), cfg.Insecure),
		holders: make([]holder, p.Len()),
	}
	for i := range a.holders {
		e := endpoints[p.Member(i).Index]
		s := e.stamp.Load()
		if s == nil || s.key != *key {
			s = &stamp{key: *key, token: tokenOf(key, c.name, e.address)}
			e.stamp.Store(s)
		}
		a.holders[i] = holder{s.token, e}
	}
	slices.SortFunc(a.holders, func(x, y holder) int { return bytes.Compare(x.token[:], y.token[:]) })
	return a
}

// AppendCookieEnd appends what follows the value of a cookie that a client is
// given, with the line's end. A lifetime of 0 seconds is that of the session.
func AppendCookieEnd(dst []byte, path string, seconds int64, insecure bool) []byte {
	dst = append(dst, "; Path="...)
	if path == "" {
		path = "/"
	}
	dst = append(dst, path...)
	if seconds > 0 {
		dst = append(dst, "; Max-Age="...)
		dst = strconv.AppendInt(dst, seconds, 10)
	}
	if !insecure {
		dst = append(dst, "; Secure"...)
	}
	return append(dst, "; HttpOnly; SameSite=Lax\r\n"...)
}

// find returns the endpoint that value names, or nil. What is told by the time
// that it takes is the beginning of a token at most.
func (a *affinity) find(value []byte) *Endpoint {
	if len(value) != tokenLen {
		return nil
	}
	const index = 8
	i, _ := slices.BinarySearchFunc(a.holders, value, func(h holder, v []byte) int { return bytes.Compare(h.token[:index], v[:index]) })
	for ; i < len(a.holders) && bytes.Equal(a.holders[i].token[:index], value[:index]); i++ {
		if subtle.ConstantTimeCompare(a.holders[i].token[:], value) == 1 {
			return a.holders[i].endpoint
		}
	}
	return nil
}

// AppendAffinity appends a Set-Cookie line that keeps the client at e, unless its
// cookie, which is held, does so already.
func (c *Cluster) AppendAffinity(dst []byte, e *Endpoint, held []byte) []byte {
	set := c.set.Load()
	if e == nil || set == nil || set.affinity == nil {
		return dst
	}
	s := e.stamp.Load()
	if s == nil || bytes.Equal(s.token[:], held) {
		return dst
	}
	c.metrics.Affinity(telemetry.AffinityGiven)
	dst = append(dst, set.affinity.before...)
	dst = append(dst, s.token[:]...)
	return append(dst, set.affinity.after...)
}
