package http2

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// A connection at rest keeps the goroutine that reads, no other and no buffers.
func TestAConnectionAtRestHoldsLittle(t *testing.T) {
	var now atomic.Int64
	sw := NewSweeper(func() time.Duration { return time.Duration(now.Load()) })
	block := make(chan struct{})
	v := serve(t, nil, &Config{Sweeper: sw}, func(s *Stream) {
		<-block
		answerWith(10)(s)
	})
	p := asClient(t, v)
	p.send(frameSettings, flagAck, 0, nil)
	for i := range uint32(20) {
		p.get(1 + 2*i)
	}
	p.sync()
	close(block)
	for n := 0; n < 20; {
		if g, err := p.next(); err != nil {
			t.Fatal(err)
		} else if g.kind == frameData {
			n++
		}
	}
	c := v.all()[0].c
	state := func() (workers, buffers int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.idle), cap(c.pend) + cap(c.spare)
	}
	eventually(t, func() bool { return !v.all()[0].Busy() })
	before := runtime.NumGoroutine()
	workers, _ := state()
	eventually(t, func() bool {
		sw.Sweep(time.Duration(now.Add(int64(time.Second))))
		n, b := state()
		return n == 0 && b == 0
	})
	eventually(t, func() bool {
		sw.Sweep(time.Duration(now.Add(int64(time.Millisecond)))) // the writer may have been at work
		return runtime.NumGoroutine() <= before-workers-1
	})
	// And it serves again.
	p.get(101)
	p.expect(frameData, 101)
}

// A peer that pings a quiet connection now and then, for ever, is no flood.
func TestTimeEarnsCredit(t *testing.T) {
	c := detached(false)
	c.cfg.FloodFrames = 5
	for k := range c.credit {
		c.credit[k] = 5
	}
	ping := appendPing(nil, 0, 1)
	for i := range 100 {
		c.sweep(time.Duration(i) * SweepInterval)
		if err := c.feed(ping); err != nil {
			t.Fatalf("ping %d: %v", i, err)
		}
		c.pend = c.pend[:0]
	}
	for i := 0; ; i++ {
		if c.feed(ping) != nil {
			break
		}
		if i > 10 {
			t.Fatal("and a flood is none either")
		}
		c.pend = c.pend[:0]
	}
}

// Frames that cross a reset of ours are no fault, however long ago it was.
func TestWhatCrossesAReset(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	v := serve(t, nil, &Config{Streams: 1}, func(s *Stream) { <-block })
	p := asClient(t, v)
	p.post(1)
	const many = 3 * closedKept
	for i := range uint32(many) {
		p.post(3 + 2*i)
		if g := p.expect(frameReset, 3+2*i); Code(g.word()) != RefusedStream {
			t.Fatal(Code(g.word()))
		}
	}
	for _, id := range []uint32{3, 1 + 2*many} {
		p.send(frameData, 0, id, []byte("x"))
		p.headers(id, true, "a: b")
	}
	p.sync()
}

// A window update for a stream that has ended may cross its end.
func TestWhatCrossesAnEnd(t *testing.T) {
	v := serve(t, nil, nil, answerWith(3))
	p := asClient(t, v)
	p.get(1)
	p.body(1, 3)
	p.send(frameWindowUpdate, 0, 1, binary.BigEndian.AppendUint32(nil, 5))
	p.sendWord(frameReset, 1, uint32(Cancel))
	p.sync()
	// DATA may not.
	p.send(frameData, 0, 1, []byte("x"))
	if g := p.expect(frameReset, 1); Code(g.word()) != StreamClosed {
		t.Error(Code(g.word()))
	}
}
