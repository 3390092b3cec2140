package exchange

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// callerRetries is the value of x-outrigger-retries between two sidecars, whose
// connection says who they are: the sender repeats the request itself.
const callerRetries = "caller"

// A tag is what the application is given in place of it, to be passed on with
// the requests that it makes in turn: when it was made, and the encryption of
// that by a key that only this process has.
const (
	tagSize = 8 + aes.BlockSize
	tagLife = time.Hour
)

// Hops signs what the application passes on from requests to the proxy to those
// by the proxy.
type Hops struct{ block cipher.Block }

// NewHops returns one with a key of its own.
func NewHops() *Hops {
	var key [16]byte
	_, _ = rand.Read(key[:])          // never fails
	block, _ := aes.NewCipher(key[:]) // nor does this with 16 bytes
	return &Hops{block}
}

// hop is what an exchange knows of the proxies on the way of its request.
type hop struct {
	above  bool // one before this repeats it
	plain  [aes.BlockSize]byte
	sealed [aes.BlockSize]byte
	tag    [tagSize]byte
	text   [2 * tagSize]byte
}

// seal puts the tag of a time into h.text.
func (h *hop) seal(s *Hops, at time.Duration) {
	clear(h.plain[:])
	binary.BigEndian.PutUint64(h.plain[:], uint64(at/time.Second))
	s.block.Encrypt(h.sealed[:], h.plain[:])
	copy(h.tag[:8], h.plain[:8])
	copy(h.tag[8:], h.sealed[:])
	hex.Encode(h.text[:], h.tag[:])
}

// opens reports whether value is a tag of this process that is not too old.
func (h *hop) opens(s *Hops, value []byte, now time.Duration) bool {
	if len(value) != len(h.text) {
		return false
	}
	if _, err := hex.Decode(h.tag[:], value); err != nil {
		return false
	}
	clear(h.plain[:])
	copy(h.plain[:8], h.tag[:8])
	s.block.Encrypt(h.sealed[:], h.plain[:])
	if subtle.ConstantTimeCompare(h.sealed[:], h.tag[8:]) != 1 {
		return false
	}
	at := time.Duration(binary.BigEndian.Uint64(h.plain[:])) * time.Second
	return at <= now && now-at <= tagLife
}

// heedHop notes whether a sidecar before this one repeats the request: it is
// believed when it came by mTLS, the own application when it passes on a tag.
func (x *exchange) heedHop() {
	x.hop.above = x.hop.heard(x.s.srv.Hops, &x.req, x.raw, x.l.Direction, !x.s.peer.ID.IsZero(), x.at)
}

// heard reports whether the head of a request says so, by one who is believed.
func (h *hop) heard(s *Hops, req *http1.Request, raw []byte, d telemetry.Direction, known bool, now time.Duration) bool {
	v, ok := req.Get(http1.XRetries)
	switch {
	case !ok || s == nil || req.Count(http1.XRetries) != 1:
		return false
	case d == telemetry.Inbound:
		return known && string(v.Of(raw)) == callerRetries
	}
	return h.opens(s, v.Of(raw), now)
}

// CallerRepeats reports whether a sidecar before this one, which has s, would be
// known to repeat a request with that head. known says that its caller has an
// identity.
func (s *Hops) CallerRepeats(req *http1.Request, raw []byte, d telemetry.Direction, known bool, now time.Duration) bool {
	return new(hop).heard(s, req, raw, d, known, now)
}

// appendHop tells the next one: the own application by a tag, another sidecar in
// plain. Nobody else is told; what came under the name has been dropped.
func (x *exchange) appendHop(b []byte) []byte {
	s := x.s.srv.Hops
	switch {
	case s == nil:
		return b
	case x.l.Direction == telemetry.Inbound:
		if !x.hop.above {
			return b
		}
		x.hop.seal(s, x.at)
		b = append(append(b, "x-outrigger-retries: "...), x.hop.text[:]...)
	case x.upID == "" || !x.hop.above && !x.repeats():
		return b
	default:
		b = append(b, "x-outrigger-retries: "+callerRetries...)
	}
	return append(b, "\r\n"...)
}

// repeats reports whether this proxy may send the request again after an
// endpoint may have processed it.
func (x *exchange) repeats() bool {
	p := x.pol.Retry
	return p != nil && p.Mode.Acts(x.tried.Draw) && p.Attempts > 1 && (x.repeatable() || x.grpc && len(p.GRPCStatuses) > 0)
}
