package exchange_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/websocket"
)

// tunnelEnd is one end of a tunnel as the peer has it: a connection, or a stream
// on one.
type tunnelEnd struct {
	t  testing.TB
	c  net.Conn
	br *bufio.Reader
	f  *framer // nil for a connection
	id uint32
	in string // of a stream, not read yet
}

func (e *tunnelEnd) send(s string) {
	if e.f != nil {
		_ = e.f.WriteData(e.id, false, []byte(s))
		return
	}
	_, _ = io.WriteString(e.c, s)
}

func (e *tunnelEnd) closeWrite() {
	if e.f != nil {
		_ = e.f.WriteData(e.id, true, nil)
		return
	}
	_ = e.c.(*net.TCPConn).CloseWrite()
}

func (e *tunnelEnd) reset() {
	if e.f != nil {
		_ = e.f.WriteRSTStream(e.id, http2.ErrCodeCancel)
		return
	}
	_ = e.c.(*net.TCPConn).SetLinger(0)
	_ = e.c.Close()
}

// read reads n bytes, or until the end, and says how that came: "" not yet,
// "end", "reset", or the code of RST_STREAM.
func (e *tunnelEnd) read(n int) (got, end string) {
	if e.f == nil {
		p := make([]byte, n)
		k, err := io.ReadFull(e.br, p)
		switch {
		case err == nil:
			return string(p), ""
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return string(p[:k]), "end"
		case strings.Contains(err.Error(), "reset by peer"):
			return string(p[:k]), "reset"
		}
		return string(p[:k]), err.Error()
	}
	for len(e.in) < n && end == "" {
		switch fr := e.f.next().(type) {
		case nil:
			end = "gone"
		case *http2.DataFrame:
			e.in += string(fr.Data())
			if fr.StreamEnded() {
				end = "end"
			}
		case *http2.RSTStreamFrame:
			end = fr.ErrCode.String()
		}
	}
	k := min(n, len(e.in))
	got, e.in = e.in[:k], e.in[k:]
	return got, end
}

func (e *tunnelEnd) expect(want string) {
	e.t.Helper()
	if got, end := e.read(len(want)); got != want {
		e.t.Fatalf("got %q (%s), want %q", got, end, want)
	}
}

// ends expects the end: in order, or by a reset.
func (e *tunnelEnd) ends(reset bool) {
	e.t.Helper()
	want := map[bool]string{false: "end", true: "reset"}[reset]
	if reset && e.f != nil {
		want = "CANCEL"
	}
	if got, end := e.read(1); got != "" || end != want {
		e.t.Fatalf("got %q and %s, want %s", got, end, want)
	}
}

var extended = []string{
	":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "api", ":path", "/ws", "sec-websocket-version", "13",
}

// wsKey and wsAccept are those of RFC 6455 section 1.3.
const (
	wsKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	wsAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// open opens a tunnel from downstream.
func (b *bed) open(h2 bool) *tunnelEnd {
	b.t.Helper()
	if h2 {
		f := b.framed()
		f.headers(1, false, extended...)
		e := &tunnelEnd{t: b.t, f: f, id: 1}
		if h, ok := f.next().(*http2.MetaHeadersFrame); !ok || h.PseudoValue("status") != "200" || h.StreamEnded() {
			b.t.Fatalf("got %v, want status 200", h)
		}
		return e
	}
	c := b.dial()
	c.send("GET /ws HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: " + wsKey + "\r\n\r\n")
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(strings.ToLower(head), "sec-websocket-accept: "+strings.ToLower(wsAccept)+"\r\n") {
		b.t.Fatalf("got %q", head)
	}
	return &tunnelEnd{t: b.t, c: c.sock, br: c.br}
}

// originFramer begins HTTP/2 as a server with the given settings.
func originFramer(c *originConn, settings ...http2.Setting) *framer {
	_ = c.read(len(http2.ClientPreface))
	f := newFramer(c.Conn)
	f.Framer = http2.NewFramer(c.Conn, c.br)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings(settings...)
	return f
}

var offersConnect = http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}

