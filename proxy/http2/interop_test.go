package http2

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// standardClient is net/http's client, which speaks HTTP/2 only.
func standardClient(t testing.TB, cfg *tls.Config) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(cfg == nil)
	p.SetHTTP2(cfg != nil)
	tr := &http.Transport{Protocols: p, TLSClientConfig: cfg, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// standardServer is net/http's server, which speaks HTTP/2 only, and its address.
func standardServer(t testing.TB, cfg *tls.Config, h http.Handler) string {
	s := httptest.NewUnstartedServer(h)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(cfg == nil)
	p.SetHTTP2(cfg != nil)
	s.Config.Protocols = p
	if cfg != nil {
		s.TLS = cfg
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// mirror answers with what it got, as http1 understands it.
func mirror(s *Stream) {
	var req http1.Request
	n, err := req.Parse(s.Head, nil)
	if err != nil || n != len(s.Head) {
		_ = s.WriteResponse([]byte("HTTP/1.1 500 \r\n\r\n"), []byte(fmt.Sprint(err)), End)
		return
	}
	if req.ExpectContinue {
		_ = s.WriteResponse([]byte("HTTP/1.1 100 Continue\r\n\r\n"), nil, 0)
	}
	_ = s.WriteResponse([]byte("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"), nil, More)
	body, err := io.ReadAll(reader{s})
	if err != nil {
		return
	}
	head := "HTTP/1.1 200 OK\r\nX-Method: " + string(req.MethodSpan.Of(s.Head)) + "\r\nx-target: " + string(req.Target.Of(s.Head)) +
		"\r\nX-Host: " + string(req.Host.Of(s.Head)) + "\r\nx-framing: " + req.Framing.String() +
		"\r\nx-trailers: " + strings.TrimSpace(string(s.Trailers())) + "\r\nConnection: close\r\nTrailer: X-Sum\r\n\r\n"
	if string(req.MethodSpan.Of(s.Head)) == "HEAD" {
		_ = s.WriteResponse([]byte(head), nil, End)
		return
	}
	if s.WriteResponse([]byte(head), nil, More) == nil && s.Write(body, More) == nil {
		_ = s.WriteTrailers([]byte("X-Sum: " + strconv.Itoa(len(body)) + "\r\n"))
	}
}

func TestServerWithTheStandardClient(t *testing.T) {
	server, client := tlsConfigs()
	for name, cfg := range map[string][2]*tls.Config{"cleartext": {}, "tls": {server, client}} {
		t.Run(name, func(t *testing.T) {
			v := serve(t, cfg[0], nil, mirror)
			k := standardClient(t, cfg[1])
			scheme := "http://"
			if cfg[0] != nil {
				scheme = "https://"
			}
			sizes := []int{0, 1, 100, 16 << 10, 16<<10 + 1, 70_000, 300_000, 3 << 20}
			var all sync.WaitGroup
			for i := range 40 {
				all.Go(func() {
					size := sizes[i%len(sizes)]
					body := bytes.Repeat([]byte{byte('a' + i%26)}, size)
					hints := 0
					trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
						if code == 103 && h.Get("Link") == "</a.css>" {
							hints++
						}
						return nil
					}}
					req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST",
						scheme+v.addr+"/path?q="+strconv.Itoa(i), io.NopCloser(bytes.NewReader(body)))
					if err != nil {
						t.Error(err)
						return
					}
					req.Host = "service.example"
					req.Trailer = http.Header{"X-End": nil}
					req.Body = &atEOF{Reader: bytes.NewReader(body), f: func() { req.Trailer.Set("X-End", "yes") }}
					if i%5 == 0 {
						req.Header.Set("Expect", "100-continue")
					}
					res, err := k.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					defer res.Body.Close()
					got, err := io.ReadAll(res.Body)
					if err != nil || !bytes.Equal(got, body) {
						t.Errorf("%d: %d bytes of %d, %v", i, len(got), size, err)
					}
					for name, want := range map[string]string{
						"X-Method": "POST", "X-Target": "/path?q=" + strconv.Itoa(i), "X-Host": "service.example",
						"X-Framing": "chunked", "X-Trailers": "x-end: yes", "Connection": "",
					} {
						if v := res.Header.Get(name); v != want {
							t.Errorf("%d: %s is %q, want %q", i, name, v, want)
						}
					}
					if v := res.Trailer.Get("X-Sum"); v != strconv.Itoa(size) {
						t.Errorf("%d: trailer %q", i, v)
					}
					if hints != 1 {
						t.Errorf("%d: %d hints", i, hints)
					}
				})
			}
			all.Wait()
			res, err := k.Head(scheme + v.addr + "/")
			if err != nil || res.StatusCode != 200 || res.Header.Get("X-Method") != "HEAD" {
				t.Errorf("HEAD: %v %v", res, err)
			}
			if err == nil {
				res.Body.Close()
			}
		})
	}
}

// atEOF calls f at the end.
type atEOF struct {
	io.Reader
	f func()
}

