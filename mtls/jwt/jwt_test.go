package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// issuer has one key of each kind.
type issuer struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	ed  ed25519.PrivateKey
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{}
	var errs [3]error
	i.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	i.ec, errs[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, i.ed, errs[2] = ed25519.GenerateKey(rand.Reader)
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return i
}

func (i *issuer) set(t testing.TB, more ...jose.JSONWebKey) string {
	t.Helper()
	keys := append([]jose.JSONWebKey{
		{Key: &i.rsa.PublicKey, KeyID: "r", Use: "sig"}, {Key: &i.ec.PublicKey, KeyID: "e"}, {Key: i.ed.Public(), KeyID: "d"},
	}, more...)
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := o.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const now = 1_800_000_000

func claims(more map[string]any) map[string]any {
	c := map[string]any{"iss": "https://issuer.test", "aud": []string{"api", "other"}, "exp": now + 60, "nbf": now - 60, "perms": map[string]any{"role": "admin", "n": 7}}
	maps.Copy(c, more)
	return c
}

func head(t testing.TB, target string, fields ...string) *Request {
	t.Helper()
	raw := []byte("GET " + target + " HTTP/1.1\r\nHost: api.test\r\n" + strings.Join(append(fields, "", ""), "\r\n"))
	var r http1.Request
	if n, err := r.Parse(raw, nil); err != nil || n == 0 {
		t.Fatalf("%q: %v", raw, err)
	}
	return &Request{Head: &r.Head, Raw: raw, Query: r.Query.Of(raw)}
}

func bearer(t testing.TB, token string) *Request { return head(t, "/", "authorization: Bearer "+token) }

func provider(set string) Provider {
	return Provider{Name: "p", Issuer: "https://issuer.test", Audiences: []string{"api"}, Keys: Keys{Inline: set}}
}

func TestVerify(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	secret := []byte(strings.Repeat("s", 32))
	v := NewVerifier(provider(i.set(t, jose.JSONWebKey{Key: secret, KeyID: "h"})))
	good := sign(t, jose.RS256, i.rsa, "r", claims(nil))
	parts := strings.Split(good, ".")
	enc := base64.RawURLEncoding.EncodeToString
	none := enc([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	pub, err := json.Marshal(jose.JSONWebKey{Key: &i.rsa.PublicKey})
	if err != nil {
		t.Fatal(err)
	}
	with := func(k string, v any) map[string]any { return claims(map[string]any{k: v}) }
	without := func(k string) map[string]any { c := claims(nil); delete(c, k); return c }
	for _, c := range []struct {
		name, token string
		want        Failure
	}{
		{"rsa", good, OK},
		{"pss", sign(t, jose.PS256, i.rsa, "r", claims(nil)), OK},
		{"ec", sign(t, jose.ES256, i.ec, "e", claims(nil)), OK},
		{"ed", sign(t, jose.EdDSA, i.ed, "d", claims(nil)), OK},
		{"without the name of a key", sign(t, jose.ES256, i.ec, "", claims(nil)), OK},
		{"for ever", sign(t, jose.ES256, i.ec, "e", without("exp")), OK},
		{"within the skew", sign(t, jose.ES256, i.ec, "e", with("exp", now-29)), OK},
		{"one audience", sign(t, jose.ES256, i.ec, "e", with("aud", "api")), OK},
		{"expired", sign(t, jose.ES256, i.ec, "e", with("exp", now-30)), Expired},
		{"expired long ago", sign(t, jose.ES256, i.ec, "e", with("exp", 0)), Expired},
		{"early", sign(t, jose.ES256, i.ec, "e", with("nbf", now+31)), NotYetValid},
		{"exp is text", sign(t, jose.ES256, i.ec, "e", with("exp", "soon")), Malformed},
		{"exp is huge", sign(t, jose.ES256, i.ec, "e", with("exp", 1e300)), Malformed},
		{"other audience", sign(t, jose.ES256, i.ec, "e", with("aud", "web")), OtherAudience},
		{"no audience", sign(t, jose.ES256, i.ec, "e", without("aud")), OtherAudience},
		{"other issuer", sign(t, jose.ES256, i.ec, "e", with("iss", "https://evil.test")), OtherIssuer},
		{"issuer in capitals", sign(t, jose.ES256, i.ec, "e", map[string]any{"ISS": "https://issuer.test", "aud": "api"}), OtherIssuer},
		{"other key of that name", sign(t, jose.ES256, other.ec, "e", claims(nil)), BadSignature},
		{"unknown name", sign(t, jose.ES256, i.ec, "x", claims(nil)), UnknownKey},
		{"another kind of key", sign(t, jose.RS256, i.rsa, "e", claims(nil)), UnknownKey},
		{"shared secret", sign(t, jose.HS256, secret, "h", claims(nil)), BadAlgorithm},
		{"the public key as a secret", sign(t, jose.HS256, pub, "r", claims(nil)), BadAlgorithm},
		{"none", none, BadAlgorithm},
		{"changed payload", parts[0] + "." + enc([]byte(`{"iss":"https://issuer.test","aud":"api"}`)) + "." + parts[2], BadSignature},
		{"no signature", parts[0] + "." + parts[1] + ".", BadSignature},
		{"two parts", parts[0] + "." + parts[1], Malformed},
		{"text", "hello", Malformed},
		{"too long", good + strings.Repeat("A", MaxToken), Malformed},
	} {
		for range 2 { // the second time from memory
			found, got := v.Verify(bearer(t, c.token), time.Unix(now, 0))
			if got != c.want || (found != nil) != (got == OK) {
				t.Errorf("%s: %s, want %s", c.name, got, c.want)
			}
		}
	}
	if _, got := v.Verify(head(t, "/"), time.Unix(now, 0)); got != NoToken {
		t.Errorf("without a token: %s", got)
	}
	// A remembered token ends in time, too.
	if _, got := v.Verify(bearer(t, good), time.Unix(now+90, 0)); got != Expired {
		t.Errorf("later: %s", got)
	}
	v.DropKeys()
	if _, got := v.Verify(bearer(t, good), time.Unix(now, 0)); got != NoKeys || v.HasKeys() {
		t.Errorf("without keys: %s", got)
	}
	select {
	case <-v.Wanted():
	default:
		t.Error("nobody is told that keys are wanted")
	}
}

func TestClaims(t *testing.T) {
	i := newIssuer(t)
	found, _ := NewVerifier(provider(i.set(t))).Verify(bearer(t, sign(t, jose.ES256, i.ec, "e", claims(nil))), time.Unix(now, 0))
	for _, c := range []struct {
		path  string
		value string
		want  bool
	}{
		{"perms role", "admin", true},
		{"perms role", "Admin", false},
		{"perms", "admin", false},
		{"perms n", "7", false},
		{"perms role more", "admin", false},
		{"iss", "https://issuer.test", true},
		{"aud", "api", false},
		{"none", "", false},
	} {
		if got := found.Has(strings.Fields(c.path), c.value); got != c.want {
			t.Errorf("%s is %q: %t", c.path, c.value, got)
		}
	}
}

func TestLocations(t *testing.T) {
	i := newIssuer(t)
	token := sign(t, jose.ES256, i.ec, "e", claims(nil))
	bad := "a.b.c"
	p := provider(i.set(t))
	own := p
	own.Locations = []Location{{Header: "X-Token", Prefix: "jwt"}, {Cookie: "session"}, {Query: "t"}, {Header: "X-Raw", Forward: true}}
	for _, c := range []struct {
		p    Provider
		r    *Request
		want Failure
	}{
		{p, head(t, "/", "Authorization: bearer "+token), OK},
		{p, head(t, "/", "Authorization: Basic "+token), NoToken},
		{p, head(t, "/?a=b&access_token="+token), OK},
		{p, head(t, "/?access_token="+token, "Authorization: Bearer "+bad), OK},
		{p, head(t, "/", "Authorization: Bearer "+bad, "Authorization: Bearer "+token), OK},
		{p, head(t, "/", "Authorization: Bearer "+bad), Malformed},
		{p, head(t, "/", "Authorization: Bearer"), NoToken},
		{own, head(t, "/", "Authorization: Bearer "+token), NoToken},
		{own, head(t, "/", "x-token: JWT "+token), OK},
		{own, head(t, "/", "cookie: a=b; session="+token+"; c=d"), OK},
		{own, head(t, "/", "cookie: xsession="+token), NoToken},
		{own, head(t, "/?t="+token), OK},
		{own, head(t, "/", "x-raw: "+token), OK},
		{p, head(t, "/", "Authorization: Bearer "+bad, "Authorization: Bearer "+bad, "Authorization: Bearer "+bad, "Authorization: Bearer "+bad, "Authorization: Bearer "+token), Malformed},
	} {
		if _, got := NewVerifier(c.p).Verify(c.r, time.Unix(now, 0)); got != c.want {
			t.Errorf("%s: %s, want %s", c.r.Raw[:30], got, c.want)
		}
	}
}

func TestDropAndForward(t *testing.T) {
	i := newIssuer(t)
	token := sign(t, jose.ES256, i.ec, "e", claims(nil))
	p := provider(i.set(t))
	p.ForwardPayload, p.PadPayload = "X-Payload", true
	v := NewVerifier(p)
	r := head(t, "/", "Authorization: Bearer "+token, "x-payload: forged", "a: b")
	dropped := func() (names []string) {
		for _, f := range r.Head.Fields {
			if f.Drop {
				names = append(names, string(f.Name.Of(r.Raw)))
			}
		}
		return names
	}
	found, _ := v.Verify(r, time.Unix(now, 0))
	v.Drop(r.Head, r.Raw, nil)
	if got := fmt.Sprint(dropped()); got != "[x-payload]" {
		t.Errorf("without a verified token %s are dropped", got)
	}
	v.Drop(r.Head, r.Raw, found)
	if got := fmt.Sprint(dropped()); got != "[Authorization x-payload]" {
		t.Errorf("with one %s are", got)
	}
	line := string(v.AppendPayload(nil, found))
	value, ok := strings.CutPrefix(strings.TrimSuffix(line, "\r\n"), "x-payload: ")
	b, err := base64.URLEncoding.DecodeString(value)
	if !ok || err != nil || !strings.Contains(string(b), `"role":"admin"`) {
		t.Errorf("payload %q: %v", line, err)
	}
}

func TestCacheIsBoundedAndCheap(t *testing.T) {
	i := newIssuer(t)
	p := provider(i.set(t))
	p.Cache = 5
	v := NewVerifier(p)
	var r *Request
	for n := range 20 {
		r = bearer(t, sign(t, jose.EdDSA, i.ed, "d", claims(map[string]any{"jti": n})))
		if _, got := v.Verify(r, time.Unix(now, 0)); got != OK {
			t.Fatal(got)
		}
	}
	if n := len(v.state.Load().tokens); n != 5 {
		t.Errorf("%d tokens are remembered", n)
	}
	if n := testing.AllocsPerRun(100, func() { v.Verify(r, time.Unix(now, 0)) }); n > 0 && !raceEnabled {
		t.Errorf("a known token costs %v allocations", n)
	}
	// Other keys know nothing of what the former have verified.
	if err := v.SetKeys([]byte(newIssuer(t).set(t))); err != nil {
		t.Fatal(err)
	}
	if _, got := v.Verify(r, time.Unix(now, 0)); got != BadSignature {
		t.Errorf("with other keys: %s", got)
	}
	if err := v.SetKeys([]byte("{}")); err == nil || !v.HasKeys() {
		t.Error("an empty set was put to use")
	}
}

func TestKeySets(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("this toolchain makes no weak keys", err)
	}
	i := newIssuer(t)
	var _ crypto.PublicKey = weak.Public()
	for name, keys := range map[string][]jose.JSONWebKey{
		"weak":       {{Key: &weak.PublicKey}},
		"secret":     {{Key: []byte("secret secret secret secret secret")}},
		"encryption": {{Key: &i.ec.PublicKey, Use: "enc"}},
		"none":       {},
	} {
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseKeys(b); err == nil {
			t.Errorf("%s: %d keys", name, len(got))
		}
	}
	// A private key counts as its public half.
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.ec}}})
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := parseKeys(b); err != nil || len(keys) != 1 || !keys[0].IsPublic() {
		t.Errorf("%v, %v", keys, err)
	}
}