// tunnels starts an endpoint that takes tunnels and gives its end of each to
// serve.
func (b *bed) tunnels(h2 bool, serve func(*tunnelEnd)) *origin {
	return b.start(func(c *originConn) {
		if !h2 {
			head := c.head()
			key := ""
			for line := range strings.Lines(head) {
				if name, v, _ := strings.Cut(line, ": "); strings.EqualFold(name, "sec-websocket-key") {
					key = strings.TrimSpace(v)
				}
			}
			if key == "" || !strings.HasPrefix(head, "GET /ws HTTP/1.1\r\n") {
				b.t.Errorf("the origin got %q", head)
			}
			c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptOf(key) + "\r\n\r\n")
			serve(&tunnelEnd{t: b.t, c: c.sock, br: c.br})
			return
		}
		f := originFramer(c, offersConnect)
		for fr := f.next(); fr != nil; fr = f.next() {
			h, ok := fr.(*http2.MetaHeadersFrame)
			if !ok {
				continue
			}
			c.o.heads.Add(1)
			if h.PseudoValue("method") != "CONNECT" || h.PseudoValue("protocol") != "websocket" || h.PseudoValue("path") != "/ws" || h.StreamEnded() {
				b.t.Errorf("the origin got %v", h.Fields)
			}
			f.headers(h.StreamID, false, ":status", "200")
			serve(&tunnelEnd{t: b.t, f: f, id: h.StreamID})
		}
	})
}

// echoes returns every byte, then the end.
func echoes(e *tunnelEnd) {
	for {
		s, end := e.read(1)
		e.send(s)
		if end == "end" {
			e.closeWrite()
		}
		if end != "" {
			return
		}
	}
}

// runTunnels runs f once for each combination of protocols.
func runTunnels(t *testing.T, change func(*setup), f func(*testing.T, legs, *bed)) {
	t.Helper()
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			f(t, l, newBed(t, plain, func(s *setup) {
				s.http2, s.policy.HTTP2 = true, l.up
				if change != nil {
					change(s)
				}
			}))
		})
	}
}

func TestTunnels(t *testing.T) {
	runTunnels(t, nil, func(t *testing.T, l legs, b *bed) {
		b.tunnels(l.up, echoes)
		for range 2 {
			e := b.open(l.down)
			for range 3 {
				e.send("hello")
				e.expect("hello")
			}
			e.closeWrite()
			e.ends(false)
		}
		want := map[bool]int{false: 101, true: 200}[l.down]
		for _, r := range b.wantReasons("ok", "ok") {
			if r.Status != want || r.BytesIn != 15 || r.BytesOut != 15 || r.Attempts != 1 || r.Path != "/ws" {
				t.Errorf("record %+v", r)
			}
		}
	})
}

// TestTunnelsReset: a reset of one end is one of the other.
func TestTunnelsReset(t *testing.T) {
	t.Run("downstream", func(t *testing.T) {
		runTunnels(t, nil, func(t *testing.T, l legs, b *bed) {
			ended := make(chan bool, 1)
			b.tunnels(l.up, func(e *tunnelEnd) {
				defer func() { ended <- true }()
				e.expect("x")
				e.send("y")
				e.ends(true)
			})
			e := b.open(l.down)
			e.send("x")
			e.expect("y")
			e.reset()
			<-ended
			b.wantReasons("downstream_gone")
		})
	})
	t.Run("upstream", func(t *testing.T) {
		runTunnels(t, nil, func(t *testing.T, l legs, b *bed) {
			b.tunnels(l.up, func(e *tunnelEnd) {
				e.expect("x")
				e.reset()
			})
			e := b.open(l.down)
			e.send("x")
			e.ends(true)
			b.wantReasons("upstream_reset")
		})
	})
}

// closes expects a close frame with status 1001 and answers it, as the client of
// a WebSocket.
func (e *tunnelEnd) closes(reason string) {
	e.t.Helper()
	want := append([]byte{0x88, byte(2 + len(reason)), 3, 0xe9}, reason...)
	got, end := e.read(len(want))
	if got != string(want) {
		e.t.Errorf("got %q (%s), want %q", got, end, want)
	}
	e.send("\x88\x82\x00\x00\x00\x00\x03\xe9")
}

