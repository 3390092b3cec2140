package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// Whoever may call is decided where the call arrives, by both kinds of sidecars
// alike: by default nobody may, then by source, by wildcards and their
// precedence, by permissions for HTTP and by tokens. The agent is a client of the
// server.
func TestConsulIntentions(t *testing.T) {
	server := testkit.Consul(t, testkit.ConsulOptions{Mesh: true, ACL: true})
	m := newConsulMesh(t, testkit.ConsulOptions{Server: server})
	var services []string
	for _, kind := range sidecarKinds {
		db, api := "db-"+kind, "api-"+kind
		services = append(services, db, api)
		m.protocol("tcp", db)
		m.protocol("http", api)
		m.join(kind, testkit.Sidecar{Service: db, App: serveTCP(t, func(c net.Conn) {
			for scan := bufio.NewScanner(c); scan.Scan(); {
				fmt.Fprintln(c, db+" "+scan.Text())
			}
		})})
		m.join(kind, testkit.Sidecar{Service: api, App: serve(t, named(api, echo(api)))})
	}
	callers := map[string]*member{}
	for _, kind := range sidecarKinds {
		m.protocol("http", "web-"+kind)
		callers[kind] = m.join(kind, testkit.Sidecar{Service: "web-" + kind}, services...)
	}
	pairs(t, func(t *testing.T, from, to string) {
		web, db, api := callers[from], "db-"+to, "api-"+to
		self := "web-" + from
		reaches := func(want bool, why string) {
			t.Helper()
			eventually(t, patience, fmt.Sprintf("%s reaches %s: %v, for %s", self, db, want, why), func() (bool, string) {
				ok, said := tcpAnswers(web.calls[db], db)
				return ok == want, said
			})
		}
		get := func(path string, want int, header ...string) {
			t.Helper()
			gets(t, web.url(api, path), want, header...)
		}

		reaches(false, "the default denies")
		get("/", http.StatusForbidden)
		m.agent.Intentions(t, db, testkit.Source(self, "allow"))
		reaches(true, "an intention allows")
		c, err := net.Dial("tcp", web.calls[db])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		lines := bufio.NewReader(c)
		fmt.Fprintln(c, "one")
		if line, err := lines.ReadString('\n'); err != nil || line != db+" one\n" {
			t.Fatalf("%q, %v", line, err)
		}
		m.agent.Intentions(t, db, testkit.Source(self, "deny"))
		reaches(false, "an intention denies")
		if to == ownKind { // Envoy lets live connections be
			_ = c.SetDeadline(time.Now().Add(patience))
			if line, err := lines.ReadString('\n'); err == nil {
				t.Errorf("the connection from before the change lives on: %q", line)
			}
		}
		m.agent.Intentions(t, db, testkit.Source("*", "allow"), testkit.Source(self, "deny"))
		reaches(false, "the exact source goes before the wildcard")
		m.agent.Intentions(t, db, testkit.Source("*", "deny"), testkit.Source(self, "allow"))
		reaches(true, "the exact source goes before the wildcard")
		m.agent.Intentions(t, db, testkit.Source("*", "allow"))
		reaches(true, "everybody may")

		m.agent.Intentions(t, api, object{"Name": self, "Permissions": []object{
			{"Action": "deny", "HTTP": object{"PathPrefix": "/", "Header": []object{{"Name": "x-role", "Exact": "guest"}}}},
			{"Action": "allow", "HTTP": object{"PathExact": "/exact"}},
			{"Action": "allow", "HTTP": object{"PathPrefix": "/public/", "Methods": []string{"GET"}}},
			{"Action": "allow", "HTTP": object{"PathRegex": "/v[0-9]+/x"}},
			{"Action": "allow", "HTTP": object{"PathPrefix": "/team", "Header": []object{{"Name": "x-team", "Prefix": "blue-"}, {"Name": "x-off", "Present": true, "Invert": true}}}},
		}})
		get("/exact", http.StatusOK)
		get("/exact/more", http.StatusForbidden)
		get("/exact?a=b", http.StatusOK)
		get("/public/a", http.StatusOK)
		get("/public/../secret", http.StatusForbidden)
		get("/public/a", http.StatusForbidden, "X-Role", "guest")
		settles(t, "the wrong method", http.MethodPut, web.url(api, "/public/a"), nil, gives(http.StatusForbidden))
		get("/v12/x", http.StatusOK)
		get("/v12/xy", http.StatusForbidden)
		get("/team", http.StatusOK, "X-Team", "blue-1")
		get("/team", http.StatusForbidden, "X-Team", "red-1")
		get("/team", http.StatusForbidden, "X-Team", "blue-1", "X-Off", "1")

		m.agent.DeleteEntry(t, "service-intentions", api)
		get("/any", http.StatusForbidden)
		m.agent.DeleteEntry(t, "service-intentions", db)
		reaches(false, "the default denies again")
	})
}

