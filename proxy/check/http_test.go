package check

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/health"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// web serves h over HTTP/1.1, or HTTP/2 by prior knowledge.
func web(t testing.TB, h2 bool, h http.HandlerFunc) *listener {
	t.Helper()
	l := listen(t)
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	s.Protocols.SetHTTP1(!h2)
	s.Protocols.SetUnencryptedHTTP2(h2)
	var running sync.WaitGroup
	running.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		_ = s.Close()
		running.Wait()
	})
	return l
}

func overHTTP2(s *upstream.Spec) { s.Policy.HTTP2 = true }

func TestHTTP(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, c := range map[string]struct {
		serve  http.HandlerFunc
		change func(*health.HTTP)
		want   health.Cause
	}{
		"ok":            {status(200), nil, health.Passed},
		"no content":    {status(204), nil, health.Passed},
		"unavailable":   {status(503), nil, health.Status},
		"redirect":      {status(302), nil, health.Status},
		"said to pass":  {status(302), func(h *health.HTTP) { h.Statuses = []health.Statuses{{From: 300, To: 399}} }, health.Passed},
		"early hints":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(500) }, nil, health.Status},
		"hangs":         {hang, nil, health.Timeout},
		"breaks off":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil, health.Closed},
		"head":          {status(200), func(h *health.HTTP) { h.Method = "HEAD" }, health.Passed},
		"body":          {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") }, nil, health.Passed},
		"long body":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }, nil, health.Passed},
		"body in parts": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a"); w.(http.Flusher).Flush() }, nil, health.Passed},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s http2=%t", name, h2), func(t *testing.T) {
				t.Parallel()
				cfg := httpCheck(c.change)
				cfg.Timeout = 5 * time.Second
				if c.want == health.Timeout {
					cfg.Timeout = 50 * time.Millisecond
				}
				b := newBed(t, cfg, true, func(s *upstream.Spec) { s.Policy.HTTP2 = h2 }, web(t, h2, c.serve).address())
				for range 2 {
					if got := b.once(); got.Cause != c.want {
						t.Errorf("%s: %s, want %s", got.Cause, got.Detail, c.want)
					}
				}
			})
		}
	}
}

// TestHTTPBadAnswers: what is no HTTP, or not all of it.
func TestHTTPBadAnswers(t *testing.T) {
	for answer, want := range map[string]health.Cause{
		"":                                health.Closed,
		"HTTP/1.1 200 OK\r\nx: y\r\n":     health.Closed,
		"SSH-2.0-OpenSSH_9\r\n":           health.Protocol,
		"HTTP/1.1 200 OK\r\n\r\nuntil":    health.Passed,
		"HTTP/1.0 200 OK\r\n\r\n":         health.Passed,
		"HTTP/1.1 200 OK\r\nbad\r\n\r\n":  health.Protocol,
		"HTTP/1.1 100 Continue\r\n\r\n":   health.Closed,
		strings.Repeat("HTTP/1.1 1", 1e4): health.Protocol,
		"HTTP/1.1 200 OK\r\nx: " + strings.Repeat("y", 100_000) + "\r\n\r\n": health.Protocol,
	} {
		b := newBed(t, httpCheck(nil), true, nil, raw(t, reply(answer)).address())
		if got := b.once(); got.Cause != want {
			t.Errorf("%.40q: %s: %s, want %s", answer, got.Cause, got.Detail, want)
		}
	}
}

// TestHTTPRequest: what the endpoint sees of a check.
func TestHTTPRequest(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		var got atomic.Value
		l := web(t, h2, func(_ http.ResponseWriter, r *http.Request) {
			got.Store(r.Method + " " + r.RequestURI + " " + r.Host + " " + r.UserAgent())
		})
		b := newBed(t, httpCheck(func(h *health.HTTP) { h.Path = "/healthz?deep=1" }), true, func(s *upstream.Spec) { s.Policy.HTTP2 = h2 }, l.address())
		b.once()
		if want := "GET /healthz?deep=1 api outrigger-health/1"; got.Load() != want {
			t.Errorf("%v, want %s", got.Load(), want)
		}
		b = newBed(t, httpCheck(func(h *health.HTTP) { h.Method, h.Host = "HEAD", "shop.test:80" }), true, func(s *upstream.Spec) { s.Policy.HTTP2 = h2 }, l.address())
		b.once()
		if want := "HEAD / shop.test:80 outrigger-health/1"; got.Load() != want {
			t.Errorf("%v, want %s", got.Load(), want)
		}
	}
}

// TestHTTPKeepsItsConnection: one connection serves all checks; one that the
// endpoint has closed meanwhile is no failure.
func TestHTTPKeepsItsConnection(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		l := web(t, h2, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
		b := newBed(t, httpCheck(nil), true, func(s *upstream.Spec) { s.Policy.HTTP2 = h2 }, l.address())
		for range 5 {
			if got := b.once(); got.Cause != health.Passed {
				t.Errorf("http2 %t: %+v", h2, got)
			}
		}
		if n := l.accepted.Load(); n != 1 {
			t.Errorf("http2 %t: %d connections for 5 checks", h2, n)
		}
	}
}