func (a *atEOF) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err == io.EOF {
		a.f()
	}
	return n, err
}

func (a *atEOF) Close() error { return nil }

func TestClientWithTheStandardServer(t *testing.T) {
	server, client := tlsConfigs()
	for name, cfg := range map[string][2]*tls.Config{"cleartext": {}, "tls": {server, client}} {
		t.Run(name, func(t *testing.T) {
			addr := standardServer(t, cfg[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				w.Header().Set("Trailer", "X-Sum")
				w.Header().Add("Link", "</a.css>")
				w.WriteHeader(103)
				w.Header().Set("X-Proto", r.Proto)
				w.Header().Set("X-Seen", r.Method+" "+r.RequestURI+" "+r.Host+" "+r.Header.Get("X-Mixed-Case")+" end="+r.Trailer.Get("X-End"))
				w.WriteHeader(200)
				_, _ = w.Write(body)
				w.Header().Set("X-Sum", strconv.Itoa(len(body)))
			}))
			k := dial(t, addr, cfg[1], nil)
			var all sync.WaitGroup
			for i, size := range []int{0, 1, 100, 16 << 10, 16<<10 + 1, 70_000, 300_000, 3 << 20, 5, 6, 7} {
				all.Go(func() {
					body := strings.Repeat(string(rune('a'+i%26)), size)
					trailers := ""
					if i%2 == 0 {
						trailers = "X-End: yes\r\n"
					}
					head := "POST /p?q HTTP/1.1\r\nUser-Agent: x\r\nX-Mixed-Case: v\r\nConnection: keep-alive, x-drop\r\nX-Drop: 1\r\nTransfer-Encoding: chunked\r\nHost: service.example\r\nTrailer: X-End\r\n\r\n"
					a, err := roundTrip(k, head, body, trailers)
					if err != nil {
						t.Error(err)
						return
					}
					if a.body != body {
						t.Errorf("%d: %d bytes of %d", i, len(a.body), size)
					}
					if a.trailers != "x-sum: "+strconv.Itoa(size)+"\r\n" {
						t.Errorf("%d: trailers %q", i, a.trailers)
					}
					if len(a.heads) != 2 || !strings.HasPrefix(a.heads[0], "HTTP/1.1 103 Early Hints\r\n") {
						t.Fatalf("%d: heads %q", i, a.heads)
					}
					end := "yes"
					if trailers == "" {
						end = ""
					}
					if !strings.Contains(a.heads[1], "x-seen: "+"POST /p?q service.example v end="+end+"\r\n") ||
						!strings.Contains(a.heads[1], "x-proto: HTTP/2.0\r\n") {
						t.Errorf("%d: head %q", i, a.heads[1])
					}
					var res http1.Response
					if n, err := res.Parse([]byte(a.heads[1]), nil, http1.MethodPost); err != nil || n != len(a.heads[1]) || res.Framing == http1.FramingUntilClose {
						t.Errorf("%d: %v %v", i, err, res.Framing)
					}
				})
			}
			all.Wait()
			a, err := roundTrip(k, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "", "")
			if err != nil || a.body != "" {
				t.Errorf("HEAD: %v %v", a, err)
			}
		})
	}
}

// The standard server and client may sit at both ends of this package at once.
func TestBetweenStandardPeers(t *testing.T) {
	addr := standardServer(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Got", r.Header.Get("Cookie")+"|"+r.Host)
		_, _ = io.Copy(w, r.Body)
	}))
	up := dial(t, addr, nil, nil)
	v := serve(t, nil, nil, func(s *Stream) {
		u, err := up.Open()
		if err != nil {
			return
		}
		defer u.Close()
		f := Flags(0)
		if s.Ended {
			f = End
		}
		if u.WriteRequest(s.Head, nil, f) != nil {
			return
		}
		if !s.Ended && pass(u, s) != nil || u.ReadHead() != nil {
			return
		}
		if u.Ended {
			_ = s.WriteResponse(u.Head, nil, End)
		} else if s.WriteResponse(u.Head, nil, 0) == nil {
			_ = pass(s, u)
		}
	})
	k := standardClient(t, nil)
	for _, size := range []int{0, 10, 1 << 20} {
		req, _ := http.NewRequest("PUT", "http://"+v.addr+"/", strings.NewReader(strings.Repeat("x", size)))
		req.AddCookie(&http.Cookie{Name: "a", Value: "1"})
		req.AddCookie(&http.Cookie{Name: "b", Value: "2"})
		req.Host = "h.example"
		res, err := k.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || len(b) != size || res.Header.Get("X-Got") != "a=1; b=2|h.example" {
			t.Errorf("%d bytes, %v, %v", len(b), err, res.Header)
		}
	}
}

// pass copies a body.
func pass(to, from *Stream) error {
	for {
		b, err := from.Peek()
		if err == io.EOF {
			return to.Write(nil, End)
		}
		if err != nil {
			return err
		}
		if err := to.Write(b, 0); err != nil {
			return err
		}
		from.Discard(len(b))
	}
}
