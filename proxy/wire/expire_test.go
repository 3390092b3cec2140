package wire

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// blocking are calls that wait for a peer that does nothing.
var blocking = map[string]func(c *Conn) error{
	"await":     func(c *Conn) error { return c.Await(func() bool { return true }) },
	"fill":      func(c *Conn) error { return c.Fill() },
	"wide fill": func(c *Conn) error { c.Widen(); return c.Fill() },
	"read":      func(c *Conn) error { _, err := c.Read(make([]byte, 10)); return err },
	"writeread": func(c *Conn) error { return c.WriteRead([]byte("question")) },
	"write": func(c *Conn) error {
		b := make([]byte, Large)
		for {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	},
	"write in await": func(c *Conn) error {
		var err error
		b := make([]byte, Large)
		for err == nil {
			err = c.WriteRead(b)
		}
		return err
	},
}

func TestExpireEndsEveryCall(t *testing.T) {
	for name, call := range blocking {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, m mode) {
				c, _ := connect(t, m, nil)
				done := async(func() error { return call(c) })
				time.Sleep(time.Millisecond) // mostly enough for the call to block
				c.Expire()
				want(t, done, ErrExpired)
				if !c.Expired() {
					t.Error("not expired")
				}
				holdsNothing(t, c)
				// And it stays so, whatever is set.
				c.SetExact(time.Time{})
				if c.SetDeadline(time.Hour) {
					t.Error("a deadline was accepted")
				}
				want(t, async(func() error { return call(c) }), ErrExpired)
			})
		})
	}
}

func TestExpireRacesWithDeadlines(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		for range 30 {
			sw := NewSweeper(time.Now())
			c, p := connect(t, m, sw)
			start := make(chan struct{})
			others := []<-chan error{
				async(func() error { <-start; c.Expire(); return nil }),
				async(func() error { <-start; sw.Sweep(time.Hour); return nil }),
			}
			done := async(func() error {
				close(start)
				for range 5 {
					c.SetDeadline(sw.Now() + time.Minute)
					c.SetExact(time.Now().Add(time.Minute))
					c.SetExact(time.Time{})
				}
				return c.Fill()
			})
			want(t, done, ErrExpired)
			for _, o := range others {
				want(t, o, nil)
			}
			_ = p.sock.Close()
			_ = c.Close()
		}
	})
}

func TestExpireBeforeAndDuringTheHandshake(t *testing.T) {
	server, client := configs()
	for name, hand := range map[string]func(c *Conn) error{
		"server": func(c *Conn) error { return c.Server(server, time.Now().Add(time.Hour)) },
		"client": func(c *Conn) error { return c.Client(client, time.Now().Add(time.Hour)) },
	} {
		for _, before := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				c, _ := connect(t, plain, nil)
				if before {
					c.Expire()
				}
				done := async(func() error { return hand(c) })
				if !before {
					time.Sleep(time.Millisecond)
					c.Expire()
				}
				want(t, done, ErrExpired)
				if c.TLS() != nil {
					t.Error("a failed handshake left TLS behind")
				}
			})
		}
	}
}

func TestHandshakeDeadline(t *testing.T) {
	server, client := configs()
	c, _ := connect(t, plain, nil)
	want(t, async(func() error { return c.Server(server, time.Now().Add(time.Millisecond)) }), ErrExpired)
	c, _ = connect(t, plain, nil)
	want(t, async(func() error { return c.Client(client, time.Now().Add(time.Millisecond)) }), ErrExpired)
	if c.Expired() {
		t.Error("an exact deadline passes for an expiry")
	}
}

