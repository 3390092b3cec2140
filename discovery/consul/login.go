package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// Login gets the ACL token through an auth method, again before it expires and
// when it was revoked, and gives it back at the end.
type Login struct {
	// AuthMethod is the name of the auth method. Required.
	AuthMethod string `yaml:"auth_method"`
	// BearerTokenFile holds what proves to the auth method who the proxy is,
	// such as the token of a Kubernetes service account. It is read at each
	// login. Required.
	BearerTokenFile string `yaml:"bearer_token_file"`
	// Meta describes the login in Consul's list of tokens, such as pod: ns/name.
	// Default: none.
	Meta map[string]string `yaml:"meta"`
	// Datacenter in which the login is made, where it is not that of the agent.
	// Default: the agent's own.
	Datacenter string `yaml:"datacenter"`
	// Namespace and Partition of the auth method (Consul Enterprise). Default: those of
	// CONSUL_NAMESPACE and CONSUL_PARTITION, then Consul's.
	Namespace string `yaml:"namespace"`
	Partition string `yaml:"partition"`
}

const (
	loginBase  = 500 * time.Millisecond // after a login that failed, with full jitter ...
	loginMax   = 30 * time.Second       // ... up to this
	loginLeast = 10 * time.Second       // a token that is not known is not a revoked one for so long: servers may lag
	loginTime  = 10 * time.Second       // one login, and the logout at the end
	loginShare = 0.8                    // of its life after which a token is replaced
	maxLogin   = 1 << 20                // bytes of an answer
)

var errNotLoggedIn = errors.New("there was no login yet")

func (l *Login) validate(add func(field, problem string)) {
	if l.AuthMethod == "" {
		add("login.auth_method", "is required")
	}
	if l.BearerTokenFile == "" {
		add("login.bearer_token_file", "is required")
	}
}

// session is a login that is kept up for all who use its client.
type session struct {
	cfg   Login
	turn  chan struct{} // capacity 1: held by who keeps it up
	again chan struct{} // capacity 1: the token is not known any more
	least time.Duration // loginLeast

	mu     sync.Mutex
	users  int
	made   time.Time // of the present token
	expiry time.Time // zero: never
}

func newSession(cfg Login) *session {
	return &session{cfg: cfg, turn: make(chan struct{}, 1), again: make(chan struct{}, 1), least: loginLeast}
}

// hold keeps the token from being given back until release is called.
func (c *client) hold() (release func()) {
	s := c.tokens.session
	if s == nil {
		return func() {}
	}
	s.mu.Lock()
	s.users++
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.users--
		last := s.users == 0
		s.mu.Unlock()
		if last {
			c.logout()
		}
	}
}

// keep keeps the token fresh until ctx ends: it looks at the token's file, or
// logs in when that is due.
func (c *client) keep(ctx context.Context) {
	s := c.tokens.session
	if s == nil {
		c.tokens.poll(ctx)
		return
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return
	}
	backoff := discovery.Backoff{Base: loginBase, Max: loginMax}
	for ctx.Err() == nil {
		pause, due := s.due(time.Now())
		if due {
			err := c.login(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				if c.tokens.refused(err) {
					slog.Warn("login to consul failed; trying again", "auth_method", s.cfg.AuthMethod, "error", err.Error())
				}
				pause = max(minPause, backoff.Next(rand.Uint64()))
				discovery.Sleep(ctx, pause, nil)
				continue
			}
			backoff.Reset()
			continue
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-s.again:
			s.mu.Lock()
			if time.Since(s.made) >= s.least {
				s.made = time.Time{}
			}
			s.mu.Unlock()
		}
		t.Stop()
	}
}

// due reports whether a login is due at a time, or how long that takes.
func (s *session) due(now time.Time) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.made.IsZero():
		return 0, true
	case s.expiry.IsZero():
		return time.Hour, false
	}
	at := s.made.Add(time.Duration(float64(s.expiry.Sub(s.made)) * loginShare))
	return at.Sub(now), !now.Before(at)
}

// unknown says that Consul does not know the token.
func (s *session) unknown() {
	if s != nil {
		signal(s.again)
	}
}

