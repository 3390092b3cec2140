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

// session is what happens on one connection.
type session interface {
	// open appends the first bytes to send.
	open(out []byte) ([]byte, error)
	// feed takes bytes that arrived and appends what is to be sent.
	feed(in, out []byte) ([]byte, error)
	busy() int
	// over says that the server has asked to end the connection and nothing
	// is under way on it any more.
	over() bool
}

// sessions is the closed loop of every protocol but HTTP/1.1: the sessions
// themselves start the next exchange when one is answered.
type sessions struct {
	clock
	conns  map[int]*sessionConn
	buf    []byte
	readAt time.Duration // when the bytes at hand were read
}

type sessionConn struct {
	fd    int
	s     session
	out   []byte // a buffer to build in
	queue []byte // what the socket has not taken yet
}

func runSessions(ctx context.Context, cfg *Config) (*Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	set, err := socket.NewEpoll()
	if err != nil {
		return nil, err
	}
	defer set.Close()
	l := &sessions{clock: clock{cfg: cfg, res: new(Result), set: set, base: time.Now()}, conns: make(map[int]*sessionConn, cfg.Connections), buf: make([]byte, 256<<10)}
	defer func() {
		for fd := range l.conns {
			unix.Close(fd)
		}
	}()
	return l.drive(ctx, l)
}

func (l *sessions) newSession() session {
	switch l.cfg.Protocol {
	case WebSocket:
		return newWebSocket(l)
	case TCP:
		return &tcpSession{load: l}
	}
	return newH2(l)
}

func (l *sessions) open() error {
	fd, err := socket.Dial(l.cfg.Addr)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.SetNonblock(fd, true), l.set.Add(fd)); err != nil {
		unix.Close(fd)
		return err
	}
	c := &sessionConn{fd: fd, s: l.newSession()}
	l.conns[fd] = c
	l.readAt = l.now()
	out, err := c.s.open(nil)
	if err == nil {
		err = l.send(c, out)
	}
	if err != nil {
		delete(l.conns, fd)
		unix.Close(fd)
	}
	return err
}

func (l *sessions) connections() int { return len(l.conns) }

// underWay is nothing: messages are small.
func (l *sessions) underWay() float64                          { return 0 }
func (l *sessions) startDue(time.Duration)                     {}
func (l *sessions) patience(until time.Duration) time.Duration { return until }

func (l *sessions) busy() int {
	busy := 0
	for _, c := range l.conns {
		busy += c.s.busy()
	}
	return busy
}

// send writes out, or keeps what the socket does not take.
func (l *sessions) send(c *sessionConn, out []byte) error {
	if len(out) == 0 {
		return nil
	}
	if len(c.queue) > 0 {
		c.queue = append(c.queue, out...)
		return nil
	}
	n, err := socket.Write(c.fd, out)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		return err
	}
	if n == len(out) {
		return nil
	}
	c.queue = append(c.queue[:0], out[n:]...)
	return l.set.Watch(c.fd, true)
}

func (l *sessions) flush(c *sessionConn) error {
	n, err := socket.Write(c.fd, c.queue)
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	if err != nil {
		return err
	}
	c.queue = c.queue[:copy(c.queue, c.queue[n:])]
	if len(c.queue) > 0 {
		return nil
	}
	return l.set.Watch(c.fd, false)
}

func (l *sessions) receive(events []unix.EpollEvent) {
	for i := range events {
		c := l.conns[int(events[i].Fd)]
		if c == nil {
			continue
		}
		var err error
		if events[i].Events&unix.EPOLLOUT != 0 {
			err = l.flush(c)
		} else {
			err = l.take(c)
		}
		switch {
		case err != nil:
			l.res.fail(err)
			l.reopen(c)
		case c.s.over():
			l.res.Reconnects++
			l.reopen(c)
		}
	}
}

// take reads once from a connection and lets its session go on.
func (l *sessions) take(c *sessionConn) error {
	if t, ok := c.s.(*tcpSession); ok {
		return t.discard(c.fd)
	}
	n, err := socket.Read(c.fd, l.buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return err
	case n == 0:
		return errTruncated
	}
	l.readAt = l.now()
	out, err := c.s.feed(l.buf[:n], c.out[:0])
	if err != nil {
		return err
	}
	c.out = out
	return l.send(c, out)
}

// reopen opens another connection in place of one that failed or ended.
func (l *sessions) reopen(c *sessionConn) {
	delete(l.conns, c.fd)
	unix.Close(c.fd)
	if l.ending {
		return
	}
	if err := l.open(); err != nil {
		l.res.fail(err)
	}
}

// answered counts one exchange that began at start.
func (l *sessions) answered(start time.Duration) {
	l.res.Requests++
	l.res.Latency.Record(l.readAt - start)
}

// tcpSession asks once and then only reads.
type tcpSession struct{ load *sessions }

func (t *tcpSession) open(out []byte) ([]byte, error)    { return append(out, '\n'), nil }
func (t *tcpSession) feed(_, out []byte) ([]byte, error) { return out, nil }
func (t *tcpSession) busy() int                          { return 0 }
func (t *tcpSession) over() bool                         { return false }

// discardPart is how many bytes are thrown away at once, so that connections
// take turns.
const discardPart = 1 << 20

func (t *tcpSession) discard(fd int) error {
	n, err := socket.Discard(fd, discardPart)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return err
	case n == 0:
		return fmt.Errorf("the connection ended after %d bytes", t.load.res.Bytes)
	}
	t.load.res.Bytes += uint64(n)
	t.load.res.Requests = t.load.res.Bytes >> 20
	return nil
}
