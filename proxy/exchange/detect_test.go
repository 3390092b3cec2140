package exchange_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// auto makes a listener that takes any protocol. The wait is long enough for a
// client that means to speak first.
func auto(s *setup) {
	s.wait, s.http2, s.policy.SameHTTP = 200*time.Millisecond, true, true
}

// soon is auto for clients that are to be taken for silent.
func soon(s *setup) {
	auto(s)
	s.wait = time.Millisecond
}

// counted returns how many connections were counted under each "protocol how".
func (b *bed) counted() map[string]int {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.metrics.Handler().ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/metrics", http.NoBody))
	got := map[string]int{}
	for line := range strings.Lines(w.Body.String()) {
		labels, ok := strings.CutPrefix(line, "outrigger_listener_protocol_connections_total{")
		if !ok {
			continue
		}
		var how, protocol string
		for l := range strings.SplitSeq(labels[:strings.IndexByte(labels, '}')], ",") {
			switch name, v, _ := strings.Cut(l, "="); name {
			case "how":
				how = strings.Trim(v, `"`)
			case "protocol":
				protocol = strings.Trim(v, `"`)
			}
		}
		n := 0
		if _, err := fmt.Sscan(labels[strings.IndexByte(labels, '}')+1:], &n); err != nil {
			b.t.Fatal(err)
		}
		got[protocol+" "+how] = n
	}
	return got
}

// found wants these numbers of connections to have been counted.
func (b *bed) found(want map[string]int) {
	b.t.Helper()
	if got := b.counted(); !maps.Equal(got, want) {
		b.t.Errorf("counted %v, want %v", got, want)
	}
}

// last returns the detection of the connection accepted last.
func (b *bed) last() *exchange.Detection {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.detected) == 0 {
		return nil
	}
	return b.detected[len(b.detected)-1]
}

func echoBack(c *originConn) { _, _ = io.Copy(c, c.br) }

func TestDetectHTTP1(t *testing.T) {
	run(t, allModes, auto, func(t *testing.T, b *bed) {
		o := b.start(answering(okResponse))
		c := b.dial()
		for range 3 {
			c.get("/")
			c.expect(okResponse)
		}
		if s := b.last().Session(); s == nil || s.Exchanges() != 3 {
			t.Error("no session has carried the requests")
		}
		c.Close()
		b.found(map[string]int{"http1 detected": 1})
		b.wantReasons("ok", "ok", "ok")
		if n := o.accepted.Load(); n != 1 {
			t.Errorf("%d connections to the origin", n)
		}
	})
}

// A client that is slow is waited for; the connection to the endpoint that was
// made meanwhile serves its request.
func TestDetectSlowHTTP1(t *testing.T) {
	run(t, allModes, soon, func(t *testing.T, b *bed) {
		o := b.start(answering(okResponse))
		c := b.dial()
		for _, part := range strings.Split("\r\nGET / HTTP/1.1\r\nHost: api\r\n\r\n", "") {
			c.send(part)
			time.Sleep(3 * time.Millisecond) // a slow client, not a wait for anything
		}
		c.expect(okResponse)
		c.Close()
		b.found(map[string]int{"http1 detected": 1})
		if list := b.wantReasons("ok"); list[0].Path != "/" || list[0].Protocol != "HTTP/1.1" {
			t.Errorf("record %+v", list[0])
		}
		if n := o.accepted.Load(); n != 1 {
			t.Errorf("%d connections to the origin; the one that was made ahead was not used", n)
		}
	})
}

func TestDetectOpaque(t *testing.T) {
	run(t, allModes, auto, func(t *testing.T, b *bed) {
		b.start(echoBack)
		for _, s := range []string{"*1\r\n$4\r\nPING\r\n", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "EHLO a.example\r\n"} {
			c := b.dial()
			c.send(s)
			c.expect(s)
			_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			c.closed()
		}
		b.found(map[string]int{"tcp detected": 3})
		for _, r := range b.wantReasons("ok", "ok", "ok") {
			if r.Protocol != "tcp" || r.Attempts != 1 || r.BytesIn != r.BytesOut || r.Name != "" {
				t.Errorf("record %+v", r)
			}
		}
	})
}

