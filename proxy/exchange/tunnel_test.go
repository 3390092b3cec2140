package exchange_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

const (
	upgrade  = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
)

// echoing switches protocols and returns every byte, then the end.
func echoing(t *testing.T) func(*originConn) {
	return func(c *originConn) {
		head := c.head()
		if !strings.HasSuffix(head, "connection: upgrade\r\nupgrade: websocket\r\n") {
			t.Errorf("origin got %q", head)
		}
		c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, c.br)
	}
}

func TestTunnel(t *testing.T) {
	run(t, allModes, nil, func(t *testing.T, b *bed) {
		b.start(echoing(t))
		c := b.dial()
		c.send(upgrade + "early")
		c.expect(switched + "early")
		for range 3 {
			c.send("hello")
			c.expect("hello")
		}
		if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
			_ = w.CloseWrite()
		}
		c.closed()
		rec := b.wantReasons("ok")
		if rec[0].Status != 101 || rec[0].BytesIn != 20 || rec[0].BytesOut != 20 {
			t.Errorf("record %+v", rec[0])
		}
	})
}

// TestTunnelNotMade: an origin that does not switch answers as usual, and the
// connection goes on.
func TestTunnelNotMade(t *testing.T) {
	run(t, allModes, nil, func(t *testing.T, b *bed) {
		b.start(answering(okResponse))
		c := b.dial()
		for range 2 {
			c.send(upgrade)
			c.expect(okResponse)
		}
		b.wantReasons("ok", "ok")
	})
}

// TestTunnelToOtherProtocol: an origin may only switch to what was offered.
func TestTunnelToOtherProtocol(t *testing.T) {
	b := newBed(t, plain, nil)
	b.start(func(c *originConn) {
		c.head()
		c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
		c.stall()
	})
	c := b.dial()
	c.send(upgrade)
	c.reply(502, "upstream_protocol")
}

// TestUpgradeWithBody: the tunnel begins behind the body.
func TestUpgradeWithBody(t *testing.T) {
	run(t, allModes, nil, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) {
			c.head()
			c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			c.send(c.read(5))
			_, _ = io.Copy(c, c.br)
		})
		c := b.dial()
		c.send(strings.Replace(upgrade, "\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n", 1) + "ab")
		time.Sleep(20 * time.Millisecond)
		c.send("cdetunnel")
		c.expect(switched + "abcdetunnel")
		c.Close()
	})
}

// TestTunnelRefusedLater: a tunnel whose caller the rules do not allow any more.
func TestTunnelRefusedLater(t *testing.T) {
	allow, err := authz.Compile(authz.Config{Rules: []authz.Rule{{Name: "a", From: []string{clientID}}}})
	if err != nil {
		t.Fatal(err)
	}
	none, err := authz.Compile(authz.Config{Rules: []authz.Rule{{Name: "b", From: []string{originID}}}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, mtlsDown, func(s *setup) { s.route.Authz, s.dir = allow, telemetry.Inbound })
	b.start(echoing(t))
	c := b.dial()
	c.send(upgrade + "x")
	c.expect(switched + "x")
	b.mu.Lock()
	s := b.sessions[0]
	b.mu.Unlock()
	if n := s.Recheck(allow); n != 0 {
		t.Errorf("%d tunnels ended that are allowed", n)
	}
	next := *b.plan.Load()
	next.Route.Authz = none
	b.plan.Store(&next)
	if n := s.Recheck(none); n != 1 {
		t.Errorf("%d tunnels ended, want 1", n)
	}
	c.rest()
	b.wantReasons("denied")
}

// TestTunnelIdle: a protocol that is not known is cut when nothing moves.
func TestTunnelIdle(t *testing.T) {
	short := func(s *setup) { s.policy.StreamIdle = time.Second }
	other := strings.NewReplacer("websocket", "other")
	run(t, allModes, short, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) {
			c.head()
			c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n")
			_, _ = io.Copy(c, c.br)
		})
		c := b.dial()
		c.send(other.Replace(upgrade) + "x")
		c.expect(other.Replace(switched) + "x")
		c.rest()
		b.wantReasons("stream_idle")
	})
}

func tcp(s *setup) { s.tcp = true }

func TestTCP(t *testing.T) {
	run(t, allModes, tcp, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) {
			c.send("hello ")
			_, _ = io.Copy(c, c.br)
		})
		c := b.dial()
		c.send("world")
		c.expect("hello world")
		_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
		c.closed()
		rec := b.wantReasons("ok")
		if rec[0].BytesIn != 5 || rec[0].BytesOut != 11 || rec[0].Attempts != 1 {
			t.Errorf("record %+v", rec[0])
		}
	})
}

// TestTCPEnds: each way of ending has its reason, and what was taken is given back.
func TestTCPEnds(t *testing.T) {
	nobody, err := authz.Compile(authz.Config{Rules: []authz.Rule{{Name: "b", From: []string{originID}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, reason string
		change       func(*setup)
		script       func(*originConn)
		act          func(*bed, *client)
	}{
		{name: "no endpoints", reason: "no_endpoints", act: func(b *bed, _ *client) { b.to() }},
		{name: "denied", reason: "denied", change: func(s *setup) { s.route.Authz = nobody }},
		{name: "idle", reason: "stream_idle", change: func(s *setup) { s.policy.TCPIdle = 100 * time.Millisecond }, script: (*originConn).stall},
		{name: "upstream resets", reason: "upstream_reset", script: func(c *originConn) { c.read(1); c.reset() }},
		{
			name: "downstream resets", reason: "downstream_gone", script: func(c *originConn) { c.send("a"); c.stall() },
			act: func(_ *bed, c *client) { c.send("x"); c.expect("a"); c.abort() },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			change := func(s *setup) {
				s.tcp = true
				if test.change != nil {
					test.change(s)
				}
			}
			run(t, []mode{plain, mtlsUp}, change, func(t *testing.T, b *bed) {
				script := test.script
				if script == nil {
					script = (*originConn).stall
				}
				b.start(script)
				if test.act != nil && test.script == nil {
					test.act(b, nil)
				}
				c := b.dial()
				if test.act != nil && test.script != nil {
					test.act(b, c)
				} else {
					_, _ = c.Write([]byte("x"))
					c.rest()
				}
				b.serveEnded()
				b.wantReasons(test.reason)
			})
		})
	}
}

// TestTCPConnectRetry: nothing was sent before, so another endpoint is tried.
func TestTCPConnectRetry(t *testing.T) {
	cfg := breaker.Default()
	b := newBed(t, plain, func(s *setup) {
		s.tcp = true
		s.policy.Retry, s.policy.Breaker = retrying(3), &cfg
		s.policy.Limits.MaxRequests, s.policy.Limits.MaxConnections = 5, 5
	})
	good := b.another(func(c *originConn) { c.send("hello"); c.stall() })
	var dead []*origin
	for i := range 2 {
		dead = append(dead, &origin{addr: testkit.Nobody(i)})
	}
	b.to(append(dead, good)...)
	const n = 10
	for range n {
		c := b.dial()
		c.expect("hello")
		c.Close()
		eventually(t, "the end", func() bool { return b.cluster.Limits.Connections.Value() == 0 })
	}
	list := b.records()
	if len(list) != n {
		t.Errorf("%d records", len(list))
	}
	for _, r := range list {
		if r.Reason != "ok" || r.Endpoint != good.addr.String() {
			t.Errorf("record %+v", r)
		}
	}
}
