package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// far is what a test holds of an HTTP/2 leg: the peer's stream.
type far struct {
	net.Conn
	s *http2.Stream
}

func (f far) Read(p []byte) (int, error) { return f.s.Read(p) }
func (f far) CloseWrite() error          { return f.s.Write(nil, http2.End) }

func (f far) Write(p []byte) (int, error) {
	if err := f.s.Write(p, 0); err != nil {
		return 0, err
	}
	return len(p), nil
}

const (
	ask  = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
	said = "HTTP/1.1 101 \r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
)

// streams returns both ends of a tunnel on one HTTP/2 connection.
func streams(t testing.TB, sw *wire.Sweeper) (client, server *http2.Stream) {
	t.Helper()
	a, b := sockets(t)
	var conns [2]*wire.Conn
	for i, sock := range []*net.TCPConn{a, b} {
		c, err := wire.New(sock, sw)
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	swept := http2.NewSweeper(sw.Now)
	ctx, cancel := context.WithCancel(context.Background())
	cfg := &http2.Config{ExtendedConnect: true, Sweeper: swept, Window: 64 << 10, MaxWindow: 64 << 10}
	got, release := make(chan *http2.Stream, 1), make(chan bool)
	s := http2.NewServer(conns[0], cfg, func(st *http2.Stream) {
		got <- st
		<-release
	})
	c := http2.NewClient(conns[1], cfg)
	var all sync.WaitGroup
	all.Go(func() { _ = s.Serve() })
	all.Go(func() { _ = c.Run() })
	all.Go(func() { _ = swept.Run(ctx) })
	client, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		close(release)
		c.Close()
		s.Close()
		cancel()
		all.Wait()
		_, _ = conns[0].Close(), conns[1].Close()
	})
	if err := client.MayTunnel(patience); err != nil {
		t.Fatal(err)
	}
	if err := client.WriteRequest([]byte(ask), nil, 0); err != nil {
		t.Fatal(err)
	}
	server = <-got
	if err := server.WriteResponse([]byte(said), nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := client.ReadHead(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// runStreams runs f once for each kind of relay with at least one stream.
func runStreams(t *testing.T, idle time.Duration, f func(*testing.T, *mixed)) {
	t.Helper()
	for name, which := range map[string][2]bool{"stream to stream": {true, true}, "stream to tcp": {true, false}, "tcp to stream": {false, true}} {
		t.Run(name, func(t *testing.T) { f(t, startMixed(t, which, idle)) })
	}
}

// mixed is a running relay of which a leg is a stream.
type mixed struct {
	bench
	legs [2]Leg
}

func startMixed(t *testing.T, which [2]bool, idle time.Duration) *mixed {
	m := &mixed{bench: bench{sw: wire.NewSweeper(time.Now()), result: make(chan Result, 1)}}
	ends := [2]*end{}
	for i, isStream := range which {
		switch {
		case !isStream:
			c, e := leg(t, m.sw, false, false)
			m.legs[i], ends[i] = Conn(c), e
		case i == 0:
			c, s := streams(t, m.sw)
			m.legs[i], ends[i] = Stream(s), &end{Conn: far{s: c}}
		default:
			c, s := streams(t, m.sw)
			m.legs[i], ends[i] = Stream(c), &end{Conn: far{s: s}}
		}
	}
	m.client, m.server = ends[0], ends[1]
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = m.sw.Run(ctx) })
	all.Go(func() {
		r := Run(m.legs[0], m.legs[1], Options{Now: m.sw.Now, Idle: idle})
		for _, l := range m.legs {
			if c, ok := l.(conn); ok {
				_ = c.Conn.Close()
			}
		}
		m.result <- r
	})
	t.Cleanup(func() {
		m.legs[0].Expire()
		cancel()
		all.Wait()
	})
	return m
}

// reset ends the far side of a leg without order.
func reset(e *end) {
	if f, ok := e.Conn.(far); ok {
		f.s.Reset(http2.Cancel)
		return
	}
	e.reset()
}

// wasReset reads on and checks that the leg does not end in order.
func wasReset(t *testing.T, e *end) {
	t.Helper()
	_, err := io.Copy(io.Discard, e)
	if err == nil {
		t.Error("a leg that was cut seems to have ended in order")
	}
	if f, ok := e.Conn.(far); ok {
		var h *http2.Error
		if err := f.s.Err(); !errors.As(err, &h) || h.Code != http2.Cancel || !h.Remote {
			t.Errorf("the stream was ended by %v, want RST_STREAM with CANCEL", err)
		}
	}
}

