package exchange_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/devca"
	"github.com/outrigger-mesh/outrigger/proxy/detect"
	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/faults"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// mode says which legs of an exchange are under mTLS.
type mode string

const (
	plain    mode = "plain"
	mtlsDown mode = "mtls downstream"
	mtlsUp   mode = "mtls upstream"
)

var allModes = []mode{plain, mtlsDown, mtlsUp}

// The identities of the three parties.
const (
	clientID = "spiffe://mesh.test/client"
	proxyID  = "spiffe://mesh.test/proxy"
	originID = "spiffe://mesh.test/origin"
)

// bed is a listener whose connections are served as in the proxy, with one
// cluster behind it. Everything ends with the test.
type bed struct {
	t    testing.TB
	mode mode

	sweeper  *wire.Sweeper
	streams  *http2.Sweeper
	registry *upstream.Registry
	metrics  *telemetry.Metrics
	server   *exchange.Server
	faults   *faults.Board
	cluster  *upstream.Cluster
	plan     atomic.Pointer[plan.Listener]
	draining atomic.Bool
	ln       net.Listener
	access   bytes.Buffer // complete after stop
	spec     upstream.Spec

	client, proxy, origin *mtls.Feed
	mesh                  bool
	keepCert              bool
	cert                  []byte

	cancel   context.CancelFunc
	running  sync.WaitGroup // Run methods
	serving  sync.WaitGroup // connections
	stopped  bool
	mu       sync.Mutex
	closers  []func()
	sessions []*exchange.Session
	detected []*exchange.Detection
	conns    []*wire.Conn
}

// setup is what a test may change before the bed is made.
type setup struct {
	policy upstream.Policy
	http   plan.HTTPOptions
	route  plan.Route
	dir    telemetry.Direction
	tcp    bool
	quiet  bool           // no access log
	http2  bool           // served by prior knowledge
	wait   time.Duration  // of a listener that takes any protocol; 0: it does not
	mesh   bool           // mTLS downstream offers the transport between sidecars
	next   *bed           // the bed whose listener the endpoint will be
	hops   *exchange.Hops // those of another bed, as of one process; nil: its own
	// pingAfter is how long an HTTP/2 peer may be silent, and then again before
	// its connection ends; 0 for ever.
	pingAfter time.Duration
	memory    *memory.Budget
	keepCert  bool   // what came in x-forwarded-client-cert goes on
	cert      []byte // in place of the usual element of x-forwarded-client-cert
}

func defaults() setup {
	return setup{
		policy: upstream.Policy{
			ConnectTimeout: 2 * time.Second, StreamIdle: 10 * time.Second, Keepalive: time.Minute,
			TCPIdle: 10 * time.Second, Balance: balance.Default(), Limits: limit.Default(),
		},
		http: plan.HTTPOptions{HeadTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second},
		dir:  telemetry.Outbound,
	}
}

// retrying is a retry policy without waits to speak of.
func retrying(attempts int) *retry.Config {
	c := retry.Default()
	c.Attempts, c.BackoffBase, c.BackoffMax = attempts, time.Millisecond, time.Millisecond
	return &c
}

// run runs f once for each mode.
func run(t *testing.T, modes []mode, change func(*setup), f func(*testing.T, *bed)) {
	t.Helper()
	for _, m := range modes {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			f(t, newBed(t, m, change))
		})
	}
}

