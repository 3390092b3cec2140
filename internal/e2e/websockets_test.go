package e2e

//lint:file-ignore SA1019 the transport of net/http refuses a field with the name :protocol

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
)

// accepting is an application that takes WebSockets, by HTTP/1.1 and by HTTP/2,
// and echoes their messages. Under /tell it says first how it was asked. How each
// ended goes to ended.
func accepting(ended chan<- error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto := r.Proto
		if r.ProtoMajor == 2 {
			w, r = overStream(w, r)
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		c.SetReadLimit(-1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if r.URL.Path == "/tell" {
			_ = c.Write(ctx, websocket.MessageText, []byte(proto))
		}
		for {
			kind, p, err := c.Read(ctx)
			if err == nil {
				err = c.Write(ctx, kind, p)
			}
			if err != nil {
				ended <- err
				_ = c.CloseNow()
				return
			}
		}
	})
}

// overStream makes an extended CONNECT (RFC 8441) look like an upgrade to a
// library that knows only those.
func overStream(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	if r.Method != http.MethodConnect || r.Header.Get(":protocol") != "websocket" {
		return w, r
	}
	r = r.Clone(r.Context())
	r.Method = http.MethodGet
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Key", base64.StdEncoding.EncodeToString(make([]byte, 16)))
	return &streamWriter{ResponseWriter: w, body: r.Body}, r
}

type streamWriter struct {
	http.ResponseWriter
	body io.ReadCloser
}

func (s *streamWriter) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols {
		status = http.StatusOK
		for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Accept"} {
			s.Header().Del(name)
		}
	}
	s.ResponseWriter.WriteHeader(status)
	_ = http.NewResponseController(s.ResponseWriter).Flush()
}

func (s *streamWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := streamConn{s: s}
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

// streamConn is a server's stream as a connection.
type streamConn struct {
	net.Conn
	s *streamWriter
}

func (c streamConn) Read(p []byte) (int, error)  { return c.s.body.Read(p) }
func (c streamConn) Close() error                { return c.s.body.Close() }
func (c streamConn) SetDeadline(time.Time) error { return nil }

func (c streamConn) Write(p []byte) (int, error) {
	n, err := c.s.ResponseWriter.Write(p)
	if err == nil {
		err = http.NewResponseController(c.s.ResponseWriter).Flush()
	}
	return n, err
}

// connecting opens WebSockets by extended CONNECT for a library that asks for an
// upgrade.
type connecting struct{ t *http2.Transport }

func (c connecting) RoundTrip(r *http.Request) (*http.Response, error) {
	body, send := io.Pipe()
	ask, err := http.NewRequest(http.MethodConnect, r.URL.String(), body)
	if err != nil {
		return nil, err
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "Sec-Websocket-") && name != "Sec-Websocket-Key" {
			ask.Header[name] = values
		}
	}
	ask.Header[":protocol"] = []string{"websocket"}
	resp, err := c.t.RoundTrip(ask)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	resp.StatusCode = http.StatusSwitchingProtocols
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	resp.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	resp.Body = &bothWays{resp.Body, send}
	return resp, nil
}

type bothWays struct {
	io.ReadCloser
	send *io.PipeWriter
}

func (b *bothWays) Write(p []byte) (int, error) { return b.send.Write(p) }
func (b *bothWays) Close() error                { return errors.Join(b.send.Close(), b.ReadCloser.Close()) }

