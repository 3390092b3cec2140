package exchange_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// scripted answers attempt n with the nth word of the path's last part, and keeps
// what each attempt was told:
//
//	only14    a status in the head
//	body14    a message before the trailers
//	http503   a status of HTTP
//	reset     no answer
//
// A pushback may follow behind a colon.
type scripted struct {
	n    atomic.Int64
	told chan http.Header
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	s.told <- r.Header
	words := strings.Split(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], ",")
	word, pushback, pushed := strings.Cut(words[min(int(s.n.Add(1)), len(words))-1], ":")
	set := func(prefix, status string) {
		w.Header().Set(prefix+"grpc-status", status)
		if pushed {
			w.Header().Set(prefix+"grpc-retry-pushback-ms", pushback)
		}
	}
	w.Header().Set("content-type", "application/grpc")
	switch kind, status := word[:4], word[4:]; kind {
	case "only":
		set("", status)
	case "body":
		_, _ = w.Write(b)
		set(http.TrailerPrefix, status)
	case "http":
		n, _ := strconv.Atoi(status)
		w.WriteHeader(n)
	default:
		panic(http.ErrAbortHandler)
	}
}

func TestGRPCRetry(t *testing.T) {
	listed := func(c *retry.Config) { c.GRPCStatuses = []retry.GRPCStatus{retry.GRPCUnavailable, 10} }
	for _, test := range []struct {
		script   string
		change   func(*retry.Config)
		status   string
		attempts int
		reason   string
	}{
		{"only14,body0", nil, "14", 1, "upstream_error"},
		{"only14,body0", listed, "0", 2, "ok"},
		{"body14,body0", listed, "14", 1, "upstream_error"},
		{"only10,body0", listed, "0", 2, "ok"},
		{"only10,only10,only10", listed, "10", 3, "ok"},
		{"only14,only14,only14", listed, "14", 3, "upstream_error"},
		{"only8,body0", listed, "8", 1, "upstream_error"},
		{"only5,body0", listed, "5", 1, "ok"},
		{"only0,body0", listed, "0", 1, "ok"},
		{"only14:20,body0", nil, "0", 2, "ok"},
		{"only8:0,only8:0,body0", nil, "0", 3, "ok"},
		{"only13:20,body0", nil, "13", 1, "upstream_error"},
		{"only14:-1,body0", listed, "14", 1, "upstream_error"},
		{"only14:soon,body0", listed, "14", 1, "upstream_error"},
		{"only14:5001,body0", listed, "14", 1, "upstream_error"},
		{"http503,body0", nil, "", 1, "upstream_error"},
		{"http503,body0", listed, "0", 2, "ok"},
		{"http429,body0", listed, "", 1, "ok"},
		{"reset,body0", nil, "14", 1, "upstream_reset"},
		{"reset,body0", listed, "0", 2, "ok"},
	} {
		name := test.script
		if test.change != nil {
			name += " listed"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &scripted{told: make(chan http.Header, 8)}
			p := newPair(t, legs{true, true}, func(set *setup) {
				set.policy.Retry = retrying(3)
				if test.change != nil {
					test.change(set.policy.Retry)
				}
			}, s.ServeHTTP, nil)
			got, _, _ := p.call(t, "/svc/"+test.script, "a message", "grpc-previous-rpc-attempts", "5", "grpc-timeout", "9S")
			if got != test.status {
				t.Errorf("status %q, want %q", got, test.status)
			}
			rec := p.wantReasons(test.reason)
			if len(rec) == 1 && rec[0].Attempts != test.attempts {
				t.Errorf("%d attempts, want %d", rec[0].Attempts, test.attempts)
			}
			close(s.told)
			last, n := 9_000_001, 5
			for h := range s.told {
				if got := h.Values("grpc-previous-rpc-attempts"); len(got) != 1 || got[0] != fmt.Sprint(n) {
					t.Errorf("previous attempts %q, want %d", got, n)
				}
				var us int
				if _, err := fmt.Sscanf(h.Get("grpc-timeout"), "%du", &us); err != nil || us >= last {
					t.Errorf("grpc-timeout %q behind one of %d us", h.Get("grpc-timeout"), last)
				}
				last = us
				n++
			}
		})
	}
}

// TestGRPCPushback: the wait is at least what the endpoint asks for, and ends with
// the caller.
func TestGRPCPushback(t *testing.T) {
	s := &scripted{told: make(chan http.Header, 8)}
	p := newPair(t, legs{true, true}, func(set *setup) {
		set.policy.Retry = retrying(2)
		set.policy.Retry.RetryAfterMax = time.Hour
	}, s.ServeHTTP, nil)
	began := time.Now()
	if got, _, _ := p.call(t, "/svc/only14:150,body0", "x"); got != "0" || time.Since(began) < 150*time.Millisecond {
		t.Errorf("status %q after %v", got, time.Since(began))
	}
	s.n.Store(0)
	<-s.told
	<-s.told
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-s.told
		cancel()
	}()
	r, _ := http.NewRequestWithContext(ctx, "POST", "http://"+p.ln.Addr().String()+"/svc/only14:3000000,body0", strings.NewReader("x"))
	r.Header.Set("content-type", "application/grpc")
	if res, err := p.client.Do(r); !errors.Is(err, context.Canceled) {
		res.Body.Close()
		t.Errorf("status %d, %v", res.StatusCode, err)
	}
	// Else the origin may end before it is heard that the caller has gone.
	eventually(t, "the end of both calls", func() bool { return p.cluster.Metrics().Totals().Exchanges == 2 })
	p.wantReasons("ok", "downstream_gone")
}

