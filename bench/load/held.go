package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/bench/socket"
)

// Held is a number of idle connections.
type Held struct {
	conns []heldConn
	buf   []byte
}

// heldConn is one of them; over HTTP/2 it has a session that goes on reading.
type heldConn struct {
	fd int
	h2 *h2Session
}

// Hold opens cfg.Connections connections to the loopback address one after the
// other, carries one request over each, with HTTP/1.1 or HTTP/2 as the
// protocol says, and leaves it open. On an error none is left.
func Hold(ctx context.Context, cfg Config) (*Held, error) {
	if len(cfg.Request) == 0 {
		cfg.Request = []byte(DefaultRequest)
	}
	cfg.Streams = 1
	h := &Held{conns: make([]heldConn, 0, cfg.Connections), buf: make([]byte, 64<<10)}
	for i := range cfg.Connections {
		err := ctx.Err()
		if err == nil {
			err = h.add(&cfg)
		}
		if err != nil {
			h.Close()
			return nil, fmt.Errorf("idle connection %d of %d: %w", i+1, cfg.Connections, err)
		}
	}
	return h, nil
}

func (h *Held) add(cfg *Config) error {
	fd, err := socket.Dial(cfg.Addr)
	if err != nil {
		return err
	}
	h.conns = append(h.conns, heldConn{fd: fd})
	switch cfg.Protocol {
	case HTTP1:
		return h.exchange1(fd, cfg.Request)
	case HTTP2:
		return h.exchange2(&h.conns[len(h.conns)-1], cfg)
	default:
		return fmt.Errorf("idle connections are held over HTTP/1.1 and HTTP/2, not %q", cfg.Protocol)
	}
}

// exchange1 carries one request over HTTP/1.1.
func (h *Held) exchange1(fd int, request []byte) error {
	if err := sendAll(fd, request); err != nil {
		return err
	}
	var a answer
	for {
		n, err := unix.Read(fd, h.buf)
		if err != nil {
			return err
		}
		if n == 0 {
			return errTruncated
		}
		done, err := a.feed(h.buf[:n])
		if err != nil {
			return err
		}
		if done && a.close {
			return errors.New("the server does not keep the connection")
		}
		if done {
			return nil
		}
	}
}

// exchange2 carries one request over HTTP/2.
func (h *Held) exchange2(c *heldConn, cfg *Config) error {
	l := &sessions{clock: clock{cfg: cfg, res: new(Result), base: time.Now()}}
	c.h2 = newH2(l)
	out, err := c.h2.open(nil)
	l.ending = true // one request and no more
	for {
		if err = errors.Join(err, sendAll(c.fd, out)); err != nil {
			return err
		}
		switch {
		case l.res.Errors > 0:
			return errors.New(l.res.FirstError)
		case c.h2.draining:
			return errors.New("the server does not keep the connection")
		case l.res.Requests > 0:
			return nil
		}
		n, err := unix.Read(c.fd, h.buf)
		if err != nil {
			return err
		}
		if n == 0 {
			return errTruncated
		}
		if out, err = c.h2.feed(h.buf[:n], out[:0]); err != nil {
			return err
		}
	}
}

func sendAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// Alive counts the connections that the server has not closed.
func (h *Held) Alive() int {
	alive := 0
	for i := range h.conns {
		if h.alive(&h.conns[i]) {
			alive++
		}
	}
	return alive
}

// alive looks at what has arrived: over HTTP/1.1 nothing may have, over HTTP/2
// frames that keep the connection.
func (h *Held) alive(c *heldConn) bool {
	for {
		n, _, err := unix.Recvfrom(c.fd, h.buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return true
		}
		if err != nil || n == 0 || c.h2 == nil {
			return false
		}
		out, err := c.h2.feed(h.buf[:n], nil)
		if err != nil || sendAll(c.fd, out) != nil || c.h2.draining {
			return false
		}
	}
}

// Close closes them all.
func (h *Held) Close() {
	for _, c := range h.conns {
		unix.Close(c.fd)
	}
	h.conns = nil
}
