package check

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/resilience/health"
)

// reply answers the first bytes that come with text.
func reply(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := c.Read(make([]byte, 4096)); err == nil {
			_, _ = io.WriteString(c, text)
		}
	}
}

func TestTCP(t *testing.T) {
	banner := func(c net.Conn) { _, _ = io.WriteString(c, "220 mail ready\r\n") }
	for name, c := range map[string]struct {
		serve        func(net.Conn) // nil: nobody listens
		send, expect string
		want         health.Cause
	}{
		"connect":          {silent, "", "", health.Passed},
		"refused":          {nil, "", "", health.Connect},
		"banner":           {banner, "", "220 ", health.Passed},
		"other banner":     {banner, "", "250 ", health.Unexpected},
		"answer":           {reply("+PONG\r\n"), "PING\r\n", "+PONG", health.Passed},
		"answer in binary": {reply("\x00\xff"), "hex:0001", "hex:00ff", health.Passed},
		"other answer":     {reply("-LOADING\r\n"), "PING\r\n", "+PONG", health.Unexpected},
		"too short":        {reply("+PO"), "PING\r\n", "+PONG", health.Closed},
		"no answer":        {silent, "PING\r\n", "+PONG", health.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := testkit.Nobody(0)
			if c.serve != nil {
				address = raw(t, c.serve).address()
			}
			cfg := tcpCheck(c.send, c.expect)
			if c.want == health.Timeout {
				cfg.Timeout = 50 * time.Millisecond
			} else {
				cfg.Timeout = 5 * time.Second
			}
			b := newBed(t, cfg, true, nil, address)
			if got := b.once(); got.Cause != c.want {
				t.Errorf("%s: %s, want %s", got.Cause, got.Detail, c.want)
			}
		})
	}
}

// TestGivenUp: a check whose proxy stops ends at once and has no result.
func TestGivenUp(t *testing.T) {
	for name, cfg := range map[string]health.Config{"tcp": tcpCheck("", "x"), "http": httpCheck(nil)} {
		t.Run(name, func(t *testing.T) {
			cfg.Timeout = time.Minute
			ctx, cancel := context.WithCancel(context.Background())
			b := newBed(t, cfg, true, nil, raw(t, func(c net.Conn) {
				cancel()
				silent(c)
			}).address())
			b.onceWithin(ctx)
			if s, available := b.state(); s.State != health.Unknown || s.Checks != 0 || available != 1 {
				t.Errorf("%+v, %d available", s, available)
			}
			if got := b.metric("outrigger_health_checks_total"); got != "" {
				t.Error(got)
			}
		})
	}
}

// TestNotTraffic: checks are counted as such and as nothing else, also where
// they fail.
func TestNotTraffic(t *testing.T) {
	l := raw(t, silent)
	b := newBed(t, tcpCheck("", ""), true, nil, l.address())
	b.once()
	b.endpoints(testkit.Nobody(0))
	b.once()
	want := `outrigger_health_checks_total{cluster="api",direction="outbound",result="connect"} 1
outrigger_health_checks_total{cluster="api",direction="outbound",result="passed"} 1`
	if got := b.metric("outrigger_health_checks_total"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, name := range []string{
		"outrigger_exchanges_total", "outrigger_upstream_connections_total", "outrigger_upstream_connection_failures_total",
		"outrigger_endpoint_attempts_total", "outrigger_retries_total",
	} {
		if got := b.metric(name); got != "" && !strings.HasSuffix(got, " 0") {
			t.Errorf("counted as traffic: %s", got)
		}
	}
	if n := b.cluster.Limits.Connections.Value(); n != 0 {
		t.Errorf("%d connections count in the limit", n)
	}
}
