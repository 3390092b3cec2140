package wire

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

func TestSweeperKeepsExactlyTheOpenConnections(t *testing.T) {
	sw := NewSweeper(time.Now())
	r := rand.New(rand.NewPCG(1, 2))
	open := map[*Conn]bool{}
	var list []*Conn
	for range 2000 {
		if len(list) == 0 || r.IntN(3) > 0 && len(list) < 40 {
			c := &Conn{sweeper: sw, swept: -1}
			sw.add(c)
			open[c] = true
			list = append(list, c)
		} else {
			i := r.IntN(len(list))
			c := list[i]
			list[i] = list[len(list)-1]
			list = list[:len(list)-1]
			delete(open, c)
			sw.remove(c)
			sw.remove(c) // a second time changes nothing
		}
		if sw.Len() != len(open) {
			t.Fatalf("%d connections, want %d", sw.Len(), len(open))
		}
		for i, c := range sw.conns {
			if c.swept != i || !open[c] {
				t.Fatalf("entry %d is wrong", i)
			}
		}
	}
}

func TestCloseLeavesTheSweeper(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		sw := NewSweeper(time.Now())
		c, _ := connect(t, m, sw)
		if sw.Len() != 1 {
			t.Fatalf("%d connections, want 1", sw.Len())
		}
		_ = c.Close()
		if sw.Len() != 0 {
			t.Fatalf("%d connections, want none", sw.Len())
		}
		_ = c.Close()
		c.Expire() // by somebody who does not know yet
	})
}

func TestSweeperRunEndsConnectionsAndItself(t *testing.T) {
	sw := NewSweeper(time.Now())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ran := async(func() error { return sw.Run(ctx) })
	c, _ := connect(t, plain, sw)
	c.SetDeadline(sw.Now() + 1)
	want(t, async(c.Fill), ErrExpired)
	cancel()
	want(t, ran, nil)
}

func TestConnectionWithoutSweeper(t *testing.T) {
	c, p := connect(t, plain, nil)
	if !c.SetDeadline(1) {
		t.Error("refused")
	}
	done := async(c.Fill)
	_ = p.Close()
	if err := <-done; !isEnd(err) {
		t.Errorf("got %v", err)
	}
}
