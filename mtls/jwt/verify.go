package jwt

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Failure says why no token of a request counts.
type Failure uint8

// The failures, the least telling first: of several tokens the most telling is
// reported.
const (
	OK            Failure = iota
	NoToken               // nothing where tokens are looked for
	NoKeys                // the provider's keys could not be had
	Malformed             // no token that can be read, or one that is too long
	BadAlgorithm          // not signed by a private key, or by an algorithm that is not known
	OtherIssuer           // of another issuer
	UnknownKey            // signed by a key that the provider does not have
	BadSignature          // the signature is not that of the key
	OtherAudience         // for somebody else
	NotYetValid           // nbf is in the future
	Expired               // exp is past
	ClaimMissing          // a claim does not have the value that is asked for
	failures
)

var failureText = [failures]string{
	OK: "ok", NoToken: "no token", NoKeys: "the provider's keys are not available", Malformed: "not a token that can be read",
	BadAlgorithm: "the token is not signed by an asymmetric algorithm that is known", OtherIssuer: "the token is of another issuer",
	UnknownKey: "the token is signed by an unknown key", BadSignature: "the token's signature is wrong", OtherAudience: "the token is for another audience",
	NotYetValid: "the token is not valid yet", Expired: "the token has expired", ClaimMissing: "a claim of the token is not as required",
}

// String returns the failure in words.
func (f Failure) String() string { return failureText[f] }

// algorithms are those that a private key is needed for: whoever can verify
// cannot sign, and "none" proves nothing.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// Token is a verified one.
type Token struct {
	claims     map[string]any
	until, nbf int64 // Unix seconds; until 0: for ever
	payload    string
}

// Has reports whether the claim at path is the text value.
func (t *Token) Has(path []string, value string) bool {
	var at any = t.claims
	for _, p := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return false
		}
		at = m[p]
	}
	s, ok := at.(string)
	return ok && s == value
}

func (t *Token) at(now time.Time, skew time.Duration) Failure {
	s, leeway := now.Unix(), int64(skew/time.Second)
	switch {
	case t.until != 0 && s >= t.until+leeway:
		return Expired
	case s < t.nbf-leeway:
		return NotYetValid
	}
	return OK
}

// Verifier verifies the tokens of one provider. It may be used concurrently.
type Verifier struct {
	cfg     Provider
	places  []place
	payload string // the field, in lower case
	skew    time.Duration
	state   atomic.Pointer[keySet] // nil without keys
	wanted  chan struct{}          // capacity 1
}

// keySet are the keys with what they have verified.
type keySet struct {
	text string // that they were read from
	keys []jose.JSONWebKey
	most int

	mu     sync.Mutex
	tokens map[[sha256.Size]byte]*Token
}

// NewVerifier returns the verifier of a valid provider, with its keys if they are
// inline.
func NewVerifier(p Provider) *Verifier {
	v := &Verifier{cfg: p, places: places(p.Locations), payload: strings.ToLower(p.ForwardPayload), skew: p.ClockSkew, wanted: make(chan struct{}, 1)}
	if v.skew == 0 {
		v.skew = DefaultSkew
	}
	if p.Keys.Inline != "" {
		_ = v.SetKeys([]byte(p.Keys.Inline)) // Validate has read them
	}
	return v
}

// Provider returns what v was made of.
func (v *Verifier) Provider() *Provider { return &v.cfg }

// Wanted is readable once a token was signed by a key that is not there.
func (v *Verifier) Wanted() <-chan struct{} { return v.wanted }

// SetKeys puts a JWK Set to use. After an error the keys are those of before.
// What was verified is forgotten, unless the set is the same.
func (v *Verifier) SetKeys(set []byte) error {
	if old := v.state.Load(); old != nil && old.text == string(set) {
		return nil
	}
	keys, err := parseKeys(set)
	if err != nil {
		return err
	}
	most := v.cfg.Cache
	if most == 0 {
		most = DefaultCache
	}
	v.state.Store(&keySet{text: string(set), keys: keys, most: most, tokens: map[[sha256.Size]byte]*Token{}})
	return nil
}

// DropKeys ends the use of keys that are too old.
func (v *Verifier) DropKeys() { v.state.Store(nil) }

// HasKeys reports whether there are any.
func (v *Verifier) HasKeys() bool { return v.state.Load() != nil }

// parseKeys takes of a set the public keys of signatures.
func parseKeys(b []byte) ([]jose.JSONWebKey, error) {
	if len(b) > maxSet {
		return nil, fmt.Errorf("the key set has %d bytes; at most %d are read", len(b), maxSet)
	}
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("is no JWK Set: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil || !k.Valid() || k.Use != "" && k.Use != "sig" {
			continue // of a kind that others use (RFC 7517 section 5)
		}
		if k = k.Public(); !k.Valid() {
			continue // a shared secret: whoever verifies could sign
		}
		switch key := k.Key.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() < 2048 {
				continue
			}
		case *ecdsa.PublicKey, ed25519.PublicKey:
		default:
			continue
		}
		keys = append(keys, k)
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("has no public key for signatures (RSA of 2048 bits or more, EC or Ed25519)")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("has %d keys; at most %d are taken", len(keys), maxKeys)
	}
	return keys, nil
}

