package consul

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// logins is a server that gives out tokens and knows which are good.
type logins struct {
	mu     sync.Mutex
	life   time.Duration // 0: tokens do not expire
	fails  int           // so many logins are refused
	n      int
	good   map[string]bool
	bearer []string
	lines  []string
}

func (l *logins) RoundTrip(req *http.Request) (*http.Response, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	token := req.Header.Get("X-Consul-Token")
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
	}
	switch req.URL.Path {
	case "/v1/acl/login":
		var ask struct {
			AuthMethod, BearerToken string
			Meta                    map[string]string
		}
		if err := json.Unmarshal(body, &ask); err != nil || token != "" || ask.AuthMethod != "k8s" || ask.Meta["pod"] != "p" {
			return answer(400, "", "bad login")(), nil
		}
		l.bearer = append(l.bearer, ask.BearerToken)
		if l.fails > 0 {
			l.fails--
			return answer(403, "", "Permission denied")(), nil
		}
		l.n++
		token = fmt.Sprintf("token-%d", l.n)
		l.good[token] = true
		l.lines = append(l.lines, "login "+token)
		more := ""
		if l.life > 0 {
			more = fmt.Sprintf(`,"ExpirationTime":%q`, time.Now().Add(l.life).Format(time.RFC3339Nano))
		}
		return answer(200, "", fmt.Sprintf(`{"AccessorID":"a","SecretID":%q%s}`, token, more))(), nil
	case "/v1/acl/logout":
		l.lines = append(l.lines, "logout "+token)
		delete(l.good, token)
		return answer(200, "", "true")(), nil
	}
	if !l.good[token] {
		return answer(403, "", "ACL not found")(), nil
	}
	return answer(200, "7", one(1))(), nil
}

func (l *logins) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, ", ")
}

func loginConfig(t *testing.T) Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bearer")
	if err := os.WriteFile(file, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{Address: "127.0.0.1:8500", Login: &Login{AuthMethod: "k8s", BearerTokenFile: file, Meta: map[string]string{"pod": "p"}}}
}

