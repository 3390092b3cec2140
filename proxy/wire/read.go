package wire

import (
	"errors"
	"io"
	"syscall"
)

// Await waits until bytes have come and calls f with them in Buffered, again
// and again, until f returns false or the connection ends. All of it happens
// in one readiness wait: while f returns true and consumes what it gets, no
// read is made that finds nothing, and no buffer is held between calls. Skipping
// that read means that a close which came together with the last bytes is only
// noticed by the Sweeper's second look.
//
// f must not call Read, Fill, Await or WriteRead of the same connection;
// returning false ends the wait so that the caller can. Buffered bytes at the
// start are given to f first. Await returns nil when f returned false, io.EOF
// at the peer's end, ErrResting where MayRest allows, else the error.
func (c *Conn) Await(f func() bool) error {
	if c.r < c.w && !f() {
		return nil
	}
	c.onBytes, c.phase, c.err = f, waitServe, nil
	if c.feed != nil {
		// Readiness from before this wait is lost with its start, so the feed
		// must not trust what an earlier read has seen of the socket.
		c.feed.unseen = true
	}
	err := c.raw.Read(c.onRead)
	c.onBytes = nil
	asked := c.unpark()
	if err != nil {
		if asked && !c.Expired() {
			return ErrResting
		}
		return c.failure(err)
	}
	return c.err
}

// WriteRead writes all of p and waits for the first bytes of the answer, which
// are then in Buffered. It registers for the answer before writing, so that no
// read is made before there is one. It returns io.EOF when the peer closed
// instead of answering. When the peer closed before it had taken all of p but
// answered before that, WriteRead succeeds: the connection fails at its next
// use.
func (c *Conn) WriteRead(p []byte) error {
	c.out, c.phase, c.err = p, waitReply, nil
	err := c.raw.Read(c.onRead)
	c.out = nil
	if err != nil {
		return c.failure(err)
	}
	return c.err
}

// Fill blocks until at least one more byte is buffered. Where nothing is
// buffered it holds no memory while it waits; the buffer that it takes up when
// bytes come has the size that Room or Widen chose before.
func (c *Conn) Fill() error {
	if c.w == len(c.buf) && !c.Room(Large) {
		return io.ErrShortBuffer
	}
	if c.r == c.w {
		size := len(c.buf)
		if c.tls == nil {
			c.Release()
			b, n, err := c.readPooled(size)
			if err == nil {
				c.buf, c.r, c.w = b, 0, n
			}
			return err
		}
		if !c.more && c.feed.empty() && !c.over {
			c.Release()
			// The end of the socket is for crypto/tls to judge.
			if err := c.feed.fill(); err != nil && err != io.EOF {
				return err
			}
			c.buf = get(size)
		}
	}
	n, err := c.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	c.Release()
	return err
}

// Read implements io.Reader on the stream behind what is buffered.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.tls != nil {
		n, err := c.readTLS(p)
		if n > 0 {
			return n, nil
		}
		return 0, err
	}
	return c.readSocket(p)
}

func (c *Conn) readTLS(p []byte) (int, error) {
	n, err := c.tls.Read(p)
	c.more, c.over = n == len(p), err == io.EOF
	return n, err
}

// readSocket blocks for at least one byte from the socket.
func (c *Conn) readSocket(p []byte) (int, error) {
	c.dst = p
	n, err := c.read()
	c.dst = nil
	return n, err
}

// readPooled blocks for at least one byte from the socket and returns it in a
// pooled buffer, which exists only once there is something to put into it.
func (c *Conn) readPooled(size int) (b []byte, n int, err error) {
	c.size = size
	n, err = c.read()
	b, c.dst = c.dst, nil
	return b, n, err
}

func (c *Conn) read() (int, error) {
	c.phase, c.err, c.n = waitRead, nil, 0
	if err := c.raw.Read(c.onRead); err != nil {
		return 0, c.failure(err)
	}
	return c.n, c.err
}

// ready is called by the runtime's poller: once at the start of a wait, then
// each time the socket turned readable. It returns true to end the wait.
func (c *Conn) ready(fd uintptr) bool {
	if c.phase == waitRead {
		// Another goroutine may be writing: leave c.fd alone.
		return c.readInto(fd)
	}
	c.unpark()
	c.fd = fd
	done := c.step()
	c.fd = noFD
	return done
}

func (c *Conn) readInto(fd uintptr) bool {
	p, pooled := c.dst, c.dst == nil
	if pooled {
		p = get(c.size)
	}
	n, e := rawRead(fd, p)
	if e == 0 && n > 0 {
		c.dst, c.n = p, n
		return true
	}
	if pooled {
		Put(p)
	}
	if e == syscall.EAGAIN {
		return false
	}
	c.err = ended(n, e)
	return true
}

func (c *Conn) step() bool {
	if c.phase == waitReply {
		if c.out == nil {
			return c.readOnce()
		}
		p := c.out
		c.out = nil
		if _, c.err = c.Write(p); c.err == nil {
			// The readiness of whatever came before this wait is lost; only
			// the answer to this write is awaited.
			return false
		}
		return c.lastReply()
	}
	for {
		drained, ok := c.readMore()
		if !ok {
			if c.err == nil && c.MayRest {
				c.parked.Store(parkedSure)
			}
			return c.err != nil
		}
		if !c.onBytes() {
			return true
		}
		if drained {
			c.Release()
			c.parked.Store(parkedUnsure)
			return false
		}
	}
}

// lastReply looks, after a write has failed because the peer is gone, for what
// the peer said before: an answer to the part that it read, or a TLS alert.
func (c *Conn) lastReply() bool {
	wrote := c.err
	if !gone(wrote) {
		return true
	}
	c.err = nil
	if _, ok := c.readMore(); !ok && (c.err == nil || c.err == io.EOF || gone(c.err)) {
		c.err = wrote
	}
	return true
}

// gone reports whether err means that the peer has closed or reset.
func gone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// readOnce reads what is there into the buffer; false when nothing is.
func (c *Conn) readOnce() bool {
	_, ok := c.readMore()
	return ok || c.err != nil
}

// readMore reads into the buffer without blocking. ok means that bytes came;
// drained that the socket is known to be empty after them. Neither bytes nor
// c.err means that nothing is there yet.
func (c *Conn) readMore() (drained, ok bool) {
	if !c.Room(Large) {
		c.err = io.ErrShortBuffer
		return false, false
	}
	p := c.buf[c.w:]
	if c.tls != nil {
		n, err := c.readTLS(p)
		if n > 0 {
			c.w += n
			return n < len(p) && c.feed.drained(), true
		}
		c.Release()
		if err != error(errWouldBlock) {
			c.err = err
		}
		return false, false
	}
	n, e := rawRead(c.fd, p)
	if e == syscall.EAGAIN {
		c.Release()
		return false, false
	}
	if c.err = ended(n, e); c.err != nil {
		c.Release()
		return false, false
	}
	c.w += n
	return n < len(p), true
}

func ended(n int, e syscall.Errno) error {
	switch {
	case e != 0:
		return e
	case n == 0:
		return io.EOF
	}
	return nil
}