func newBed(t testing.TB, m mode, change func(*setup)) *bed {
	t.Helper()
	s := defaults()
	if change != nil {
		change(&s)
	}
	b := &bed{t: t, mode: m, mesh: s.mesh, keepCert: s.keepCert, cert: s.cert, sweeper: wire.NewSweeper(time.Now())}
	b.sweeper.Memory = s.memory
	switch {
	case s.next != nil && m != plain:
		b.proxy = s.next.client
	case m != plain:
		b.identities()
	}
	metrics, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	logger := slog.New(slog.DiscardHandler)
	b.metrics = metrics
	b.registry = upstream.NewRegistry(ctx, b.sweeper, metrics, logger)
	kept := outcomes.Default()
	kept.Path = filepath.Join(t.TempDir(), "outcomes")
	told, err := outcomes.New(outcomes.Options{Config: kept, Now: b.sweeper.Now, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	b.registry.Outcomes = told
	var access *telemetry.AccessLog
	if !s.quiet {
		if access, err = telemetry.NewAccessLog(telemetry.AccessLogConfig{Sink: &b.access, Query: true}); err != nil {
			t.Fatal(err)
		}
	}
	b.server = &exchange.Server{
		Sweeper: b.sweeper, AccessLog: access, Log: logger, LocalID: func() string { return proxyID },
		Draining: &b.draining, Memory: s.memory,
		// All, in little room: so every test keeps records, those about allocation too.
		Ledger:   ledger.New(ledger.Config{SizeBytes: ledger.LeastBytes, SamplePercent: 100}, 0),
		Outcomes: told, Hops: exchange.NewHops(),
	}
	if s.hops != nil {
		b.server.Hops = s.hops
	}
	b.faults = faults.New(b.sweeper.Now, b.registry.Vitals, logger)
	b.server.Faults = b.faults
	b.streams = http2.NewSweeper(b.sweeper.Now)
	h2 := &http2.Config{Sweeper: b.streams, ExtendedConnect: true, Memory: s.memory, PingAfter: s.pingAfter, PingTimeout: s.pingAfter}
	b.registry.HTTP2 = h2
	if s.http2 {
		b.server.HTTP2 = h2
	}
	for _, f := range []func(context.Context) error{b.sweeper.Run, b.streams.Run, b.registry.Run, access.Run, told.Run} {
		b.running.Go(func() { _ = f(ctx) })
	}
	b.spec = upstream.Spec{Name: "api", Protocol: "http", Policy: s.policy, Transport: string(m)}
	if m == mtlsUp {
		id, _ := mtls.ParseID(originID)
		if s.next != nil {
			id, _ = mtls.ParseID(proxyID)
		}
		o := mtls.ClientOptions{Expected: []mtls.ID{id}}
		if s.policy.Mesh {
			o.NextProtos = []string{http2.MeshHTTP}
		}
		b.spec.TLS = mtls.ClientConfig(b.proxy, o)
	}
	b.cluster = b.registry.Acquire(b.spec, s.dir)
	s.route.Name, s.route.Cluster = "api", b.cluster
	l := &plan.Listener{
		Name: "test", Direction: s.dir, Route: s.route, HTTP: s.http, Metrics: metrics.Listener(s.dir, "test"),
	}
	switch {
	case s.tcp:
		l.Protocol = plan.TCP
	case s.wait > 0:
		l.Protocol, l.DetectWait = plan.Auto, s.wait
		b.server.Lessons = detect.NewMemory[exchange.Destination](10, time.Hour)
	}
	b.plan.Store(l)
	if b.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	b.serving.Go(b.accept)
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bed) identities() {
	ca, err := devca.NewAuthority("mesh.test")
	if err != nil {
		b.t.Fatal(err)
	}
	feed := func(text string) *mtls.Feed {
		id, err := mtls.ParseID(text)
		if err != nil {
			b.t.Fatal(err)
		}
		m, err := ca.Material(id, time.Hour)
		if err != nil {
			b.t.Fatal(err)
		}
		f := mtls.NewFeed("test")
		f.Publish(m)
		return f
	}
	b.client, b.proxy, b.origin = feed(clientID), feed(proxyID), feed(originID)
}

func (b *bed) accept() {
	for {
		c, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.serving.Go(func() { b.serve(c.(*net.TCPConn)) })
	}
}

func (b *bed) serve(sock *net.TCPConn) {
	w, err := wire.New(sock, b.sweeper)
	if err != nil {
		b.t.Error(err)
		return
	}
	defer w.Close()
	peer := exchange.Peer{Addr: w.RemoteAddr()}
	if b.mode == mtlsDown {
		cfg := serverConfig(b.proxy)
		if b.mesh {
			cfg = meshConfig(b.proxy)
		}
		if err := w.Server(cfg, time.Now().Add(patience)); err != nil {
			return
		}
		state := w.TLS().ConnectionState()
		peer.TLS = state.Version
		peer.ID, _ = mtls.PeerID(&state)
		peer.ClientCert = []byte("By=" + proxyID + ";URI=" + peer.ID.String())
		if peer.KeepClientCert = b.keepCert; b.cert != nil {
			peer.ClientCert = b.cert
		}
	}
	b.mu.Lock()
	b.conns = append(b.conns, w)
	b.mu.Unlock()
	switch p := b.plan.Load().Protocol; {
	case b.mesh:
	case p == plan.TCP:
		b.server.ServeTCP(w, peer, &b.plan)
		return
	case p == plan.Auto:
		d := b.server.NewDetection(w, peer, &b.plan)
		b.mu.Lock()
		b.detected = append(b.detected, d)
		b.mu.Unlock()
		d.Serve()
		return
	}
	s := b.server.NewSession(w, &peer, &b.plan)
	b.mu.Lock()
	b.sessions = append(b.sessions, s)
	b.mu.Unlock()
	if b.mesh {
		s.ServeStreams()
		return
	}
	s.Serve()
}

// expireAll ends all downstream connections from outside.
func (b *bed) expireAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Expire()
	}
}

