package datagram

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// bed is a relay to endpoints, on loopback.
type bed struct {
	t       *testing.T
	relay   *Relay
	cluster *upstream.Cluster
	plan    *plan.Datagrams
}

func newBed(t *testing.T, change func(*plan.Datagrams, *upstream.Policy), endpoints ...netip.AddrPort) *bed {
	t.Helper()
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	sweeper := wire.NewSweeper(time.Now())
	life, end := context.WithCancel(context.Background())
	reg := upstream.NewRegistry(life, sweeper, m, log)
	p := &plan.Datagrams{Name: "udp:dns", Address: "127.0.0.1:0", Idle: time.Minute, MaxFlows: 8}
	o := outlier.Default()
	spec := upstream.Spec{Name: "dns", Protocol: "udp", Transport: "plaintext", Policy: upstream.Policy{Limits: limit.Default(), Balance: balance.Default(), Outlier: &o}}
	if change != nil {
		change(p, &spec.Policy)
	}
	p.Cluster, p.Metrics = reg.Acquire(spec, telemetry.Outbound), m.Listener(telemetry.Outbound, p.Name)
	var list []upstream.EndpointSpec
	for _, a := range endpoints {
		list = append(list, upstream.EndpointSpec{Address: a, Weight: 1, Healthy: true, Health: "passing"})
	}
	reg.SetEndpoints("dns", list)
	r, err := Bind(p, Options{Now: sweeper.Now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if n := p.Cluster.Limits.Requests.Value(); n != 0 {
			t.Errorf("%d flows still count", n)
		}
		end()
	})
	return &bed{t: t, relay: r, cluster: p.Cluster, plan: p}
}

// echo answers each datagram with its name and what came, until the test ends.
func echo(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(slices.Concat([]byte(name+":"), buf[:n]), from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (b *bed) client() *net.UDPConn {
	b.t.Helper()
	c, err := net.DialUDP("udp", nil, b.relay.Address().(*net.UDPAddr))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c
}

// ask sends and returns the answer.
func (b *bed) ask(c *net.UDPConn, text string) string {
	b.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		b.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, maxDatagram)
	n, err := c.Read(buf)
	if err != nil {
		b.t.Fatalf("%.20q: %v", text, err)
	}
	return string(buf[:n])
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	testkit.Eventually(t, what, ok) // the relay tells nobody when it is done
}

// A client stays with its endpoint, clients are balanced, and nobody gets what
// is for another.
func TestFlows(t *testing.T) {
	b := newBed(t, func(_ *plan.Datagrams, p *upstream.Policy) { p.Balance.Algorithm = balance.WeightedRoundRobin }, echo(t, "a"), echo(t, "b"))
	got := map[byte]int{}
	for i := range 8 {
		c := b.client()
		first := b.ask(c, fmt.Sprint(i))
		for range 3 {
			if again := b.ask(c, fmt.Sprint(i)); again != first {
				t.Errorf("client %d: %q, then %q", i, first, again)
			}
		}
		if first[1:] != fmt.Sprint(":", i) {
			t.Errorf("client %d got %q", i, first)
		}
		got[first[0]]++
	}
	if got['a'] != 4 || got['b'] != 4 {
		t.Errorf("balanced as %v", got)
	}
	if n := b.relay.Flows(); n != 8 {
		t.Errorf("%d flows", n)
	}
	// All that may be are there: another's datagrams are dropped.
	c := b.client()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is refused", func() bool { return b.plan.Metrics.Refused.Value() == 1 })
	if got := b.cluster.Metrics().Totals(); got.Failures != 1 {
		t.Errorf("counted %+v", got)
	}
}

// The longest datagram passes whole, and an empty one does.
func TestSizes(t *testing.T) {
	b := newBed(t, nil, echo(t, "a"))
	c := b.client()
	for _, n := range []int{0, 1, 1472, 9000, 60_000} {
		if got := b.ask(c, string(make([]byte, n))); len(got) != n+2 {
			t.Errorf("%d bytes: %d came back", n, len(got))
		}
	}
}

// Where the endpoint's host says that nobody listens, the next datagram goes
// elsewhere, and the endpoint counts as one that failed.
func TestUnreachable(t *testing.T) {
	b := newBed(t, func(_ *plan.Datagrams, p *upstream.Policy) {
		p.Balance.Algorithm = balance.WeightedRoundRobin
		p.Outlier.ConsecutiveLocalFailures, p.Outlier.SplitOrigins = 1, true
	}, testkit.Nobody(0), echo(t, "b"))
	for range 4 {
		c := b.client()
		buf := make([]byte, 16)
		for answered := false; !answered; {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // another datagram, as clients of UDP do
			n, err := c.Read(buf)
			answered = err == nil && string(buf[:n]) == "b:x"
		}
	}
}

// Flows end when both sides are silent; the next datagram begins another one.
func TestIdle(t *testing.T) {
	b := newBed(t, func(p *plan.Datagrams, _ *upstream.Policy) { p.Idle = 30 * time.Millisecond }, echo(t, "a"))
	c := b.client()
	b.ask(c, "x")
	eventually(t, "the flow ends", func() bool { return b.relay.Flows() == 0 && b.cluster.Limits.Requests.Value() == 0 })
	b.ask(c, "y")
	if n := b.plan.Metrics.Connections.Value(); n < 2 {
		t.Errorf("%d flows have been", n)
	}
}

// Without an endpoint a datagram is lost and counted as what it is.
func TestNoEndpoints(t *testing.T) {
	b := newBed(t, nil)
	if _, err := b.client().Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is counted", func() bool { return b.cluster.Metrics().Totals().Failures == 1 })
}
