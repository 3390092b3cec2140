package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Everything between two sidecars goes over one connection.
func TestOneConnection(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, echo("api")), nil, nil)
	var all sync.WaitGroup
	for _, http2 := range []bool{false, true} {
		client := clientOf(t, http2)
		for range 50 {
			all.Go(func() {
				for range 4 {
					resp, err := client.Get(p.call + "/bytes/20000")
					if err != nil {
						t.Error(err)
						return
					}
					b, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err != nil || len(b) != 20000 {
						t.Errorf("%d bytes, %v", len(b), err)
					}
				}
			})
		}
	}
	all.Wait()
	if n := p.web.metric("outrigger_upstream_connections_total", `cluster="api"`); n != 1 {
		t.Errorf("%v connections were made", n)
	}
}

// rawApplication answers each request on a connection with what answer says, byte
// for byte, and tells of the heads that came.
func rawApplication(t *testing.T, answer string) (port int, heads <-chan string) {
	ch := make(chan string, 100)
	return serveTCP(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			var head strings.Builder
			for !strings.HasSuffix(head.String(), "\r\n\r\n") {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				head.WriteString(line)
			}
			ch <- head.String()
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}), ch
}

// What one application writes is what the other reads: names keep their case,
// fields their order, trailers come behind the body.
func TestHeadsPassAsTheyAre(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 201 Just Made\r\nX-MiXed: Answer\r\nTransfer-Encoding: chunked\r\nTrailer: X-Last\r\n\r\n" +
		"5\r\nhello\r\n0\r\nX-LaSt: word\r\n\r\n"
	m := newMesh(t)
	app, heads := rawApplication(t, answer)
	p := m.pair(app, nil, nil)
	c, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	const lines = "HOST: Api.Example\r\nX-MiXed-CaSe: One\r\nx-mixed-case: Two\r\naCCept: */*\r\n"
	fmt.Fprintf(c, "GET /p?q=%%41 HTTP/1.1\r\n%s\r\n", lines)
	if head := <-heads; !strings.HasPrefix(head, "GET /p?q=%41 HTTP/1.1\r\n"+lines) {
		t.Errorf("the application got %q", head)
	}
	var got bytes.Buffer
	for !strings.HasSuffix(got.String(), "word\r\n\r\n") {
		if _, err := io.CopyN(&got, c, 1); err != nil {
			t.Fatalf("%v behind %q", err, got.String())
		}
	}
	for _, want := range []string{"HTTP/1.1 201 Just Made\r\nX-MiXed: Answer\r\n", "\r\n\r\n5\r\nhello\r\n0\r\nX-LaSt: word\r\n\r\n"} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("the caller got %q; want %q in it", got.String(), want)
		}
	}
}

// TCP connections are streams: either side speaks first, each ends its own
// direction, and all of them share the connection.
func TestTCPStreams(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app := serveTCP(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "220 ready\r\n")
		n, _ := io.Copy(io.Discard, c)
		fmt.Fprintf(c, "got %d", n)
	})
	p := m.pairAs("tcp", "tcp", app, nil, nil)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			c, err := net.Dial("tcp", p.address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			b := make([]byte, 11)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 ready\r\n" {
				t.Errorf("%q, %v", b, err)
				return
			}
			sent := make([]byte, 1000+i*50_000)
			if _, err := c.Write(sent); err != nil {
				t.Error(err)
			}
			_ = c.(*net.TCPConn).CloseWrite()
			if b, err := io.ReadAll(c); err != nil || string(b) != fmt.Sprintf("got %d", len(sent)) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	all.Wait()
	if n := p.web.metric("outrigger_upstream_connections_total", `cluster="api"`); n != 1 {
		t.Errorf("%v connections were made", n)
	}
	r := p.api.recorded("a connection", func(r *record) bool { return r.Protocol == "tcp" && r.BytesIn == 1000 })
	if r.DownstreamID != spiffe("web") || r.Reason != "ok" {
		t.Errorf("api's record: %+v", r)
	}
}

