package wire

import (
	"context"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// resting returns a set that runs until the test ends.
func resting(t *testing.T) *Resting {
	t.Helper()
	r, err := NewResting()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := async(func() error { return r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		want(t, ran, nil)
	})
	return r
}

// serveResting echoes on c and lets it rest whenever it may, until it ends.
func serveResting(c *Conn, r *Resting, rests *atomic.Int64) error {
	c.MayRest = true
	f := echo(c)
	for {
		err := c.Await(f)
		if err != ErrResting {
			return err
		}
		woken := make(chan struct{})
		if r.Add(c, func() { close(woken) }) {
			rests.Add(1)
			<-woken
		}
	}
}

// sweepUntil sweeps again and again until is holds.
func sweepUntil(t *testing.T, sw *Sweeper, is func() bool) {
	t.Helper()
	eventually(t, func() bool {
		sw.Sweep(0)
		return is()
	})
}

func TestAReaderThatWaitsForLongIsAskedToRest(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		sw, r := NewSweeper(time.Now()), resting(t)
		c, p := connect(t, m, sw)
		var rests atomic.Int64
		served := async(func() error { return serveResting(c, r, &rests) })
		for round := range int64(3) {
			sweepUntil(t, sw, func() bool { return r.Len() == 1 && rests.Load() == round+1 })
			var b [message]byte
			for range 2 {
				if _, err := p.Write(b[:]); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(p, b[:]); err != nil {
					t.Fatal(err)
				}
				if n := r.Len(); n != 0 {
					t.Fatalf("%d connections rest", n)
				}
			}
		}
		_ = p.Close()
		want(t, served, io.EOF)
	})
}

func TestWhatEndsARest(t *testing.T) {
	for name, end := range map[string]func(c *Conn, p *peer){
		"bytes":    func(_ *Conn, p *peer) { _, _ = p.Write([]byte("x")) },
		"end":      func(_ *Conn, p *peer) { _ = p.Close() },
		"half":     func(_ *Conn, p *peer) { _ = p.closeWrite() },
		"reset":    func(_ *Conn, p *peer) { p.reset() },
		"expiry":   func(c *Conn, _ *peer) { c.Expire() },
		"deadline": func(c *Conn, _ *peer) { c.SetDeadline(1); c.sweeper.Sweep(time.Hour) },
		"rouse":    func(c *Conn, _ *peer) { c.Rouse() },
	} {
		for _, before := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				r := resting(t)
				c, p := connect(t, plain, NewSweeper(time.Now()))
				if before {
					end(c, p)
				}
				woken := make(chan struct{})
				if !r.Add(c, func() { close(woken) }) {
					t.Fatal("refused")
				}
				if !before {
					end(c, p)
				}
				select {
				case <-woken:
				case <-time.After(patience):
					t.Fatal("it rests on")
				}
				if n := r.Len(); n != 0 {
					t.Errorf("%d connections rest", n)
				}
			})
		}
	}
}

// Whoever is asked to rest while bytes come loses none, and no deadline stays
// behind to spoil a later read.
func TestNothingIsLostAroundARest(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		sw, r := NewSweeper(time.Now()), resting(t)
		c, p := connect(t, m, sw)
		var rests atomic.Int64
		served := async(func() error { return serveResting(c, r, &rests) })
		stop := make(chan struct{})
		swept := async(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
					sw.Sweep(0)
					runtime.Gosched() // on one processor the others have their turn
				}
			}
		})
		var b [message]byte
		most := 1000
		if runtime.GOMAXPROCS(0) == 1 {
			most = 100 // each wakes up only when the runtime looks for it beside the sweeps
		}
		for rounds := 0; rounds < most || rests.Load() == 0; rounds++ {
			_ = p.SetDeadline(time.Now().Add(patience)) // of each round: all may take long on a busy machine
			if _, err := p.Write(b[:]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(p, b[:]); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		want(t, swept, nil)
		_ = p.Close()
		want(t, served, io.EOF)
		t.Logf("%d rests", rests.Load())
	})
}

func TestSlotsAreUsedAgain(t *testing.T) {
	r := resting(t)
	a, _ := connect(t, plain, nil)
	b, _ := connect(t, plain, nil)
	woken := make(chan *Conn, 4)
	rest := func(c *Conn) {
		t.Helper()
		if !r.Add(c, func() { woken <- c }) {
			t.Fatal("refused")
		}
	}
	wake := func(c *Conn) {
		t.Helper()
		c.Rouse()
		if got := <-woken; got != c {
			t.Fatal("the wrong one was woken")
		}
	}
	for range 10 {
		rest(a)
		rest(b)
		wake(a)
		rest(a)
		wake(b)
		wake(a)
	}
	if n := len(r.conns); n != 2 || r.Len() != 0 {
		t.Errorf("%d slots, %d in use", n, r.Len())
	}
}

// Of a set that has ended nobody is woken any more, so nobody may enter it.
func TestNobodyRestsAfterTheEnd(t *testing.T) {
	r, err := NewResting()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	_ = r.epoll.Close()
	c, _ := connect(t, plain, nil)
	if r.Add(c, func() { t.Error("woken") }) {
		t.Error("taken")
	}
	if n := r.Len(); n != 0 {
		t.Errorf("%d connections rest", n)
	}
}