func TestHTTPConnectionClosedMeanwhile(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
	for name, serve := range map[string]func(net.Conn){
		"while idle": reply(answer),
		"as the request comes": func(c net.Conn) {
			reply(answer)(c)
			_, _ = c.Read(make([]byte, 1))
		},
	} {
		l := raw(t, serve)
		b := newBed(t, httpCheck(nil), true, nil, l.address())
		for i := range 3 {
			if got := b.once(); got.Cause != health.Passed {
				t.Errorf("%s: check %d: %+v", name, i, got)
			}
		}
		if n := l.accepted.Load(); n != 3 {
			t.Errorf("%s: %d connections", name, n)
		}
	}
}

// TestConnectionEndsWithItsReason: the kept connection goes when the endpoint
// leaves, when the transport changes and when the check is made in another way.
func TestConnectionEndsWithItsReason(t *testing.T) {
	for name, change := range map[string]func(*bed){
		"the endpoint leaves":   func(b *bed) { b.endpoints() },
		"no plan has it":        func(b *bed) { b.retire() },
		"the check is switched": func(b *bed) { b.apply(func(s *upstream.Spec) { s.Policy.Health = nil }) },
		"it is another check": func(b *bed) {
			b.apply(func(s *upstream.Spec) {
				cfg := tcpCheck("", "")
				s.Policy.Health = &cfg
			})
		},
	} {
		l := web(t, false, func(http.ResponseWriter, *http.Request) {})
		b := newBed(t, httpCheck(nil), true, nil, l.address())
		b.once()
		if n := b.sw.Len(); n != 1 {
			t.Fatalf("%d connections are kept", n)
		}
		change(b)
		if n := b.sw.Len(); n != 0 {
			t.Errorf("%s: %d connections are kept", name, n)
		}
	}
	l := web(t, false, func(http.ResponseWriter, *http.Request) {})
	b := newBed(t, httpCheck(nil), true, nil, l.address())
	b.once()
	b.apply(func(s *upstream.Spec) { s.Transport = "another" })
	if got := b.once(); got.Cause != health.Passed || l.accepted.Load() != 2 {
		t.Errorf("%+v over connection %d; want a second one for another transport", got, l.accepted.Load())
	}
}

// TestConnectionOfALateCheck: a connection that comes back when its endpoint has
// left, or when it would now be made in another way, is closed.
func TestConnectionOfALateCheck(t *testing.T) {
	for name, change := range map[string]func(*bed){
		"the endpoint leaves":   func(b *bed) { b.endpoints() },
		"no plan has it":        func(b *bed) { b.retire() },
		"the transport changes": func(b *bed) { b.apply(func(s *upstream.Spec) { s.Transport = "another" }) },
		"the check is switched": func(b *bed) { b.apply(func(s *upstream.Spec) { s.Policy.Health = nil }) },
	} {
		b := newBed(t, httpCheck(nil), true, nil, web(t, false, func(http.ResponseWriter, *http.Request) {}).address())
		due, _ := b.r.DueChecks(nil, math.MaxInt64, 1)
		res := run(t.Context(), due[0], b.sw.Now)
		if res.Keep == nil {
			t.Fatalf("%s: nothing to keep: %+v", name, res.Result)
		}
		change(b)
		b.r.Checked(b.sw.Now(), []upstream.CheckResult{res})
		if n := b.sw.Len(); n != 0 {
			t.Errorf("%s: %d connections are kept", name, n)
		}
	}
}

// TestRefusedStream: a stream that the endpoint has not looked at is tried once
// more, and no more than that.
func TestRefusedStream(t *testing.T) {
	for refusals, want := range []health.Cause{health.Passed, health.Passed, health.Closed} {
		l := raw(t, func(c net.Conn) {
			if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
				return
			}
			f := http2.NewFramer(c, c)
			_ = f.WriteSettings()
			for left := refusals; ; {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				switch frame := frame.(type) {
				case *http2.SettingsFrame:
					if !frame.IsAck() {
						_ = f.WriteSettingsAck()
					}
				case *http2.HeadersFrame:
					if left--; left >= 0 {
						_ = f.WriteRSTStream(frame.StreamID, http2.ErrCodeRefusedStream)
						continue
					}
					const status200 = "\x88" // of HPACK's static table
					_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: []byte(status200), EndStream: true, EndHeaders: true})
				}
			}
		})
		b := newBed(t, httpCheck(nil), true, overHTTP2, l.address())
		if got := b.once(); got.Cause != want {
			t.Errorf("%d refusals: %s: %s, want %s", refusals, got.Cause, got.Detail, want)
		}
	}
}

// retire gives the cluster back, and makes it anew.
func (b *bed) retire() {
	b.r.Release(b.cluster)
	b.endpoints()
	b.cluster = b.r.Acquire(b.spec, telemetry.Outbound)
}

// apply changes the cluster's spec.
func (b *bed) apply(change func(*upstream.Spec)) {
	change(&b.spec)
	old := b.cluster
	b.cluster = b.r.Acquire(b.spec, telemetry.Outbound)
	b.r.Release(old)
}