// TestGRPCStreamStarts: a call that is not whole reaches the endpoint at once, and
// is tried again with all that was sent as long as it has no answer.
func TestGRPCStreamStarts(t *testing.T) {
	for _, up := range []bool{true, false} {
		t.Run(legs{true, up}.String(), func(t *testing.T) {
			t.Parallel()
			heard := make(chan string, 4)
			var n atomic.Int64
			p := newPair(t, legs{true, up}, func(s *setup) {
				s.policy.Retry = retrying(2)
				s.policy.Retry.GRPCStatuses = []retry.GRPCStatus{retry.GRPCUnavailable}
			}, func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				w.Header().Set("content-type", "application/grpc")
				heard <- "head"
				buf := make([]byte, len(message))
				for {
					if _, err := io.ReadFull(r.Body, buf); err != nil {
						break
					}
					if n.Load() == 0 {
						heard <- "message"
						n.Add(1)
						w.Header().Set("grpc-status", "14")
						w.Header().Set("content-length", "0")
						return
					}
					_, _ = w.Write(buf)
					_ = http.NewResponseController(w).Flush()
				}
				w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
			}, nil)
			body, end := io.Pipe()
			answered := make(chan *http.Response, 1)
			go func() {
				defer close(answered)
				res, err := p.ask(t, "POST", "/svc/Stream", body, "content-type", "application/grpc", "te", "trailers")
				if err != nil {
					t.Error(err)
					return
				}
				answered <- res
			}()
			expect := func(want string) {
				t.Helper()
				select {
				case got := <-heard:
					if got != want {
						t.Errorf("the endpoint heard a %s, want a %s", got, want)
					}
				case <-time.After(patience):
					t.Fatalf("the endpoint has not heard the %s", want)
				}
			}
			expect("head")
			_, _ = io.WriteString(end, message[:3]) // nothing waits for the rest
			_, _ = io.WriteString(end, message[3:])
			expect("message")
			expect("head") // again, with the message
			res := <-answered
			if res == nil {
				t.FailNow()
			}
			defer res.Body.Close()
			buf := make([]byte, len(message))
			for i := range 3 {
				if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != message {
					t.Fatalf("message %d: %q, %v", i, buf, err)
				}
				if i < 2 {
					_, _ = io.WriteString(end, message)
				}
			}
			_ = end.Close()
			if b, err := io.ReadAll(res.Body); err != nil || len(b) > 0 || res.Trailer.Get("grpc-status") != "0" {
				t.Errorf("%q, %v, trailers %v", b, err, res.Trailer)
			}
			if rec := p.wantReasons("ok"); len(rec) == 1 && rec[0].Attempts != 2 {
				t.Errorf("%d attempts", rec[0].Attempts)
			}
		})
	}
}

const message = "\x00\x00\x00\x00\x05hello"

// framedOrigin answers each request by HTTP/2 frames that leave in one write, once
// the request has come whole. What it got is in requests.
func (b *bed) framedOrigin(requests chan<- []string, answer func(f *framer, n int, id uint32)) {
	n := 0
	b.start(func(c *originConn) {
		_ = c.read(len(http2.ClientPreface))
		out := bufio.NewWriter(c.Conn)
		f := newFramer(c.Conn)
		f.Framer = http2.NewFramer(out, c.br)
		f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = f.WriteSettings()
		_ = out.Flush()
		var got []string
		for fr := f.next(); fr != nil; fr = f.next() {
			ended := false
			switch fr := fr.(type) {
			case *http2.MetaHeadersFrame:
				got, ended = append(got, "head"), fr.StreamEnded()
			case *http2.DataFrame:
				got, ended = append(got, string(fr.Data())), fr.StreamEnded()
			}
			if ended {
				requests <- got
				got, n = nil, n+1
				answer(f, n, fr.Header().StreamID)
			}
			_ = out.Flush()
		}
	})
}

// TestGRPCTrailersWithHead: a status that comes in trailers, together with the
// head, is seen before anything is passed on. A call that comes whole goes out in
// a head and one frame.
func TestGRPCTrailersWithHead(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.http2, s.policy.HTTP2 = true, true
		s.policy.Retry = retrying(3)
		s.policy.Retry.GRPCStatuses = []retry.GRPCStatus{retry.GRPCUnavailable}
	})
	requests := make(chan []string, 4)
	b.framedOrigin(requests, func(f *framer, n int, id uint32) {
		f.headers(id, false, ":status", "200", "content-type", "application/grpc")
		status := "0"
		if n == 1 {
			status = "14"
		}
		f.headers(id, true, "grpc-status", status)
	})
	f := b.framed()
	both := &bytes.Buffer{}
	c := f.Framer
	f.Framer = http2.NewFramer(both, nil)
	f.headers(1, false, append(slices.Clone(post), "content-type", "application/grpc")...)
	_ = f.WriteData(1, true, []byte(message))
	f.Framer = c
	_, _ = f.conn.Write(both.Bytes())
	if h, ok := f.next().(*http2.MetaHeadersFrame); !ok || h.PseudoValue("status") != "200" {
		t.Fatalf("got %v", h)
	}
	if h, ok := f.next().(*http2.MetaHeadersFrame); !ok || len(h.Fields) != 1 || h.Fields[0].Value != "0" {
		t.Fatalf("got %v, want the second attempt's trailers", h)
	}
	for range 2 {
		if got := <-requests; !slices.Equal(got, []string{"head", message}) {
			t.Errorf("the endpoint got %q", got)
		}
	}
	b.wantReasons("ok")
}
