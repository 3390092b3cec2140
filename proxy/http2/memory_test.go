package http2

import (
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/memory"
)

// short is a budget of which so many percent are in use from the start.
func short(percent int64) *memory.Budget {
	const bytes = 1 << 40
	b := memory.New(memory.Options{Bytes: bytes})
	b.Pledge(bytes / 100 * percent)
	return b
}

func TestStreamsAreRefusedForWantOfMemory(t *testing.T) {
	m := short(92)
	v := serve(t, nil, &Config{Memory: m}, answerWith(3))
	p := asClient(t, v)
	for id := uint32(1); id < 9; id += 2 {
		p.get(id)
		if g := p.expect(frameReset, id); Code(g.word()) != RefusedStream {
			t.Fatal(Code(g.word()))
		}
	}
	if n := m.Given(memory.Streams); n != 4 {
		t.Errorf("%d counted", n)
	}
}

// Where memory is short windows do not grow and the connection's is given back
// as bodies are read, so that it is whole in the end.
func TestWindowsForWantOfMemory(t *testing.T) {
	cfg := &Config{Memory: short(82), Window: 64 << 10, ConnWindow: 128 << 10, MaxWindow: 1 << 20}
	c := &conn{cfg: cfg.Filled()}
	_ = c.sitDown()
	s := c.newStream()
	s.id = 1
	c.streams[1] = s
	s.final = true
	c.recvLeft = int64(c.cfg.ConnWindow)
	frame := frame{kind: frameData, id: 1, payload: make([]byte, 16<<10)}
	for range 2 {
		if err := c.onData(&frame); err != nil {
			t.Fatal(err)
		}
	}
	if c.withheld != 32<<10 || c.owed != 0 {
		t.Errorf("%d withheld, %d owed", c.withheld, c.owed)
	}
	for round := range 40 {
		s.Discard(16 << 10)
		if err := c.onData(&frame); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	s.Discard(16 << 10)
	s.Discard(16 << 10)
	if c.withheld != 0 || c.recvLeft+c.owed != int64(c.cfg.ConnWindow) {
		t.Errorf("%d withheld, window %d and %d owed of %d", c.withheld, c.recvLeft, c.owed, c.cfg.ConnWindow)
	}
	if s.window != 64<<10 {
		t.Errorf("the stream's window has grown to %d", s.window)
	}
}

// A stream that does not move is ended; one that waits for its handler is not.
func TestStalledStreamsAreEnded(t *testing.T) {
	block := make(chan struct{})
	errs := make(chan error, 1)
	v := serve(t, nil, nil, func(s *Stream) {
		s.SetDeadline(time.Hour)
		if s.ID() == 1 {
			<-block
			answerWith(3)(s)
			return
		}
		_ = s.WriteResponse([]byte("HTTP/1.1 200 OK\r\n\r\n"), nil, 0)
		errs <- s.Write(make([]byte, 1<<20), End)
	})
	release := sync.OnceFunc(func() { close(block) })
	t.Cleanup(release) // also when the test fails: the server waits for its handlers
	p := asClient(t, v)
	p.get(1)
	p.get(3)
	eventually(t, func() bool { return len(v.all()) > 0 })
	srv := v.all()[0]
	ended := 0
	eventually(t, func() bool { ended += srv.EndStalled(); return ended > 0 })
	if err := <-errs; err != ErrExpired {
		t.Errorf("write: %v", err)
	}
	for range 5 {
		ended += srv.EndStalled()
	}
	if ended != 1 {
		t.Errorf("%d streams were ended", ended)
	}
	p.expect(frameReset, 3)
	p.sendWord(frameWindowUpdate, 0, 1<<20) // what stream 3 has used up
	release()
	p.expect(frameData, 1)
}
