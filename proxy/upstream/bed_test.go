package upstream

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// bed is a registry with its clock and log; the sweeper does not run.
type bed struct {
	t  testing.TB
	r  *Registry
	sw *wire.Sweeper
	mu sync.Mutex
	lg bytes.Buffer
}

func newBed(t testing.TB) *bed {
	t.Helper()
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, sw: wire.NewSweeper(time.Now())}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b.r = NewRegistry(ctx, b.sw, m, slog.New(slog.NewTextHandler(b, nil)))
	return b
}

// Write implements io.Writer for the log.
func (b *bed) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lg.Write(p)
}

func spec(change func(*Spec)) Spec {
	s := Spec{Name: "api", Transport: "plaintext", Policy: Policy{
		ConnectTimeout: time.Second, Keepalive: time.Minute, Balance: balance.Default(), Limits: limit.Default(),
	}}
	if change != nil {
		change(&s)
	}
	return s
}

// server accepts connections and keeps them open until the test ends.
func (b *bed) server() netip.AddrPort {
	b.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = io.Copy(c, c) // ends with the other side
				_ = c.Close()
			})
		}
	})
	b.t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func at(addrs ...netip.AddrPort) (list []EndpointSpec) {
	for _, a := range addrs {
		list = append(list, EndpointSpec{Address: a, Weight: 1, Healthy: true})
	}
	return list
}

// numbered returns n addresses.
func numbered(n int) (list []EndpointSpec) {
	for i := range n {
		list = append(list, EndpointSpec{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(i >> 16), byte(i >> 8), byte(i)}), 80), Weight: 1, Healthy: true,
		})
	}
	return list
}

func (b *bed) get(e *Endpoint, w Want) *wire.Conn {
	b.t.Helper()
	w.Now = b.sw.Now()
	leg, oe := e.Get(w)
	if oe != nil {
		b.t.Fatal(oe)
	}
	return leg.Conn
}

func (b *bed) wantConnections(c *Cluster, open, idle int64) {
	b.t.Helper()
	gotOpen, gotIdle := c.connections()
	if gotOpen != open || gotIdle != idle || c.Limits.Connections.Value() != open {
		b.t.Errorf("%d open, %d idle, %d counted; want %d open, %d idle", gotOpen, gotIdle, c.Limits.Connections.Value(), open, idle)
	}
}