// The server speaks first: nobody hangs, and what was learnt is used.
func TestDetectServerFirst(t *testing.T) {
	run(t, allModes, soon, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) { c.send("220 ready\r\n"); echoBack(c) })
		for range 3 {
			c := b.dial()
			c.expect("220 ready\r\n")
			c.send("GET / HTTP/1.1\r\n\r\n")
			c.expect("GET / HTTP/1.1\r\n\r\n")
			_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			c.closed()
		}
		b.found(map[string]int{"tcp server_first": 1, "tcp remembered": 2})
		if r := b.wantReasons("ok", "ok", "ok")[0]; r.Attempts != 1 || r.BytesOut != 29 {
			t.Errorf("record %+v", r)
		}
	})
}

// What was learnt decides nothing: an HTTP client in front of what has spoken
// first before is served as one.
func TestDetectLessonIsNoVerdict(t *testing.T) {
	run(t, allModes, soon, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) { c.send("hello"); c.stall() })
		c := b.dial()
		c.expect("hello")
		c.Close()
		b.start(answering(okResponse))
		for range 2 {
			c = b.dial()
			c.get("/")
			c.expect(okResponse)
			c.Close()
		}
		b.found(map[string]int{"tcp server_first": 1, "http1 detected": 2})
		b.wantReasons("ok", "ok", "ok")
	})
}

// A silent client of an HTTP server is not kept from HTTP by the server's
// losing patience, nor is the server taken for one that speaks first.
func TestDetectUnasked(t *testing.T) {
	run(t, allModes, soon, func(t *testing.T, b *bed) {
		const late = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"
		b.start(func(c *originConn) { c.send(late) })
		for range 2 {
			c := b.dial()
			c.expect(late)
			_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			c.closed()
		}
		b.found(map[string]int{"tcp server_first": 2})
		b.wantReasons("ok", "ok")
	})
}

func TestDetectTLS(t *testing.T) {
	run(t, allModes, auto, func(t *testing.T, b *bed) {
		ca := testkit.NewCA(t)
		own := &tls.Config{Certificates: []tls.Certificate{ca.Issue("spiffe://app.test/app", nil)}, NextProtos: []string{"x"}}
		b.start(func(c *originConn) {
			s := tls.Server(c.Conn, own)
			_, _ = io.Copy(s, s)
		})
		c := b.dial()
		s := tls.Client(c.Conn, &tls.Config{ServerName: "db.example", NextProtos: []string{"y", "x"}, InsecureSkipVerify: true})
		if _, err := s.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
		if p := s.ConnectionState(); p.NegotiatedProtocol != "x" || !bytes.Equal(p.PeerCertificates[0].Raw, own.Certificates[0].Certificate[0]) {
			t.Error("the handshake was not the application's own")
		}
		_ = s.Close()
		b.serveEnded()
		b.found(map[string]int{"tls detected": 1})
		if r := b.records()[0]; r.Protocol != "tls" || r.Name != "db.example" || r.ALPN != "y,x" {
			t.Errorf("record %+v", r)
		}
	})
}

