package relay

import (
	"bytes"
	"errors"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

var table = crc64.MakeTable(crc64.ECMA)

// send writes n random bytes in pieces of random size, then half-closes.
func send(e *end, seed uint64, n int) (sum uint64, err error) {
	r := rand.New(rand.NewPCG(seed, 1))
	noise := rand.NewChaCha8([32]byte{byte(seed)})
	b := make([]byte, 200_000)
	for n > 0 {
		p := b[:min(n, 1+r.IntN(len(b)))]
		if r.IntN(3) == 0 {
			p = p[:1+r.IntN(min(len(p), 500))]
		}
		_, _ = noise.Read(p)
		sum = crc64.Update(sum, table, p)
		if _, err := e.Write(p); err != nil {
			return 0, err
		}
		n -= len(p)
	}
	return sum, e.closeWrite()
}

// receive reads to the end in pieces of random size.
func receive(e *end, seed uint64) (sum uint64, n int, err error) {
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, 100_000)
	for {
		k, err := e.Read(b[:1+r.IntN(len(b))])
		sum = crc64.Update(sum, table, b[:k])
		n += k
		if err == io.EOF {
			return sum, n, nil
		}
		if err != nil {
			return 0, n, err
		}
	}
}

type flow struct {
	sum uint64
	n   int
	err error
}

func TestBothWaysAtOnce(t *testing.T) {
	for i, size := range [][2]int{{0, 0}, {1, 0}, {0, 1}, {100, 70_000}, {300_000, 300_000}, {2 << 20, 3 << 20}} {
		run(t, func(t *testing.T, l legs) {
			b := start(t, l, time.Minute)
			seed := uint64(i)
			sent, got := make(chan flow, 2), make(chan flow, 2)
			for k, e := range []*end{b.client, b.server} {
				go func() { s, err := send(e, seed+uint64(k), size[k]); sent <- flow{s, k, err} }()
				go func() { s, n, err := receive(e, seed+uint64(k)); got <- flow{s ^ uint64(k)<<63, n, err} }()
			}
			want := map[uint64]int{}
			for range 2 {
				f := <-sent
				if f.err != nil {
					t.Fatal(f.err)
				}
				// What end k sent arrives at the other.
				want[f.sum^uint64(1-f.n)<<63] = size[f.n]
			}
			for range 2 {
				f := <-got
				if n, ok := want[f.sum]; !ok || n != f.n || f.err != nil {
					t.Errorf("%d bytes arrived, %v; not those that were sent", f.n, f.err)
				}
			}
			if r := b.wait(t); r.Broke != Nobody || r.Err != nil || r.Sent != uint64(size[0]) || r.Received != uint64(size[1]) {
				t.Errorf("result %+v, sizes %v", r, size)
			}
		})
	}
}

func TestHalfClose(t *testing.T) {
	run(t, func(t *testing.T, l legs) {
		for _, swap := range []bool{false, true} {
			b := start(t, l, time.Minute)
			first, second := b.client, b.server
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
			for _, s := range []string{"late ", "answer"} {
				if _, err := second.Write([]byte(s)); err != nil {
					t.Fatal(err)
				}
			}
			if err := second.closeWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(first); err != nil || string(got) != "late answer" {
				t.Fatalf("got %q, %v", got, err)
			}
			if r := b.wait(t); r.Broke != Nobody || r.Err != nil || r.Sent+r.Received != 19 {
				t.Errorf("result %+v", r)
			}
		}
	})
}

