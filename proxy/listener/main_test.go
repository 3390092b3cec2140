package listener

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func TestMain(m *testing.M) {
	if os.Getenv(starved) != "" {
		serveStarved()
		return
	}
	testkit.VerifyNoLeaks(m)
}

// patience bounds what would otherwise hang when the code under test fails.
const patience = 30 * time.Second

const (
	ownID    = "spiffe://test.example/api"
	callerID = "spiffe://test.example/web"
)

var authority = sync.OnceValue(func() *testkit.CA { return testkit.NewCA(failing{}) })

// failing is the testing.TB of what is made outside of any one test.
type failing struct{ testing.TB }

func (failing) Helper()           {}
func (failing) Fatal(args ...any) { panic(args) }

// records is a log that a test can look into.
type records struct {
	mu   sync.Mutex
	list []map[string]any
}

func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range bytes.Lines(b) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			return 0, err
		}
		r.list = append(r.list, m)
	}
	return len(b), nil
}

// kinds returns the kinds of the handshakes that failed.
func (r *records) kinds() (kinds []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.list {
		if m["event"] == "handshake_failed" {
			kinds = append(kinds, m["kind"].(string))
		}
	}
	return kinds
}

// budget is so much memory that none is ever short.
const budget = 1 << 50

// rig is a listener at work in front of an origin.
type rig struct {
	t   testing.TB
	l   *Listener
	log *records
	m   *telemetry.Listener
	ran chan error
}

// start runs a listener: strict, TCP, in front of an origin that echoes.
func start(t testing.TB, change func(*plan.Listener)) *rig {
	t.Helper()
	origin := echoOrigin(t)
	r := &rig{t: t, log: &records{}, ran: make(chan error, 1)}
	log := slog.New(slog.NewJSONHandler(r.log, nil))
	metrics, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	sw := wire.NewSweeper(time.Now())
	swept := make(chan error, 1)
	go func() { swept <- sw.Run(ctx) }()
	registry := upstream.NewRegistry(ctx, sw, metrics, log)
	cluster := registry.Acquire(upstream.Spec{
		Name: "api", Local: true,
		Policy: upstream.Policy{ConnectTimeout: patience, Balance: balance.Default()},
	}, telemetry.Inbound)
	cluster.SetLocal([]upstream.EndpointSpec{{Address: origin, Weight: 1, Healthy: true}})
	r.m = metrics.Listener(telemetry.Inbound, "inbound")
	p := &plan.Listener{
		Name: "inbound", Address: "127.0.0.1:0", Direction: telemetry.Inbound,
		ClientCert: plan.ClientCert{Set: true, URI: true},
		Protocol:   plan.TCP, Security: plan.Strict, TLS: serverTLS(t), HandshakeTimeout: patience,
		Route: plan.Route{Name: "api", Cluster: cluster}, Metrics: r.m,
	}
	if change != nil {
		change(p)
	}
	srv := &exchange.Server{Sweeper: sw, HTTP2: &http2.Config{Sweeper: http2.NewSweeper(sw.Now)}, Log: log, LocalID: func() string { return ownID }, Draining: new(atomic.Bool), Memory: memory.New(memory.Options{Bytes: budget})}
	if r.l, err = Bind(p, srv, log); err != nil {
		t.Fatal(err)
	}
	go func() { r.ran <- r.l.Run(ctx) }()
	t.Cleanup(func() {
		r.l.Stop()
		r.l.CloseAll()
		r.ended()
		if n := r.l.Connections(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		if n := r.m.Active.Value(); n != 0 {
			t.Errorf("%d connections are counted as active", n)
		}
		if n := sw.Len(); n != 0 {
			t.Errorf("%d connections are left in the sweeper", n)
		}
		cancel()
		<-swept
		_ = metrics.Shutdown(context.Background())
	})
	return r
}

// ended waits for the end of Run.
func (r *rig) ended() {
	r.t.Helper()
	select {
	case err := <-r.ran:
		if err != nil {
			r.t.Errorf("run: %v", err)
		}
		r.ran <- nil
	case <-time.After(patience):
		r.t.Fatal("run does not end")
	}
}

// change applies a copy of the plan with changes.
func (r *rig) change(f func(*plan.Listener)) {
	p := *r.l.Plan()
	f(&p)
	r.l.Apply(&p)
}

func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.l.Address().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// secure dials and shakes hands with a certificate.
func (r *rig) secure(certs ...tls.Certificate) *tls.Conn {
	r.t.Helper()
	return tls.Client(r.dial(), clientTLS(certs...))
}

func (r *rig) caller() *tls.Conn {
	r.t.Helper()
	c := r.secure(authority().Issue(callerID, nil))
	if err := c.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func clientTLS(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: certs, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
}

func serverTLS(t testing.TB, protocols ...string) *tls.Config {
	t.Helper()
	m, err := mtls.NewMaterial(authority().Issue(ownID, nil), map[string]*x509.CertPool{"test.example": authority().Pool()})
	if err != nil {
		t.Fatal(err)
	}
	f := mtls.NewFeed("test")
	f.Publish(m)
	return mtls.ServerConfig(f, mtls.ServerOptions{NextProtos: protocols})
}

func policy(t testing.TB, from string) *authz.Policy {
	t.Helper()
	p, err := authz.Compile(authz.Config{Rules: []authz.Rule{{Name: "callers", From: []string{from}}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// echoOrigin sends back what it gets.
func echoOrigin(t testing.TB) netip.AddrPort {
	return tcpOrigin(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

// tcpOrigin runs f for each connection until the test ends.
func tcpOrigin(t testing.TB, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// echoes sends s and wants it back.
func echoes(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
		t.Fatalf("got %q, %v, want %q", b, err, s)
	}
}

// isEnded wants the connection to be ended by the other side.
func isEnded(t testing.TB, c net.Conn) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	if ne, ok := err.(net.Error); n != 0 || err == nil || ok && ne.Timeout() {
		t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}

// eventually waits for something that another goroutine does.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	testkit.Eventually(t, "it comes to pass", ok)
}
