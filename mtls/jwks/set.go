// Package jwks keeps the public keys of token issuers fresh, from files and over HTTP.
package jwks

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/jwt"
)

// Bounds of fetching.
const (
	// MaxAge is how long keys are used that cannot be fetched any more.
	MaxAge = 24 * time.Hour
	// the pause between fetches because of unknown keys
	hurry    = 10 * time.Second
	maxBytes = 1 << 20
)

// Set holds the verifiers of a process. They outlive plans: a provider that
// stays as it is keeps its keys and what they have verified.
type Set struct {
	log *slog.Logger

	mu      sync.Mutex
	entries []*entry
	wake    chan struct{} // capacity 1
}

type entry struct {
	v      *jwt.Verifier
	client *http.Client
	stop   context.CancelFunc // of its follower; nil before there is one
	tried  chan struct{}      // closed after the first fetch
	once   sync.Once
}

// NewSet returns a set without verifiers.
func NewSet(log *slog.Logger) *Set { return &Set{log: log, wake: make(chan struct{}, 1)} }

// Verifier returns that of a valid provider: the one that there is, unless what
// it is made of has changed. Keys of a file are read; those with a URL are fetched
// as soon as the set runs and Use has named the verifier.
func (s *Set) Verifier(p *jwt.Provider) (*jwt.Verifier, error) {
	s.mu.Lock()
	for _, e := range s.entries {
		if p.Keys.File == "" && reflect.DeepEqual(e.v.Provider(), p) {
			s.mu.Unlock()
			return e.v, nil
		}
	}
	s.mu.Unlock()
	e := &entry{v: jwt.NewVerifier(*p), tried: make(chan struct{})}
	switch {
	case p.Keys.File != "":
		b, err := os.ReadFile(p.Keys.File)
		if err == nil {
			err = e.v.SetKeys(b)
		}
		if err != nil {
			return nil, fmt.Errorf("keys.file: %s: %w", p.Keys.File, err)
		}
	case p.Keys.URL != "":
		c, err := newClient(&p.Keys)
		if err != nil {
			return nil, err
		}
		e.client = c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, e)
	return e.v, nil
}

func newClient(k *jwt.Keys) (*http.Client, error) {
	timeout := k.Timeout
	if timeout == 0 {
		timeout = jwt.DefaultTimeout
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if k.CA != "" {
		pem, err := os.ReadFile(k.CA)
		if err != nil {
			return nil, fmt.Errorf("keys.ca: %w", err)
		}
		if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("keys.ca: %s has no certificate", k.CA)
		}
	}
	connect := cmp.Or(k.ConnectTimeout, timeout)
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			TLSClientConfig: cfg, DisableKeepAlives: true, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: connect}).DialContext, TLSHandshakeTimeout: connect,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 3 || via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
				return errors.New("the redirect is not followed")
			}
			return nil
		},
	}, nil
}

// Use says which verifiers are in use from now on; the others are forgotten. It
// waits until those with a URL that are new have tried once to fetch their keys,
// or for as long as such a try may take.
func (s *Set) Use(list []*jwt.Verifier) {
	used := map[*jwt.Verifier]bool{}
	for _, v := range list {
		used[v] = true
	}
	var fresh []*entry
	s.mu.Lock()
	kept := s.entries[:0]
	for _, e := range s.entries {
		switch {
		case used[e.v]:
			kept = append(kept, e)
			if e.client != nil && e.stop == nil {
				fresh = append(fresh, e)
			}
		case e.stop != nil:
			e.stop()
		}
	}
	clear(s.entries[len(kept):])
	s.entries = kept
	s.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	end := time.NewTimer(jwt.DefaultTimeout)
	defer end.Stop()
	for _, e := range fresh {
		select {
		case <-e.tried:
		case <-end.C:
			return
		}
	}
}

// Run fetches keys until ctx ends.
func (s *Set) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		s.mu.Lock()
		for _, e := range s.entries {
			if e.client == nil || e.stop != nil {
				continue
			}
			own, cancel := context.WithCancel(ctx)
			e.stop = cancel
			wg.Go(func() { defer cancel(); s.follow(own, e) })
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
	}
}

// follow fetches the keys of e again and again.
func (s *Set) follow(ctx context.Context, e *entry) {
	p := e.v.Provider()
	refresh := p.Keys.Refresh
	if refresh == 0 {
		refresh = jwt.DefaultRefresh
	}
	after, good := pausesOf(&p.Keys), time.Now()
	for {
		err := fetch(ctx, e)
		e.once.Do(func() { close(e.tried) })
		wait := refresh
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			after, good = pausesOf(&p.Keys), time.Now()
		default:
			wait = min(after.next(rand.Float64()), refresh)
			if time.Since(good) > MaxAge {
				e.v.DropKeys()
			}
			s.log.Warn("the keys of a token issuer cannot be fetched", "event", "jwks_failed", "provider", p.Name, "url", p.Keys.URL, "have_keys", e.v.HasKeys(), "error", err)
		}
		if !e.sleep(ctx, wait) {
			return
		}
	}
}

// sleep waits, less long if a key is wanted that is not there.
func (e *entry) sleep(ctx context.Context, wait time.Duration) bool {
	if wait > hurry {
		select {
		case <-e.v.Wanted(): // by tokens that came before the fetch
		default:
		}
		if !pause(ctx, hurry, nil) {
			return false
		}
		return pause(ctx, wait-hurry, e.v.Wanted())
	}
	return pause(ctx, wait, nil)
}

func pause(ctx context.Context, d time.Duration, wanted <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-wanted:
	}
	return true
}

// fetch asks once.
func fetch(ctx context.Context, e *entry) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, e.v.Provider().Keys.URL, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	a, err := e.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = a.Body.Close() }()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer has the status %s", a.Status)
	}
	b, err := io.ReadAll(io.LimitReader(a.Body, maxBytes+1))
	if err != nil {
		return err
	}
	return e.v.SetKeys(b)
}