// login makes a new token the present one, and gives the old one back.
func (c *client) login(ctx context.Context) error {
	s := c.tokens.session
	bearer, err := readSecret(s.cfg.BearerTokenFile, "login.bearer_token_file", maxBearer)
	if err != nil {
		return err
	}
	body, err := json.Marshal(struct {
		AuthMethod, BearerToken string
		Meta                    map[string]string `json:",omitempty"`
	}{s.cfg.AuthMethod, bearer, s.cfg.Meta})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	answer, err := c.sign(ctx, "/v1/acl/login", "", body)
	var status api.StatusError
	if errors.As(err, &status) {
		return fmt.Errorf("consul at %s answered %w; the auth method %q must be there, accept the bearer token and bind it to a service", c.where, status, s.cfg.AuthMethod)
	}
	if err != nil {
		return c.explain(err, "")
	}
	var token struct {
		SecretID       string
		ExpirationTime *time.Time
	}
	if err := json.Unmarshal(answer, &token); err != nil {
		return c.explain(err, "")
	}
	if token.SecretID == "" || strings.ContainsAny(token.SecretID, "\r\n") {
		return c.explain(errors.New("the answer to the login has no token"), "")
	}
	s.mu.Lock()
	s.made, s.expiry = time.Now(), time.Time{}
	if token.ExpirationTime != nil {
		s.expiry = *token.ExpirationTime
	}
	s.mu.Unlock()
	select {
	case <-s.again: // that was about the old one
	default:
	}
	if old := c.tokens.replace(token.SecretID); old != "" {
		_, _ = c.sign(ctx, "/v1/acl/logout", old, nil) // it may be gone already
	}
	return nil
}

// logout gives the token back.
func (c *client) logout() {
	old := c.tokens.replace("")
	if old == "" {
		return
	}
	s := c.tokens.session
	s.mu.Lock()
	s.made = time.Time{}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), loginTime)
	defer cancel()
	if _, err := c.sign(ctx, "/v1/acl/logout", old, nil); err != nil {
		slog.Warn("logout from consul failed; the token lives until it expires", "error", c.explain(err, "").Error())
	}
}

// sign posts to an endpoint for tokens, with a token of its own.
func (c *client) sign(ctx context.Context, path, token string, body []byte) ([]byte, error) {
	s := c.tokens.session
	v := url.Values{}
	for key, value := range map[string]string{"dc": s.cfg.Datacenter, "ns": or(s.cfg.Namespace, c.namespace), "partition": or(s.cfg.Partition, c.partition)} {
		if value != "" {
			v.Set(key, value)
		}
	}
	target := c.scheme + "://" + c.host + c.prefix + path
	if len(v) > 0 {
		target += "?" + v.Encode()
	}
	req, err := http.NewRequestWithContext(context.WithValue(ctx, ownToken{}, token), http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if a := c.auth; a != nil {
		req.SetBasicAuth(a.Username, a.Password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxLogin))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = api.StatusError{Code: resp.StatusCode, Body: string(bytes.TrimSpace(answer))}
	}
	return answer, err
}

// ownToken is the key of the token in the contexts of requests that have one of
// their own.
type ownToken struct{}

// isUnknown reports whether an answer says that Consul does not know the token.
func isUnknown(status api.StatusError) bool {
	return status.Code == http.StatusForbidden && strings.Contains(status.Body, "ACL not found") ||
		status.Code == http.StatusUnauthorized
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// replace makes value the present token and returns the one before.
func (t *tokens) replace(value string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.value
	t.value, t.failure = value, nil
	if value == "" {
		t.failure = errNotLoggedIn
	}
	if value != old {
		t.expire(errTokenChanged)
		t.current, t.expire = context.WithCancelCause(context.Background())
	}
	return old
}

// refused records why there is no new token and reports whether that is news.
func (t *tokens) refused(err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.failure == nil || t.failure.Error() == errNotLoggedIn.Error()
	t.failure = errors.New("login: " + err.Error()) // not an answer to what is asked with it
	return news
}
