package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/bench/socket"
)

// plain is HTTP/1.1 over cleartext connections with one request at a time.
type plain struct {
	clock
	conns  map[int]*plainConn
	free   []*plainConn // fixed rate: open and without a request
	period float64      // fixed rate: nanoseconds between intended starts
	sent   uint64       // fixed rate: how many have been started
	buf    []byte
}

type plainConn struct {
	fd     int
	busy   bool
	start  time.Duration // intended start of the request under way
	answer answer
}

func runPlain(ctx context.Context, cfg *Config) (*Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The thread's timers fire late by its slack, 50 µs unless told; a request
	// that starts late counts as slow.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("load: timer slack: %w", err)
	}
	set, err := socket.NewEpoll()
	if err != nil {
		return nil, err
	}
	defer set.Close()
	p := &plain{clock: clock{cfg: cfg, res: new(Result), set: set, base: time.Now()}, conns: make(map[int]*plainConn, cfg.Connections), buf: make([]byte, 256<<10)}
	defer func() {
		for fd := range p.conns {
			unix.Close(fd)
		}
	}()
	if cfg.Rate > 0 {
		p.period = 1e9 / cfg.Rate
	}
	return p.drive(ctx, p)
}

// open opens one more connection without a request on it.
func (p *plain) open() error {
	fd, err := socket.Dial(p.cfg.Addr)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.SetNonblock(fd, true), p.set.Add(fd)); err != nil {
		unix.Close(fd)
		return err
	}
	c := &plainConn{fd: fd}
	p.conns[fd] = c
	p.free = append(p.free, c)
	return nil
}

func (p *plain) connections() int { return len(p.conns) }

func (p *plain) busy() int {
	busy := 0
	for _, c := range p.conns {
		if c.busy {
			busy++
		}
	}
	return busy
}

// underWay is the sum of the parts of answers that have come.
func (p *plain) underWay() float64 {
	sum := 0.0
	for _, c := range p.conns {
		if c.busy {
			sum += c.answer.part()
		}
	}
	return sum
}

// startDue starts what should have started by now, as far as there are free
// connections.
func (p *plain) startDue(now time.Duration) {
	// Counted beforehand: a server that breaks every connection at once would
	// otherwise keep this loop in new ones.
	for range len(p.free) {
		intended := now
		if p.period > 0 {
			if intended = p.next(); intended > now {
				return
			}
			p.sent++
		}
		c := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		p.send(c, intended)
	}
}

// next is the intended start of the next request at a fixed rate.
func (p *plain) next() time.Duration { return time.Duration(float64(p.sent) * p.period) }

func (p *plain) patience(until time.Duration) time.Duration {
	if p.period > 0 && len(p.free) > 0 {
		until = min(until, p.next()-p.now())
	}
	return until
}

func (p *plain) send(c *plainConn, intended time.Duration) {
	c.busy, c.start = true, intended
	n, err := socket.Write(c.fd, p.cfg.Request)
	if err != nil {
		p.replace(c, err)
		return
	}
	if n < len(p.cfg.Request) {
		p.replace(c, fmt.Errorf("the socket took only %d bytes of a request", n))
	}
}

// receive takes what arrived; in the closed loop the next request follows at once.
func (p *plain) receive(events []unix.EpollEvent) {
	for i := range events {
		c := p.conns[int(events[i].Fd)]
		if c == nil {
			continue
		}
		n, err := socket.Read(c.fd, p.buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			p.replace(c, err)
			continue
		case n == 0 && c.busy:
			p.replace(c, errTruncated)
			continue
		case n == 0:
			p.renew(c) // closed while idle: in good order
			continue
		case !c.busy:
			p.replace(c, errTwoHeads)
			continue
		}
		done, err := c.answer.feed(p.buf[:n])
		if err != nil {
			p.replace(c, err)
			continue
		}
		if !done {
			continue
		}
		now := p.now()
		p.res.Requests++
		p.res.Latency.Record(now - c.start)
		c.busy = false
		if c.answer.close {
			p.renew(c)
			continue
		}
		c.answer.reset()
		if p.period > 0 || p.ending {
			p.free = append(p.free, c)
			continue
		}
		p.send(c, now)
	}
}

// replace counts a failed connection and opens another in its place.
func (p *plain) replace(c *plainConn, why error) {
	p.res.fail(why)
	p.reopen(c)
}

// renew opens another connection in place of one that the server closed.
func (p *plain) renew(c *plainConn) {
	p.res.Reconnects++
	p.reopen(c)
}

func (p *plain) reopen(c *plainConn) {
	delete(p.conns, c.fd)
	unix.Close(c.fd)
	for i, f := range p.free {
		if f == c {
			p.free = append(p.free[:i], p.free[i+1:]...)
			break
		}
	}
	if p.ending {
		return
	}
	if err := p.open(); err != nil {
		p.res.fail(err)
	}
}
