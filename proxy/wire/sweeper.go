package wire

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/memory"
)

// SweepInterval is how often deadlines are looked at, and so how late a
// connection may be ended after its deadline.
const SweepInterval = 100 * time.Millisecond

// Exact is the shortest time for which a swept deadline is precise enough.
// Callers that need a shorter one use SetExact.
const Exact = time.Second

// Sweeper ends connections whose deadline has passed. A deadline that is an
// atomic store here costs nothing on the request path, where a timer per read
// costs several microseconds.
type Sweeper struct {
	// Memory says when connections must do with small buffers; nil never.
	Memory *memory.Budget

	base   time.Time
	coarse atomic.Int64 // Now at the last sweep
	wall   atomic.Int64 // base on the wall clock, in ns since 1970, as of the last sweep

	mu     sync.Mutex
	conns  []*Conn
	second func(fd uintptr)
}

// States of a connection in Await. A read that did not fill its buffer has
// seen all bytes there were, but not whether the peer's end came with them: the
// poller reports both at once, and not again. So a connection that has waited
// since such a read for a whole sweep gets a second look, once.
const (
	awake        uint32 = iota // or waiting after a read that found nothing
	parkedUnsure               // waiting after a short read
	parkedOnce                 // and still at the first sweep after it
	parkedSure                 // waiting, and the peer is there; more: for so many sweeps more
	restAsked    uint32 = parkedSure + restSweeps
)

// restSweeps is for how many sweeps a reader waits before it is asked to rest.
const restSweeps = 4

// NewSweeper returns a sweeper whose clock starts at base.
func NewSweeper(base time.Time) *Sweeper {
	s := &Sweeper{base: base, second: secondLook}
	s.lookAtClocks(s.Now())
	return s
}

// Now returns the time on the sweeper's clock.
func (s *Sweeper) Now() time.Duration { return time.Since(s.base) }

// Soon returns a time on the sweeper's clock that is now or at most two sweeps
// ahead. It reads no clock: for deadlines that move with every byte.
func (s *Sweeper) Soon() time.Duration { return time.Duration(s.coarse.Load()) + SweepInterval }

// Wall returns what the wall clock says at a time on the sweeper's clock that is
// not long ago. It reads no clock.
func (s *Sweeper) Wall(at time.Duration) time.Time { return time.Unix(0, s.wall.Load()+int64(at)) }

func (s *Sweeper) lookAtClocks(now time.Duration) {
	s.coarse.Store(int64(now))
	s.wall.Store(time.Now().UnixNano() - int64(now))
}

// Run sweeps until ctx ends.
func (s *Sweeper) Run(ctx context.Context) error {
	tick := time.NewTicker(SweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.Sweep(s.Now())
		}
	}
}

// Sweep ends every connection whose deadline is before now, and finds those
// whose peer has ended unnoticed.
func (s *Sweeper) Sweep(now time.Duration) {
	s.lookAtClocks(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if d := c.deadline.Load(); d > 0 && d < int64(now) && c.deadline.CompareAndSwap(d, expired) {
			c.expire()
		}
		switch state := c.parked.Load(); state {
		case awake, restAsked:
		case parkedUnsure:
			c.parked.CompareAndSwap(parkedUnsure, parkedOnce)
		case parkedOnce:
			next := awake
			if c.MayRest {
				next = parkedSure
			}
			if c.parked.CompareAndSwap(parkedOnce, next) {
				_ = c.raw.Control(s.second)
			}
		case restAsked - 1:
			c.askRest(state)
		default:
			c.parked.CompareAndSwap(state, state+1)
		}
	}
}

func secondLook(fd uintptr) {
	if rawPeek(fd) == peekEnd {
		rawWakeReader(fd)
	}
}

// Len returns the number of open connections.
func (s *Sweeper) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Sweeper) add(c *Conn) {
	s.mu.Lock()
	c.swept = len(s.conns)
	s.conns = append(s.conns, c)
	s.mu.Unlock()
}

func (s *Sweeper) remove(c *Conn) {
	s.mu.Lock()
	if i := c.swept; i >= 0 {
		last := s.conns[len(s.conns)-1]
		s.conns[i], last.swept = last, i
		s.conns[len(s.conns)-1] = nil
		s.conns = s.conns[:len(s.conns)-1]
		c.swept = -1
	}
	s.mu.Unlock()
}

// SetDeadline makes reads and writes fail with ErrExpired after at, a time on
// the sweeper's clock; zero means never. It reports false when the connection
// has expired already.
func (c *Conn) SetDeadline(at time.Duration) bool {
	d := int64(at)
	if at != 0 && d <= 0 {
		d = 1
	}
	for {
		old := c.deadline.Load()
		if old == expired {
			return false
		}
		if old == d || c.deadline.CompareAndSwap(old, d) {
			return true
		}
	}
}

// SetExact sets a deadline by a timer of the runtime, for times too short for
// the sweeper. The zero time takes it back. On an expired connection reads stay
// expired, but writes are let through until t, so that a last word can be said.
func (c *Conn) SetExact(t time.Time) {
	_ = c.sock.SetDeadline(t)
	if !c.Expired() {
		return
	}
	if t.IsZero() {
		c.wake()
		return
	}
	_ = c.sock.SetReadDeadline(longAgo)
}

// Deadline returns what SetDeadline has set last; 0 for none.
func (c *Conn) Deadline() time.Duration { return time.Duration(max(c.deadline.Load(), 0)) }

// Expired reports whether the connection was ended by its deadline or Expire.
func (c *Conn) Expired() bool { return c.deadline.Load() == expired }

// Expire makes the present and all later reads and writes fail with
// ErrExpired. Any goroutine may call it.
func (c *Conn) Expire() {
	if c.deadline.Swap(expired) != expired {
		c.expire()
	}
}

// expire is called by whoever made the connection expired.
func (c *Conn) expire() {
	c.wake()
	c.Rouse()
	if h := c.hook.Load(); h != nil {
		(*h).Canceled()
	}
}

func (c *Conn) wake() { _ = c.sock.SetDeadline(longAgo) }

var longAgo = time.Unix(1, 0)
