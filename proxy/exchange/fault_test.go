package exchange_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// TestUpstreamBreaks: an endpoint that goes before, during and after its
// response head.
func TestUpstreamBreaks(t *testing.T) {
	tests := []struct {
		name, response string
		reset          bool
		status         int // of a local reply; 0 when the response had begun
		reason         string
		got            string
	}{
		{name: "closes before the head", status: 503, reason: "upstream_reset"},
		{name: "resets before the head", reset: true, status: 503, reason: "upstream_reset"},
		{name: "closes in the head", response: "HTTP/1.1 200 OK\r\nA:", status: 503, reason: "upstream_reset"},
		{name: "resets in the head", response: "HTTP/1.1 200 OK\r\nA:", reset: true, status: 503, reason: "upstream_reset"},
		{name: "closes behind an interim response", response: "HTTP/1.1 103 Early Hints\r\n\r\n", status: 503, reason: "upstream_reset", got: "HTTP/1.1 103 Early Hints\r\n\r\n"},
		{name: "closes behind the head", response: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", reason: "upstream_reset", got: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		{name: "closes in the body", response: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", reason: "upstream_reset", got: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"},
		{name: "closes in a chunk", response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", reason: "upstream_reset", got: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"},
		{name: "closes between chunks", response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", reason: "upstream_reset", got: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"},
		{name: "bad chunk", response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", reason: "upstream_protocol", got: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"},
		{name: "no HTTP", response: "SSH-2.0-x\r\n", status: 502, reason: "upstream_protocol"},
		{name: "length and chunked", response: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", status: 502, reason: "upstream_protocol"},
		{name: "split field", response: "HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: x\r\n\r\n", status: 502, reason: "upstream_protocol"},
		{name: "long head", response: "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 70_000) + "\r\n\r\n", status: 502, reason: "upstream_protocol"},
		{name: "101 unasked", response: "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", status: 502, reason: "upstream_protocol"},
	}
	run(t, allModes, nil, func(t *testing.T, b *bed) {
		var want []string
		for _, test := range tests {
			b.start(func(c *originConn) {
				c.head()
				c.send(test.response)
				if test.reset {
					c.reset()
				}
			})
			c := b.dial()
			c.get("/")
			c.expect(test.got)
			if test.status != 0 {
				c.reply(test.status, test.reason)
				c.get("/") // the downstream connection is as good as before
				if test.got != "" {
					c.expect(test.got)
				}
				c.reply(test.status, test.reason)
				want = append(want, test.reason)
			} else if got, _ := c.rest(); got != "" {
				t.Errorf("%s: got %q behind the cut", test.name, got)
			}
			want = append(want, test.reason)
			_ = c.Close()
		}
		b.wantReasons(want...)
	})
}

// TestCutBodyOfOldClient: to an HTTP/1.0 client the end of the connection is
// that of the body, so only a reset tells that it was cut off.
func TestCutBodyOfOldClient(t *testing.T) {
	for _, response := range []string{
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
		"HTTP/1.1 200 OK\r\n\r\nab",
	} {
		b := newBed(t, plain, nil)
		b.start(func(c *originConn) {
			c.head()
			c.send(response)
			c.reset()
		})
		c := b.dial()
		c.send("GET / HTTP/1.0\r\n\r\n")
		got, reset := c.rest()
		if !reset {
			t.Errorf("%q: got %q and an end in order", response, got)
		}
		b.wantReasons("upstream_reset")
	}
}

// TestSurplusResponse: bytes behind a response never reach anybody.
func TestSurplusResponse(t *testing.T) {
	run(t, allModes, nil, func(t *testing.T, b *bed) {
		o := b.start(answering(okResponse + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"))
		c := b.dial()
		for range 3 {
			c.get("/")
			c.expect(okResponse)
		}
		if n := o.accepted.Load(); n != 3 {
			t.Errorf("%d connections, want one for each exchange", n)
		}
	})
}

// TestSlowUpstream: each timeout has its status and reason.
func TestSlowUpstream(t *testing.T) {
	// Long enough for the endpoint's beginning to be there before.
	const wait = 500 * time.Millisecond
	for _, test := range []struct {
		name, response, reason string
		status                 int
		change                 func(*upstream.Policy)
	}{
		{"request timeout", "", "request_timeout", 504, func(p *upstream.Policy) { p.Timeout = wait }},
		{"per-try timeout", "", "try_timeout", 504, func(p *upstream.Policy) { p.Retry = retrying(1); p.Retry.PerTryTimeout = wait }},
		{"idle", "", "stream_idle", 504, func(p *upstream.Policy) { p.StreamIdle = wait }},
		{"idle in the head", "HTTP/1.1 200", "stream_idle", 504, func(p *upstream.Policy) { p.StreamIdle = wait }},
		{"idle in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "stream_idle", 0, func(p *upstream.Policy) { p.StreamIdle = wait }},
		{"timeout in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "request_timeout", 0, func(p *upstream.Policy) { p.Timeout = wait }},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, allModes, func(s *setup) { test.change(&s.policy) }, func(t *testing.T, b *bed) {
				b.start(func(c *originConn) {
					c.head()
					c.send(test.response)
					c.stall()
				})
				c := b.dial()
				c.get("/")
				if test.status != 0 {
					c.reply(test.status, test.reason)
				} else {
					c.expect(test.response)
					c.rest()
				}
				c.Close()
				b.wantReasons(test.reason)
			})
		})
	}
}

// TestTimeoutsDoNotCutWhatMoves: a response that takes longer than the idle and
// per-try timeouts goes on as long as it moves.
func TestTimeoutsDoNotCutWhatMoves(t *testing.T) {
	// What moves does so every half a second: four times as often as it must, and for
	// longer than it may stand still.
	const idle, step, steps = 2 * time.Second, 500 * time.Millisecond, 5
	slow := func(s *setup) {
		s.policy.StreamIdle = idle
		s.policy.Retry = retrying(2)
		s.policy.Retry.PerTryTimeout = 2 * time.Second
	}
	run(t, allModes, slow, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) {
			c.head()
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
			for range steps {
				time.Sleep(step)
				c.send("x")
			}
		})
		c := b.dial()
		c.get("/")
		c.expect("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nxxxxx")
		b.wantReasons("ok")
	})
	run(t, allModes, slow, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) {
			c.head()
			if got := c.read(100_000); len(got) != 100_000 {
				t.Errorf("%d bytes of the body came", len(got))
			}
			c.send(okResponse)
		})
		c := b.dial()
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
		for range steps {
			time.Sleep(step)
			c.send(strings.Repeat("x", 100_000/steps))
		}
		c.expect(okResponse)
		b.wantReasons("ok")
	})
}