// Both versions of HTTP, each with the same version towards the endpoint.
func TestDetectBothVersions(t *testing.T) {
	b := newBed(t, plain, auto)
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
		_, _ = io.WriteString(w, r.Proto)
	}))
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	o.Config.Protocols = both
	o.Start()
	b.cluster.SetLocal([]upstream.EndpointSpec{{Address: netip.MustParseAddrPort(o.Listener.Addr().String()), Weight: 1, Healthy: true}})
	var transports []*http.Transport
	for _, h2 := range []bool{false, true, false, true} {
		tr := &http.Transport{Protocols: protocols(h2)}
		transports = append(transports, tr)
		client := &http.Client{Transport: tr, Timeout: patience}
		for range 3 {
			res, err := client.Post("http://"+b.ln.Addr().String(), "text/plain", io.MultiReader(strings.NewReader("body by ")))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if want := map[bool]string{false: "body by HTTP/1.1", true: "body by HTTP/2.0"}[h2]; err != nil || string(got) != want {
				t.Errorf("the origin had %q, %v; want %q", got, err, want)
			}
		}
	}
	for _, tr := range transports {
		tr.CloseIdleConnections()
	}
	b.expireAll()
	o.CloseClientConnections()
	o.Close()
	b.found(map[string]int{"http1 detected": 2, "http2 detected": 2})
	b.wantReasons(slices.Repeat([]string{"ok"}, 12)...)
}

// A server of HTTP/2 may send its SETTINGS before it has heard anything. Its
// clients speak first nevertheless.
func TestDetectEagerHTTP2Server(t *testing.T) {
	run(t, []mode{plain, mtlsUp}, soon, func(t *testing.T, b *bed) {
		const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
		o := b.start(func(c *originConn) { c.send(settings); c.stall() })
		c := b.dial()
		eventually(t, "the call of the endpoint", func() bool { return o.accepted.Load() == 1 })
		if _, known := b.last().Found(); known {
			t.Error("decided without a word from the client")
		}
		c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
		got := make([]byte, 4)
		if _, err := io.ReadFull(c.br, got); err != nil || got[3] != settings[3] {
			t.Errorf("got %q, %v; want SETTINGS", got, err)
		}
		c.Close()
		b.serveEnded()
		b.found(map[string]int{"http2 detected": 1})
		b.wantReasons()
	})
}

// A client that sends nothing and ends its side still hears the server.
func TestDetectHalfClose(t *testing.T) {
	for name, part := range map[string]string{"nothing": "", "a part of a line": "GET"} {
		t.Run(name, func(t *testing.T) {
			run(t, allModes, auto, func(t *testing.T, b *bed) {
				b.start(func(c *originConn) {
					got, _ := io.ReadAll(c.br)
					c.send("after " + string(got))
				})
				c := b.dial()
				if h, ok := c.Conn.(*tls.Conn); ok {
					if err := h.Handshake(); err != nil {
						t.Fatal(err)
					}
				}
				if part != "" {
					c.send(part)
				}
				_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
				c.expect("after " + part)
				c.closed()
				b.found(map[string]int{"tcp detected": 1})
				b.wantReasons("ok")
			})
		})
	}
}

// Where HTTP is spoken, a connection without a word is a probe and no exchange.
func TestDetectProbe(t *testing.T) {
	b := newBed(t, plain, auto)
	o := b.start(answering(okResponse))
	c := b.dial()
	c.get("/")
	c.expect(okResponse)
	c.Close()
	eventually(t, "a kept connection", func() bool { return o.open() == 1 })
	for range 3 {
		b.dial().Close()
	}
	b.serveEnded()
	b.found(map[string]int{"http1 detected": 1})
	b.wantReasons("ok")
}

// A client that stops in the middle of what may become a request is carried
// after a while.
func TestDetectTimeout(t *testing.T) {
	run(t, []mode{plain, mtlsUp}, soon, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) { c.send(c.read(5) + "!"); echoBack(c) })
		c := b.dial()
		c.send("HELLO")
		c.expect("HELLO!")
		c.Close()
		b.found(map[string]int{"tcp timeout": 1})
		b.wantReasons("ok")
	})
}

