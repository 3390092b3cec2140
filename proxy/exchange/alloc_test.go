package exchange_test

import (
	"io"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// steadyOrigin answers each read with response, without allocating. Requests
// are small enough to come in one piece.
func steadyOrigin(response string) func(*originConn) {
	return func(c *originConn) {
		buf, out := make([]byte, 16<<10), []byte(response)
		for {
			if _, err := c.Conn.Read(buf); err != nil {
				return
			}
			if _, err := c.Conn.Write(out); err != nil {
				return
			}
		}
	}
}

// exchanges sends request n times and reads the answers, without allocating.
func exchanges(c net.Conn, request, buf []byte, n int) error {
	for range n {
		if _, err := c.Write(request); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
	}
	return nil
}

var steady = []struct{ name, request, response, want string }{
	{"GET", "GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: t\r\n\r\n", okResponse, okResponse},
	{"POST", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", okResponse, okResponse},
	{
		"chunked", "GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	},
	{
		"long", "GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + strings.Repeat("x", 40_000),
		"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + strings.Repeat("x", 40_000),
	},
	{"not in normal form", "GET /a/../%78?q HTTP/1.1\r\nHost: a\r\nX_A: 1\r\n\r\n", okResponse, okResponse},
}

// mallocs measures how many objects one exchange allocates in the whole
// process. Neither the origin nor the client allocates without TLS.
func mallocs(t *testing.T, m mode, i int, prepare func(*bed)) float64 {
	b := newBed(t, m, func(s *setup) {
		s.policy.Retry = retrying(2)
		s.policy.Timeout = 15e9
	})
	b.start(steadyOrigin(steady[i].response))
	if prepare != nil {
		prepare(b)
	}
	c := b.dial()
	request, buf := []byte(steady[i].request), make([]byte, len(steady[i].want))
	if err := exchanges(c.Conn, request, buf, 200); err != nil {
		t.Fatal(err)
	}
	// What was prepared may refuse a few: then what is read is no whole answer.
	if prepare == nil && string(buf) != steady[i].want {
		t.Fatalf("got %q", buf)
	}
	const n = 2000
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector empties pools
	least := uint64(math.MaxUint64)
	for range 3 { // tickers of the process allocate now and then
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := exchanges(c.Conn, request, buf, n); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	return float64(least) / n
}

// TestNoAllocation: a steady exchange allocates nothing on plaintext legs, with
// access log, retries and timeouts on.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for i, s := range steady {
		for _, m := range allModes {
			t.Run(s.name+"/"+string(m), func(t *testing.T) {
				got := mallocs(t, m, i, nil)
				// crypto/tls allocates for each record, in the peers too.
				most := map[mode]float64{plain: 0.05, mtlsDown: 4, mtlsUp: 4}[m]
				if s.name == "long" && m != plain {
					most = 12
				}
				t.Logf("%.3f allocations an exchange", got)
				if got > most {
					t.Errorf("%.3f allocations an exchange, want at most %g", got, most)
				}
			})
		}
	}
}

// TestNoAllocationHedged: where nothing is slow, hedging allocates nothing.
func TestNoAllocationHedged(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, delay := range map[string]time.Duration{"fixed": time.Hour, "learnt": 0} {
		t.Run(name, func(t *testing.T) {
			got := mallocs(t, plain, 0, func(b *bed) {
				b.apply(func(p *upstream.Policy) {
					p.Hedge = hedged()
					p.Hedge.Delay, p.Hedge.MinDelay = delay, time.Minute
				})
			})
			if got > 0.05 {
				t.Errorf("%.3f allocations an exchange", got)
			}
		})
	}
}

func BenchmarkExchange(b *testing.B) {
	for i, s := range steady[:3] {
		b.Run(s.name, func(b *testing.B) {
			bed := newBed(b, plain, nil)
			bed.start(steadyOrigin(steady[i].response))
			c := bed.dial()
			_ = c.sock.SetDeadline(time.Time{})
			b.ReportAllocs()
			b.ResetTimer()
			if err := exchanges(c.Conn, []byte(s.request), make([]byte, len(s.want)), b.N); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			bed.stop()
		})
	}
}