func TestServerSpeaksFirst(t *testing.T) {
	run(t, func(t *testing.T, l legs) {
		b := start(t, l, time.Minute)
		for range 3 {
			buf := make([]byte, 5)
			for _, e := range [][2]*end{{b.server, b.client}, {b.client, b.server}} {
				if _, err := e[0].Write([]byte("hello")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(e[1], buf); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, _ = b.client.closeWrite(), b.server.closeWrite()
		if r := b.wait(t); r.Broke != Nobody || r.Sent != 15 || r.Received != 15 {
			t.Errorf("result %+v", r)
		}
	})
}

func TestBufferedBytesGoFirst(t *testing.T) {
	run(t, func(t *testing.T, l legs) {
		b := prepare(t, l)
		for _, e := range []struct {
			far  *end
			near *wire.Conn
		}{{b.client, b.down}, {b.server, b.up}} {
			if _, err := e.far.Write([]byte("first ")); err != nil {
				t.Fatal(err)
			}
			for len(e.near.Buffered()) < 6 {
				if err := e.near.Fill(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := e.far.Write([]byte("second")); err != nil {
				t.Fatal(err)
			}
			if err := e.far.closeWrite(); err != nil {
				t.Fatal(err)
			}
		}
		b.run(time.Minute)
		for _, e := range []*end{b.client, b.server} {
			if got, err := io.ReadAll(e); err != nil || string(got) != "first second" {
				t.Errorf("got %q, %v", got, err)
			}
		}
		if r := b.wait(t); r.Broke != Nobody || r.Sent != 12 || r.Received != 12 {
			t.Errorf("result %+v", r)
		}
	})
}

func TestReset(t *testing.T) {
	run(t, func(t *testing.T, l legs) {
		for _, side := range []Side{Downstream, Upstream} {
			if side == Downstream && l.downUnix || side == Upstream && l.upUnix {
				continue // a Unix socket knows no reset
			}
			b := start(t, l, time.Minute)
			breaks, other := b.client, b.server
			if side == Upstream {
				breaks, other = other, breaks
			}
			if _, err := breaks.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			breaks.reset()
			if r := b.wait(t); r.Broke != side || !errors.Is(r.Err, syscall.ECONNRESET) {
				t.Errorf("result %+v, want broken by side %d with a reset", r, side)
			}
			if _, err := other.Read(make([]byte, 1)); err == nil {
				t.Error("the other side is not told")
			}
		}
	})
}

// A server that answers and closes while the client still sends must not cost
// the client the answer.
func TestAnswerOfASideThatTakesNoMore(t *testing.T) {
	run(t, func(t *testing.T, l legs) {
		b := prepare(t, l)
		answer := bytes.Repeat([]byte("answer"), 4000) // fits the receive window
		if _, err := b.server.Write(answer); err != nil {
			t.Fatal(err)
		}
		if err := b.server.closeWrite(); err != nil {
			t.Fatal(err)
		}
		_ = b.server.sock.Close()
		b.run(time.Minute)
		// The first bytes make the server's kernel reset, the next ones hit it.
		go func() {
			for range 20 {
				if _, err := b.client.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}()
		got := make([]byte, len(answer))
		if n, err := io.ReadFull(b.client, got); err != nil {
			t.Fatalf("got %d of %d bytes, %v", n, len(answer), err)
		}
		if !bytes.Equal(got, answer) {
			t.Error("the answer differs")
		}
		_ = b.client.Close()
		b.wait(t)
	})
}

func TestIdle(t *testing.T) {
	run(t, func(t *testing.T, l legs) {
		b := start(t, l, time.Hour)
		buf := make([]byte, 1)
		if _, err := b.client.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b.server, buf); err != nil {
			t.Fatal(err)
		}
		b.sw.Sweep(b.sw.Now() + 59*time.Minute)
		select {
		case r := <-b.result:
			t.Fatalf("ended before its time: %+v", r)
		default:
		}
		// One direction keeps the other alive, half-closed or not.
		if err := b.server.closeWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.client.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b.server, buf); err != nil {
			t.Fatal(err)
		}
		b.sw.Sweep(b.sw.Now() + 2*time.Hour)
		if r := b.wait(t); !errors.Is(r.Err, wire.ErrExpired) || r.Sent != 2 {
			t.Errorf("result %+v, want an expiry", r)
		}
	})
}

func TestNoIdleTime(t *testing.T) {
	b := start(t, legs{}, 0)
	b.sw.Sweep(1 << 62)
	_, _ = b.client.closeWrite(), b.server.closeWrite()
	if r := b.wait(t); r.Broke != Nobody {
		t.Errorf("result %+v", r)
	}
}

// Either connection may be expired, by a change of rules or a drain, whatever
// the two directions are doing.
func TestExpiryFromOutside(t *testing.T) {
	states := map[string]func(b *bench) error{
		"idle":             func(*bench) error { return nil },
		"client has ended": func(b *bench) error { return b.client.closeWrite() },
		"server has ended": func(b *bench) error { return b.server.closeWrite() },
		"client does not read": func(b *bench) error {
			go func() { _, _ = b.server.Write(make([]byte, 64<<20)) }()
			return nil
		},
	}
	for name, state := range states {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, l legs) {
				for _, down := range []bool{true, false} {
					b := start(t, l, time.Hour)
					if err := state(b); err != nil {
						t.Fatal(err)
					}
					if name == "client has ended" {
						_, _ = io.ReadAll(b.server)
					}
					if name == "server has ended" {
						_, _ = io.ReadAll(b.client)
					}
					if down {
						b.down.Expire()
					} else {
						b.up.Expire()
					}
					if r := b.wait(t); !errors.Is(r.Err, wire.ErrExpired) || r.Broke == Nobody {
						t.Errorf("result %+v, want an expiry", r)
					}
					_ = b.server.sock.Close()
				}
			})
		})
	}
}