// TestWebSocketsClosed: a WebSocket that is ended from here ends with close
// frames, on both legs.
func TestWebSocketsClosed(t *testing.T) {
	for _, test := range []struct {
		name, reason, said string
		cfg                websocket.Config
		act                func(*bed)
	}{
		{"idle", "stream_idle", "idle", websocket.Config{IdleTimeout: 100 * time.Millisecond}, func(*bed) {}},
		{"lifetime", "max_lifetime", "maximum lifetime", websocket.Config{MaxLifetime: 100 * time.Millisecond}, func(*bed) {}},
		{"drain", "draining", "going away", websocket.Default(), func(b *bed) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.sessions[0].Drain()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			runTunnels(t, func(s *setup) { s.policy.WebSocket = test.cfg }, func(t *testing.T, l legs, b *bed) {
				answered := make(chan bool, 1)
				b.tunnels(l.up, func(e *tunnelEnd) {
					defer func() { answered <- true }()
					e.expect("\x81\x80\x00\x00\x00\x00")
					e.send("\x81\x00")
					// The client's answer, passed on, is what asks the server.
					e.expect("\x88\x82\x00\x00\x00\x00\x03\xe9")
					e.send("\x88\x02\x03\xe9")
					e.closeWrite()
					e.ends(false)
				})
				e := b.open(l.down)
				e.send("\x81\x80\x00\x00\x00\x00")
				e.expect("\x81\x00")
				test.act(b)
				e.closes(test.said)
				e.ends(false)
				e.closeWrite()
				<-answered
				b.wantReasons(test.reason)
			})
		})
	}
}

// TestWebSocketOpenedLate: a WebSocket that is opened on a session that goes away
// is closed at once.
func TestWebSocketOpenedLate(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { s.policy.WebSocket = websocket.Default() })
	switching := make(chan bool)
	b.start(func(c *originConn) {
		c.head()
		switching <- true
		<-switching
		c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		e := &tunnelEnd{t: t, c: c.sock, br: c.br}
		e.expect("\x88\x82\x00\x00\x00\x00\x03\xe9")
		e.send("\x88\x02\x03\xe9")
	})
	c := b.dial()
	c.send(upgrade)
	<-switching
	b.mu.Lock()
	b.sessions[0].GoAway()
	b.mu.Unlock()
	switching <- true
	c.expect(switched)
	e := &tunnelEnd{t: t, c: c.sock, br: c.br}
	e.closes("going away")
	c.closed()
	b.wantReasons("draining")
}

// asked is what a client gets for a tunnel that is not made.
func (b *bed) asked(h2 bool, fields ...string) (status, reason string) {
	b.t.Helper()
	if h2 {
		f := b.framed()
		if fields == nil {
			fields = extended
		}
		f.headers(1, false, fields...)
		h, ok := f.next().(*http2.MetaHeadersFrame)
		if !ok {
			b.t.Fatalf("no answer: %v", h)
		}
		for _, f := range h.RegularFields() {
			if f.Name == "x-outrigger-reason" {
				reason = f.Value
			}
		}
		return h.PseudoValue("status"), reason
	}
	c := b.dial()
	c.send(upgrade)
	head := c.head()
	_, reason, _ = strings.Cut(head, "x-outrigger-reason: ")
	reason, _, _ = strings.Cut(reason, "\r\n")
	return head[9:12], reason
}

