// Package load sends requests, messages or bytes over a number of connections, as fast as they are answered or at a fixed rate, and measures every answer.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/hist"
)

// Protocol is what a load speaks.
type Protocol string

// The protocols of a load. All but HTTP/1.1 are closed loops over cleartext.
const (
	HTTP1      Protocol = ""            // requests one after the other on each connection
	HTTP2      Protocol = "http2"       // GET requests by prior knowledge
	GRPC       Protocol = "grpc"        // unary calls
	GRPCStream Protocol = "grpc-stream" // one endless call on each stream; counted are its messages, each sent when the one before has come back
	WebSocket  Protocol = "websocket"   // messages, each sent when the one before has come back
	TCP        Protocol = "tcp"         // reads bytes without end; Result.Bytes counts
)

// Config says what load to make.
type Config struct {
	Protocol Protocol
	// Addr takes the connections; it must be on loopback.
	Addr netip.AddrPort
	// Connections is how many stay open.
	Connections int
	// Streams is how many exchanges HTTP/2 and gRPC have under way on each
	// connection; 0 is one. The other protocols have one.
	Streams int
	// Message is the number of bytes in a message that GRPC, GRPCStream and
	// WebSocket send.
	Message int
	// Rate is the number of requests a second over all connections. Each has
	// an intended start, and its latency counts from then even when all
	// connections were busy, so that a slow answer is not hidden by the
	// requests that it held up. 0 is the closed loop: the next request
	// follows the answer.
	Rate float64
	// Warmup runs before the measured time and Duration is the measured time.
	Warmup, Duration time.Duration
	// Request is sent as it is with HTTP/1.1; DefaultRequest when empty. It
	// has no body.
	Request []byte
	// TLS, when set, wraps each connection.
	TLS *tls.Config
	// Reconnect opens a new connection, with a full handshake, for each
	// request; it needs TLS. Latency is then from dialling to the end of the
	// answer.
	Reconnect bool
	// AtStart and AtEnd, when set, are called at the two edges of the
	// measured time, by the goroutine that makes the load.
	AtStart, AtEnd func()
}

// DefaultRequest is a GET with ten header fields as a browser application sends them.
const DefaultRequest = "GET /api/v1/items/4711?fields=name,price,stock&limit=20 HTTP/1.1\r\n" +
	"Host: shop.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: application/json, text/plain, */*\r\n" +
	"Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Referer: https://shop.example.com/catalogue/harbour\r\n" +
	"Authorization: Bearer 0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I.bJTlxWbu9XkYNvM2sE7GmQ\r\n" +
	"Cookie: session=31d4d96e407aad42; theme=dark; consent=1\r\n" +
	"Cache-Control: no-cache\r\n" +
	"X-Client-Version: web-2026.11.3\r\n" +
	"\r\n"

// Result is what the measured time saw.
type Result struct {
	Requests   uint64         // answered well within the measured time
	Exchanges  float64        // Requests, with the parts of large answers over HTTP/1.1 that were under way at the edges of the measured time
	Errors     uint64         // refused or broken connections, answers other than 200, answers that never came
	FirstError string         // the text of the first of them
	Reconnects uint64         // connections that the server closed in good order after an answer
	Bytes      uint64         // received, with TCP
	Elapsed    time.Duration  // between AtStart and AtEnd
	Latency    hist.Histogram // of Requests
}

func (r *Result) fail(err error) {
	r.Errors++
	if r.FirstError == "" {
		r.FirstError = err.Error()
	}
}

func (c *Config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("load: "+format, args...)) }
	if !slices.Contains([]Protocol{HTTP1, HTTP2, GRPC, GRPCStream, WebSocket, TCP}, c.Protocol) {
		bad("no protocol %q", c.Protocol)
	}
	if !c.Addr.Addr().Unmap().IsLoopback() {
		bad("address %s is not on loopback", c.Addr)
	}
	if c.Connections < 1 {
		bad("connections must be at least 1, not %d", c.Connections)
	}
	if c.Rate < 0 || c.Rate > 1e6 {
		bad("rate must be between 0 and 1000000 a second, not %v", c.Rate)
	}
	if c.Warmup < 0 || c.Duration <= 0 {
		bad("warm-up %v and duration %v must not be negative, and the duration not zero", c.Warmup, c.Duration)
	}
	if c.TLS != nil && c.Rate > 0 {
		bad("a fixed rate is made over plain connections only; leave rate or TLS out")
	}
	if c.TLS == nil && c.Reconnect {
		bad("a new connection for each request is made with TLS only; leave reconnect out or set TLS")
	}
	if c.Protocol != HTTP1 && (c.TLS != nil || c.Rate > 0) {
		bad("%s is a closed loop over cleartext; leave rate and TLS out", c.Protocol)
	}
	if c.Streams < 0 || c.Streams > 256 {
		bad("streams must be between 0 and 256, not %d", c.Streams)
	}
	if c.Message < 0 || c.Message > maxMessage {
		bad("a message must have between 0 and %d bytes, not %d", maxMessage, c.Message)
	}
	return errors.Join(errs...)
}

// maxMessage is what fits in one HTTP/2 frame with the prefix of gRPC.
const maxMessage = 16000

// Run makes the load and returns when the measured time is over or the
// context ends, which is an error. Failures of single requests are counted in
// the result; only when no connection at all can be opened is that an error.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if len(cfg.Request) == 0 {
		cfg.Request = []byte(DefaultRequest)
	}
	if cfg.AtStart == nil {
		cfg.AtStart = func() {}
	}
	if cfg.AtEnd == nil {
		cfg.AtEnd = func() {}
	}
	if cfg.TLS != nil {
		return runTLS(ctx, &cfg)
	}
	if cfg.Protocol != HTTP1 {
		return runSessions(ctx, &cfg)
	}
	return runPlain(ctx, &cfg)
}
