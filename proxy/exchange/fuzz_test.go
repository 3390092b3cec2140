package exchange_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// fuzzSetup bounds the time of one input.
func fuzzSetup(s *setup) {
	s.http.HeadTimeout, s.http.IdleTimeout = 100*time.Millisecond, 100*time.Millisecond
	s.policy.StreamIdle, s.policy.Timeout = 100*time.Millisecond, 500*time.Millisecond
	s.policy.Keepalive = 0 // so that connections to the origin belong to one input
}

// FuzzExchange sends arbitrary bytes to a session. It must neither panic nor
// hang, nor show the origin more requests than net/http sees in the same bytes.
func FuzzExchange(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"\r\nGET http://b/x HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n..",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nX-Request-Id: \r\ntraceparent: 00-0\r\nx-outrigger-deadline: 1\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	b := newBed(f, plain, fuzzSetup)
	o := b.start(countingOrigin)
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<20 {
			t.Skip()
		}
		b.t = t
		defer func() { b.t = f }()
		before := o.heads.Load()
		c := b.dial()
		go func() {
			_, _ = c.Write(in)
			_ = c.sock.CloseWrite()
		}()
		c.rest()
		c.abort()
		settle(t, b, o)
		if seen, want := int(o.heads.Load()-before), requestsIn(in); seen > want {
			t.Errorf("the origin saw %d requests, net/http sees %d in %q", seen, want, in)
		}
	})
}

// settle waits until the origin has seen the end of every connection made to it.
func settle(t *testing.T, b *bed, o *origin) {
	t.Helper()
	m := b.cluster.Metrics()
	eventually(t, "the end of the origin's connections", func() bool {
		return m.Active() == 0 && uint64(o.accepted.Load()) >= m.UpstreamConnections.Value() && o.open() == 0
	})
}

// countingOrigin reads requests by net/http and answers with their bodies.
func countingOrigin(c *originConn) {
	for {
		req, err := http.ReadRequest(c.br)
		if err != nil {
			return
		}
		c.o.heads.Add(1)
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		if req.Method == http.MethodHead {
			body = nil
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

// requestsIn counts the heads that net/http finds.
func requestsIn(in []byte) (n int) {
	br := bufio.NewReader(bytes.NewReader(in))
	for {
		// One empty line may come before a request (RFC 9112 section 2.2).
		if p, _ := br.Peek(2); string(p) == "\r\n" {
			_, _ = br.Discard(2)
		}
		req, err := http.ReadRequest(br)
		if err != nil {
			return n
		}
		n++
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return n
		}
	}
}

// FuzzResponse lets the origin answer with arbitrary bytes. What the client
// gets through the proxy as a whole response must be what net/http's client
// reads from the same bytes; all else must be refused or visibly broken.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		okResponse,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
		"HTTP/1.1 200 OK\r\n\r\nuntil close",
		"HTTP/1.0 200\r\n\r\nold",
		"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 304 Not\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	b := newBed(f, plain, fuzzSetup)
	var answer atomic.Pointer[[]byte]
	o := b.start(func(c *originConn) {
		c.head()
		_, _ = c.Write(*answer.Load())
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<20 {
			t.Skip()
		}
		b.t = t
		defer func() { b.t = f }()
		answer.Store(&in)
		c := b.dial()
		defer settle(t, b, o)
		defer c.abort()
		c.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		status, body, ok := responseIn(c.br)
		if !ok {
			return
		}
		if wantStatus, want, ok := responseIn(bufio.NewReader(bytes.NewReader(in))); !ok || status != wantStatus || body != want {
			t.Errorf("through the proxy %d %q, directly %d %q (%v) from %q", status, body, wantStatus, want, ok, in)
		}
	})
}

// responseIn reads the final response; not ok if it is broken or the proxy's own.
func responseIn(br *bufio.Reader) (status int, body string, ok bool) {
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return 0, "", false
		}
		if resp.StatusCode < 200 && resp.StatusCode != 101 {
			continue
		}
		p, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(p), err == nil && resp.Header.Get("X-Outrigger-Reason") == ""
	}
}
