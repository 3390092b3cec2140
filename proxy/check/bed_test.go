package check

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/health"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// bed is a registry that serves one cluster, api, with its checks.
type bed struct {
	t       testing.TB
	r       *upstream.Registry
	sw      *wire.Sweeper
	metrics *telemetry.Metrics
	spec    upstream.Spec
	cluster *upstream.Cluster

	mu  sync.Mutex
	log bytes.Buffer
}

// Write implements io.Writer for the log.
func (b *bed) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *bed) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// newBed makes a cluster of the addresses with cfg as its checks. With live its
// connections are swept; without, nothing runs beside the test.
func newBed(t testing.TB, cfg health.Config, live bool, change func(*upstream.Spec), addresses ...netip.AddrPort) *bed {
	t.Helper()
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, sw: wire.NewSweeper(time.Now()), metrics: m}
	ctx, cancel := context.WithCancel(context.Background())
	level := &slog.HandlerOptions{Level: slog.LevelDebug}
	b.r = upstream.NewRegistry(ctx, b.sw, m, slog.New(slog.NewTextHandler(b, level)))
	streams := http2.NewSweeper(b.sw.Now)
	b.r.HTTP2 = &http2.Config{Sweeper: streams}
	b.spec = upstream.Spec{Name: "api", Transport: "plaintext", Policy: upstream.Policy{
		ConnectTimeout: 5 * time.Second, Keepalive: time.Minute, Balance: balance.Default(), Limits: limit.Default(), Health: &cfg,
	}}
	if change != nil {
		change(&b.spec)
	}
	b.endpoints(addresses...)
	b.cluster = b.r.Acquire(b.spec, telemetry.Outbound)
	var running sync.WaitGroup
	if live {
		for _, f := range []func(context.Context) error{b.sw.Run, streams.Run, b.r.Run} {
			running.Go(func() { _ = f(ctx) })
		}
	}
	t.Cleanup(func() {
		b.r.EndChecks()
		cancel()
		running.Wait()
		b.r.Release(b.cluster)
		if n := b.sw.Len(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return b
}

func (b *bed) endpoints(addresses ...netip.AddrPort) {
	var list []upstream.EndpointSpec
	for _, a := range addresses {
		list = append(list, upstream.EndpointSpec{Address: a, Weight: 1, Healthy: true, Health: "passing"})
	}
	b.r.SetEndpoints("api", list)
}

// once makes the check of the only endpoint, due or not, and returns its result.
func (b *bed) once() health.Result {
	b.t.Helper()
	return b.onceWithin(context.Background())
}

func (b *bed) onceWithin(ctx context.Context) health.Result {
	b.t.Helper()
	due, _ := b.r.DueChecks(nil, math.MaxInt64, 1)
	if len(due) != 1 {
		b.t.Fatalf("%d checks are due", len(due))
	}
	res := run(ctx, due[0], b.sw.Now)
	b.r.Checked(b.sw.Now(), []upstream.CheckResult{res})
	return res.Result
}

// state is what is known about the only endpoint, and whether it may be used.
func (b *bed) state() (s health.Snapshot, available int) {
	clusters, endpoints := b.r.States()
	if len(endpoints) > 0 && endpoints[0].Check != nil {
		s = *endpoints[0].Check
	}
	return s, clusters[0].Available
}

// metric returns the lines of the scrape that begin with prefix.
func (b *bed) metric(prefix string) string {
	rec := httptest.NewRecorder()
	b.metrics.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	var lines []string
	for line := range strings.Lines(rec.Body.String()) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n")
}

// listener counts what it accepts.
type listener struct {
	net.Listener
	accepted atomic.Int64
}

func listen(t testing.TB) *listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &listener{Listener: l}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

func (l *listener) address() netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// raw is a server that serves each connection by f and then closes it.
func raw(t testing.TB, f func(net.Conn)) *listener {
	t.Helper()
	l := listen(t)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l
}

// silent reads all and says nothing until the other side is gone.
func silent(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func tcpCheck(send, expect string) health.Config {
	cfg := health.Default()
	cfg.TCP = &health.TCP{Send: send, Expect: expect}
	return cfg
}

func httpCheck(change func(*health.HTTP)) health.Config {
	cfg := health.Default()
	h := health.DefaultHTTP()
	if change != nil {
		change(&h)
	}
	cfg.HTTP = &h
	return cfg
}

func grpcCheck(service string) health.Config {
	cfg := health.Default()
	cfg.GRPC = &health.GRPC{Service: service}
	return cfg
}