func TestLoginIsKeptUp(t *testing.T) {
	cfg := loginConfig(t)
	synctest.Test(t, func(t *testing.T) {
		l := &logins{life: 100 * time.Minute, fails: 2, good: map[string]bool{}}
		s := sourceVia(t, cfg, l)
		got, stop := follow(t, s, "api")
		time.Sleep(3 * time.Second)
		if first := <-got; !strings.HasPrefix(first, "api failed: consul at 127.0.0.1:8500: ") || !strings.Contains(first, "login") {
			t.Errorf("before the login: %q", first)
		}
		got.expect(t, "api 10.0.0.1:1")
		if l.said() != "login token-1" {
			t.Errorf("said %s", l.said())
		}
		// The file is read again at each login.
		if err := os.WriteFile(cfg.Login.BearerTokenFile, []byte("second"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(79 * time.Minute)
		if l.said() != "login token-1" {
			t.Errorf("before 80 %% of its life: %s", l.said())
		}
		time.Sleep(3 * time.Minute)
		if l.said() != "login token-1, login token-2, logout token-1" || l.bearer[len(l.bearer)-1] != "second" {
			t.Errorf("after 80 %% of its life: %s, bearers %v", l.said(), l.bearer)
		}
		// Revoked.
		l.mu.Lock()
		l.good = map[string]bool{}
		l.mu.Unlock()
		time.Sleep(time.Minute)
		if l.said() != "login token-1, login token-2, logout token-1, login token-3, logout token-2" {
			t.Errorf("after the token was revoked: %s", l.said())
		}
		if st := s.Status()[0]; st.LastError != "" {
			t.Errorf("status %+v", st)
		}
		stop()
		if !strings.HasSuffix(l.said(), ", logout token-3") {
			t.Errorf("at the end: %s", l.said())
		}
	})
}

// A token that servers do not know yet is no revoked one, and those who share a
// client share its token; the last one to end gives it back.
func TestLoginIsShared(t *testing.T) {
	cfg := loginConfig(t)
	synctest.Test(t, func(t *testing.T) {
		l := &logins{good: map[string]bool{}}
		c, err := NewClientVia(cfg, l)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		first, endFirst := context.WithCancel(t.Context())
		second, endSecond := context.WithCancel(t.Context())
		wg.Go(func() { c.Run(first) })
		synctest.Wait()
		wg.Go(func() { c.Run(second) })
		synctest.Wait()
		l.mu.Lock()
		l.good = map[string]bool{}
		l.mu.Unlock()
		if _, err := c.Ask(t.Context(), Query{Path: "/v1/x"}); err == nil || !strings.Contains(err.Error(), "ACL not found") {
			t.Errorf("Ask: %v", err)
		}
		time.Sleep(loginLeast - time.Second)
		endFirst()
		synctest.Wait()
		if l.said() != "login token-1" {
			t.Errorf("said %s", l.said())
		}
		time.Sleep(2 * time.Second)
		if _, err := c.Ask(t.Context(), Query{Path: "/v1/x"}); err == nil {
			t.Error("no error")
		}
		synctest.Wait()
		if _, err := c.Ask(t.Context(), Query{Path: "/v1/x"}); err != nil {
			t.Error(err)
		}
		endSecond()
		wg.Wait()
		if l.said() != "login token-1, login token-2, logout token-1, logout token-2" {
			t.Errorf("said %s", l.said())
		}
		if token, err := c.Token(); err == nil {
			t.Errorf("token %q after the end", token)
		}
	})
}

// signedJWT is a JWT for a subject, signed with ES256.
func signedJWT(t *testing.T, key *ecdsa.PrivateKey, subject string) string {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	now := time.Now()
	text := enc([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + enc(fmt.Appendf(nil,
		`{"iss":"test","sub":%q,"aud":"consul","iat":%d,"nbf":%[2]d,"exp":%d}`, subject, now.Add(-time.Minute).Unix(), now.Add(time.Hour).Unix()))
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + enc(sig)
}

// A login at a real server, a token that is revoked under a waiting query, and
// the logout.
func TestRealLogin(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{ACL: true})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	c.Do(t, "PUT", "/v1/acl/auth-method", map[string]any{"Name": "k8s", "Type": "jwt", "MaxTokenTTL": "10m", "Config": map[string]any{
		"JWTValidationPubKeys": []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
		"JWTSupportedAlgs":     []string{"ES256"}, "BoundAudiences": []string{"consul"}, "ClaimMappings": map[string]string{"sub": "sub"},
	}})
	c.Do(t, "PUT", "/v1/acl/binding-rule", map[string]any{"AuthMethod": "k8s", "BindType": "service", "BindName": "${value.sub}"})
	c.Do(t, "PUT", "/v1/agent/service/register", map[string]any{"Name": "api", "Address": "10.0.0.1", "Port": 1})

	cfg := loginConfig(t)
	cfg.Address = c.Address
	if err := os.WriteFile(cfg.Login.BearerTokenFile, []byte(signedJWT(t, key, "web")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.client.tokens.session.least = 0
	got, stop := follow(t, s, "api")
	got.expect(t, "api 10.0.0.1:1")

	tokens := func() (ids []string) {
		var list []struct{ AccessorID, AuthMethod string }
		if err := json.Unmarshal(c.Do(t, "GET", "/v1/acl/tokens", nil), &list); err != nil {
			t.Fatal(err)
		}
		for _, l := range list {
			if l.AuthMethod == "k8s" {
				ids = append(ids, l.AccessorID)
			}
		}
		return ids
	}
	before := tokens()
	if len(before) != 1 {
		t.Fatalf("tokens %v", before)
	}
	c.Do(t, "DELETE", "/v1/acl/token/"+before[0], nil)
	// Wakes the waiting query, which finds its token gone.
	c.Do(t, "PUT", "/v1/agent/service/register", map[string]any{"Name": "api", "Address": "10.0.0.2", "Port": 1})
	got.expect(t, "api 10.0.0.2:1")
	if after := tokens(); len(after) != 1 || after[0] == before[0] {
		t.Errorf("tokens %v after %v was revoked", after, before)
	}
	stop()
	if left := tokens(); len(left) != 0 {
		t.Errorf("tokens %v after the end", left)
	}
}
