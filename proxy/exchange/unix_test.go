package exchange_test

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// byUnix serves one connection that comes by a Unix socket and returns the
// client's end.
func (b *bed) byUnix() net.Conn {
	b.t.Helper()
	ln, err := net.Listen("unix", filepath.Join(b.t.TempDir(), "s"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	sock, err := ln.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	w, err := wire.New(sock.(wire.Socket), b.sweeper)
	if err != nil {
		b.t.Fatal(err)
	}
	b.serving.Go(func() {
		defer w.Close()
		peer := exchange.Peer{Addr: w.RemoteAddr()}
		if b.plan.Load().Protocol == plan.TCP {
			b.server.ServeTCP(w, peer, &b.plan)
			return
		}
		b.server.NewSession(w, &peer, &b.plan).Serve()
	})
	b.onStop(w.Expire)
	b.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// Of a caller on a Unix socket no address is forwarded or recorded, what came of
// others stays; all such callers count as one address for rate limits, and none
// for a hash.
func TestForwardedByUnixSocket(t *testing.T) {
	limit := hourly(t, "callers", 3, func(l *plan.RateLimit) { l.Key = plan.RateSourceIP })
	b := newBed(t, plain, func(s *setup) {
		limits(limit)(s)
		hashing(balance.Maglev, balance.HashOn{SourceIP: true})(s)
	})
	heads := make(chan string, 1)
	b.start(func(c *originConn) {
		for {
			head := c.head()
			if head == "" {
				return
			}
			heads <- head
			c.send(okResponse)
		}
	})
	c := b.byUnix()
	ask := func(c net.Conn, fields string) {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n"+fields+given+"\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	const begin = "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, test := range []struct{ in, want string }{
		{"", begin + given + "x-forwarded-proto: http\r\n"},
		{"X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n", begin + given + "x-forwarded-for: 1.1.1.1, 2.2.2.2\r\nx-forwarded-proto: http\r\n"},
		{"X-Forwarded-For: \r\nX-Forwarded-Proto: https\r\n", begin + "X-Forwarded-Proto: https\r\n" + given},
	} {
		ask(c, test.in)
		if _, err := io.ReadFull(c, make([]byte, len(okResponse))); err != nil {
			t.Fatal(err)
		}
		if got := <-heads; got != test.want {
			t.Errorf("%q:\ngot  %q\nwant %q", test.in, got, test.want)
		}
	}
	other := b.byUnix()
	ask(other, "")
	got := make([]byte, len("HTTP/1.1 429"))
	if _, err := io.ReadFull(other, got); err != nil || string(got) != "HTTP/1.1 429" {
		t.Errorf("%q %v", got, err)
	}
	b.stop()
	if log := b.access.String(); !strings.Contains(log, `"status":429`) || strings.Contains(log, "downstream_addr") || strings.Contains(log, "invalid") {
		t.Errorf("the access log: %s", log)
	}
}

// TestTCPByUnixSocket: bytes pass, and neither a rate limit nor a hash by address
// stumbles over a caller without one.
func TestTCPByUnixSocket(t *testing.T) {
	limit := hourly(t, "callers", 1, func(l *plan.RateLimit) { l.Key = plan.RateSourceIP })
	b := newBed(t, plain, func(s *setup) {
		s.tcp = true
		limits(limit)(s)
		hashing(balance.Maglev, balance.HashOn{SourceIP: true})(s)
	})
	b.start(func(c *originConn) { _, _ = io.Copy(c, c) })
	c := b.byUnix()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("%q %v", got, err)
	}
	other := b.byUnix()
	if n, err := other.Read(got); n != 0 || err == nil {
		t.Errorf("beyond the rate: %d bytes, %v", n, err)
	}
	_ = c.Close()
	b.stop()
	if log := b.access.String(); strings.Contains(log, "downstream_addr") || strings.Contains(log, "invalid") {
		t.Errorf("the access log: %s", log)
	}
}
