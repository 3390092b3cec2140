package load

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/origin"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

func startOrigin(t *testing.T, size int) netip.AddrPort {
	t.Helper()
	return startKind(t, origin.HTTP1, size)
}

func startKind(t *testing.T, kind origin.Kind, size int) netip.AddrPort {
	t.Helper()
	s, err := origin.Listen(origin.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Kind: kind, Size: size})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Addr()
}

func startServer(t *testing.T, useTLS bool, h http.HandlerFunc) (*httptest.Server, netip.AddrPort) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	if useTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s, netip.MustParseAddrPort(s.Listener.Addr().String())
}

const short = 50 * time.Millisecond

func TestRequestHasTenFields(t *testing.T) {
	if n := strings.Count(DefaultRequest, "\r\n") - 2; n != 10 {
		t.Fatalf("%d header fields", n)
	}
}

func TestClosedLoop(t *testing.T) {
	for _, size := range []int{0, 1024, 200_000} {
		var edges []string
		res, err := Run(t.Context(), Config{
			Addr: startOrigin(t, size), Connections: 7, Warmup: short, Duration: short,
			AtStart: func() { edges = append(edges, "start") },
			AtEnd:   func() { edges = append(edges, "end") },
		})
		if err != nil {
			t.Fatal(err)
		}
		if res.Errors != 0 || res.Requests == 0 || res.Latency.Count() != res.Requests || res.Latency.Min() <= 0 {
			t.Errorf("size %d: %d requests, %d latencies, %d errors: %s", size, res.Requests, res.Latency.Count(), res.Errors, res.FirstError)
		}
		if strings.Join(edges, " ") != "start end" || res.Elapsed < short {
			t.Errorf("edges %v, elapsed %v", edges, res.Elapsed)
		}
	}
}

func TestFixedRateKeepsTheRate(t *testing.T) {
	const rate = 500
	res, err := Run(t.Context(), Config{Addr: startOrigin(t, 10), Connections: 4, Rate: rate, Warmup: 0, Duration: 4 * short})
	if err != nil {
		t.Fatal(err)
	}
	most := uint64(res.Elapsed.Seconds()*rate) + 1
	if res.Errors != 0 || res.Requests == 0 || res.Requests > most {
		t.Fatalf("%d requests in %v at %d a second, %d errors", res.Requests, res.Elapsed, rate, res.Errors)
	}
}

// TestFixedRateCountsFromTheIntendedStart holds one answer back for 200 ms.
// At 1000 a second some 200 requests should have started meanwhile; each of
// them is late, not only the one that was held.
func TestFixedRateCountsFromTheIntendedStart(t *testing.T) {
	var served atomic.Int64
	_, addr := startServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) == 20 {
			hold := time.NewTimer(200 * time.Millisecond)
			defer hold.Stop()
			<-hold.C
		}
		io.WriteString(w, "ok")
	})
	res, err := Run(t.Context(), Config{Addr: addr, Connections: 1, Rate: 1000, Duration: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	late := 0.0
	for q := 0.0; q <= 1; q += 0.001 {
		if res.Latency.Quantile(q) > 20*time.Millisecond {
			late += 0.001
		}
	}
	if n := late * float64(res.Requests); n < 50 {
		t.Fatalf("about %.0f of %d requests were late, though 200 should have started while one was held", n, res.Requests)
	}
}

func TestFaultsAreCounted(t *testing.T) {
	tests := []struct {
		name string
		h    http.HandlerFunc
		want string // part of the first error
	}{
		{"status", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) }, "503"},
		{"chunked", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }, "Content-Length"},
		{"reset", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, ""},
		{"truncated", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
			panic(http.ErrAbortHandler)
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, addr := startServer(t, false, tt.h)
			res, err := Run(t.Context(), Config{Addr: addr, Connections: 2, Duration: 2 * short})
			if err != nil {
				t.Fatal(err)
			}
			if res.Requests != 0 || res.Errors == 0 || !strings.Contains(res.FirstError, tt.want) {
				t.Fatalf("%d requests, %d errors, first %q", res.Requests, res.Errors, res.FirstError)
			}
		})
	}
}

func TestAnswerThatNeverComes(t *testing.T) {
	release := make(chan struct{})
	_, addr := startServer(t, false, func(w http.ResponseWriter, r *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the server is closed
	res, err := Run(t.Context(), Config{Addr: addr, Connections: 3, Duration: short})
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests != 0 || res.Errors != 3 {
		t.Fatalf("%d requests, %d errors", res.Requests, res.Errors)
	}
}

func TestCloseAfterAnAnswerIsNoError(t *testing.T) {
	_, addr := startServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "ok")
	})
	res, err := Run(t.Context(), Config{Addr: addr, Connections: 2, Duration: short})
	if err != nil {
		t.Fatal(err)
	}
	if res.Errors != 0 || res.Reconnects == 0 || res.Requests == 0 {
		t.Fatalf("%d requests, %d reconnects, %d errors: %s", res.Requests, res.Reconnects, res.Errors, res.FirstError)
	}
}

