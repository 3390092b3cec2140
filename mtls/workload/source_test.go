package workload_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/devca"
	"github.com/outrigger-mesh/outrigger/mtls/workload"
)

func id(t testing.TB, s string) mtls.ID {
	t.Helper()
	id, err := mtls.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func entry(t testing.TB, name, hint string) devca.Entry {
	return devca.Entry{ID: id(t, name), Hint: hint, Selectors: []devca.Selector{devca.UID(uint32(os.Getuid()))}}
}

func authority(t testing.TB, domain string) *devca.Authority {
	t.Helper()
	ca, err := devca.NewAuthority(domain)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func socket(t *testing.T) string { return "unix://" + filepath.Join(t.TempDir(), "api.sock") }

// agent runs a development CA; the function returned ends it, as does the test's end.
func agent(t *testing.T, cfg devca.Config) (*devca.Server, func()) {
	t.Helper()
	s, err := devca.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("agent: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// start runs a source until the test ends.
func start(t *testing.T, cfg workload.Config) *workload.Source {
	t.Helper()
	s := workload.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	return s
}

func wait(t *testing.T, s *workload.Source, what string, good func(*mtls.Material) bool) *mtls.Material {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		changed := s.Changed()
		if m := s.Material(); m != nil && good(m) {
			return m
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s did not happen; status %+v", what, s.Status())
		}
	}
}

func anything(*mtls.Material) bool { return true }

func troubled(t *testing.T, s *workload.Source, says string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		if err := s.Status().LastError; err != nil && strings.Contains(err.Error(), says) {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-late:
			t.Fatalf("no trouble that says %q; status %+v", says, s.Status())
		}
	}
}

func TestRotationIsDelivered(t *testing.T) {
	at := socket(t)
	agent(t, devca.Config{TrustDomain: "d.test", Socket: at, TTL: time.Second, Entries: []devca.Entry{entry(t, "spiffe://d.test/web", "")}})
	s := start(t, workload.Config{Socket: at})
	first := wait(t, s, "the first identity", anything)
	if first.ID.String() != "spiffe://d.test/web" || first.Serial != 1 || len(first.Bundles) != 1 {
		t.Errorf("material %+v", first)
	}
	third := wait(t, s, "the third identity", func(m *mtls.Material) bool { return m.Serial >= 3 })
	if third.Cert.Leaf.Equal(first.Cert.Leaf) || !third.NotAfter.After(first.NotAfter) {
		t.Errorf("rotation gave %v after %v", third.NotAfter, first.NotAfter)
	}
	if st := s.Status(); st.Kind != "workload_api" || st.ID != first.ID || st.LastError != nil || st.Updates < 3 {
		t.Errorf("status %+v", st)
	}
}

func TestAgentRestarts(t *testing.T) {
	at := socket(t)
	ca := authority(t, "d.test")
	cfg := devca.Config{Authority: ca, Socket: at, Entries: []devca.Entry{entry(t, "spiffe://d.test/web", "")}}
	_, stop := agent(t, cfg)
	var log lockedBuffer
	s := start(t, workload.Config{Socket: at, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	first := wait(t, s, "the first identity", anything)
	stop()
	troubled(t, s, at)
	if s.Material() != first {
		t.Error("the last material is gone with the agent")
	}
	agent(t, cfg)
	second := wait(t, s, "the identity after the restart", func(m *mtls.Material) bool { return m.Serial > first.Serial })
	if second.Cert.Leaf.Equal(first.Cert.Leaf) || s.Status().LastError != nil {
		t.Errorf("after the restart: %+v", s.Status())
	}
	if text := log.String(); !strings.Contains(text, "level=WARN") || strings.Contains(text, "PRIVATE KEY") {
		t.Errorf("log:\n%s", text)
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestAgentStartsLater(t *testing.T) {
	at := socket(t)
	s := start(t, workload.Config{Socket: at, StartupTimeout: -1})
	troubled(t, s, "api.sock")
	server, _ := agent(t, devca.Config{TrustDomain: "d.test", Socket: at})
	troubled(t, s, "no identity issued")
	if err := server.Register(devca.Entry{ID: id(t, "spiffe://d.test/late"), Selectors: []devca.Selector{devca.PID(os.Getpid())}}); err != nil {
		t.Fatal(err)
	}
	if m := wait(t, s, "the identity of the late entry", anything); m.ID.String() != "spiffe://d.test/late" {
		t.Errorf("got %s", m.ID)
	}
}

func TestStartupFails(t *testing.T) {
	at := socket(t)
	run := func(cfg workload.Config) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := workload.New(cfg).Run(ctx)
		if err == nil || ctx.Err() != nil {
			t.Fatalf("Run returned %v", err)
		}
		return err.Error()
	}
	if got := run(workload.Config{Socket: at, StartupTimeout: 50 * time.Millisecond}); !strings.Contains(got, at) || !strings.Contains(got, "within 50ms") {
		t.Errorf("no agent: %q", got)
	}
	agent(t, devca.Config{TrustDomain: "d.test", Socket: at})
	if got := run(workload.Config{Socket: at, StartupTimeout: 300 * time.Millisecond}); !strings.Contains(got, at) || !strings.Contains(got, "no identity issued") {
		t.Errorf("no entry: %q", got)
	}
	for _, bad := range []string{"tcp://localhost:1", "unix://host/path", "http://127.0.0.1", "::"} {
		if got := run(workload.Config{Socket: bad}); !strings.Contains(got, bad) {
			t.Errorf("%q: %q", bad, got)
		}
	}
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", at)
	if got := run(workload.Config{StartupTimeout: 300 * time.Millisecond}); !strings.Contains(got, at) {
		t.Errorf("socket of the environment: %q", got)
	}
	os.Unsetenv("SPIFFE_ENDPOINT_SOCKET")
	if got := run(workload.Config{}); !strings.Contains(got, "SPIFFE_ENDPOINT_SOCKET") {
		t.Errorf("no socket at all: %q", got)
	}
}

func TestHints(t *testing.T) {
	at := socket(t)
	agent(t, devca.Config{TrustDomain: "d.test", Socket: at, Entries: []devca.Entry{
		entry(t, "spiffe://d.test/first", "internal"), entry(t, "spiffe://d.test/second", "external"),
	}})
	for hint, want := range map[string]string{"": "spiffe://d.test/first", "internal": "spiffe://d.test/first", "external": "spiffe://d.test/second"} {
		s := start(t, workload.Config{Socket: at, Hint: hint})
		if m := wait(t, s, "an identity", anything); m.ID.String() != want {
			t.Errorf("hint %q: got %s, want %s", hint, m.ID, want)
		}
	}
	s := start(t, workload.Config{Socket: at, Hint: "nowhere", StartupTimeout: -1})
	troubled(t, s, `no X509-SVID has the hint "nowhere"; there are ["internal" "external"]`)
	if s.Material() != nil {
		t.Error("another identity was taken")
	}
}

// TestFederatedHandshake lets two trust domains, each with its own agent, talk to one another.
func TestFederatedHandshake(t *testing.T) {
	shop, pay := authority(t, "shop.test"), authority(t, "pay.test")
	atShop, atPay := socket(t), socket(t)
	agent(t, devca.Config{
		Authority: shop, Socket: atShop, Entries: []devca.Entry{entry(t, "spiffe://shop.test/web", "")},
		Federated: map[string][]*x509.Certificate{"pay.test": {pay.Root()}},
	})
	agent(t, devca.Config{
		Authority: pay, Socket: atPay, Entries: []devca.Entry{entry(t, "spiffe://pay.test/api", "")},
		Federated: map[string][]*x509.Certificate{"shop.test": {shop.Root()}},
	})
	web, api := start(t, workload.Config{Socket: atShop}), start(t, workload.Config{Socket: atPay})
	for _, s := range []*workload.Source{web, api} {
		if m := wait(t, s, "an identity", anything); len(m.Bundles) != 2 {
			t.Errorf("%s has %d bundles, want 2", m.ID, len(m.Bundles))
		}
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", mtls.ServerConfig(api, mtls.ServerOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	seen := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			seen <- err.Error()
			return
		}
		defer conn.Close()
		server := conn.(*tls.Conn)
		if err := server.Handshake(); err != nil {
			seen <- err.Error()
			return
		}
		state := server.ConnectionState()
		peer, err := mtls.PeerID(&state)
		if err != nil {
			seen <- err.Error()
			return
		}
		seen <- peer.String()
	}()
	raw, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	client := tls.Client(raw, mtls.ClientConfig(web, mtls.ClientOptions{Expected: []mtls.ID{id(t, "spiffe://pay.test/api")}}))
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "spiffe://shop.test/web" {
		t.Errorf("the server saw %q", got)
	}
}
