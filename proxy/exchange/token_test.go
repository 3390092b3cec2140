package exchange_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/mtls/jwt"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// tokens makes rules that ask for a token, and a function that issues one.
func tokens(t *testing.T) (p *authz.Policy, issue func(role string, until time.Time) string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: pub, KeyID: "k"}}})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	everybody := []string{"*", "anonymous"}
	p, err = authz.Compile(authz.Config{
		Order: authz.FirstMatch, Default: authz.DefaultDenies,
		JWTProviders: []jwt.Provider{{Name: "okta", Issuer: "https://okta.test", Keys: jwt.Keys{Inline: string(set)}, ForwardPayload: "x-jwt"}},
		Rules: []authz.Rule{
			{Name: "open", From: everybody, Paths: []string{"/open"}},
			{Name: "a token", Action: authz.Require, From: everybody, JWT: &authz.JWT{Providers: []authz.JWTProvider{{Name: "okta"}}}},
			{Name: "admins", From: everybody, JWT: &authz.JWT{Providers: []authz.JWTProvider{{Name: "okta", Claims: []authz.JWTClaim{{Path: []string{"perms", "role"}, Value: "admin"}}}}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, func(role string, until time.Time) string {
		payload, err := json.Marshal(map[string]any{"iss": "https://okta.test", "exp": until.Unix(), "perms": map[string]string{"role": role}})
		if err != nil {
			t.Fatal(err)
		}
		o, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		text, err := o.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// Rules on fields and paths cost no allocation.
func TestRulesDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p, err := authz.Compile(authz.Config{Order: authz.FirstMatch, Rules: []authz.Rule{
		{Action: authz.Deny, From: []string{"anonymous"}, Headers: []authz.Header{{Name: "user-agent", Contains: "CURL", IgnoreCase: true}}},
		{Action: authz.Deny, From: []string{"anonymous"}, PathRegex: "/y+"},
		{From: []string{"anonymous"}, PathPrefix: "/", Headers: []authz.Header{{Name: "user-agent", Regex: "t|u"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	n := mallocs(t, plain, 0, func(b *bed) {
		l := *b.plan.Load()
		l.Route.Authz = p
		b.plan.Store(&l)
	})
	if n > 0.05 {
		t.Errorf("%v objects an exchange", n)
	}
}

func TestTokens(t *testing.T) {
	policy, issue := tokens(t)
	guarded := func(s *setup) { s.route.Authz, s.dir = policy, telemetry.Inbound }
	run(t, allModes, guarded, func(t *testing.T, b *bed) {
		heads := make(chan string, 1)
		b.start(func(c *originConn) {
			for {
				head, _, ok := c.message()
				if !ok {
					return
				}
				heads <- head
				c.send(okResponse)
			}
		})
		c := b.dial()
		soon := time.Now().Add(time.Hour)
		admin := issue("admin", soon)
		get := func(path, token, more string) {
			if token != "" {
				more += "Authorization: Bearer " + token + "\r\n"
			}
			c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n" + more + "\r\n")
		}
		for range 2 {
			get("/x", admin, "X-JWT: forged\r\n")
			c.expect(okResponse)
			h := strings.ToLower(<-heads)
			if strings.Contains(h, "authorization:") || strings.Contains(h, "forged") || strings.Count(h, "\r\nx-jwt: ey") != 1 {
				t.Errorf("the application got %q", h)
			}
		}
		get("/open", "", "x-jwt: forged\r\n")
		c.expect(okResponse)
		if h := strings.ToLower(<-heads); strings.Contains(h, "x-jwt") {
			t.Errorf("the application got %q", h)
		}
		for _, q := range []struct{ token, rule, why string }{
			{"", "a token", "no token"},
			{issue("admin", time.Now().Add(-time.Hour)), "a token", "the token has expired"},
			{admin[:len(admin)-8] + "AAAAAAAA", "a token", "the token's signature is wrong"},
			{issue("user", soon), authz.DefaultDeny, "a claim of the token is not as required"},
		} {
			get("/x", q.token, "")
			_, body := c.reply(403, "denied")
			if !strings.Contains(body, "rule: "+q.rule+"\n") || q.token != "" && strings.Contains(body, q.token) {
				t.Errorf("the reply is %q", body)
			}
		}
		list := b.wantReasons("ok", "ok", "ok", "denied", "denied", "denied", "denied")
		for i, want := range []string{"no token", "the token has expired", "the token's signature is wrong", "a claim of the token is not as required"} {
			if got := list[3+i].Detail; got != "JWT of okta: "+want {
				t.Errorf("the record says %q, want %q", got, want)
			}
		}
		if strings.Contains(b.access.String(), admin) {
			t.Error("a token is in the access log")
		}
	})
}