func TestStreamsBothWays(t *testing.T) {
	runStreams(t, time.Minute, func(t *testing.T, m *mixed) {
		const up, down = 1 << 20, 700_000
		sent, got := make(chan flow, 2), make(chan flow, 2)
		go func() { s, err := send(m.client, 1, up); sent <- flow{s, up, err} }()
		go func() { s, err := send(m.server, 2, down); sent <- flow{s, down, err} }()
		go func() { s, n, err := receive(m.server, 1); got <- flow{s, n, err} }()
		go func() { s, n, err := receive(m.client, 2); got <- flow{s, n, err} }()
		want := map[int]uint64{}
		for range 2 {
			f := <-sent
			if f.err != nil {
				t.Fatal(f.err)
			}
			want[f.n] = f.sum
		}
		for range 2 {
			if f := <-got; f.err != nil || want[f.n] != f.sum {
				t.Errorf("%d bytes arrived, %v; not those that were sent", f.n, f.err)
			}
		}
		if r := m.wait(t); r.Broke != Nobody || r.Err != nil || r.Sent != up || r.Received != down {
			t.Errorf("result %+v", r)
		}
	})
}

func TestStreamsHalfClose(t *testing.T) {
	for _, swap := range []bool{false, true} {
		runStreams(t, time.Minute, func(t *testing.T, m *mixed) {
			first, second := m.client, m.server
			if swap {
				first, second = second, first
			}
			if _, err := first.Write([]byte("question")); err != nil {
				t.Fatal(err)
			}
			if err := first.closeWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(second); err != nil || string(got) != "question" {
				t.Fatalf("got %q, %v", got, err)
			}
			if _, err := second.Write([]byte("late answer")); err != nil {
				t.Fatal(err)
			}
			if err := second.closeWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(first); err != nil || string(got) != "late answer" {
				t.Fatalf("got %q, %v", got, err)
			}
			if r := m.wait(t); r.Broke != Nobody || r.Err != nil || r.Sent+r.Received != 19 {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// A leg that is reset resets the other, also while the directions wait for
// something else.
func TestStreamsReset(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, resets, other *end){
		"at rest": func(*testing.T, *end, *end) {},
		"half-closed by the other": func(t *testing.T, resets, other *end) {
			if err := other.closeWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resets); err != nil {
				t.Fatal(err)
			}
		},
		"while it is written to": func(t *testing.T, _, other *end) {
			var writing sync.WaitGroup
			writing.Go(func() { _, _ = other.Write(make([]byte, 8<<20)) })
			t.Cleanup(writing.Wait)
		},
	} {
		for _, side := range []Side{Downstream, Upstream} {
			t.Run(name, func(t *testing.T) {
				runStreams(t, time.Minute, func(t *testing.T, m *mixed) {
					resets, peer := m.client, m.server
					if side == Upstream {
						resets, peer = peer, resets
					}
					// The relay is at work.
					if _, err := resets.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
					before(t, resets, peer)
					reset(resets)
					if r := m.wait(t); r.Broke != side || errors.Is(r.Err, wire.ErrExpired) {
						t.Errorf("result %+v, want a failure of side %d", r, side)
					}
					_, a := resets.Conn.(far)
					_, b := peer.Conn.(far)
					if a && b || name != "while it is written to" {
						wasReset(t, peer)
					} // else a failed write was told of the reset, and reading gives an end
				})
			})
		}
	}
}

// TestStreamEndsBoth: a server that has said all and wants no more (RFC 9113
// section 8.1) ends the relay in order.
func TestStreamEndsBoth(t *testing.T) {
	m := startMixed(t, [2]bool{false, true}, time.Minute)
	f := m.server.Conn.(far)
	if _, err := m.server.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	if err := f.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	f.s.Reset(http2.NoError)
	if got, err := io.ReadAll(m.client); err != nil || string(got) != "bye" {
		t.Errorf("got %q, %v", got, err)
	}
	if r := m.wait(t); r.Broke != Nobody || r.Err != nil || r.Received != 3 {
		t.Errorf("result %+v", r)
	}
}

func TestStreamsIdle(t *testing.T) {
	runStreams(t, 100*time.Millisecond, func(t *testing.T, m *mixed) {
		if r := m.wait(t); !errors.Is(r.Err, wire.ErrExpired) || r.Broke == Nobody {
			t.Errorf("result %+v, want an expiry", r)
		}
		for _, e := range []*end{m.client, m.server} {
			if _, ok := e.Conn.(far); ok {
				wasReset(t, e)
			} else if _, err := io.ReadAll(e); err != nil {
				t.Errorf("the connection ended with %v", err)
			}
		}
	})
}

func TestStreamsExpiredFromOutside(t *testing.T) {
	for i := range 2 {
		runStreams(t, time.Minute, func(t *testing.T, m *mixed) {
			// Nobody reads from the leg that expires.
			ended, waits := m.client, m.server
			if i == 1 {
				ended, waits = waits, ended
			}
			if err := ended.closeWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(waits); err != nil {
				t.Fatal(err)
			}
			m.legs[i].Expire()
			if r := m.wait(t); !errors.Is(r.Err, wire.ErrExpired) || r.Broke == Nobody {
				t.Errorf("result %+v, want an expiry", r)
			}
		})
	}
}
