package exchange_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// legs says which legs of an exchange are HTTP/2.
type legs struct{ down, up bool }

func (l legs) String() string {
	name := map[bool]string{false: "h1", true: "h2"}
	return name[l.down] + " to " + name[l.up]
}

var allLegs = []legs{{true, true}, {true, false}, {false, true}, {false, false}}

// pair is a bed between net/http's client and server.
type pair struct {
	*bed
	legs
	client *http.Client
	heads  atomic.Int64 // requests that the origin has seen
}

// runLegs runs f once for each combination of protocols.
func runLegs(t *testing.T, list []legs, change func(*setup), h http.HandlerFunc, f func(*testing.T, *pair)) {
	t.Helper()
	for _, l := range list {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			f(t, newPair(t, l, change, h, nil))
		})
	}
}

// runLegs1 is runLegs for one combination, where origin and test share state.
func runLegs1(t *testing.T, l legs, made func() (http.HandlerFunc, func(*testing.T, *pair))) {
	t.Helper()
	h, f := made()
	runLegs(t, []legs{l}, nil, h, f)
}

func newPair(t testing.TB, l legs, change func(*setup), h http.HandlerFunc, tune func(*http.HTTP2Config)) *pair {
	t.Helper()
	p := &pair{legs: l}
	p.bed = newBed(t, plain, func(s *setup) {
		s.http2, s.policy.HTTP2 = true, l.up
		if change != nil {
			change(s)
		}
	})
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.heads.Add(1)
		if want := map[bool]int{true: 2, false: 1}[l.up]; r.ProtoMajor != want {
			t.Errorf("the origin was asked by %s", r.Proto)
		}
		h(w, r)
	}))
	o.Config.Protocols = protocols(l.up)
	o.Config.HTTP2 = &http.HTTP2Config{}
	if tune != nil {
		tune(o.Config.HTTP2)
	}
	o.Start()
	tr := &http.Transport{Protocols: protocols(l.down), DisableCompression: true, ExpectContinueTimeout: patience}
	p.client = &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	p.cluster.SetLocal([]upstream.EndpointSpec{{Address: netip.MustParseAddrPort(o.Listener.Addr().String()), Weight: 1, Healthy: true}})
	p.onStop(func() {
		tr.CloseIdleConnections()
		p.expireAll()
		o.CloseClientConnections()
		o.Close()
	})
	return p
}

func protocols(h2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	return p
}

// ask sends a request with a body, without content-length if that is not sized.
func (p *pair) ask(t testing.TB, method, path string, body io.Reader, header ...string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+p.ln.Addr().String()+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return p.client.Do(r)
}

// must is ask for a response that is read whole.
func (p *pair) must(t testing.TB, method, path string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	res, err := p.ask(t, method, path, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("status %d, %d bytes: %v", res.StatusCode, len(got), err)
	}
	return res, string(got)
}

func octets(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8) ^ byte(i)
	}
	return b
}

// opaque hides a reader's length.
type opaque struct{ io.Reader }

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "x-sum")
	if r.URL.Query().Has("sized") {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
		w.Header().Del("Trailer")
	}
	_ = http.NewResponseController(w).EnableFullDuplex()
	n, err := io.Copy(w, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if !r.URL.Query().Has("sized") {
		w.Header().Set("x-sum", fmt.Sprint(n)+r.Trailer.Get("x-check"))
	}
}

