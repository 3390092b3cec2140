package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/origin"
)

// runOrigin is the command `origin`: the server behind the proxies.
func runOrigin(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("origin", flag.ContinueOnError)
	listen := fs.String("listen", "127.0.0.1:9000", "loopback `address` to listen on")
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
	s, err := origin.Listen(addr, *size)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// runLoad is the command `load`: the load generator alone, its result printed
// as one JSON object.
func runLoad(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	to := fs.String("to", "127.0.0.1:9000", "loopback `address` to load")
	connections := fs.Int("connections", 64, "`number` of connections")
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
	res, err := load.Run(ctx, load.Config{Addr: addr, Connections: *connections, Rate: *rate, Warmup: *warmup, Duration: *duration})
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	return out.Encode(struct {
		Requests   uint64  `json:"requests"`
		PerSecond  float64 `json:"requests_per_second"`
		P50        float64 `json:"p50_us"`
		P99        float64 `json:"p99_us"`
		P999       float64 `json:"p999_us"`
		Max        float64 `json:"max_us"`
		Reconnects uint64  `json:"reconnects"`
		Errors     uint64  `json:"errors"`
		FirstError string  `json:"first_error,omitempty"`
	}{
		res.Requests, float64(res.Requests) / res.Elapsed.Seconds(),
		micros(res.Latency.Quantile(0.5)), micros(res.Latency.Quantile(0.99)), micros(res.Latency.Quantile(0.999)), micros(res.Latency.Max()),
		res.Reconnects, res.Errors, res.FirstError,
	})
}
