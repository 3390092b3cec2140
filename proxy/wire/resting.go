package wire

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrResting is returned by Await when nothing has come for a while: the caller
// may end its goroutine and leave the connection to a Resting.
var ErrResting = errors.New("wire: nothing has come for a while")

// Resting watches connections that wait for a request without a goroutine, whose
// stack is most of what an idle connection holds. The runtime's poller can only
// wake a goroutine that waits, so they are in an epoll set of their own, which
// itself is watched by the runtime's: no thread is held.
type Resting struct {
	epoll *os.File
	raw   syscall.RawConn

	total atomic.Uint64

	mu    sync.Mutex
	conns []*Conn // by slot; nil where it is free
	free  []int32
}

// NewResting makes an empty set, which lasts until Run ends.
func NewResting() (*Resting, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	r := &Resting{epoll: os.NewFile(uintptr(fd), "epoll")}
	if r.raw, err = r.epoll.SyscallConn(); err != nil {
		_ = r.epoll.Close()
		return nil, err
	}
	return r, nil
}

// Run wakes connections for which something comes until ctx ends. Then none may
// be left, or none is awaited any more.
func (r *Resting) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = r.epoll.Close() })()
	var events [128]syscall.EpollEvent
	err := r.raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.EpollWait(int(fd), events[:], 0)
			if err == syscall.EINTR {
				continue
			}
			for i := range max(n, 0) {
				if c := r.at(events[i].Fd); c != nil {
					c.Rouse()
				}
			}
			if n < len(events) {
				return err != nil
			}
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Add leaves c, on which nobody reads and nothing is buffered, to r until
// something comes, the peer ends, or the connection expires or is roused. Then
// wake runs in a goroutine of its own, perhaps before Add returns, once. It may
// come for nothing. False means that c cannot rest and stays with the caller.
func (r *Resting) Add(c *Conn, wake func()) bool {
	r.mu.Lock()
	slot := int32(len(r.conns))
	if n := len(r.free); n > 0 {
		slot, r.free = r.free[n-1], r.free[:n-1]
		r.conns[slot] = c
	} else {
		r.conns = append(r.conns, c)
	}
	c.rest, c.slot, c.wakeUp = r, slot, wake
	c.asleep.Store(true)
	r.mu.Unlock()
	if err := r.control(c, syscall.EPOLL_CTL_ADD); err != nil {
		if c.asleep.CompareAndSwap(true, false) {
			r.remove(c)
			return false
		}
		return true
	}
	r.total.Add(1)
	if c.roused.Load() {
		c.Rouse()
	}
	return true
}

// Rouse ends the rest of a connection, or if it does not rest its next one.
func (c *Conn) Rouse() {
	c.roused.Store(true)
	if !c.asleep.CompareAndSwap(true, false) {
		return
	}
	c.roused.Store(false)
	wake := c.wakeUp
	_ = c.rest.control(c, syscall.EPOLL_CTL_DEL)
	c.rest.remove(c)
	go wake()
}

func (r *Resting) control(c *Conn, op int) error {
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: c.slot}
	var err error
	outer := c.raw.Control(func(fd uintptr) {
		err = r.raw.Control(func(epoll uintptr) {
			if e := syscall.EpollCtl(int(epoll), op, int(fd), &ev); e != nil {
				err = e
			}
		})
	})
	return errors.Join(outer, err)
}

// at returns the connection in a slot. An event may be older than the slot's
// tenant, who then is roused for nothing.
func (r *Resting) at(slot int32) *Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if int(slot) < len(r.conns) {
		return r.conns[slot]
	}
	return nil
}

func (r *Resting) remove(c *Conn) {
	r.mu.Lock()
	r.conns[c.slot] = nil
	r.free = append(r.free, c.slot)
	c.wakeUp = nil
	r.mu.Unlock()
}

// Total returns how often a connection has gone to rest.
func (r *Resting) Total() uint64 { return r.total.Load() }

// Len returns how many connections rest.
func (r *Resting) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns) - len(r.free)
}

// askRest has a reader that has waited for long return ErrResting.
func (c *Conn) askRest(state uint32) {
	if c.parked.CompareAndSwap(state, restAsked) {
		_ = c.sock.SetReadDeadline(longAgo)
	}
}

// unpark notes that the reader waits no longer, and reports whether it was asked
// to rest. The sweeper may be about to set the deadline that asks: it holds its
// lock meanwhile.
func (c *Conn) unpark() (asked bool) {
	if c.parked.Load() == awake || c.parked.Swap(awake) != restAsked {
		return false
	}
	c.sweeper.mu.Lock()
	//lint:ignore SA2001 what was under way when the state changed is over
	c.sweeper.mu.Unlock()
	c.KeepReading()
	return true
}

// KeepReading takes back a deadline of reading that was set to wake the reader,
// but not the connection's expiry.
func (c *Conn) KeepReading() {
	_ = c.sock.SetReadDeadline(time.Time{})
	if c.Expired() {
		c.wake()
	}
}