// Verify looks for a token in r and verifies it, at the time now. Of several the
// first counts that is valid. For a token that was verified before it does not
// allocate.
func (v *Verifier) Verify(r *Request, now time.Time) (found *Token, why Failure) {
	why = NoToken
	set := v.state.Load()
	v.each(r, func(token []byte, _ int) bool {
		t, f := v.one(set, token, now)
		if f == OK {
			found, why = t, OK
			return false
		}
		why = max(why, f)
		return true
	})
	return found, why
}

func (v *Verifier) one(set *keySet, token []byte, now time.Time) (*Token, Failure) {
	switch {
	case set == nil:
		v.want()
		return nil, NoKeys
	case len(token) > MaxToken:
		return nil, Malformed
	}
	sum := sha256.Sum256(token)
	set.mu.Lock()
	t := set.tokens[sum]
	set.mu.Unlock()
	if t == nil {
		var f Failure
		if t, f = v.verify(set, string(token)); f != OK {
			return nil, f
		}
		if f = t.at(now, v.skew); f != OK {
			return nil, f
		}
		set.remember(sum, t)
		return t, OK
	}
	if f := t.at(now, v.skew); f != OK {
		set.mu.Lock()
		delete(set.tokens, sum)
		set.mu.Unlock()
		return nil, f
	}
	return t, OK
}

func (s *keySet) remember(sum [sha256.Size]byte, t *Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for old := range s.tokens {
		if len(s.tokens) < s.most {
			break
		}
		delete(s.tokens, old) // any of them: maps are walked in no order
	}
	s.tokens[sum] = t
}

func (v *Verifier) want() {
	select {
	case v.wanted <- struct{}{}:
	default:
	}
}

// verify does all that the time does not change.
func (v *Verifier) verify(set *keySet, token string) (*Token, Failure) {
	if strings.Count(token, ".") != 2 {
		return nil, Malformed
	}
	sig, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		if errors.As(err, new(*jose.ErrUnexpectedSignatureAlgorithm)) {
			return nil, BadAlgorithm
		}
		return nil, Malformed
	}
	payload := sig.UnsafePayloadWithoutVerification()
	claims, err := parseClaims(payload)
	if err != nil {
		return nil, Malformed
	}
	if iss, _ := claims["iss"].(string); iss != v.cfg.Issuer {
		return nil, OtherIssuer // before anything costly
	}
	h := sig.Signatures[0].Header
	verified, tried := false, false
	for i := range set.keys {
		k := &set.keys[i]
		if h.KeyID != "" && k.KeyID != "" && k.KeyID != h.KeyID || k.Algorithm != "" && k.Algorithm != h.Algorithm || !fits(k.Key, h.Algorithm) {
			continue
		}
		tried = true
		if _, err := sig.Verify(k.Key); err == nil {
			verified = true
			break
		}
	}
	switch {
	case !tried:
		v.want()
		return nil, UnknownKey
	case !verified:
		return nil, BadSignature
	case len(v.cfg.Audiences) > 0 && !forOneOf(claims["aud"], v.cfg.Audiences):
		return nil, OtherAudience
	}
	t := &Token{claims: claims}
	if t.until, err = seconds(claims["exp"]); err == nil {
		t.nbf, err = seconds(claims["nbf"])
	}
	if err != nil {
		return nil, Malformed
	}
	if v.payload != "" {
		enc := base64.RawURLEncoding
		if v.cfg.PadPayload {
			enc = base64.URLEncoding
		}
		t.payload = enc.EncodeToString(payload)
	}
	return t, OK
}

// fits reports whether a key is of the kind that an algorithm needs.
func fits(key any, algorithm string) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		bits := k.Curve.Params().BitSize
		return algorithm == "ES256" && bits == 256 || algorithm == "ES384" && bits == 384 || algorithm == "ES512" && bits == 521
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// parseClaims reads a payload: one JSON object.
func parseClaims(payload []byte) (claims map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if err = d.Decode(&claims); err == nil && (claims == nil || d.More()) {
		err = errors.New("not one object")
	}
	return claims, err
}

// seconds reads a NumericDate (RFC 7519 section 2), 0 for none.
func seconds(v any) (int64, error) {
	if v == nil {
		return 0, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return 0, errors.New("not a number")
	}
	f, err := n.Float64()
	if err != nil {
		return 0, err
	}
	if f < 0 || f > 1<<52 {
		return 0, errors.New("out of range")
	}
	return max(int64(f), 1), nil
}

// forOneOf reports whether aud, a text or a list of them, has one of those wanted.
func forOneOf(aud any, wanted []string) bool {
	switch a := aud.(type) {
	case string:
		return slices.Contains(wanted, a)
	case []any:
		for _, v := range a {
			if s, ok := v.(string); ok && slices.Contains(wanted, s) {
				return true
			}
		}
	}
	return false
}
