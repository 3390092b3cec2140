package exchange_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// chain makes two beds, one behind the other, with HTTP/2 or the transport
// between sidecars in between. The far one has the origins.
func chain(t testing.TB, mesh bool, change func(*setup)) (near, far *bed) {
	far = newBed(t, map[bool]mode{false: plain, true: mtlsDown}[mesh], func(s *setup) {
		change(s)
		s.http2, s.mesh = true, mesh
	})
	near = newBed(t, map[bool]mode{false: plain, true: mtlsUp}[mesh], func(s *setup) {
		change(s)
		s.policy.HTTP2, s.policy.Mesh, s.next = !mesh, mesh, far
	})
	near.cluster.SetLocal([]upstream.EndpointSpec{{Address: addrOf(far.ln.Addr()), Weight: 1, Healthy: true}})
	return near, far
}

// said is what a request says, as net/http understands it. What concerns one
// connection or hop is not in it, nor what proxies add.
func said(r *http.Request, body []byte) string {
	var b strings.Builder
	target := r.RequestURI
	if strings.Contains(target, "://") && !strings.HasPrefix(target, "/") { // absolute-form
		_, rest, _ := strings.Cut(target, "://")
		i := strings.IndexAny(rest, "/?")
		switch {
		case i < 0 && r.Method == http.MethodOptions:
			target = "*"
		case i < 0:
			target = "/"
		case rest[i] == '?':
			target = "/" + rest[i:]
		default:
			target = rest[i:]
		}
	}
	fmt.Fprintf(&b, "%s %s\nfor %s\n", r.Method, target, r.Host)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		switch strings.ToLower(name) {
		case "connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings", "trailer", "expect", "content-length", "sec-websocket-key",
			"x-forwarded-for", "x-forwarded-proto", "x-forwarded-client-cert", "x-request-id", "traceparent", "tracestate", "x-outrigger-deadline", "x-outrigger-retries", "grpc-timeout":
		case "cookie":
			fmt.Fprintf(&b, "%s: %q\n", name, strings.TrimSpace(strings.Join(r.Header[name], "; ")))
		default:
			fmt.Fprintf(&b, "%s: %q\n", name, r.Header[name])
		}
	}
	fmt.Fprintf(&b, "%q\n", body)
	for _, name := range slices.Sorted(maps.Keys(r.Trailer)) {
		if http1.MayTrail([]byte(name)) && len(r.Trailer[name]) > 0 {
			fmt.Fprintf(&b, "behind it %s: %q\n", name, r.Trailer[name])
		}
	}
	return b.String()
}

// dropNamed drops the fields that Connection names.
func dropNamed(h http.Header, options []string) {
	for _, line := range options {
		for o := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(o))
		}
	}
}

// FuzzRoundTrip sends a request that came by HTTP/1.1 through HTTP/2, or the
// transport between sidecars, to an origin that takes HTTP/1.1. What arrives must
// mean the same to net/http, and so must the answer that goes back: the body with
// a trailer.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{
		"GET /a?b=c HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nAccept: */*\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nCookie: a=b\r\nCookie: c\r\n\r\nhello",
		"PUT http://b.example/x?y HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3;e=f\r\nabc\r\n2\r\nde\r\n0\r\nX-T: u\r\nhost: c\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost:\r\nX-Empty:\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nConnection: x-b, te, close\r\nTE: trailers\r\nX-B: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"DELETE /%2e%2E//x;y?q=%00#z HTTP/1.1\r\nHost: [::1]:5\r\nX-High: \xc3\xa9\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: " + wsKey + "\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nContent-Type: application/grpc\r\ngrpc-timeout: 1S\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	type line struct {
		near, far *bed
		origin    *origin
		seen      chan string
	}
	var lines [2]line
	for i := range lines {
		l := &lines[i]
		l.near, l.far = chain(f, i == 1, func(s *setup) {
			fuzzSetup(s)
			s.quiet = true
		})
		l.seen = make(chan string, 100)
		l.origin = l.far.start(func(c *originConn) {
			r, err := http.ReadRequest(c.br)
			if err != nil {
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			l.seen <- said(r, body)
			c.send("HTTP/1.1 200 OK\r\nX-Answer: Yes\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
			if r.Method != http.MethodHead {
				c.send(string(http1.AppendLastChunk(http1.AppendChunk(nil, body), fmt.Appendf(nil, "X-Sum: %d\r\n", len(body)))))
			}
		})
	}
	f.Fuzz(func(t *testing.T, in []byte, mesh bool) {
		l := &lines[0]
		if mesh {
			l = &lines[1]
		}
		br := bufio.NewReaderSize(bytes.NewReader(in), max(len(in), 16))
		want, err := http.ReadRequest(br)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(want.Body)
		}
		if err == nil && br.Buffered() > 0 || len(in) > 1<<18 {
			return // more than one request
		}
		l.near.t, l.far.t, l.origin.t = t, t, t
		defer func() { l.near.t, l.far.t, l.origin.t = f, f, f }()
		c := l.near.dial()
		go func() {
			_, _ = c.Write(in)
			_ = c.sock.CloseWrite()
		}()
		whole, _ := c.rest()
		c.abort()
		settle(t, l.far, l.origin)
		select {
		case got := <-l.seen:
			if err != nil {
				t.Fatalf("%q, in which net/http finds %v, became\n%s", in, err, got)
			}
			dropNamed(want.Header, want.Header.Values("Connection"))
			if want.Host == "" {
				_, rest, _ := strings.Cut(got, "\nfor ")
				want.Host, _, _ = strings.Cut(rest, "\n")
			}
			if w := said(want, body); got != w {
				t.Fatalf("%q became\n%s, want\n%s", in, got, w)
			}
		default:
			return
		}
		res, err := finalResponseTo(want, bufio.NewReader(strings.NewReader(whole)))
		if err != nil {
			t.Fatalf("%q: the answer: %v in %q", in, err, whole)
		}
		got, err := io.ReadAll(res.Body)
		if res.StatusCode != 200 {
			return // the caller gave it up, or the time was over
		}
		if err != nil || res.Header.Get("x-answer") != "Yes" || want.Method != http.MethodHead && !bytes.Equal(got, body) {
			t.Fatalf("%q: the answer has %q, %v: %q", in, got, err, whole)
		}
		if sum := res.Trailer.Get("x-sum"); want.Method != http.MethodHead && want.ProtoMinor == 1 && sum != fmt.Sprint(len(body)) {
			t.Fatalf("%q: the trailer of the answer is %q: %q", in, sum, whole)
		}
	})
}
