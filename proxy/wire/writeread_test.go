package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

func TestWriteReadManyTimes(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		answered := async(func() error {
			var b [message]byte
			for {
				if _, err := io.ReadFull(p, b[:]); err != nil {
					return err
				}
				if _, err := p.Write(b[:]); err != nil {
					return err
				}
			}
		})
		var out [message]byte
		for i := range 3000 {
			pattern(out[:], i)
			if err := c.WriteRead(out[:]); err != nil {
				t.Fatalf("exchange %d: %v", i, err)
			}
			if !bytes.Equal(c.Buffered(), out[:]) {
				t.Fatalf("exchange %d: got %x, want %x", i, c.Buffered(), out)
			}
			c.Consume(message)
			c.Release()
		}
		_ = c.Close()
		want(t, answered, io.EOF)
	})
}

func TestWriteReadWaitsForALateAnswerInPieces(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		done := async(func() error { return c.WriteRead([]byte("question")) })
		var b [8]byte
		if _, err := io.ReadFull(p, b[:]); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("returned before the answer: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		for _, s := range []string{"an", "swer"} {
			if _, err := p.Write([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		want(t, done, nil)
		for len(c.Buffered()) < 6 {
			if err := c.Fill(); err != nil {
				t.Fatal(err)
			}
		}
		if got := string(c.Buffered()); got != "answer" {
			t.Errorf("got %q", got)
		}
	})
}

func TestWriteReadOfMoreThanTheSocketTakes(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		const total = 6 << 20
		answered := async(func() error {
			if err := drain(p, total); err != nil {
				return err
			}
			_, err := p.Write([]byte("taken"))
			return err
		})
		out := make([]byte, total)
		pattern(out, 0)
		if err := c.WriteRead(out); err != nil {
			t.Fatal(err)
		}
		if got := string(c.Buffered()); got != "taken" {
			t.Errorf("got %q", got)
		}
		want(t, answered, nil)
	})
}

func TestWriteReadWithoutAnswer(t *testing.T) {
	ends := map[string]struct {
		end func(c *Conn, p *peer)
		is  func(err error) bool
	}{
		"end":     {func(_ *Conn, p *peer) { _ = p.closeWrite() }, func(err error) bool { return err == io.EOF }},
		"reset":   {func(_ *Conn, p *peer) { p.reset() }, isEnd},
		"expired": {func(c *Conn, _ *peer) { c.Expire() }, func(err error) bool { return errors.Is(err, ErrExpired) }},
		"exact":   {func(c *Conn, _ *peer) { c.SetExact(time.Now()) }, func(err error) bool { return errors.Is(err, ErrExpired) }},
	}
	for name, e := range ends {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, m mode) {
				c, p := connect(t, m, nil)
				done := async(func() error { return c.WriteRead([]byte("question")) })
				if _, err := io.ReadFull(p, make([]byte, 8)); err != nil {
					t.Fatal(err)
				}
				e.end(c, p)
				select {
				case err := <-done:
					if !e.is(err) {
						t.Errorf("got %v", err)
					}
				case <-time.After(patience):
					t.Fatal("still blocked")
				}
				holdsNothing(t, c)
			})
		})
	}
}

// A peer that refuses a request before it has read it all answers and closes.
func TestWriteReadFindsTheAnswerOfAPeerThatStoppedReading(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		if _, err := p.Write([]byte("no thanks")); err != nil {
			t.Fatal(err)
		}
		p.reset()
		eventually(t, func() bool { return tcpState(c) != tcpEstablished })
		if err := c.WriteRead(make([]byte, 1000)); err != nil {
			t.Fatalf("the answer is lost: %v", err)
		}
		if got := string(c.Buffered()); got != "no thanks" {
			t.Errorf("got %q", got)
		}
		c.Consume(len(c.Buffered()))
		if c.Quiet() {
			t.Error("the connection passes for one that may be used again")
		}
		if err := c.WriteRead([]byte("next")); !isEnd(err) {
			t.Errorf("the next exchange gave %v, want the end", err)
		}
	})
}

// TLS 1.3 clients learn after their handshake that they were refused.
func TestWriteReadReportsTheAlertOfAPeerThatRefused(t *testing.T) {
	server, client := configs()
	refusal := errors.New("refused")
	a, b := sockets(t)
	c, err := New(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := New(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.Clone()
	cfg.VerifyConnection = func(tls.ConnectionState) error { return refusal }
	refused := async(func() error {
		defer far.Close()
		return far.Server(cfg, time.Now().Add(patience))
	})
	if err := c.Client(client, time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	want(t, refused, refusal)
	eventually(t, func() bool { return tcpState(c) != tcpEstablished })
	err = c.WriteRead([]byte("question"))
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		t.Errorf("got %v, want the peer's alert", err)
	}
}

func TestReadsOfAClosedPeer(t *testing.T) {
	calls := map[string]func(c *Conn) error{
		"await": func(c *Conn) error { return c.Await(func() bool { return true }) },
		"fill":  func(c *Conn) error { return c.Fill() },
		"read":  func(c *Conn) error { _, err := c.Read(make([]byte, 10)); return err },
	}
	ends := map[string]func(p *peer){
		"end":   func(p *peer) { _ = p.closeWrite() },
		"close": func(p *peer) { _ = p.Close() },
		"reset": func(p *peer) { p.reset() },
	}
	for call, f := range calls {
		for end, e := range ends {
			t.Run(call+" "+end, func(t *testing.T) {
				run(t, func(t *testing.T, m mode) {
					c, p := connect(t, m, nil)
					done := async(func() error { return f(c) })
					e(p)
					select {
					case err := <-done:
						reset := end == "reset" && m != unixSocket
						if reset && !errors.Is(err, syscall.ECONNRESET) || !reset && err != io.EOF {
							t.Errorf("got %v", err)
						}
					case <-time.After(patience):
						t.Fatal("still blocked")
					}
					if call != "read" {
						holdsNothing(t, c)
					}
				})
			})
		}
	}
}

func TestTruncatedRecordIsNoOrderlyEnd(t *testing.T) {
	c, p := connect(t, tlsServer, nil)
	done := async(c.Fill)
	if _, err := p.sock.Write([]byte{23, 3, 3, 0, 100, 1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	_ = p.sock.Close()
	want(t, done, io.ErrUnexpectedEOF)
}

func TestWriteToAClosedPeer(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		p.reset()
		eventually(t, func() bool { return tcpState(c) != tcpEstablished })
		if _, err := c.Write([]byte("x")); !isEnd(err) {
			t.Errorf("got %v, want the end", err)
		}
	})
}
