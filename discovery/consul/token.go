package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// errTokenChanged ends queries that were sent with the token before.
var errTokenChanged = errors.New("the ACL token has changed")

const (
	tokenPoll = 2 * time.Second // how soon a rotated token file is noticed
	maxToken  = 4096            // bytes
	maxBearer = 64 << 10        // bytes; JWTs are longer
)

// tokens holds the ACL token, from a value or from a file that is read again.
type tokens struct {
	file    string   // empty: the value never changes, unless there is a session
	session *session // nil without a login

	mu      sync.Mutex
	value   string
	failure error // why the file could not be read last; the value is then the one before
	current context.Context
	expire  context.CancelCauseFunc // ends current, when the value changes
}

// newTokens takes the first of token_file, token, CONSUL_HTTP_TOKEN_FILE and
// CONSUL_HTTP_TOKEN, the order of Consul's own client.
func newTokens(cfg Config) *tokens {
	t := &tokens{}
	switch {
	case cfg.Login != nil:
		t.session, t.failure = newSession(*cfg.Login), errNotLoggedIn
	case cfg.TokenFile != "":
		t.file = cfg.TokenFile
	case cfg.Token != "":
		t.value = cfg.Token
	case os.Getenv(api.HTTPTokenFileEnvName) != "":
		t.file = os.Getenv(api.HTTPTokenFileEnvName)
	default:
		t.value = os.Getenv(api.HTTPTokenEnvName)
	}
	t.current, t.expire = context.WithCancelCause(context.Background())
	if t.file != "" {
		t.value, t.failure = readToken(t.file)
	}
	return t
}

// get returns the present token; empty means the anonymous one. A file that
// has become unreadable leaves the token that was read before.
func (t *tokens) get() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.session != nil && t.value == "" {
		return "", t.failure
	}
	if t.file == "" {
		return t.value, nil
	}
	value, err := readToken(t.file)
	t.failure = err
	if err != nil {
		if t.value == "" {
			return "", err
		}
		return t.value, nil
	}
	if value != t.value {
		t.value = value
		t.expire(errTokenChanged)
		t.current, t.expire = context.WithCancelCause(context.Background())
	}
	return value, nil
}

// anonymous reports whether there is no token at all.
func (t *tokens) anonymous() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.file == "" && t.session == nil && t.value == ""
}

// problem returns why the file could not be read last, or nil.
func (t *tokens) problem() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failure
}

// valid returns a context that ends when the token changes.
func (t *tokens) valid() context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current
}

// poll looks at the file until ctx ends, so that queries which wait with an
// old token are ended soon.
func (t *tokens) poll(ctx context.Context) {
	if t.file == "" {
		return
	}
	for discovery.Sleep(ctx, tokenPoll, nil) {
		_, _ = t.get() // its failure is shown with the next failing query
	}
}

func readToken(path string) (string, error) { return readSecret(path, "token_file", maxToken) }

// readSecret reads a file of at most a number of bytes that holds one line.
func readSecret(path, field string, most int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	token := strings.TrimSpace(string(data))
	switch {
	case token == "":
		return "", fmt.Errorf("%s: %s is empty", field, path)
	case int64(len(data)) > most || strings.ContainsAny(token, "\r\n"):
		return "", fmt.Errorf("%s: %s holds more than one token", field, path)
	}
	return token, nil
}