func TestSweeperDeadlines(t *testing.T) {
	const minute = time.Minute
	tests := map[string]struct {
		set   []time.Duration
		sweep time.Duration
		ended bool
	}{
		"none":          {nil, 1000 * minute, false},
		"taken back":    {[]time.Duration{minute, 0}, 1000 * minute, false},
		"before":        {[]time.Duration{2 * minute}, minute, false},
		"exactly":       {[]time.Duration{2 * minute}, 2 * minute, false},
		"after":         {[]time.Duration{2 * minute}, 2*minute + 1, true},
		"moved later":   {[]time.Duration{2 * minute, 5 * minute}, 3 * minute, false},
		"moved earlier": {[]time.Duration{5 * minute, 2 * minute}, 3 * minute, true},
		"in the past":   {[]time.Duration{-minute}, minute, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			sw := NewSweeper(time.Now())
			c, p := connect(t, plain, sw)
			for _, at := range tt.set {
				if !c.SetDeadline(at) {
					t.Fatal("refused")
				}
			}
			done := async(c.Fill)
			sw.Sweep(tt.sweep)
			if c.Expired() != tt.ended {
				t.Fatalf("expired: %v, want %v", c.Expired(), tt.ended)
			}
			if tt.ended {
				want(t, done, ErrExpired)
				return
			}
			_ = p.Close()
			want(t, done, io.EOF)
		})
	}
}

func TestSetExactCanBeTakenBack(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		for name, call := range blocking {
			if strings.HasPrefix(name, "write") {
				continue // it may be cut off within a record, which ends TLS
			}
			c.SetExact(time.Now().Add(time.Millisecond))
			want(t, async(func() error { return call(c) }), ErrExpired)
			if c.Expired() {
				t.Fatalf("%s: an exact deadline passes for an expiry", name)
			}
			c.SetExact(time.Time{})
		}
		if _, err := p.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		if err := c.Fill(); err != nil || string(c.Buffered()) != "late" {
			t.Errorf("got %q, %v", c.Buffered(), err)
		}
	})
}

func TestLastWordsOnAnExpiredConnection(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		done := async(func() error { return c.Await(func() bool { return true }) })
		c.Expire()
		want(t, done, ErrExpired)
		c.SetExact(time.Now().Add(patience))
		if _, err := c.Write([]byte("bye")); err != nil {
			t.Fatal(err)
		}
		if err := c.Fill(); !errors.Is(err, ErrExpired) {
			t.Errorf("reading gave %v, want %v", err, ErrExpired)
		}
		b := make([]byte, 3)
		if _, err := io.ReadFull(p, b); err != nil || string(b) != "bye" {
			t.Errorf("the peer got %q, %v", b, err)
		}
		c.SetExact(time.Time{})
		if _, err := c.Write([]byte("more")); !errors.Is(err, ErrExpired) {
			t.Errorf("writing gave %v, want %v", err, ErrExpired)
		}
	})
}

// other is a connection that ends with the one it is told of.
type other struct{ *Conn }

func (o other) Canceled() { o.Expire() }

func TestNotify(t *testing.T) {
	sw := NewSweeper(time.Now())
	a, _ := connect(t, plain, sw)
	b, _ := connect(t, plain, sw)
	a.Notify(other{b})
	done := async(b.Fill)
	a.SetDeadline(1)
	sw.Sweep(2)
	want(t, done, ErrExpired)

	c, _ := connect(t, plain, sw)
	c.Expire()
	d, _ := connect(t, plain, sw)
	c.Notify(other{d})
	if !d.Expired() {
		t.Error("nothing was told of a connection that had expired before")
	}

	e, _ := connect(t, plain, sw)
	f, _ := connect(t, plain, sw)
	e.Notify(other{f})
	e.Notify(nil)
	e.Expire()
	if f.Expired() {
		t.Error("told although that was taken back")
	}
}

// TestAbort: the peer does not see an orderly end, where sockets have another.
func TestAbort(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		c.Abort()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Read(make([]byte, 1)); err == nil || err == io.EOF && m != unixSocket {
			t.Errorf("the peer got %v", err)
		}
	})
}

func TestCloseDoesNotWaitForAPeerThatDoesNotRead(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, _ := connect(t, m, nil)
		full := async(func() error { return blocking["write"](c) })
		time.Sleep(time.Millisecond)
		c.Expire()
		want(t, full, ErrExpired)
		want(t, async(c.Close), nil)
	})
}
