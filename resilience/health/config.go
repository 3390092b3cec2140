// Package health decides from the results of active checks whether an endpoint is healthy, and when its next check is due.
package health

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Config is how the endpoints of one cluster are checked. Exactly one of GRPC,
// HTTP and TCP is given. Default returns the values of an empty section.
type Config struct {
	// Mode is enforce (default) or observe. Observe checks, counts and reports
	// in the same way, but an unhealthy endpoint keeps its traffic.
	Mode guard.Mode `yaml:"mode" enum:"enforce,observe"`

	// GRPC asks the gRPC health service, grpc.health.v1.Health/Check. The
	// upstream's protocol must be grpc or http2.
	GRPC *GRPC `yaml:"grpc" off:"true"`
	// HTTP sends a request and looks at the status of the answer: over HTTP/2
	// where the upstream's protocol is grpc or http2, else over HTTP/1.1.
	HTTP *HTTP `yaml:"http" off:"true"`
	// TCP makes a connection, with its TLS handshake where the transport is
	// mtls, and may send bytes and wait for others. Behind another sidecar a
	// connection alone says only that the sidecar is there.
	TCP *TCP `yaml:"tcp" off:"true"`

	// Interval is the time from the end of one check to the next while the
	// endpoint is healthy. Default 5s (HAProxy inter 2s, nginx 5s; Envoy has none).
	Interval time.Duration `yaml:"interval"`

	// FastInterval is the same while the endpoint is new, or its last result
	// speaks against its state. With each further failure of an unhealthy
	// endpoint it doubles, up to interval. The first check comes at a random
	// moment within it. Default 1s (HAProxy fastinter, Envoy unhealthy_edge_interval).
	FastInterval time.Duration `yaml:"fast_interval"`

	// Timeout is how long a check may take, its connection included. Over
	// HTTP/2 it is kept to a tenth of a second. Default 1s.
	Timeout time.Duration `yaml:"timeout"`

	// Jitter lengthens each time between two checks by a uniformly random
	// share of it between 0 and this, so that checks do not come together.
	// 0 to 1. Default 0.2.
	Jitter float64 `yaml:"jitter"`

	// HealthyThreshold is how many checks in a row must pass before an
	// unhealthy endpoint is healthy. Default 2 (HAProxy rise).
	HealthyThreshold uint32 `yaml:"healthy_threshold"`

	// UnhealthyThreshold is how many checks in a row must fail before a
	// healthy endpoint is unhealthy. An endpoint that says by gRPC that it is
	// not serving is unhealthy at once. Default 3 (HAProxy fall).
	UnhealthyThreshold uint32 `yaml:"unhealthy_threshold"`

	// Initial is what a new endpoint is taken for until its first check has
	// ended, which decides by itself: healthy, as HAProxy does, or unhealthy,
	// as Envoy does. Default healthy.
	Initial Initial `yaml:"initial"`
}

// GRPC is a check by the gRPC health protocol.
type GRPC struct {
	// Service is the name of the service that is asked about. Empty: the server as a whole.
	Service string `yaml:"service"`
}

// HTTP is a check by a request.
type HTTP struct {
	// Path is the request's target, with its query, beginning with "/". Default "/".
	Path string `yaml:"path"`
	// Method is GET or HEAD. Default GET.
	Method string `yaml:"method" enum:"GET,HEAD"`
	// Host is the request's host field. Empty: the upstream's service name.
	Host string `yaml:"host"`
	// Statuses are the status codes that pass, each as 204, 200-299 or 2xx.
	// Default [2xx] (Envoy: 200 only; HAProxy: 2xx and 3xx).
	Statuses []Statuses `yaml:"statuses"`
}

// TCP is a check by a connection.
type TCP struct {
	// Send is text that is sent once the connection is made, or bytes as
	// "hex:0a0d". Empty: nothing is sent.
	Send string `yaml:"send"`
	// Expect is what the answer must begin with, as text or as "hex:0a0d".
	// Empty: no answer is waited for.
	Expect string `yaml:"expect"`
}

// Default returns the values of a section that says only which check is made.
func Default() Config {
	return Config{
		Interval:           5 * time.Second,
		FastInterval:       time.Second,
		Timeout:            time.Second,
		Jitter:             0.2,
		HealthyThreshold:   2,
		UnhealthyThreshold: 3,
	}
}

// DefaultHTTP returns the values of an empty HTTP check.
func DefaultHTTP() HTTP {
	return HTTP{Path: "/", Method: "GET", Statuses: []Statuses{{200, 299}}}
}

// Kind is the check in one word: grpc, http, tcp, or none.
func (c *Config) Kind() string {
	switch {
	case c.GRPC != nil:
		return "grpc"
	case c.HTTP != nil:
		return "http"
	case c.TCP != nil:
		return "tcp"
	}
	return "none"
}