func TestExpiredBeforeTheStart(t *testing.T) {
	run(t, func(t *testing.T, l legs) {
		b := prepare(t, l)
		b.up.Expire()
		b.run(time.Hour)
		if r := b.wait(t); !errors.Is(r.Err, wire.ErrExpired) {
			t.Errorf("result %+v, want an expiry", r)
		}
	})
}

func TestIdleRelayHoldsNoPipe(t *testing.T) {
	spare.close()
	b := start(t, legs{}, time.Hour)
	buf := make([]byte, 100)
	for range 10 {
		if _, err := b.client.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b.server, buf); err != nil {
			t.Fatal(err)
		}
	}
	given := func() {
		for stop := time.Now().Add(patience); len(spare.list()) == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(stop) {
				t.Fatal("the pipe is not given back")
			}
		}
	}
	// A relay that is woken for nothing holds a pipe for a moment, perhaps just
	// when descriptors are counted: then they are counted again.
	before, after := 0, 0
	for try := 0; try < 20 && after != before+2; try++ {
		given()
		spare.close()
		before = descriptors(t)
		if _, err := b.client.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b.server, buf); err != nil {
			t.Fatal(err)
		}
		given()
		after = descriptors(t)
	}
	if after != before+2 {
		t.Errorf("%d descriptors, want %d: one spare pipe more", after, before+2)
	}
	// What it still holds is not for the next test to count.
	b.down.Expire()
	b.wait(t)
}

func TestDescriptorsComeBack(t *testing.T) {
	spare.close()
	before := descriptors(t)
	func() {
		const relays = 60 // more than there are spare pipes
		var list []*bench
		for range relays {
			list = append(list, start(t, legs{}, time.Hour))
		}
		for i, b := range list {
			go func() { _, _ = b.server.Write(make([]byte, 8<<20)) }() // blocks: holds a pipe
			if _, err := b.client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				b.client.reset()
			}
		}
		for _, b := range list {
			b.down.Expire()
			b.wait(t)
			_, _ = b.client.sock.Close(), b.server.sock.Close()
		}
	}()
	if n := len(spare.list()); n > idlePipes {
		t.Errorf("%d spare pipes, want at most %d", n, idlePipes)
	}
	spare.close()
	for stop := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		after := descriptors(t)
		if after == before {
			return
		}
		if time.Now().After(stop) {
			t.Fatalf("%d descriptors, want %d", after, before)
		}
	}
}

// list returns the spare pipes.
func (p *pipes) list() []*pipe {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle
}

// close closes the spare pipes.
func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.idle {
		_, _ = syscall.Close(x.r), syscall.Close(x.w)
	}
	p.idle = nil
}