// Both are silent: the connection stays as long as an idle one may, and either
// can then still begin.
func TestDetectSilence(t *testing.T) {
	run(t, []mode{plain, mtlsUp}, soon, func(t *testing.T, b *bed) {
		speak := make(chan struct{})
		o := b.start(func(c *originConn) {
			if h, ok := c.Conn.(*tls.Conn); ok {
				_ = h.Handshake()
			}
			if c.number == 1 {
				<-speak
				c.send("hello")
			}
			answering(okResponse)(c)
		})
		first := b.dial()
		eventually(t, "the call of the endpoint", func() bool { return o.accepted.Load() == 1 })
		second := b.dial()
		eventually(t, "the second call", func() bool { return o.accepted.Load() == 2 })
		close(speak)
		first.expect("hello")
		second.get("/")
		second.expect(okResponse)
		first.Close()
		second.Close()
		b.found(map[string]int{"tcp server_first": 1, "http1 detected": 1})
		b.wantReasons("ok", "ok")
	})
}

// The idle time of an HTTP connection is the longest that both may be silent
// before they are given to each other, and then TCP's holds.
func TestDetectIdle(t *testing.T) {
	change := func(s *setup) {
		soon(s)
		s.http.IdleTimeout, s.policy.TCPIdle = 100*time.Millisecond, 100*time.Millisecond
	}
	run(t, []mode{plain, mtlsUp}, change, func(t *testing.T, b *bed) {
		b.start((*originConn).stall)
		b.dial().closed()
		b.found(map[string]int{"tcp timeout": 1})
		b.wantReasons("stream_idle")
	})
}

// The server ends without a word: so does the client's connection, and nothing
// is learnt.
func TestDetectServerEnds(t *testing.T) {
	for name, script := range map[string]func(*originConn){"in order": func(*originConn) {}, "by a reset": (*originConn).reset} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, plain, soon)
			b.start(script)
			for range 2 {
				c := b.dial()
				c.rest()
				c.Close()
			}
			b.serveEnded()
			// A reset may come before the connection counts as made.
			if n := b.counted(); n["tcp server_first"]+n["tcp timeout"] != 2 {
				t.Errorf("counted %v", n)
			}
			b.records()
		})
	}
}

// There is no endpoint: a silent client is told by the end, as on a TCP
// listener, and one that speaks HTTP by an answer.
func TestDetectNoEndpoint(t *testing.T) {
	b := newBed(t, plain, soon)
	b.to()
	b.dial().closed()
	c := b.dial()
	c.send("\x00")
	c.closed()
	b.found(map[string]int{"tcp timeout": 1, "tcp detected": 1})
	b.wantReasons("no_endpoints", "no_endpoints")

	b = newBed(t, plain, auto)
	b.to()
	c = b.dial()
	c.get("/")
	c.reply(503, "no_endpoints")
}