const (
	minInterval  = 100 * time.Millisecond
	maxInterval  = time.Hour
	minTimeout   = 10 * time.Millisecond
	maxTimeout   = time.Minute
	maxThreshold = 100
	maxBytes     = 1024 // of Send and Expect
	maxText      = 1024 // of Service, Path and Host
)

// Validate calls add once for each mistake, with the YAML name of the field.
func (c Config) Validate(add func(field, problem string)) {
	var kinds []string
	for _, k := range []struct {
		name string
		on   bool
	}{{"grpc", c.GRPC != nil}, {"http", c.HTTP != nil}, {"tcp", c.TCP != nil}} {
		if k.on {
			kinds = append(kinds, k.name)
		}
	}
	switch {
	case len(kinds) == 0:
		add("", "says no check; write one of grpc: {}, http: {path: /health} and tcp: {}")
	case len(kinds) > 1:
		add(kinds[len(kinds)-1], fmt.Sprintf("is given beside %s; an endpoint has one check, so write %s: off", kinds[0], kinds[0]))
	}
	if c.Mode != guard.Enforce && c.Mode != guard.Observe {
		add("mode", guard.NotPartial)
	}
	if c.Interval < minInterval || c.Interval > maxInterval {
		add("interval", "must be between 100ms and 1h")
	}
	if c.FastInterval < minInterval || c.FastInterval > c.Interval {
		add("fast_interval", "must be between 100ms and interval")
	}
	if c.Timeout < minTimeout || c.Timeout > maxTimeout {
		add("timeout", "must be between 10ms and 1m")
	}
	if !(c.Jitter >= 0 && c.Jitter <= 1) {
		add("jitter", "must be between 0 and 1")
	}
	if c.HealthyThreshold < 1 || c.HealthyThreshold > maxThreshold {
		add("healthy_threshold", "must be between 1 and 100")
	}
	if c.UnhealthyThreshold < 1 || c.UnhealthyThreshold > maxThreshold {
		add("unhealthy_threshold", "must be between 1 and 100")
	}
	if c.Initial > InitialUnhealthy {
		add("initial", "unknown; use healthy or unhealthy")
	}
}

// Validate calls add once for each mistake, with the YAML name of the field.
func (g GRPC) Validate(add func(field, problem string)) {
	if len(g.Service) > maxText || !printable(g.Service) {
		add("service", "must be at most 1024 printable characters")
	}
}

// Validate calls add once for each mistake, with the YAML name of the field.
func (h HTTP) Validate(add func(field, problem string)) {
	if !strings.HasPrefix(h.Path, "/") || len(h.Path) > maxText || !printable(h.Path) || strings.ContainsAny(h.Path, " #") {
		add("path", "must begin with / and hold at most 1024 characters that may stand in a URL; write others as %20")
	}
	if h.Method != "GET" && h.Method != "HEAD" {
		add("method", "must be GET or HEAD")
	}
	if len(h.Host) > maxText || !printable(h.Host) || strings.ContainsAny(h.Host, " /?#@,") {
		add("host", "must be a name or address, with a port if need be")
	}
	if len(h.Statuses) == 0 {
		add("statuses", "is empty, so no answer would pass; write [2xx]")
	}
	for _, s := range h.Statuses {
		if s.From < 100 || s.To > 599 || s.From > s.To {
			add("statuses", fmt.Sprintf("has %s; write codes from 100 to 599, such as 204, 200-299 or 2xx", s))
		}
	}
}

// Validate calls add once for each mistake, with the YAML name of the field.
func (t TCP) Validate(add func(field, problem string)) {
	for _, f := range []struct{ name, text string }{{"send", t.Send}, {"expect", t.Expect}} {
		if b, err := bytesOf(f.text); err != nil {
			add(f.name, "begins with hex: but is not hexadecimal after it; write pairs of 0-9 and a-f")
		} else if len(b) > maxBytes {
			add(f.name, "must be at most 1024 bytes")
		}
	}
}

// SendBytes returns what Send says.
func (t *TCP) SendBytes() []byte { b, _ := bytesOf(t.Send); return b }

// ExpectBytes returns what Expect says.
func (t *TCP) ExpectBytes() []byte { b, _ := bytesOf(t.Expect); return b }

func bytesOf(text string) ([]byte, error) {
	if digits, ok := strings.CutPrefix(text, "hex:"); ok {
		return hex.DecodeString(digits)
	}
	return []byte(text), nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// Passes reports whether an answer with this status passes.
func (h *HTTP) Passes(status int) bool {
	return slices.ContainsFunc(h.Statuses, func(s Statuses) bool { return int(s.From) <= status && status <= int(s.To) })
}
