package consulca

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/mtls"
)

// patience bounds every wait for something that is sure to come.
const patience = 60 * time.Second

// logs is a log that can be looked at while it is written.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// run starts a source. Its end is the test's, or sooner by the function returned.
func run(t *testing.T, s *Source) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// until waits for want, which is asked after every change of the source and now and then.
func until(t *testing.T, s *Source, what string, want func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := s.Changed()
		if want() {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: not within %s; the source says %+v", what, patience, s.Status())
		}
	}
}

func material(t *testing.T, s *Source) *mtls.Material {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := mtls.Wait(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// source makes one for a service against an agent.
func source(t *testing.T, a *testkit.ConsulAgent, cfg Config, service, token string) (*Source, *logs) {
	t.Helper()
	for _, name := range []string{"CONSUL_GRPC_ADDR", "CONSUL_GRPC_CACERT", "CONSUL_CACERT", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "CONSUL_HTTP_ADDR"} {
		t.Setenv(name, "")
	}
	at := consul.Default()
	at.Address, at.Token = a.Address, token
	if strings.HasPrefix(token, "/") {
		at.Token, at.TokenFile = "", token
	}
	access, err := consul.NewClient(at)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.GRPCAddress == "" && cfg.Method != MethodLeaf {
		cfg.GRPCAddress = a.GRPC
	}
	log := &logs{}
	s := New(cfg, Options{Service: service, Client: access, StartupTimeout: -1, Logger: slog.New(slog.NewTextHandler(log, nil))})
	s.jitter = time.Second
	return s, log
}

// tokenFor makes an ACL token with the rights of a service.
func tokenFor(t *testing.T, a *testkit.ConsulAgent, service string) (secret, accessor string) {
	t.Helper()
	var token struct{ SecretID, AccessorID string }
	answer := a.Do(t, "PUT", "/v1/acl/token", map[string]any{"ServiceIdentities": []any{map[string]any{"ServiceName": service}}})
	if err := json.Unmarshal(answer, &token); err != nil {
		t.Fatal(err)
	}
	return token.SecretID, token.AccessorID
}

// rotate gives Consul's built-in CA another root.
func rotate(t *testing.T, a *testkit.ConsulAgent, bits int) {
	t.Helper()
	a.Do(t, "PUT", "/v1/connect/ca/configuration", map[string]any{
		"Provider": "consul", "Config": map[string]any{"LeafCertTTL": "1h", "PrivateKeyType": "ec", "PrivateKeyBits": bits, "RotationPeriod": "2160h"},
	})
}

// call makes one connection from one source to another.
func call(client, server *tls.Config) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	failed := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			failed <- err
			return
		}
		defer c.Close()
		s := tls.Server(c, server)
		if err := s.Handshake(); err != nil {
			failed <- err
			return
		}
		_, err = s.Write([]byte("x"))
		failed <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
		c.Close()
	}
	return errors.Join(err, <-failed)
}