// TestPerTryTimeoutAfterUpload: the time of an attempt with a long body begins
// with its end.
func TestPerTryTimeoutAfterUpload(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.policy.Retry = retrying(2)
		s.policy.Retry.PerTryTimeout = 100 * time.Millisecond
	})
	b.start(func(c *originConn) {
		c.head()
		c.read(100_000)
		c.stall()
	})
	c := b.dial()
	c.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000))
	c.reply(504, "try_timeout")
	b.wantReasons("try_timeout")
}

// TestSlowClient: neither a body that stops nor a client that does not read
// holds an exchange for longer than the idle time.
func TestSlowClient(t *testing.T) {
	short := func(s *setup) { s.policy.StreamIdle = time.Second }
	t.Run("stops sending", func(t *testing.T) {
		run(t, allModes, short, func(t *testing.T, b *bed) {
			b.start(func(c *originConn) {
				c.head()
				c.stall()
			})
			c := b.dial()
			c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")
			got, _ := c.rest()
			if !strings.HasPrefix(got, "HTTP/1.1 408 ") && !strings.HasPrefix(got, "HTTP/1.1 504 ") {
				t.Errorf("got %q", got)
			}
			list := b.records()
			if len(list) != 1 || list[0].Reason != "downstream_timeout" && list[0].Reason != "stream_idle" {
				t.Errorf("records %+v", list)
			}
		})
	})
	t.Run("does not read", func(t *testing.T) {
		run(t, allModes, short, func(t *testing.T, b *bed) {
			o := b.start(func(c *originConn) {
				c.head()
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
				_, _ = io.Copy(c, &pattern{end: 1_000_000_000})
			})
			c := b.dial()
			c.get("/")
			eventually(t, "the request", func() bool { return o.heads.Load() == 1 })
			b.serveEnded()
			b.wantReasons("stream_idle")
		})
	})
}

