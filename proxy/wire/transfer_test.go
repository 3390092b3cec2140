package wire

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

// drain reads n bytes of the pattern in pieces of changing size.
func drain(r io.Reader, n int) error {
	b := make([]byte, 48<<10)
	for got := 0; got < n; {
		k, err := r.Read(b[:min(1+got*7%len(b), n-got)])
		if !checkPattern(b[:k], got) {
			return fmt.Errorf("wrong bytes at %d", got)
		}
		got += k
		if err != nil {
			return err
		}
	}
	return nil
}

const transfer = 2 << 20

// slow keeps the send buffer small, so that writes are partial.
func slow(t *testing.T, c *Conn) {
	t.Helper()
	if err := c.sock.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
}

func TestLargeWriteToASlowReader(t *testing.T) {
	out := make([]byte, transfer)
	pattern(out, 0)
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		slow(t, c)
		read := async(func() error { return drain(p, transfer) })
		if n, err := c.Write(out); n != transfer || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
		want(t, read, nil)
	})
}

func TestLargeWriteInsideAwait(t *testing.T) {
	out := make([]byte, transfer)
	pattern(out, 0)
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		slow(t, c)
		var n int
		var err error
		served := async(func() error {
			return c.Await(func() bool {
				c.Consume(len(c.Buffered()))
				n, err = c.Write(out)
				return true
			})
		})
		if _, err := p.Write([]byte("go")); err != nil {
			t.Fatal(err)
		}
		if err := drain(p, transfer); err != nil {
			t.Fatal(err)
		}
		_ = p.Close()
		want(t, served, io.EOF)
		if n != transfer || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
}

func TestLargeReads(t *testing.T) {
	calls := map[string]func(c *Conn) error{
		"read": func(c *Conn) error { return drain(c, transfer) },
		"fill": func(c *Conn) error {
			for got := 0; got < transfer; {
				c.Widen()
				if err := c.Fill(); err != nil {
					return err
				}
				if !checkPattern(c.Buffered(), got) {
					return fmt.Errorf("wrong bytes at %d", got)
				}
				got += len(c.Buffered())
				c.Consume(len(c.Buffered()))
			}
			return nil
		},
		"small fills that leave some": func(c *Conn) error {
			for got := 0; got < transfer; {
				if !c.Room(Large) {
					return errors.New("no room")
				}
				if err := c.Fill(); err != nil {
					return err
				}
				use := len(c.Buffered())
				if got+use < transfer && use > 100 {
					use -= 99
				}
				if !checkPattern(c.Buffered()[:use], got) {
					return fmt.Errorf("wrong bytes at %d", got)
				}
				got += use
				c.Consume(use)
			}
			return nil
		},
		"await": func(c *Conn) error {
			got := 0
			wrong := -1
			err := c.Await(func() bool {
				if wrong < 0 && !checkPattern(c.Buffered(), got) {
					wrong = got
				}
				got += len(c.Buffered())
				c.Consume(len(c.Buffered()))
				return got < transfer
			})
			if wrong >= 0 {
				return fmt.Errorf("wrong bytes near %d", wrong)
			}
			return err
		},
	}
	out := make([]byte, transfer)
	pattern(out, 0)
	for name, f := range calls {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, m mode) {
				c, p := connect(t, m, nil)
				wrote := async(func() error { _, err := p.Write(out); return err })
				if err := f(c); err != nil {
					t.Fatal(err)
				}
				want(t, wrote, nil)
			})
		})
	}
}

func TestHalfClose(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := p.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("the peer read %d, %v", n, err)
		}
		// The other direction is open.
		if _, err := p.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		if err := c.Fill(); err != nil || string(c.Buffered()) != "late" {
			t.Errorf("got %q, %v", c.Buffered(), err)
		}
	})
}

// The end stays the end, also where TLS has said it and the socket has not.
func TestEndIsSeenAgain(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		if err := p.closeWrite(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			want(t, async(c.Fill), io.EOF)
			holdsNothing(t, c)
		}
	})
}
