package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
)

// What a change costs a sidecar with a thousand upstreams.
func BenchmarkSidecarChange1000(b *testing.B) {
	d := describe(b)
	port := parseAddrPort(address(b)).Port()
	var pairs []string
	for i := range 1000 {
		pairs = append(pairs, fmt.Sprintf("service-%d", i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), port).String())
	}
	go func() { d.say <- web(b, pairs...) }()
	loaded, err := d.First(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	p, err := New(Options{Config: loaded, Log: slog.New(slog.DiscardHandler), Sidecar: d.Sidecar})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, context.Background()) }()
	defer func() {
		stop()
		<-ended
	}()
	soon(b, "the first plan is in use", func() bool { return p.current.Load() != nil })
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		s := web(b, pairs...)
		s.Proxy.Proxy.Config = map[string]any{"max_request_headers_kb": float64(30 + n%2)}
		if err := p.applySnapshot(s); err != nil {
			b.Fatal(err)
		}
	}
}