func TestNobodyListens(t *testing.T) {
	addr := testkit.Nobody(0)
	if _, err := Run(t.Context(), Config{Addr: addr, Connections: 1, Duration: short}); err == nil {
		t.Fatal("no error")
	}
	if _, err := Hold(t.Context(), Config{Addr: addr, Connections: 3}); err == nil || !strings.Contains(err.Error(), "1 of 3") {
		t.Fatalf("hold: %v", err)
	}
}

func TestContextEndsTheLoad(t *testing.T) {
	_, secureAddr := startServer(t, true, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	for name, cfg := range map[string]Config{
		"closed loop": {Addr: startOrigin(t, 1)},
		"fixed rate":  {Addr: startOrigin(t, 1), Rate: 10},
		"TLS":         {Addr: secureAddr, TLS: &tls.Config{InsecureSkipVerify: true}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cfg.Connections, cfg.Duration = 2, time.Hour
		cfg.AtStart = cancel
		if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTLS(t *testing.T) {
	var requests atomic.Int64
	s, addr := startServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.TLS.DidResume {
			t.Error("a session was resumed: the handshake was not full")
		}
		io.WriteString(w, "ok")
	})
	client := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.ServerName = "example.com"
	for _, reconnect := range []bool{false, true} {
		requests.Store(0)
		res, err := Run(t.Context(), Config{Addr: addr, Connections: 2, Warmup: short, Duration: 2 * short, TLS: client, Reconnect: reconnect})
		if err != nil {
			t.Fatal(err)
		}
		if res.Errors != 0 || res.Requests == 0 || res.Requests > uint64(requests.Load()) {
			t.Errorf("reconnect %v: %d requests of %d, %d errors: %s", reconnect, res.Requests, requests.Load(), res.Errors, res.FirstError)
		}
	}
}

func TestHold(t *testing.T) {
	addr := startOrigin(t, 5000)
	h, err := Hold(t.Context(), Config{Addr: addr, Connections: 20})
	if err != nil {
		t.Fatal(err)
	}
	if n := h.Alive(); n != 20 {
		t.Fatalf("%d of 20 alive", n)
	}
	h.Close()
	if n := h.Alive(); n != 0 {
		t.Fatalf("%d alive after close", n)
	}
}

func TestHoldRefusesAServerThatCloses(t *testing.T) {
	_, addr := startServer(t, false, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") })
	if _, err := Hold(t.Context(), Config{Addr: addr, Connections: 2}); err == nil || !strings.Contains(err.Error(), "keep") {
		t.Fatalf("hold: %v", err)
	}
}

// TestPartsOfAnswersCount holds a server to half an answer: the half is what
// the measured time saw.
func TestPartsOfAnswersCount(t *testing.T) {
	ln := listen(t)
	t.Cleanup(func() { ln.Close() })
	half := strings.Repeat("x", 5000)
	release := make(chan struct{})
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, 4096)
		for i := range 2 {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"+half)
			if i == 1 {
				<-release
			}
			io.WriteString(conn, half)
		}
	}()
	res, err := Run(t.Context(), Config{Addr: netip.MustParseAddrPort(ln.Addr().String()), Connections: 1, Duration: 10 * short, AtEnd: func() { close(release) }})
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests != 1 || res.Exchanges != 1.5 {
		t.Errorf("%d requests, %v exchanges, %d errors: %s", res.Requests, res.Exchanges, res.Errors, res.FirstError)
	}
}

func TestBadConfigs(t *testing.T) {
	good := Config{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Connections: 1, Duration: short}
	for want, change := range map[string]func(*Config){
		"loopback":     func(c *Config) { c.Addr = netip.MustParseAddrPort("192.0.2.1:80") },
		"connections":  func(c *Config) { c.Connections = 0 },
		"rate":         func(c *Config) { c.Rate = -1 },
		"duration":     func(c *Config) { c.Duration = 0 },
		"plain":        func(c *Config) { c.Rate, c.TLS = 5, &tls.Config{} },
		"closed loop":  func(c *Config) { c.Protocol, c.Rate = GRPC, 5 },
		"streams":      func(c *Config) { c.Streams = 1000 },
		"message":      func(c *Config) { c.Message = 1 << 20 },
		"set TLS":      func(c *Config) { c.Reconnect = true },
		"0.0.0.0:0 is": func(c *Config) { c.Addr = netip.MustParseAddrPort("0.0.0.0:0") },
	} {
		c := good
		change(&c)
		if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}