func TestValidate(t *testing.T) {
	set := newIssuer(t).set(t)
	for want, p := range map[string]Provider{
		"":                     provider(set),
		"name":                 {Issuer: "i", Keys: Keys{Inline: set}},
		"issuer":               {Name: "p", Keys: Keys{Inline: set}},
		"keys":                 {Name: "p", Issuer: "i"},
		"keys.inline":          {Name: "p", Issuer: "i", Keys: Keys{Inline: "{"}},
		"keys.url":             {Name: "p", Issuer: "i", Keys: Keys{URL: "ftp://a/b"}},
		"keys.timeout":         {Name: "p", Issuer: "i", Keys: Keys{URL: "https://a/b", Timeout: time.Hour}},
		"keys.refresh":         {Name: "p", Issuer: "i", Keys: Keys{URL: "https://a/b", Refresh: time.Millisecond}},
		"keys.connect_timeout": {Name: "p", Issuer: "i", Keys: Keys{URL: "https://a/b", ConnectTimeout: -1}},
		"keys.retry_base":      {Name: "p", Issuer: "i", Keys: Keys{URL: "https://a/b", RetryBase: 2 * time.Hour, RetryMax: time.Hour}},
		"keys.retry_max":       {Name: "p", Issuer: "i", Keys: Keys{URL: "https://a/b", RetryBase: time.Minute}},
		"keys.retry_times":     {Name: "p", Issuer: "i", Keys: Keys{URL: "https://a/b", RetryTimes: -1}},
		"locations[0]":         {Name: "p", Issuer: "i", Keys: Keys{File: "f"}, Locations: []Location{{Header: "a", Query: "b"}}},
		"locations[0].header":  {Name: "p", Issuer: "i", Keys: Keys{File: "f"}, Locations: []Location{{Header: "a b"}}},
		"forward_payload":      {Name: "p", Issuer: "i", Keys: Keys{File: "f"}, ForwardPayload: "connection"},
		"clock_skew":           {Name: "p", Issuer: "i", Keys: Keys{File: "f"}, ClockSkew: -1},
		"cache":                {Name: "p", Issuer: "i", Keys: Keys{File: "f"}, Cache: -1},
	} {
		got := ""
		p.Validate(func(field, problem string) {
			if got += field; problem == "" {
				t.Errorf("%s: no word on it", field)
			}
		})
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	i := newIssuer(f)
	v := NewVerifier(provider(i.set(f)))
	good := sign(f, jose.ES256, i.ec, "e", claims(nil))
	f.Add(good, false)
	f.Add("e30.e30.", true)
	f.Add(strings.Replace(good, ".", "..", 1), false)
	f.Fuzz(func(t *testing.T, token string, cookie bool) {
		set := v.state.Load()
		found, got := v.one(set, []byte(token), time.Unix(now, 0))
		if (found != nil) != (got == OK) || got == OK && token[:strings.LastIndexByte(token, '.')] != good[:strings.LastIndexByte(good, '.')] {
			t.Fatalf("%q: %s", token, got)
		}
	})
}

func FuzzKeySet(f *testing.F) {
	f.Add([]byte(newIssuer(f).set(f)))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA","n":"AQ","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeys(b)
		if err == nil && len(keys) == 0 {
			t.Fatal("no keys and no error")
		}
		for i := range keys {
			if !keys[i].IsPublic() || !keys[i].Valid() {
				t.Fatalf("%+v", keys[i])
			}
		}
	})
}
