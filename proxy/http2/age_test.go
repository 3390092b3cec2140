package http2

import (
	"sync/atomic"
	"testing"
	"time"
)

// An old connection is drained in two steps, its streams go on, and after the
// grace it ends with them.
func TestAge(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Minute} {
		var now atomic.Int64
		sw := NewSweeper(func() time.Duration { return time.Duration(now.Load()) })
		block := make(chan struct{})
		v := serve(t, nil, &Config{Sweeper: sw, MaxAge: time.Hour, AgeGrace: grace}, func(s *Stream) {
			cut := make(told, 1)
			s.Notify(cut)
			select {
			case <-block:
				answerWith(10)(s)
			case <-cut:
			}
		})
		p := asClient(t, v)
		p.send(frameSettings, flagAck, 0, nil)
		p.get(1)
		p.sync()
		c := v.all()[0].c
		at := func(d time.Duration) {
			now.Store(int64(d))
			sw.Sweep(d)
		}
		c.mu.Lock()
		aged := c.watch.agedAt
		c.mu.Unlock()
		if aged < 54*time.Minute || aged > 66*time.Minute {
			t.Fatalf("the connection has its age at %v", aged)
		}
		drains := func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.drain != drainNone
		}
		if at(aged - 1); drains() {
			t.Error("it is drained before its time")
		}
		at(aged)
		p.expect(frameGoAway, 0)
		p.sync()
		if grace == 0 {
			at(aged + 1000*time.Hour)
			close(block)
			p.expect(frameData, 1)
			continue
		}
		at(aged + grace - 1)
		p.sync() // it still answers
		at(aged + grace)
		p.expectEnd()
	}
}

// told is told of a stream's end before its time.
type told chan struct{}

func (c told) Canceled() {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Connections that were made together do not have their age together.
func TestAgeIsSpread(t *testing.T) {
	c := detached(false)
	if c.aged(time.Second) != 0 {
		t.Error("a connection without a longest time has one")
	}
	c.cfg.MaxAge = 1000 * time.Second
	least, most := time.Duration(1<<62), time.Duration(0)
	for range 1000 {
		at := c.aged(time.Second) - time.Second
		least, most = min(least, at), max(most, at)
	}
	if least < 900*time.Second || least > 950*time.Second || most > 1100*time.Second || most < 1050*time.Second {
		t.Errorf("ages from %v to %v", least, most)
	}
}