func TestLegsSizes(t *testing.T) {
	sizes := []int{0, 1, 8 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 5 << 20}
	runLegs(t, allLegs, nil, echo, func(t *testing.T, p *pair) {
		for range 2 { // again on the same connections
			for _, n := range sizes {
				want := octets(n)
				res, got := p.must(t, "POST", "/?sized", bytes.NewReader(want))
				if got != string(want) || res.StatusCode != 200 || res.ContentLength != int64(n) || len(res.Trailer) > 0 {
					t.Fatalf("%d bytes sized: status %d, %d came, length %d, trailers %v", n, res.StatusCode, len(got), res.ContentLength, res.Trailer)
				}
				r, _ := http.NewRequest("POST", "http://"+p.ln.Addr().String()+"/", opaque{bytes.NewReader(want)})
				r.Trailer = http.Header{"X-Check": {"checked"}}
				res, err := p.client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || !bytes.Equal(b, want) {
					t.Fatalf("%d bytes: %d came, %v", n, len(b), err)
				}
				if sum := res.Trailer.Get("x-sum"); sum != fmt.Sprint(n)+"checked" && !(p.legs == legs{false, true} && n < 2048) {
					// net/http gives a short body its length, with which
					// HTTP/1.1 has no trailers.
					t.Errorf("%d bytes: trailer %q", n, sum)
				}
			}
		}
		for _, r := range p.records() {
			if r.Reason != "ok" || r.BytesIn < r.BytesOut {
				t.Errorf("record %+v", r)
			}
		}
	})
}

// TestLegsWithoutBody: responses that have none, whatever their fields say, and
// interim ones.
func TestLegsWithoutBody(t *testing.T) {
	runLegs(t, allLegs, nil, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/head":
			w.Header().Set("Content-Length", "12345")
		case "/hints":
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "done")
		default:
			n, _ := strconv.Atoi(r.URL.Path[1:])
			w.WriteHeader(n)
		}
	}, func(t *testing.T, p *pair) {
		for range 2 {
			if res, _ := p.must(t, "HEAD", "/head", nil); res.ContentLength != 12345 {
				t.Errorf("HEAD: content-length %d", res.ContentLength)
			}
			for _, code := range []int{204, 304, 200} {
				if res, got := p.must(t, "GET", "/"+fmt.Sprint(code), nil); res.StatusCode != code || got != "" {
					t.Errorf("status %d with %q, want %d", res.StatusCode, got, code)
				}
			}
			var hints atomic.Int64
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
				hints.Add(int64(code))
				return nil
			}})
			r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+p.ln.Addr().String()+"/hints", nil)
			res, err := p.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(b) != "done" || hints.Load() != 103 {
				t.Errorf("got %q after interim %d", b, hints.Load())
			}
		}
		p.wantReasons("ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok")
	})
}

// TestLegsEarlyResponse: the origin answers before it has the body, and reads no
// more. The client gets the answer.
func TestLegsEarlyResponse(t *testing.T) {
	runLegs(t, allLegs, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(413)
		_, _ = io.WriteString(w, "too long")
	}, func(t *testing.T, p *pair) {
		// A client by HTTP/1.1 may lose the answer of a connection that ends.
		res, err := p.ask(t, "POST", "/", opaque{io.LimitReader(zeroes{}, 64<<20)})
		if err != nil {
			if p.down {
				t.Fatal(err)
			}
			return
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 413 || string(got) != "too long" || err != nil {
			t.Errorf("status %d, %q, %v", res.StatusCode, got, err)
		}
	})
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestLegsUpstreamReset: the origin breaks off before and in its answer.
func TestLegsUpstreamReset(t *testing.T) {
	for _, l := range allLegs {
		runLegs1(t, l, func() (http.HandlerFunc, func(*testing.T, *pair)) {
			seen := make(chan bool, len(allLegs))
			return func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/in" {
						_, _ = w.Write(octets(10 << 10))
						_ = http.NewResponseController(w).Flush()
						select {
						case <-seen:
						case <-r.Context().Done():
						}
					}
					panic(http.ErrAbortHandler)
				}, func(t *testing.T, p *pair) {
					res, _ := p.must(t, "POST", "/before", strings.NewReader("x"))
					if res.StatusCode != 503 || res.Header.Get("x-outrigger-reason") != "upstream_reset" {
						t.Errorf("before: status %d for %q", res.StatusCode, res.Header.Get("x-outrigger-reason"))
					}
					res, err := p.ask(t, "GET", "/in", nil)
					if err != nil {
						t.Fatal(err)
					}
					seen <- true
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if err == nil {
						t.Error("a response that was cut off came as a whole one")
					}
					p.wantReasons("upstream_reset", "upstream_reset")
				}
		})
	}
}