// dialWebSocket opens a WebSocket by either protocol.
func dialWebSocket(t *testing.T, url string, overHTTP2, compress bool) *websocket.Conn {
	t.Helper()
	client := &http.Client{}
	if overHTTP2 {
		tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
		t.Cleanup(tr.CloseIdleConnections)
		client.Transport = connecting{tr}
	} else {
		tr := &http.Transport{}
		t.Cleanup(tr.CloseIdleConnections)
		client.Transport = tr
	}
	o := &websocket.DialOptions{HTTPClient: client}
	if compress {
		o.CompressionMode = websocket.CompressionContextTakeover
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	if got := strings.Contains(resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate"); got != compress {
		t.Errorf("compressed: %v, want %v", got, compress)
	}
	c.SetReadLimit(-1)
	return c
}

// converse sends messages of random sizes and compares what comes back, while
// pings are answered.
func converse(t *testing.T, c *websocket.Conn, messages int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	message := func(i int) []byte {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		n := r.IntN(126)
		switch r.IntN(20) {
		case 0:
			n = 1<<16 + r.IntN(100_000) // eight bytes of length
		case 1, 2, 3, 4, 5:
			n = 126 + r.IntN(8000)
		}
		b := bytes.Repeat([]byte{byte(i), byte(i >> 8), 'x'}, n/3+1)[:n]
		for range n / 5 {
			b[r.IntN(n)] = byte(r.Uint32())
		}
		return b
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for i := range messages {
			if err := c.Write(ctx, websocket.MessageBinary, message(i)); err != nil {
				t.Errorf("message %d: %v", i, err)
				return
			}
			if i%200 == 0 {
				if err := c.Ping(ctx); err != nil {
					t.Errorf("ping at message %d: %v", i, err)
					return
				}
			}
		}
	})
	for i := range messages {
		_, got, err := c.Read(ctx)
		if err != nil {
			cancel()
			t.Errorf("echo %d: %v", i, err)
			return
		}
		if want := message(i); !bytes.Equal(got, want) {
			cancel()
			t.Errorf("echo %d: %d bytes came, %d were sent", i, len(got), len(want))
			return
		}
	}
}

// hop is what is spoken between two sidecars.
type hop struct{ name, protocol, policy string }

// A WebSocket passes in every combination of the protocols of its client, of the
// hop between two sidecars and of the application, with and without compression.
func TestWebSockets(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for _, app := range []string{"http", "http2"} {
		for _, between := range []hop{
			{"one connection", "http", "{}"},
			{"HTTP/1.1", "http", "{multiplex: false}"},
			{"HTTP/2", "http2", "{multiplex: false}"},
		} {
			m := &mesh{t: t, dir: t.TempDir(), ca: m.ca}
			ended := make(chan error, 10)
			start := serve
			if app == "http2" {
				start = serveHTTP2
			}
			p := m.pairAs(between.protocol, app, start(t, accepting(ended)), sections{"policies": "{api: " + between.policy + "}"}, nil)
			for i, http2 := range []bool{false, true} {
				t.Run(fmt.Sprintf("client over HTTP/2 %v, %s, application %s", http2, between.name, app), func(t *testing.T) {
					c := dialWebSocket(t, p.call+fmt.Sprint("/ws", i), http2, (i == 0) == (app == "http"))
					converse(t, c, 1000)
					if err := c.Close(websocket.StatusNormalClosure, "that is all"); err != nil {
						t.Errorf("closing: %v", err)
					}
					var said websocket.CloseError
					if err := <-ended; !errors.As(err, &said) || said.Code != websocket.StatusNormalClosure || said.Reason != "that is all" {
						t.Errorf("for the application it ended with %v", err)
					}
					want := map[bool]int{false: 101, true: 200}
					for _, s := range []*sidecar{p.web, p.api} {
						over2 := http2
						if s == p.api {
							over2 = between.name == "HTTP/2"
						}
						r := s.recorded("the WebSocket", func(r *record) bool { return r.Path == fmt.Sprint("/ws", i) })
						if r.Status != want[over2] || r.Flag != "-" || r.BytesIn < 1<<20 || r.BytesOut < 1<<20 {
							t.Errorf("%s: %+v, want status %d", s.name, r, want[over2])
						}
					}
				})
			}
			p.web.counts(2, "outrigger_tunnels_total", `reason="ok"`)
			eventually(t, patience, "no tunnel is counted as active", func() (bool, string) {
				n := p.web.metric("outrigger_tunnels_active")
				return n == 0, fmt.Sprint(n)
			})
		}
	}
}

