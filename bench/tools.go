package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/origin"
)

// smallBody is the number of bytes in a message, and in an answer over HTTP/2.
const smallBody = 128

// runOrigin is the command `origin`: the server behind the proxies.
func runOrigin(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("origin", flag.ContinueOnError)
	listen := fs.String("listen", "127.0.0.1:9000", "loopback `address` to listen on")
	kind := fs.String("kind", string(origin.HTTP1), "what it speaks: "+kindNames())
	everywhere := fs.Bool("everywhere", false, "take connections to all of 127.0.0.0/8")
	size := fs.Int("size", 1024, "`bytes` of a response's body")
	if err := fs.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(*listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	if *size < 0 || *size > 1<<24 {
		return fmt.Errorf("-size: %d is not between 0 and %d", *size, 1<<24)
	}
	if !slices.Contains(origin.Kinds(), origin.Kind(*kind)) {
		return fmt.Errorf("-kind: no origin speaks %q; there are %s", *kind, kindNames())
	}
	s, err := origin.Listen(origin.Config{Addr: addr, Everywhere: *everywhere, Kind: origin.Kind(*kind), Size: *size})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

func kindNames() string {
	names := make([]string, 0, len(origin.Kinds()))
	for _, k := range origin.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// runLoad is the command `load`: the load generator alone, its result printed
// as one JSON object.
func runLoad(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	to := fs.String("to", "127.0.0.1:9000", "loopback `address` to load")
	connections := fs.Int("connections", 64, "`number` of connections")
	protocol := fs.String("protocol", "", "http2, grpc, grpc-stream, websocket or tcp (default: HTTP/1.1)")
	streams := fs.Int("streams", 1, "`number` of streams on each HTTP/2 connection")
	message := fs.Int("message", smallBody, "`bytes` of a gRPC or WebSocket message")
	rate := fs.Float64("rate", 0, "`requests` a second (0: closed loop)")
	warmup := fs.Duration("warmup", 200*time.Millisecond, "`time` before the measured one")
	duration := fs.Duration("duration", 5*time.Second, "measured `time`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(*to)
	if err != nil {
		return fmt.Errorf("-to: %w", err)
	}
	res, err := load.Run(ctx, load.Config{Protocol: load.Protocol(*protocol), Streams: *streams, Message: *message, Addr: addr, Connections: *connections, Rate: *rate, Warmup: *warmup, Duration: *duration})
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	return out.Encode(struct {
		Requests   uint64  `json:"requests"`
		MBytes     float64 `json:"megabytes,omitempty"`
		PerSecond  float64 `json:"requests_per_second"`
		P50        float64 `json:"p50_us"`
		P99        float64 `json:"p99_us"`
		P999       float64 `json:"p999_us"`
		Max        float64 `json:"max_us"`
		Reconnects uint64  `json:"reconnects"`
		Errors     uint64  `json:"errors"`
		FirstError string  `json:"first_error,omitempty"`
	}{
		res.Requests, float64(res.Bytes) / (1 << 20), float64(res.Requests) / res.Elapsed.Seconds(),
		micros(res.Latency.Quantile(0.5)), micros(res.Latency.Quantile(0.99)), micros(res.Latency.Quantile(0.999)), micros(res.Latency.Max()),
		res.Reconnects, res.Errors, res.FirstError,
	})
}