// onStop has f called before the bed waits for its connections.
func (b *bed) onStop(f func()) {
	b.mu.Lock()
	b.closers = append(b.closers, f)
	b.mu.Unlock()
}

// stop ends everything and checks what must hold afterwards: nothing that was
// taken is still out.
func (b *bed) stop() {
	if b.stopped {
		return
	}
	b.stopped = true
	_ = b.ln.Close()
	b.mu.Lock()
	closers := b.closers
	b.mu.Unlock()
	for _, f := range closers {
		f()
	}
	b.serving.Wait()
	b.cancel()
	b.running.Wait()
	l := &b.cluster.Limits
	b.registry.Release(b.cluster)
	if c, p, r := l.Connections.Value(), l.Pending.Value(), l.Requests.Value(); c != 0 || p != 0 || r != 0 {
		b.t.Errorf("still in use at the end: %d connections, %d pending, %d requests", c, p, r)
	}
	if n := b.cluster.Metrics().Active(); n != 0 {
		b.t.Errorf("%d exchanges are still counted as active", n)
	}
	if n := b.sweeper.Len(); n != 0 {
		b.t.Errorf("%d connections are still open", n)
	}
}

// record is a line of the access log.
type record struct {
	Reason   string `json:"reason"`
	Protocol string `json:"protocol"`
	Name     string `json:"authority"`
	ALPN     string `json:"alpn"`
	Flag     string `json:"flag"`
	Status   int    `json:"status"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Route    string `json:"route"`
	Cluster  string `json:"cluster"`
	Attempts int    `json:"attempt_count"`
	Detail   string `json:"detail"`
	Fault    string `json:"fault"`
	Queued   int64  `json:"queue_us"`
	Endpoint string `json:"endpoint"`
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
}

// records stops the bed and returns what the access log has.
func (b *bed) records() []record {
	b.t.Helper()
	b.stop()
	var list []record
	for line := range strings.Lines(b.access.String()) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			b.t.Fatalf("access log: %v in %s", err, line)
		}
		list = append(list, r)
	}
	return list
}

// wantReasons stops the bed and compares the reasons of all records. Their
// order is not looked at: a record is written behind the last byte, when another
// connection may have gone on already.
func (b *bed) wantReasons(want ...string) []record {
	b.t.Helper()
	list := b.records()
	var got []string
	for _, r := range list {
		got = append(got, r.Reason)
	}
	slices.Sort(got)
	slices.Sort(want)
	if strings.Join(got, " ") != strings.Join(want, " ") {
		b.t.Errorf("access log has %q, want %q\n%s", got, want, b.access.String())
	}
	return list
}

// to makes the cluster's endpoints those of list.
func (b *bed) to(list ...*origin) {
	var eps []upstream.EndpointSpec
	for _, o := range list {
		eps = append(eps, upstream.EndpointSpec{Address: o.addr, Weight: 1, Healthy: true})
	}
	b.cluster.SetLocal(eps)
}

// apply changes the policy as a reload does.
func (b *bed) apply(change func(*upstream.Policy)) {
	change(&b.spec.Policy)
	b.registry.Acquire(b.spec, b.plan.Load().Direction)
	b.registry.Release(b.cluster)
}

func addrOf(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// clientConfig is what a client of the mesh uses.
func (b *bed) clientConfig() *tls.Config {
	id, _ := mtls.ParseID(proxyID)
	return mtls.ClientConfig(b.client, mtls.ClientOptions{Expected: []mtls.ID{id}})
}

func serverConfig(f *mtls.Feed) *tls.Config { return mtls.ServerConfig(f, mtls.ServerOptions{}) }