// gets asks until the status is the one wanted.
func gets(t *testing.T, url string, want int, header ...string) {
	t.Helper()
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	settles(t, fmt.Sprintf("%s %v: %d", url, header, want), http.MethodGet, url, h, gives(want))
}

// Tokens that intentions ask for are verified where the call arrives.
func TestConsulTokens(t *testing.T) {
	m := newConsulMesh(t, testkit.ConsulOptions{ACL: true})
	var services []string
	for _, kind := range sidecarKinds {
		api := "api-" + kind
		services = append(services, api)
		m.protocol("http", api)
		m.join(kind, testkit.Sidecar{Service: api, App: serve(t, named(api, echo(api)))})
	}
	m.protocol("http", "web")
	web := m.join(envoyKind, testkit.Sidecar{Service: "web"}, services...)
	key, jwks := newSigner(t)
	m.agent.WriteEntry(t, entry("jwt-provider", "issuer", "Issuer", "https://issuer.test", "Audiences", []string{"api"},
		"JSONWebKeySet", object{"Local": object{"JWKS": base64.StdEncoding.EncodeToString(jwks)}}))

	for _, to := range sidecarKinds {
		t.Run(to, func(t *testing.T) {
			self, api := "web", "api-"+to
			get := func(path string, want int, header ...string) {
				t.Helper()
				gets(t, web.url(api, path), want, header...)
			}
			need := object{"Providers": []object{{"Name": "issuer", "VerifyClaims": []object{{"Path": []string{"perms", "role"}, "Value": "admin"}}}}}
			m.agent.Intentions(t, api, object{"Name": self, "Permissions": []object{
				{"Action": "allow", "HTTP": object{"PathPrefix": "/admin"}, "JWT": need},
				{"Action": "allow", "HTTP": object{"PathPrefix": "/open"}},
			}})
			get("/open", http.StatusOK)
			get("/admin", http.StatusForbidden)
			get("/admin", http.StatusOK, "Authorization", "Bearer "+key.token(t, "https://issuer.test", "api", "admin"))
			get("/admin", http.StatusForbidden, "Authorization", "Bearer "+key.token(t, "https://issuer.test", "api", "user"))
			m.agent.WriteEntry(t, object{"Kind": "service-intentions", "Name": api, "JWT": object{"Providers": []object{{"Name": "issuer"}}}, "Sources": []object{
				{"Name": self, "Permissions": []object{{"Action": "allow", "HTTP": object{"PathPrefix": "/"}}}},
			}})
			get("/any", http.StatusForbidden)
			get("/any", http.StatusOK, "Authorization", "Bearer "+key.token(t, "https://issuer.test", "api", "user"))
		})
	}
}

// signer signs tokens with ES256.
type signer struct{ key *ecdsa.PrivateKey }

// newSigner returns a signer and its key as a JWK set.
func newSigner(t *testing.T) (signer, []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := k.PublicKey.Bytes() // 4, X, Y
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(object{"keys": []object{{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:]),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return signer{k}, set
}

// token returns a token that is good for an hour.
func (s signer) token(t *testing.T, issuer, audience, role string) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	now := time.Now().Unix()
	text := part(object{"alg": "ES256", "typ": "JWT", "kid": "one"}) + "." + part(object{
		"iss": issuer, "aud": audience, "sub": "test", "iat": now - 5, "exp": now + 3600, "perms": object{"role": role},
	})
	sum := sha256.Sum256([]byte(text))
	r, v, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 64)
	r.FillBytes(raw[:32])
	v.FillBytes(raw[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(raw)
}