// Without a mesh: one proxy in front of an application, all in plain text.
func TestWebSocketsPlain(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for _, app := range []string{"http", "http2"} {
		ended := make(chan error, 10)
		start := serve
		if app == "http2" {
			start = serveHTTP2
		}
		m := &mesh{t: t, dir: t.TempDir(), ca: m.ca}
		m.catalog(map[string][]string{"api": {loopback(start(t, accepting(ended)))}})
		edge, address := m.outboundAs(app, "edge", "api", sections{"policies": "{api: {transport: plaintext}}"})
		edge.ready()
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("client over HTTP/2 %v, application %s", http2, app), func(t *testing.T) {
				c := dialWebSocket(t, "http://"+address+"/tell", http2, false)
				_, got, err := c.Read(t.Context())
				if want := map[string]string{"http": "HTTP/1.1", "http2": "HTTP/2.0"}[app]; string(got) != want || err != nil {
					t.Errorf("the application was asked by %q (%v), want %s", got, err, want)
				}
				converse(t, c, 1000)
				_ = c.Close(websocket.StatusNormalClosure, "")
				<-ended
			})
		}
	}
}

// goingAway expects a close frame of the proxy's on both sides.
func goingAway(t *testing.T, c *websocket.Conn, ended <-chan error, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, _, err := c.Read(ctx)
	var said websocket.CloseError
	if !errors.As(err, &said) || said.Code != websocket.StatusGoingAway || said.Reason != reason {
		t.Errorf("for the client it ended with %v, want %q", err, reason)
	}
	if err := <-ended; !errors.As(err, &said) || said.Code != websocket.StatusGoingAway {
		t.Errorf("for the application it ended with %v", err)
	}
}

// A sidecar that stops, on either side, closes WebSockets with close frames, and
// then has cut nothing.
func TestWebSocketDrain(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"api", "web"} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s stops, client over HTTP/2 %v", which, http2), func(t *testing.T) {
				t.Parallel()
				m := newMesh(t)
				ended := make(chan error, 10)
				drain := sections{"drain": "{delay: 0s, timeout: 10s}"}
				p := m.pair(serve(t, accepting(ended)), drain, drain)
				c := dialWebSocket(t, p.call+"/ws", http2, false)
				converse(t, c, 10)
				s := map[string]*sidecar{"api": p.api, "web": p.web}[which]
				s.signal(syscall.SIGTERM)
				goingAway(t, c, ended, "going away")
				_ = c.CloseNow()
				if code := s.code(patience); code != 0 {
					t.Errorf("exit code %d", code)
				}
				if r := s.recorded("the WebSocket", func(r *record) bool { return r.Path == "/ws" }); r.Reason != "draining" {
					t.Errorf("record %+v", r)
				}
			})
		}
	}
}

// A WebSocket that is idle, or too old, is closed with close frames.
func TestWebSocketLimits(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for _, test := range []struct{ name, policy, said, reason string }{
		{"idle", "{websocket: {idle_timeout: 400ms}}", "idle", "stream_idle"},
		{"old", "{websocket: {max_lifetime: 400ms}}", "maximum lifetime", "max_lifetime"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &mesh{t: t, dir: t.TempDir(), ca: m.ca}
			ended := make(chan error, 10)
			p := m.pair(serve(t, accepting(ended)), sections{"policies": "{api: " + test.policy + "}"}, nil)
			for _, http2 := range []bool{false, true} {
				c := dialWebSocket(t, p.call+"/ws", http2, false)
				goingAway(t, c, ended, test.said)
			}
			p.web.counts(2, "outrigger_tunnels_total", fmt.Sprintf("reason=%q", test.reason))
		})
	}
}
