package exchange_test

import (
	"io"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
)

// short is a budget that is at a level from the start.
func short(l memory.Level) *memory.Budget {
	const bytes = 1 << 40
	b := memory.New(memory.Options{Bytes: bytes})
	b.Pledge(bytes / 100 * map[memory.Level]int64{memory.Trim: 72, memory.Narrow: 82, memory.Refuse: 92, memory.Shed: 97}[l])
	return b
}

// session returns the only one, once it is there.
func (b *bed) session() (s *exchange.Session) {
	b.t.Helper()
	eventually(b.t, "the session", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.sessions) == 1 {
			s = b.sessions[0]
		}
		return s != nil
	})
	return s
}

// At the end of the budget requests are answered at once, and the connection is
// kept.
func TestShedAnswers503(t *testing.T) {
	m := short(memory.Shed)
	run(t, []mode{plain, mtlsDown}, func(s *setup) { s.memory = m }, func(t *testing.T, b *bed) {
		o := b.start(answering(okResponse))
		c := b.dial()
		for range 3 {
			c.get("/")
			_, body := c.reply(503, "overload")
			if !strings.Contains(body, "short of memory") {
				t.Errorf("body %q", body)
			}
		}
		if n := o.heads.Load(); n != 0 {
			t.Errorf("the origin has seen %d requests", n)
		}
		if m.Given(memory.Exchanges) < 3 {
			t.Errorf("%d counted", m.Given(memory.Exchanges))
		}
	})
}

// Where memory is short a body is not kept, and passed on all the same.
func TestNarrowKeepsNoBody(t *testing.T) {
	for _, l := range []memory.Level{memory.Trim, memory.Narrow} {
		t.Run(l.String(), func(t *testing.T) {
			m := short(l)
			b := newBed(t, plain, func(s *setup) { s.memory = m })
			b.start(func(c *originConn) {
				for {
					_, body, ok := c.message()
					if !ok {
						return
					}
					if body != "0123456789" {
						t.Errorf("body %q", body)
					}
					c.send(okResponse)
				}
			})
			c := b.dial()
			for range 2 {
				eventually(t, "nothing is under way", func() bool { return !b.session().Busy() })
				c.send("POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 10\r\n\r\n")
				eventually(t, "the head is read", b.session().Busy)
				c.send("0123456789")
				if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
					t.Fatal(head)
				}
				c.expect("ok")
			}
			want := uint64(0)
			if l == memory.Narrow {
				want = 2
			}
			if got := m.Given(memory.Bodies); got != want {
				t.Errorf("%d bodies were not kept, want %d", got, want)
			}
		})
	}
}

func TestReliefClosesIdleConnections(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		m := short(memory.Trim)
		b := newBed(t, plain, func(s *setup) { s.memory, s.http2 = m, h2 })
		b.start(answering(okResponse))
		if h2 {
			f := b.framed()
			s := b.session()
			eventually(t, "the connection ends", func() bool { s.Relieve(); return m.Given(memory.IdleConns) > 0 })
			for f.next() != nil {
			}
			continue
		}
		c := b.dial()
		c.get("/")
		c.head()
		c.expect("ok")
		s := b.session()
		eventually(t, "the exchange ends", func() bool { return !s.Busy() })
		s.Relieve()
		c.closed()
		if m.Given(memory.IdleConns) != 1 {
			t.Errorf("%d counted", m.Given(memory.IdleConns))
		}
	}
}

// An exchange that waits for its endpoint is left alone; one whose caller does
// not read is ended, and said to have stood still.
func TestReliefEndsWhatStands(t *testing.T) {
	m := short(memory.Trim)
	b := newBed(t, plain, func(s *setup) { s.memory = m })
	answer := make(chan bool)
	o := b.start(func(c *originConn) {
		if c.head() == "" {
			return
		}
		select {
		case <-answer:
		case <-c.o.done:
			return
		}
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		_, _ = io.CopyN(c.Conn, endless{}, 1e9)
	})
	c := b.dial()
	c.get("/")
	eventually(t, "the request", func() bool { return o.heads.Load() == 1 })
	s := b.session()
	for range 5 {
		s.Relieve()
	}
	if !s.Busy() || m.Given(memory.Stalled) != 0 {
		t.Fatal("an exchange that waits was ended")
	}
	close(answer)
	c.head()
	eventually(t, "the end", func() bool { s.Relieve(); return !s.Busy() })
	if m.Given(memory.Stalled) != 1 {
		t.Errorf("%d counted", m.Given(memory.Stalled))
	}
	c.abort()
	b.stop()
	if log := b.access.String(); !strings.Contains(log, `"reason":"stream_idle"`) {
		t.Errorf("record: %s", log)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