// TestLegsCallerGone: a call that is cancelled by HTTP/2 ends at the origin too.
func TestLegsCallerGone(t *testing.T) {
	for _, l := range []legs{{true, true}, {true, false}} {
		runLegs1(t, l, func() (http.HandlerFunc, func(*testing.T, *pair)) {
			began, ended := make(chan bool, 8), make(chan bool, 8)
			return func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/body" {
						_, _ = io.WriteString(w, "x")
						_ = http.NewResponseController(w).Flush()
					}
					began <- true
					<-r.Context().Done()
					ended <- true
				}, func(t *testing.T, p *pair) {
					for _, path := range []string{"/head", "/body"} {
						ctx, cancel := context.WithCancel(t.Context())
						r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+p.ln.Addr().String()+path, nil)
						go func() { <-began; cancel() }()
						res, err := p.client.Do(r)
						if err == nil {
							_, err = io.Copy(io.Discard, res.Body)
							res.Body.Close()
						}
						if !errors.Is(err, context.Canceled) {
							t.Errorf("%s: %v", path, err)
						}
						select {
						case <-ended:
						case <-time.After(patience):
							t.Fatalf("%s: the origin was not told", path)
						}
					}
					p.wantReasons("downstream_gone", "downstream_gone")
				}
		})
	}
}

func TestLegsTimeouts(t *testing.T) {
	for _, test := range []struct {
		name, reason string
		change       func(*upstream.Policy)
	}{
		{"total", "request_timeout", func(p *upstream.Policy) { p.Timeout = time.Second }},
		{"idle", "stream_idle", func(p *upstream.Policy) { p.StreamIdle = time.Second }},
		{"per try", "try_timeout", func(p *upstream.Policy) {
			p.Retry = retrying(1)
			p.Retry.PerTryTimeout = time.Second
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLegs(t, allLegs, func(s *setup) { test.change(&s.policy) }, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}, func(t *testing.T, p *pair) {
				for _, n := range []int{0, 100 << 10} {
					res, _ := p.must(t, "POST", "/", opaque{bytes.NewReader(octets(n))})
					if got := res.Header.Get("x-outrigger-reason"); got != test.reason || res.StatusCode != 504 {
						t.Errorf("%d bytes: status %d for %q", n, res.StatusCode, got)
					}
				}
				p.wantReasons(test.reason, test.reason)
			})
		})
	}
}

// TestLegsRetry: a body that was kept is sent again whole.
func TestLegsRetry(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			p := newPair(t, l, func(s *setup) {
				s.policy.Retry = retrying(3)
			}, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				if n.Add(1)%2 == 1 {
					w.WriteHeader(503)
				}
				_, _ = w.Write(b)
			}, nil)
			for _, size := range []int{0, 1, 1000} {
				n.Store(0)
				res, got := p.must(t, "PUT", "/", bytes.NewReader(octets(size)))
				if res.StatusCode != 200 || got != string(octets(size)) || n.Load() != 2 {
					t.Errorf("%d bytes: status %d, %d bytes, %d attempts", size, res.StatusCode, len(got), n.Load())
				}
			}
			p.wantReasons("ok", "ok", "ok")
		})
	}
}

// TestManyStreams: more calls at once than the origin takes on a connection, all
// on one connection from downstream.
func TestManyStreams(t *testing.T) {
	p := newPair(t, legs{true, true}, nil, echo, func(c *http.HTTP2Config) { c.MaxConcurrentStreams = 10 })
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			want := octets(1000 * i)
			res, err := p.ask(t, "POST", "/", opaque{bytes.NewReader(want)})
			if err != nil {
				t.Error(err)
				return
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 || err != nil || !bytes.Equal(got, want) {
				t.Errorf("call %d: status %d, %d of %d bytes, %v, %s", i, res.StatusCode, len(got), len(want), err, res.Header)
			}
		})
	}
	wg.Wait()
	if n := len(p.records()); n != 100 {
		t.Errorf("%d records", n)
	}
}