// TestDownstreamGone: the client goes in every phase; nothing is left behind.
func TestDownstreamGone(t *testing.T) {
	long := "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
	for _, abort := range []bool{false, true} {
		t.Run(fmt.Sprint("abort ", abort), func(t *testing.T) {
			leave := func(c *client) {
				if abort {
					c.abort()
				} else {
					c.Close()
				}
			}
			t.Run("upload", func(t *testing.T) {
				run(t, allModes, nil, func(t *testing.T, b *bed) {
					o := b.start(func(c *originConn) {
						c.head()
						c.stall()
					})
					c := b.dial()
					c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")
					eventually(t, "the request", func() bool { return o.heads.Load() == 1 })
					leave(c)
					b.serveEnded()
					b.wantReasons("downstream_gone")
				})
			})
			t.Run("download", func(t *testing.T) {
				run(t, allModes, nil, func(t *testing.T, b *bed) {
					b.start(func(c *originConn) {
						c.head()
						c.send(long)
						_, _ = io.Copy(c, &pattern{end: 100_000_000})
					})
					c := b.dial()
					c.get("/")
					c.expect(long)
					leave(c)
					b.serveEnded()
					b.wantReasons("downstream_gone")
				})
			})
			t.Run("waiting", func(t *testing.T) {
				run(t, allModes, nil, func(t *testing.T, b *bed) {
					answer := make(chan struct{})
					o := b.start(func(c *originConn) {
						c.head()
						<-answer
						c.send(okResponse)
						c.stall()
					})
					c := b.dial()
					c.get("/")
					eventually(t, "the request", func() bool { return o.heads.Load() == 1 })
					leave(c)
					close(answer)
					b.serveEnded()
					if n := len(b.records()); n != 1 {
						t.Errorf("%d records", n)
					}
				})
			})
		})
	}
}

// TestHalfClosedClient: a client that has said all may still be answered.
func TestHalfClosedClient(t *testing.T) {
	run(t, []mode{plain, mtlsUp}, nil, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) {
			c.head()
			time.Sleep(20 * time.Millisecond)
			c.send(okResponse)
			c.stall()
		})
		c := b.dial()
		c.get("/")
		_ = c.sock.CloseWrite()
		c.expect(okResponse)
		c.closed()
		b.wantReasons("ok")
	})
}

// TestConnectFailures: nobody listens, nobody is there, nobody answers TLS.
func TestConnectFailures(t *testing.T) {
	b := newBed(t, plain, nil)
	free := testkit.Nobody(0)
	c := b.dial()
	c.get("/")
	c.reply(503, "no_endpoints")
	b.cluster.SetLocal([]upstream.EndpointSpec{{Address: free, Weight: 1, Healthy: true}})
	c.get("/")
	if _, body := c.reply(503, "connect_failed"); !strings.Contains(body, "cluster: api\n") || !strings.Contains(body, "cause: ") {
		t.Errorf("reply %q", body)
	}
	b.cluster.SetLocal([]upstream.EndpointSpec{})
	c.get("/")
	c.reply(503, "no_endpoints")
	b.wantReasons("no_endpoints", "connect_failed", "no_endpoints")
}

func TestHandshakeFailures(t *testing.T) {
	b := newBed(t, mtlsUp, func(s *setup) { s.policy.ConnectTimeout = 2 * time.Second })
	silent, err := net.Listen("tcp", "127.0.0.1:0") // its backlog takes connections, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	wrong := b.anotherBy(serverConfig(b.client), answering(okResponse))
	choosy := b.anotherBy(mtls.ServerConfig(b.origin, mtls.ServerOptions{TrustDomains: []string{"other.test"}}), answering(okResponse))
	clear := b.anotherBy(nil, func(c *originConn) { c.send("HTTP/1.1 400 Bad\r\n\r\n") })
	for _, test := range []struct {
		addr   netip.AddrPort
		reason string
	}{{addrOf(silent.Addr()), "connect_timeout"}, {wrong.addr, "peer_identity"}, {choosy.addr, "handshake_failed"}, {clear.addr, "handshake_failed"}} {
		b.cluster.SetLocal([]upstream.EndpointSpec{{Address: test.addr, Weight: 1, Healthy: true}})
		c := b.dial()
		c.get("/")
		c.reply(503, test.reason)
		c.Close()
	}
	b.wantReasons("connect_timeout", "peer_identity", "handshake_failed", "handshake_failed")
}