// TestTunnelsNotMade: whatever keeps a tunnel from being made is said at once.
func TestTunnelsNotMade(t *testing.T) {
	noConnect := func(c *originConn) {
		f := originFramer(c)
		for fr := f.next(); fr != nil; fr = f.next() {
			if h, ok := fr.(*http2.MetaHeadersFrame); ok {
				f.headers(h.StreamID, true, ":status", "204")
			}
		}
	}
	for _, test := range []struct {
		name           string
		legs           []legs
		script         func(*originConn)
		fields         []string
		status, reason string // the answer
		record         string
	}{
		{"extended CONNECT not offered", []legs{{true, true}, {false, true}}, noConnect, nil, "501", "unsupported", "unsupported"},
		{"no SETTINGS", []legs{{true, true}, {false, true}}, (*originConn).stall, nil, "503", "connect_timeout", "connect_timeout"},
		{"the connection ends", []legs{{true, true}, {false, true}}, func(c *originConn) { _ = c.read(1) }, nil, "503", "stale_connection", "stale_connection"},
		{"refused", []legs{{true, false}, {false, false}}, answering("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), nil, "403", "", "ok"},
		{"not switched", []legs{{true, false}}, answering(okResponse), nil, "501", "unsupported", "unsupported"},
		{
			"wrong accept",
			[]legs{{true, false}},
			answering("HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + wsAccept + "\r\n\r\n"),
			nil, "502", "upstream_protocol", "upstream_protocol",
		},
		{
			"a protocol that carries requests",
			[]legs{{true, false}, {true, true}},
			(*originConn).stall,
			[]string{":method", "CONNECT", ":protocol", "h2c", ":scheme", "http", ":authority", "api", ":path", "/"},
			"501", "unsupported", "unsupported",
		},
		{"CONNECT", []legs{{true, false}, {true, true}}, (*originConn).stall, []string{":method", "CONNECT", ":authority", "api:80"}, "501", "unsupported", "unsupported"},
	} {
		for _, l := range test.legs {
			t.Run(fmt.Sprint(test.name, ", ", l), func(t *testing.T) {
				t.Parallel()
				b := newBed(t, plain, func(s *setup) {
					s.http2, s.policy.HTTP2, s.policy.ConnectTimeout = true, l.up, 2*time.Second
				})
				b.start(test.script)
				if status, reason := b.asked(l.down, test.fields...); status != test.status || reason != test.reason {
					t.Errorf("status %s for %q", status, reason)
				}
				b.wantReasons(test.record)
			})
		}
	}
}

// TestUpgradeLeftOut: an offer of another protocol than WebSocket is not made
// to an HTTP/2 endpoint that does not take it.
func TestUpgradeLeftOut(t *testing.T) {
	for name, request := range map[string]string{
		"not offered": "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
		"a list":      "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a, b\r\n\r\n",
		"not GET":     "PUT / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plain, func(s *setup) { s.policy.HTTP2 = true })
			b.start(func(c *originConn) {
				f := originFramer(c)
				for fr := f.next(); fr != nil; fr = f.next() {
					if h, ok := fr.(*http2.MetaHeadersFrame); ok {
						f.headers(h.StreamID, true, ":status", "204")
					}
				}
			})
			c := b.dial()
			for range 2 {
				c.send(request)
				if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 204 ") {
					t.Fatalf("got %q", head)
				}
			}
			b.wantReasons("ok", "ok")
		})
	}
}

// TestStreamTunnelRefusedLater: of the streams on a connection only the tunnel
// ends that the rules do not allow any more.
func TestStreamTunnelRefusedLater(t *testing.T) {
	compile := func(path string) *authz.Policy {
		p, err := authz.Compile(authz.Config{Rules: []authz.Rule{{Name: "a", From: []string{"*"}, Paths: []string{path}}}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	b := newBed(t, mtlsDown, func(s *setup) { s.http2, s.route.Authz = true, compile("/*") })
	b.start(func(c *originConn) {
		if head := c.head(); strings.HasPrefix(head, "GET /other ") {
			c.send(okResponse)
			return
		}
		c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, c.br)
	})
	f := b.framed()
	f.headers(1, false, ":method", "CONNECT", ":protocol", "x", ":scheme", "http", ":authority", "api", ":path", "/ws")
	if h, ok := f.next().(*http2.MetaHeadersFrame); !ok || h.PseudoValue("status") != "200" {
		t.Fatalf("got %v", h)
	}
	b.mu.Lock()
	s := b.sessions[0]
	b.mu.Unlock()
	next := *b.plan.Load()
	next.Route.Authz = compile("/other")
	b.plan.Store(&next)
	// None where the tunnel has not been noted yet: then it ends itself.
	if n := s.Recheck(next.Route.Authz); n > 1 {
		t.Errorf("%d tunnels ended, want 1", n)
	}
	if r, ok := f.next().(*http2.RSTStreamFrame); !ok || r.ErrCode != http2.ErrCodeCancel {
		t.Fatalf("got %v", r)
	}
	f.headers(3, true, ":method", "GET", ":scheme", "http", ":authority", "api", ":path", "/other")
	if h, ok := f.next().(*http2.MetaHeadersFrame); !ok || h.PseudoValue("status") != "200" {
		t.Fatalf("got %v", h)
	}
	b.wantReasons("denied", "ok")
}

// acceptOf is the answer to a key, RFC 6455 section 4.2.2.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
