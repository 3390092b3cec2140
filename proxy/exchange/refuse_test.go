package exchange_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// TestRefusedHeads: each is answered with its status and reason, closed, and
// never seen by the origin, together with all that follows it.
func TestRefusedHeads(t *testing.T) {
	const rest = "Host: a\r\n\r\n"
	tests := []struct {
		name, head string
		status     int
		reason     string
	}{
		{"length and chunked", "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n" + rest, 400, "bad_request"},
		{"chunked and length", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n" + rest, 400, "bad_request"},
		{"two lengths", "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n" + rest, 400, "bad_request"},
		{"list of lengths", "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n" + rest, 400, "bad_request"},
		{"signed length", "POST / HTTP/1.1\r\nContent-Length: +3\r\n" + rest, 400, "bad_request"},
		{"hexadecimal length", "POST / HTTP/1.1\r\nContent-Length: 0x3\r\n" + rest, 400, "bad_request"},
		{"huge length", "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n" + rest, 400, "bad_request"},
		{"unknown coding", "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n" + rest, 501, "unsupported"},
		{"chunked twice", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n" + rest, 400, "bad_request"},
		{"hidden coding", "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n" + rest, 501, "unsupported"},
		{"coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" + rest, 400, "bad_request"},
		{"space before colon", "GET / HTTP/1.1\r\nContent-Length : 3\r\n" + rest, 400, "bad_request"},
		{"folded", "GET / HTTP/1.1\r\nA: b\r\n c\r\n" + rest, 400, "bad_request"},
		{"bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"},
		{"bare CR", "GET / HTTP/1.1\r\nA: b\rc\r\n" + rest, 400, "bad_request"},
		{"NUL", "GET / HTTP/1.1\r\nA: \x00\r\n" + rest, 400, "bad_request"},
		{"control byte", "GET / HTTP/1.1\r\nA: \x1b\r\n" + rest, 400, "bad_request"},
		{"no host", "GET / HTTP/1.1\r\nA: b\r\n\r\n", 400, "bad_request"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: b\r\n" + rest, 400, "bad_request"},
		{"bad method", "G(T / HTTP/1.1\r\n" + rest, 400, "bad_request"},
		{"bad target", "GET /\x80 HTTP/1.1\r\n" + rest, 400, "bad_request"},
		{"no version", "GET /\r\n\r\n", 400, "bad_request"},
		{"other version", "GET / HTTP/2.0\r\n" + rest, 505, "unsupported"},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, ""},
		{"TLS to a plaintext port", "\x16\x03\x01\x02\x00\x01", 400, "bad_request"},
		{"long head", "GET / HTTP/1.1\r\nA: " + strings.Repeat("x", 61_500) + "\r\n" + rest, 431, "head_too_large"},
		{"many fields", "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 101) + rest, 431, "head_too_large"},
	}
	run(t, []mode{plain, mtlsDown}, nil, func(t *testing.T, b *bed) {
		o := b.start(answering(okResponse))
		n := 0
		for _, test := range tests {
			for _, before := range []string{"", "GET /first HTTP/1.1\r\nHost: a\r\n\r\n"} {
				c := b.dial()
				go func() {
					_, _ = c.Write([]byte(before + test.head + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
				}()
				if before != "" {
					c.expect(okResponse)
				}
				status, reason := test.status, test.reason
				if status == 0 {
					head := c.head()
					if !strings.HasPrefix(head, "HTTP/1.1 4") && !strings.HasPrefix(head, "HTTP/1.1 5") {
						t.Errorf("%s: %q", test.name, head)
					}
				} else if head, _ := c.reply(status, reason); !strings.Contains(head, "connection: close\r\n") {
					t.Errorf("%s: no close in %q", test.name, head)
				}
				if test.status != 0 {
					c.closed()
				}
				_ = c.Close()
				n++
			}
		}
		if got := o.heads.Load(); got != int64(len(tests)) {
			t.Errorf("the origin saw %d requests, want %d", got, len(tests))
		}
		refused := 0
		for _, r := range b.records() {
			if r.Path == "/smuggled" {
				t.Errorf("record %+v", r)
			}
			if r.Reason != "ok" {
				refused++
			}
		}
		if refused != n {
			t.Errorf("%d refusals recorded, want %d", refused, n)
		}
	})
}

// TestConnect is refused, and what follows is not taken for requests.
func TestConnect(t *testing.T) {
	b := newBed(t, plain, nil)
	o := b.start(answering(okResponse))
	c := b.dial()
	c.send("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.reply(501, "unsupported")
	c.closed()
	if n := o.heads.Load(); n != 0 {
		t.Errorf("the origin saw %d requests", n)
	}
	b.wantReasons("unsupported")
}

// TestSlowHead: a head or a short body that does not come is answered with 408.
func TestSlowHead(t *testing.T) {
	short := func(s *setup) {
		s.http.HeadTimeout, s.policy.StreamIdle = 50*time.Millisecond, 50*time.Millisecond
	}
	for _, part := range []string{"GET", "GET / HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"} {
		t.Run(fmt.Sprintf("%.20s", part), func(t *testing.T) {
			run(t, []mode{plain, mtlsDown}, short, func(t *testing.T, b *bed) {
				b.start(answering(okResponse))
				c := b.dial()
				c.send(part)
				head, _ := c.reply(408, "downstream_timeout")
				if !strings.Contains(head, "connection: close\r\n") {
					t.Errorf("no close in %q", head)
				}
				c.rest()
				b.wantReasons("downstream_timeout")
			})
		})
	}
}

// TestIdleDownstream: a connection without a request ends without a word.
func TestIdleDownstream(t *testing.T) {
	short := func(s *setup) { s.http.IdleTimeout = 50 * time.Millisecond }
	run(t, []mode{plain, mtlsDown}, short, func(t *testing.T, b *bed) {
		b.start(answering(okResponse))
		c := b.dial()
		c.get("/")
		c.expect(okResponse)
		if got, _ := c.rest(); got != "" {
			t.Errorf("got %q", got)
		}
		b.wantReasons("ok")
	})
}

// TestCutHead: the client goes in the middle of a head.
func TestCutHead(t *testing.T) {
	for _, part := range []string{"G", "GET / HTTP/1.1\r\n", "GET /x HTTP/1.1\r\nHost: a\r\nA: b", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab"} {
		for _, abort := range []bool{false, true} {
			b := newBed(t, plain, nil)
			o := b.start(answering(okResponse))
			c := b.dial()
			c.send(part)
			eventually(t, "the exchange's begin", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return len(b.sessions) == 1 && b.sessions[0].Busy()
			})
			if abort {
				c.abort()
			} else {
				c.Close()
			}
			b.serveEnded()
			b.wantReasons("downstream_gone")
			if n := o.heads.Load(); n != 0 {
				t.Errorf("the origin saw %d requests", n)
			}
		}
	}
}

// serveEnded waits until no downstream connection is served any more.
func (b *bed) serveEnded() {
	b.t.Helper()
	_ = b.ln.Close()
	done := make(chan struct{})
	go func() {
		b.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		b.t.Fatal("connections are still served")
	}
}

// TestDenied: the rule is named, and an absolute-form target cannot hide the path.
func TestDenied(t *testing.T) {
	policy, err := authz.Compile(authz.Config{Rules: []authz.Rule{
		{Name: "no-root", Action: authz.Deny, From: []string{"*"}, Paths: []string{"/"}},
		{Name: "clients", Action: authz.Allow, From: []string{clientID}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	guarded := func(s *setup) { s.route.Authz, s.dir = policy, telemetry.Inbound }
	run(t, []mode{plain, mtlsDown}, guarded, func(t *testing.T, b *bed) {
		o := b.start(answering(okResponse))
		c := b.dial()
		reasons := []string{"denied", "denied", "denied", "denied"}
		for _, target := range []string{"/", "/?x", "http://a", "http://a?x"} {
			c.send("GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n")
			rule := "rule: no-root\n"
			if b.mode == plain {
				rule = "rule: default-deny\n" // nobody in particular
			}
			if _, body := c.reply(403, "denied"); !strings.Contains(body, rule) {
				t.Errorf("%s: %q", target, body)
			}
		}
		c.get("/open")
		if b.mode == mtlsDown {
			c.expect(okResponse)
			reasons = append(reasons, "ok")
		} else {
			c.reply(403, "denied")
			reasons = append(reasons, "denied")
		}
		// A body that was not read ends the connection.
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		c.reply(403, "denied")
		c.closed()
		if n := o.heads.Load(); n > 1 {
			t.Errorf("the origin saw %d requests", n)
		}
		b.wantReasons(append(reasons, "denied")...)
	})
}
