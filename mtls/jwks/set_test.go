package jwks

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/mtls/jwt"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

func keySet(t *testing.T) []byte {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: pub, KeyID: "k"}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// running starts a set, which ends with the test.
func running(t *testing.T) *Set {
	t.Helper()
	s := NewSet(slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestFetch(t *testing.T) {
	set := keySet(t)
	var asked atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = w.Write(set)
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := running(t)
	p := &jwt.Provider{Name: "p", Issuer: "i", Keys: jwt.Keys{URL: server.URL, CA: ca, Timeout: 10 * time.Second}}
	v, err := s.Verifier(p)
	if err != nil {
		t.Fatal(err)
	}
	s.Use([]*jwt.Verifier{v})
	s.wait(t, v)
	if !v.HasKeys() || asked.Load() != 1 {
		t.Fatalf("keys %t after %d questions", v.HasKeys(), asked.Load())
	}
	// The same provider in the next plan is the same verifier, with its keys.
	same := *p
	again, err := s.Verifier(&same)
	if err != nil || again != v {
		t.Errorf("another verifier for the same provider: %v", err)
	}
	s.Use([]*jwt.Verifier{again})
	other := *p
	other.Issuer = "j"
	if w, err := s.Verifier(&other); err != nil || w == v {
		t.Errorf("the same verifier for another provider: %v", err)
	}
	if asked.Load() != 1 {
		t.Errorf("%d questions", asked.Load())
	}
}

// wait returns when the first fetch has been tried.
func (s *Set) wait(t *testing.T, v *jwt.Verifier) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.v == v {
			s.mu.Unlock()
			select {
			case <-e.tried:
			case <-time.After(30 * time.Second):
				t.Error("no fetch was tried")
			}
			s.mu.Lock()
		}
	}
}

// What cannot be had, or is no key set, gives no keys, and Use does not wait for ever.
func TestFetchFails(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"status":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"not a set": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"redirects": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) },
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(" ", maxBytes+10))
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			defer server.Close()
			s := running(t)
			v, err := s.Verifier(&jwt.Provider{Name: "p", Issuer: "i", Keys: jwt.Keys{URL: server.URL, Timeout: 10 * time.Second}})
			if err != nil {
				t.Fatal(err)
			}
			s.Use([]*jwt.Verifier{v})
			s.wait(t, v)
			if v.HasKeys() {
				t.Error("there are keys")
			}
			s.Use(nil)
		})
	}
}

func TestFiles(t *testing.T) {
	s := NewSet(slog.New(slog.NewTextHandler(io.Discard, nil)))
	file := filepath.Join(t.TempDir(), "set.json")
	p := &jwt.Provider{Name: "p", Issuer: "i", Keys: jwt.Keys{File: file}}
	if _, err := s.Verifier(p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(file, keySet(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Verifier(p); err != nil || !v.HasKeys() {
		t.Errorf("with the file: %v", err)
	}
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verifier(p); err == nil {
		t.Error("an empty set was taken")
	}
	if _, err := s.Verifier(&jwt.Provider{Name: "p", Issuer: "i", Keys: jwt.Keys{URL: "https://a", CA: file}}); err == nil {
		t.Error("a file without a certificate was taken for roots")
	}
}

// A server that takes connections and says nothing is left after connect_timeout.
func TestConnectTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	k := jwt.Keys{URL: "https://" + l.Addr().String(), Timeout: time.Minute, ConnectTimeout: 10 * time.Millisecond}
	client, err := newClient(&k)
	if err != nil {
		t.Fatal(err)
	}
	err = fetch(t.Context(), &entry{v: jwt.NewVerifier(jwt.Provider{Name: "p", Issuer: "i", Keys: k}), client: client})
	// On a busy machine the connection may take so long already.
	if err == nil || !strings.Contains(err.Error(), "TLS handshake timeout") && !strings.Contains(err.Error(), "dial tcp") {
		t.Errorf("the fetch ended with %v", err)
	}
}