// A stream that nobody reads does not hold up the others.
func TestSlowStream(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, echo("api")), nil, nil)
	slow, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprint(slow, "GET /bytes/200000000 HTTP/1.1\r\nhost: api\r\n\r\n")
	if _, err := io.ReadFull(slow, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	// And now it reads nothing.
	client := clientOf(t, false)
	for range 20 {
		resp, err := client.Get(p.call + "/bytes/100000")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || len(b) != 100000 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
	}
	if n := p.web.metric("outrigger_upstream_connections_total", `cluster="api"`); n != 1 {
		t.Errorf("%v connections were made", n)
	}
}

// cutter is a path between two sidecars that a test can cut.
type cutter struct {
	address string
	mu      sync.Mutex
	conns   []net.Conn
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &cutter{address: ln.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			k.mu.Lock()
			k.conns = append(k.conns, c, far)
			k.mu.Unlock()
			all.Go(func() { _, _ = io.Copy(far, c); _ = far.Close() })
			all.Go(func() { _, _ = io.Copy(c, far); _ = c.Close() })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		k.cut()
		all.Wait()
	})
	return k
}

// cut resets all connections.
func (k *cutter) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	k.conns = nil
}

// A connection that is cut under a thousand calls loses none that may be sent
// again, and processes none twice that may not.
func TestCutConnection(t *testing.T) {
	t.Parallel()
	const calls = 1000
	m := newMesh(t)
	var posts [calls]atomic.Int32
	var arrived atomic.Int32
	release := make(chan struct{})
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &n); err != nil || n >= calls {
			http.NotFound(w, r)
			return
		}
		if r.Method == http.MethodPost {
			posts[n].Add(1)
		}
		if arrived.Add(1) <= calls/2 {
			<-release // under way when the connection is cut
		}
		_, _ = io.WriteString(w, "ok")
	}))
	api, inbound := m.inbound("api", app, nil)
	k := newCutter(t, inbound)
	m.catalog(map[string][]string{"api": {k.address}})
	// The one endpoint must not be ejected for what the test does to it. So many calls
	// have several connections: what is sent again may meet one that is cut as well,
	// and of which the sidecar does not know yet.
	web, address := m.outbound("web", "api", sections{"policies": "{api: {outlier: off, breaker: off, retry: {attempts: 10, budget_percent: 1000, budget_min_per_second: 1000}}}"})
	api.ready()
	web.ready()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	client := &http.Client{Transport: tr, Timeout: patience}
	var answers [calls]string
	var all sync.WaitGroup
	for i := range calls {
		all.Go(func() {
			method, body := http.MethodGet, io.Reader(nil)
			if i%2 == 1 {
				method, body = http.MethodPost, strings.NewReader("once")
			}
			req, err := http.NewRequestWithContext(context.Background(), method, fmt.Sprintf("http://%s/%d", address, i), body)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := client.Do(req)
			if err != nil {
				answers[i] = err.Error()
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			answers[i] = fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("X-Outrigger-Reason"))
		})
	}
	eventually(t, patience, "calls are under way", func() (bool, string) { return arrived.Load() >= calls/2, "" })
	k.cut()
	close(release)
	all.Wait()
	lost := 0
	for i, a := range answers {
		switch {
		case a == "200 ":
		case i%2 == 1 && a == "503 upstream_reset" || a == "502 upstream_reset":
			lost++
		default:
			t.Errorf("call %d: %s", i, a)
		}
		if n := posts[i].Load(); n > 1 {
			t.Errorf("POST %d was processed %d times", i, n)
		}
	}
	if lost == 0 || lost > calls/2 {
		t.Errorf("%d of %d calls were answered with the loss of the connection", lost, calls)
	}
}

// A TCP service behind another proxy may know other protocols by ALPN, none of
// those that are offered, and end the handshake for it.
func TestTCPPeerWithOtherALPN(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{m.ca.issue(spiffe("api"), nil)},
		ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"something/else"},
	}
	port := serveTCP(t, func(c net.Conn) { echoTCP(tls.Server(c, conf)) })
	m.catalog(map[string][]string{"api": {loopback(port)}})
	web, address := m.outboundAs("tcp", "web", "api", nil)
	web.ready()
	for range 3 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = io.WriteString(c, "hello")
		b := make([]byte, 5)
		_, err2 := io.ReadFull(c, b)
		_ = c.Close()
		if err := errors.Join(err, err2); err != nil || string(b) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
	}
}
