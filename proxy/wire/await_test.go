package wire

import (
	"bytes"
	"io"
	"testing"
	"time"
)

const message = 16 // bytes in each message of the tests of Await

// echo answers every whole message in the buffer with itself.
func echo(c *Conn) func() bool {
	return func() bool {
		for len(c.Buffered()) >= message {
			if _, err := c.Write(c.Buffered()[:message]); err != nil {
				return false
			}
			c.Consume(message)
		}
		return true
	}
}

func TestAwaitCarriesManySmallMessages(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		served := async(func() error { return c.Await(echo(c)) })
		var out, in [message]byte
		for i := range 3000 {
			pattern(out[:], i)
			if _, err := p.Write(out[:]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(p, in[:]); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			if in != out {
				t.Fatalf("message %d: got %x, want %x", i, in, out)
			}
		}
		if err := p.closeWrite(); err != nil {
			t.Fatal(err)
		}
		want(t, served, io.EOF)
		holdsNothing(t, c)
	})
}

func TestAwaitPutsSplitMessagesTogether(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		served := async(func() error { return c.Await(echo(c)) })
		var out, in [message]byte
		for i := range 20 {
			pattern(out[:], i)
			for k := range out {
				if _, err := p.Write(out[k : k+1]); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.ReadFull(p, in[:]); err != nil {
				t.Fatal(err)
			}
			if in != out {
				t.Fatalf("message %d: got %x, want %x", i, in, out)
			}
		}
		_ = p.Close()
		want(t, served, io.EOF)
	})
}

func TestAwaitServesPipelinedMessages(t *testing.T) {
	// Sizes around those of the buffers, so that the last read of a batch is
	// sometimes full, sometimes not, and messages straddle reads.
	for _, size := range []int{message, Small - message, Small, Small + message, 5*Small + 8*message, Large, 3 * Large} {
		run(t, func(t *testing.T, m mode) {
			c, p := connect(t, m, nil)
			served := async(func() error { return c.Await(echo(c)) })
			out := make([]byte, size)
			pattern(out, 0)
			wrote := async(func() error { _, err := p.Write(out); return err })
			in := make([]byte, size)
			if _, err := io.ReadFull(p, in); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(in, out) {
				t.Fatal("the echo differs")
			}
			want(t, wrote, nil)
			_ = p.Close()
			want(t, served, io.EOF)
		})
	}
}

func TestAwaitBeginsWithWhatIsBuffered(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		if _, err := p.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		if err := c.Fill(); err != nil {
			t.Fatal(err)
		}
		var got []string
		f := func() bool {
			got = append(got, string(c.Buffered()))
			c.Consume(len(c.Buffered()))
			return len(got) < 2
		}
		served := async(func() error { return c.Await(f) })
		if _, err := p.Write([]byte("def")); err != nil {
			t.Fatal(err)
		}
		want(t, served, nil)
		if len(got) != 2 || got[0] != "abc" || got[1] != "def" {
			t.Errorf("got %q", got)
		}
	})
}

func TestAwaitHandsOverToFill(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		const total = 300_000
		out := make([]byte, total)
		pattern(out, 0)
		wrote := async(func() error { _, err := p.Write(out); return err })
		if err := c.Await(func() bool { return false }); err != nil {
			t.Fatal(err)
		}
		got := 0
		for {
			b := c.Buffered()
			if !checkPattern(b, got) {
				t.Fatalf("wrong bytes at %d", got)
			}
			got += len(b)
			c.Consume(len(b))
			if got == total {
				break
			}
			c.Widen()
			if err := c.Fill(); err != nil {
				t.Fatal(err)
			}
		}
		want(t, wrote, nil)
		// And back again.
		served := async(func() error { return c.Await(echo(c)) })
		var in [message]byte
		if _, err := p.Write(out[:message]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p, in[:]); err != nil {
			t.Fatal(err)
		}
		_ = p.Close()
		want(t, served, io.EOF)
	})
}

func TestAwaitRefusesMoreThanItsBuffer(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		c, p := connect(t, m, nil)
		wrote := async(func() error { _, err := p.Write(make([]byte, 4*Large)); return err })
		if err := c.Await(func() bool { return true }); err != io.ErrShortBuffer {
			t.Errorf("got %v, want %v", err, io.ErrShortBuffer)
		}
		if n := len(c.Buffered()); n != Large {
			t.Errorf("%d bytes buffered, want %d", n, Large)
		}
		_ = c.Close()
		<-wrote
	})
}

// An end that comes with the last bytes is reported by the poller together with
// them. A read that takes the bytes and is short of its buffer does not see it.
func TestAwaitLearnsOfAnEndThatCameWithTheBytes(t *testing.T) {
	for name, end := range map[string]func(p *peer) error{
		"half close": func(p *peer) error { return p.sock.CloseWrite() },
		"reset":      func(p *peer) error { p.reset(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, m mode) {
				sw := NewSweeper(time.Now())
				c, p := connect(t, m, sw)
				if _, err := p.Write(make([]byte, message)); err != nil {
					t.Fatal(err)
				}
				if err := end(p); err != nil {
					t.Fatal(err)
				}
				// The bytes and the end are both there before the wait begins.
				eventually(t, func() bool { return tcpState(c) != tcpEstablished })
				calls := 0
				served := async(func() error {
					return c.Await(func() bool { calls++; c.Consume(len(c.Buffered())); return true })
				})
				for stop := time.Now().Add(patience); ; {
					if time.Now().After(stop) {
						t.Fatal("the end went unnoticed")
					}
					select {
					case err := <-served:
						if !isEnd(err) {
							t.Errorf("got %v, want the end", err)
						}
						if name == "half close" && calls != 1 {
							t.Errorf("f was called %d times, want 1", calls)
						}
						return
					case <-time.After(time.Millisecond):
						sw.Sweep(0)
					}
				}
			})
		})
	}
}

func TestSecondLookLeavesOpenConnectionsAlone(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		sw := NewSweeper(time.Now())
		c, p := connect(t, m, sw)
		c.parked.Store(parkedUnsure)
		for i, state := range []uint32{parkedOnce, awake, awake} {
			sw.Sweep(0)
			if got := c.parked.Load(); got != state {
				t.Fatalf("state %d after sweep %d, want %d", got, i+1, state)
			}
		}
		served := async(func() error { return c.Await(echo(c)) })
		var b [message]byte
		for range 50 {
			if _, err := p.Write(b[:]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(p, b[:]); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				sw.Sweep(0)
			}
		}
		_ = p.Close()
		want(t, served, io.EOF)
	})
}