func TestSignByRealConsul(t *testing.T) {
	server := testkit.Consul(t, testkit.ConsulOptions{ACL: true, Mesh: true})
	client := testkit.Consul(t, testkit.ConsulOptions{Server: server})
	webToken, _ := tokenFor(t, server, "web")
	apiToken, apiAccessor := tokenFor(t, server, "api")
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(apiToken), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()

	web, webLog := source(t, client, Config{Method: MethodSign, Snapshot: filepath.Join(dir, "web.json")}, "web", webToken)
	stopWeb := run(t, web)
	api, _ := source(t, server, Config{Method: MethodAuto}, "api", tokenFile)
	run(t, api)
	m := material(t, web)
	if id := m.ID.String(); !strings.HasSuffix(id, ".consul/ns/default/dc/dc1/svc/web") {
		t.Errorf("through a client agent: %s", id)
	}
	if !strings.Contains(webLog.String(), "method=sign") {
		t.Errorf("the log does not say how:\n%s", webLog)
	}
	serverTLS := mtls.ServerConfig(api, mtls.ServerOptions{})
	clientTLS := mtls.ClientConfig(web, mtls.ClientOptions{Expected: []mtls.ID{material(t, api).ID}})
	if err := call(clientTLS, serverTLS); err != nil {
		t.Fatal(err)
	}

	t.Run("another's token is refused", func(t *testing.T) {
		s, _ := source(t, server, Config{Method: MethodSign, Datacenter: "dc1"}, "api", webToken)
		run(t, s)
		until(t, s, "a refusal", func() bool { return s.Status().LastError != nil })
		if err := s.Status().LastError.Error(); !strings.Contains(err, `service:write on "api"`) {
			t.Errorf("the refusal %q names no remedy", err)
		}
	})

	t.Run("rotation under traffic", func(t *testing.T) {
		var calls atomic.Int64
		end, done := make(chan struct{}), make(chan error, 1)
		go func() {
			for {
				select {
				case <-end:
					done <- nil
					return
				default:
				}
				if err := call(clientTLS, serverTLS); err != nil {
					done <- err
					return
				}
				calls.Add(1)
			}
		}()
		webBefore, apiBefore := material(t, web), material(t, api)
		rotate(t, server, 384)
		for _, c := range []struct {
			s      *Source
			before *mtls.Material
		}{{web, webBefore}, {api, apiBefore}} {
			until(t, c.s, "a certificate of the new root", func() bool {
				return !c.s.Material().Cert.Leaf.Equal(c.before.Cert.Leaf)
			})
		}
		at := calls.Load()
		for calls.Load() < at+20 {
			select {
			case err := <-done:
				t.Fatalf("after %d calls: %v", calls.Load(), err)
			case <-time.After(5 * time.Millisecond):
			}
		}
		close(end)
		if err := <-done; err != nil {
			t.Errorf("after %d calls: %v", calls.Load(), err)
		}
	})

	t.Run("token revoked and restored", func(t *testing.T) {
		before := material(t, api)
		server.Do(t, "DELETE", "/v1/acl/token/"+apiAccessor, nil)
		rotate(t, server, 521)
		until(t, api, "the refusal", func() bool { return api.Status().LastError != nil })
		if got := api.Material(); !got.Cert.Leaf.Equal(before.Cert.Leaf) {
			t.Error("a certificate came without a token")
		}
		if err := call(clientTLS, serverTLS); err != nil {
			t.Errorf("meanwhile: %v", err)
		}
		fresh, _ := tokenFor(t, server, "api")
		if err := os.WriteFile(tokenFile, []byte(fresh), 0o600); err != nil {
			t.Fatal(err)
		}
		until(t, api, "another certificate", func() bool { return !api.Material().Cert.Leaf.Equal(before.Cert.Leaf) })
		until(t, web, "the roots of both", func() bool { return call(clientTLS, serverTLS) == nil })
	})

	t.Run("Consul away and a restart from disk", func(t *testing.T) {
		stopWeb() // it may have had another certificate until now
		kept := material(t, web)
		client.Stop(t)
		server.Stop(t)
		again, log := source(t, client, Config{Method: MethodAuto, Snapshot: filepath.Join(dir, "web.json")}, "web", webToken)
		run(t, again)
		if m := material(t, again); !m.Cert.Leaf.Equal(kept.Cert.Leaf) || !strings.Contains(log.String(), "identity from disk") {
			t.Errorf("a start without Consul has %v\n%s", m.ID, log)
		}
		if err := call(mtls.ClientConfig(again, mtls.ClientOptions{Expected: []mtls.ID{material(t, api).ID}}), serverTLS); err != nil {
			t.Error(err)
		}
		until(t, again, "trouble", func() bool { return again.Status().LastError != nil })
		server.Start(t)
		client.Start(t)
		until(t, again, "the end of the trouble", func() bool { return again.Status().LastError == nil })
	})
}

func TestLeafOfRealConsul(t *testing.T) {
	server := testkit.Consul(t, testkit.ConsulOptions{ACL: true, Mesh: true})
	token, _ := tokenFor(t, server, "web")
	// Nothing listens on the gRPC port that is given.
	s, log := source(t, server, Config{Method: MethodAuto, GRPCAddress: "127.0.0.1:1"}, "web", token)
	run(t, s)
	m := material(t, s)
	if !strings.HasSuffix(m.ID.String(), ".consul/ns/default/dc/dc1/svc/web") || !strings.Contains(log.String(), "method=leaf") {
		t.Errorf("%s; the log:\n%s", m.ID, log)
	}
	rotate(t, server, 384)
	// The agent spreads its own renewals over half a minute; the roots come at once.
	until(t, s, "both roots", func() bool {
		//lint:ignore SA1019 the pool was made from parsed roots, so Subjects leaves out nothing
		return len(s.Material().Bundles[m.ID.TrustDomain()].Subjects()) == 2
	})
}