// rules allow the path /open to everybody and anything to the client with an
// identity.
func rules(t *testing.T) *authz.Policy {
	t.Helper()
	p, err := authz.Compile(authz.Config{Rules: []authz.Rule{
		{Name: "open", From: []string{"*", "anonymous"}, Paths: []string{"/open"}},
		{Name: "client", From: []string{clientID}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// No endpoint is called for those whom the rules allow HTTP only, and what is
// not HTTP is denied. That it might be a request for a server that is less
// strict does not help.
func TestDetectAuthorization(t *testing.T) {
	change := func(s *setup) {
		soon(s)
		s.dir, s.route.Authz = telemetry.Inbound, rules(t)
		s.http.HeadTimeout = time.Millisecond // the rest is Patience
	}
	t.Run("denied", func(t *testing.T) {
		b := newBed(t, plain, change)
		o := b.start(answering(okResponse))
		for _, s := range []string{"\r\n\r\nGET /secret HTTP/1.1\r\nHost: api\r\n\r\n", "GET  /secret HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x00"} {
			c := b.dial()
			c.send(s)
			if got, _ := c.rest(); got != "" {
				t.Errorf("%q: answered %q", s, got)
			}
		}
		b.dial().closed() // silent
		c := b.dial()
		c.get("/secret")
		c.reply(403, "denied")
		c.get("/open")
		c.expect(okResponse)
		c.Close()
		if n := o.accepted.Load(); n != 1 {
			t.Errorf("%d connections to the origin", n)
		}
		b.found(map[string]int{"tcp detected": 3, "tcp timeout": 1, "http1 detected": 1})
		b.wantReasons("denied", "denied", "denied", "denied", "denied", "ok")
	})
	t.Run("allowed", func(t *testing.T) {
		b := newBed(t, mtlsDown, change)
		b.start(func(c *originConn) { c.send("hello"); echoBack(c) })
		c := b.dial()
		c.expect("hello")
		c.Close()
		b.found(map[string]int{"tcp server_first": 1})
		b.wantReasons("ok")
	})
}

// The plan changes while nobody speaks: what follows is decided by the new one.
func TestDetectUnderANewPlan(t *testing.T) {
	nobody, err := authz.Compile(authz.Config{Rules: []authz.Rule{{Name: "b", From: []string{originID}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*testing.T, *bed, *plan.Listener)
		want   string
		reason string
	}{
		"denied": {func(_ *testing.T, _ *bed, l *plan.Listener) { l.Route.Authz = nobody }, "", "denied"},
		"another cluster": {func(t *testing.T, b *bed, l *plan.Listener) {
			spec := b.spec
			spec.Name = "other"
			c := b.registry.Acquire(spec, l.Direction)
			o := b.another(func(c *originConn) { c.send("other " + c.read(1)) })
			c.SetLocal([]upstream.EndpointSpec{{Address: o.addr, Weight: 1, Healthy: true}})
			t.Cleanup(func() { b.registry.Release(c) })
			l.Route.Cluster = c
		}, "other \x00", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, plain, soon)
			o := b.start(func(c *originConn) { c.send("old " + c.read(1)) })
			c := b.dial()
			eventually(t, "the call of the endpoint", func() bool { return o.accepted.Load() == 1 })
			l := *b.plan.Load()
			test.change(t, b, &l)
			b.plan.Store(&l)
			c.send("\x00")
			if got, _ := c.rest(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			c.Close()
			b.serveEnded()
			b.wantReasons(test.reason)
		})
	}
}

// Whatever is under way when the connection is ended from outside, or by the
// client, nothing is left behind.
func TestDetectEnded(t *testing.T) {
	for name, act := range map[string]func(*bed, *client){
		"expired":      func(b *bed, _ *client) { b.expireAll() },
		"client reset": func(_ *bed, c *client) { c.abort() },
	} {
		for where, script := range map[string]func(*originConn){
			"while both are silent": (*originConn).stall,
			// In mtlsUp the handshake is never answered.
			"while the endpoint is called": func(c *originConn) { <-c.o.done },
		} {
			t.Run(name+" "+where, func(t *testing.T) {
				run(t, []mode{plain, mtlsUp}, func(s *setup) { soon(s); s.policy.ConnectTimeout = 300 * time.Millisecond }, func(t *testing.T, b *bed) {
					o := b.start(script)
					c := b.dial()
					eventually(t, "the call of the endpoint", func() bool { return o.accepted.Load() == 1 })
					act(b, c)
					b.serveEnded()
					if !b.last().Idle() {
						t.Error("the client is said to have spoken")
					}
					b.wantReasons()
				})
			})
		}
	}
}

// The client speaks HTTP while the endpoint is still being called, which does
// not keep it waiting.
func TestDetectHTTPDuringCall(t *testing.T) {
	b := newBed(t, mtlsUp, soon)
	hang, answer := make(chan struct{}), make(chan struct{})
	b.start(func(c *originConn) {
		if c.number == 1 {
			close(hang)
			<-answer // the handshake waits
		}
		answering(okResponse)(c)
	})
	c := b.dial()
	<-hang
	c.get("/")
	c.expect(okResponse)
	close(answer)
	c.get("/")
	c.expect(okResponse)
	c.Close()
	b.found(map[string]int{"http1 detected": 1})
	b.wantReasons("ok", "ok")
}
