package wire

import (
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// The first bytes of a connection may have been read to see what it speaks.
func TestHandshakeOverBufferedBytes(t *testing.T) {
	for _, least := range []int{1, 4, 5, 6, 100} {
		server, client := configs()
		a, b := sockets(t)
		c, err := New(a, nil)
		if err != nil {
			t.Fatal(err)
		}
		tc := tls.Client(b, client)
		_ = tc.SetDeadline(time.Now().Add(patience))
		hand := async(tc.Handshake)
		for len(c.Buffered()) < least {
			if err := c.Fill(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Server(server, time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		want(t, hand, nil)
		served := async(func() error { return c.Await(echo(c)) })
		if _, err := tc.Write(make([]byte, message)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(tc, make([]byte, message)); err != nil {
			t.Fatal(err)
		}
		_ = tc.Close()
		want(t, served, io.EOF)
		_ = c.Close()
	}
}

func TestHandshakeOverSomethingElse(t *testing.T) {
	server, _ := configs()
	c, p := connect(t, plain, nil)
	if _, err := p.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	err := c.Server(server, time.Now().Add(patience))
	if _, ok := err.(tls.RecordHeaderError); !ok {
		t.Errorf("got %v, want a tls.RecordHeaderError", err)
	}
	_ = c.Close()
	holdsNothing(t, c)
}

// reslice carries a byte stream on in pieces of other sizes than it came in.
func reslice(dst io.WriteCloser, src io.Reader, r *rand.Rand, most int) {
	defer dst.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b[:1+r.IntN(len(b))])
		for p := b[:n]; len(p) > 0; {
			k := min(len(p), 1+r.IntN(most))
			if _, werr := dst.Write(p[:k]); werr != nil {
				return
			}
			p = p[k:]
		}
		if err != nil {
			return
		}
	}
}

func TestStreamsThatAreCutAnywhere(t *testing.T) {
	for seed, most := range []int{3, 40, 3000, 100_000} {
		run(t, func(t *testing.T, m mode) {
			a, x := sockets(t)
			y, b := sockets(t)
			there := async(func() error { reslice(x, y, rand.New(rand.NewPCG(uint64(seed), 1)), most); return nil })
			back := async(func() error { reslice(y, x, rand.New(rand.NewPCG(uint64(seed), 2)), most); return nil })
			c, p := join(t, m, nil, a, b, b)
			served := async(func() error { return c.Await(echo(c)) })
			total := min(most*100, 1<<19) / message * message
			out := make([]byte, total)
			pattern(out, 0)
			wrote := async(func() error {
				r := rand.New(rand.NewPCG(uint64(seed), 3))
				for p2 := out; len(p2) > 0; {
					k := min(len(p2), 1+r.IntN(most))
					if _, err := p.Write(p2[:k]); err != nil {
						return err
					}
					p2 = p2[k:]
				}
				return nil
			})
			if err := drain(p, total); err != nil {
				t.Fatal(err)
			}
			want(t, wrote, nil)
			_ = p.Close()
			want(t, served, io.EOF)
			_ = c.Close()
			<-there
			<-back
			_, _ = x.Close(), y.Close()
		})
	}
}

func TestQuiet(t *testing.T) {
	tests := map[string]struct {
		do    func(c *Conn, p *peer)
		quiet bool
	}{
		"open":  {func(*Conn, *peer) {}, true},
		"end":   {func(_ *Conn, p *peer) { _ = p.closeWrite() }, false},
		"close": {func(_ *Conn, p *peer) { _ = p.Close() }, false},
		"reset": {func(_ *Conn, p *peer) { p.reset() }, false},
		"dirty": {func(_ *Conn, p *peer) { _, _ = p.Write([]byte("x")) }, false},
		"left over": {func(c *Conn, p *peer) {
			_, _ = p.Write([]byte("xy"))
			_, _ = io.ReadFull(c, make([]byte, 1))
		}, false},
		"buffered": {func(c *Conn, p *peer) {
			_, _ = p.Write([]byte("x"))
			_ = c.Fill()
		}, false},
		"consumed": {func(c *Conn, p *peer) {
			_, _ = p.Write([]byte("x"))
			_ = c.Fill()
			c.Consume(1)
		}, true},
		"expired": {func(c *Conn, _ *peer) { c.Expire() }, true}, // not what it asks for
		"closed":  {func(c *Conn, _ *peer) { _ = c.Close() }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, m mode) {
				c, p := connect(t, m, nil)
				// An exchange first: it takes up the session tickets too.
				replied := async(func() error {
					b := make([]byte, 1)
					_, err := io.ReadFull(p, b)
					if err == nil {
						_, err = p.Write(b)
					}
					return err
				})
				if err := c.WriteRead([]byte("q")); err != nil {
					t.Fatal(err)
				}
				want(t, replied, nil)
				c.Consume(1)
				tt.do(c, p)
				if tt.quiet {
					for range 3 {
						if !c.Quiet() {
							t.Fatal("not quiet")
						}
					}
					return
				}
				eventually(t, func() bool { return !c.Quiet() })
			})
		})
	}
}

func TestQuietInTheMiddleOfARecord(t *testing.T) {
	c, p, w := crafty(t, tlsClient)
	reply := w.data("a")
	unasked := w.data("evil")
	if _, err := p.sock.Write(join2(reply, unasked[:7])); err != nil {
		t.Fatal(err)
	}
	served := 0
	if err := c.Await(func() bool { served++; c.Consume(len(c.Buffered())); return served < 1 }); err != nil {
		t.Fatal(err)
	}
	c.SetExact(time.Now().Add(time.Millisecond))
	_ = c.Fill() // takes the partial record out of the socket
	c.SetExact(time.Time{})
	if n := unread(c); n != 0 {
		t.Fatalf("%d bytes unread", n)
	}
	if c.Quiet() {
		t.Error("quiet with half a record read")
	}
}

func TestAddresses(t *testing.T) {
	ln, err := net.Listen("tcp", "[::]:0") // gives IPv4-mapped addresses
	if err != nil {
		t.Skip(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	d, err := net.Dial("tcp4", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(a.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.RemoteAddr().String(); got != d.LocalAddr().String() {
		t.Errorf("remote %s, want %s", got, d.LocalAddr())
	}
	if got := c.LocalAddr().String(); got != d.RemoteAddr().String() {
		t.Errorf("local %s, want %s", got, d.RemoteAddr())
	}
}
