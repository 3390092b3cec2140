package wire

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"
)

// feed is the net.Conn that crypto/tls sees. It reads the socket in large
// pieces but hands out one TLS record at a time, so that crypto/tls never holds
// bytes behind the record it has just returned: when the feed is empty, all
// there was has been seen. Inside a readiness wait it answers errWouldBlock
// where it would have to wait. Its buffer exists only while it holds something.
type feed struct {
	c      *Conn
	buf    []byte
	r, w   int
	full   bool // the last read filled the buffer: there may be more
	unseen bool // the socket has not been read since the present wait began

	head [recordHead]byte // the present record's header as far as seen
	seen int
	left int // bytes of the present record not handed out yet
}

// recordHead is the length of a TLS record header (RFC 8446 5.1).
const recordHead = 5

func (f *feed) empty() bool   { return f.r == f.w }
func (f *feed) drained() bool { return f.r == f.w && !f.full && !f.unseen }

// between reports whether crypto/tls has been given whole records only.
func (f *feed) between() bool { return f.r == f.w && f.seen == 0 && f.left == 0 }

func (f *feed) release() {
	if f.buf != nil {
		Put(f.buf)
		f.buf, f.r, f.w = nil, 0, 0
	}
}

// Read implements net.Conn. It gives as much of one record as there is: fewer
// reads cost crypto/tls fewer allocations.
func (f *feed) Read(p []byte) (int, error) {
	if f.r == f.w {
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	n := 0
	if f.left == 0 {
		n = copy(p[:min(len(p), recordHead-f.seen)], f.buf[f.r:f.w])
		copy(f.head[f.seen:], p[:n])
		if f.seen += n; f.seen == recordHead {
			f.seen = 0
			f.left = int(f.head[3])<<8 | int(f.head[4])
		}
	}
	if f.left > 0 {
		k := copy(p[n:min(len(p), n+f.left)], f.buf[f.r+n:f.w])
		f.left -= k
		n += k
	}
	if f.r += n; f.r == f.w {
		f.release()
	}
	return n, nil
}

// fill reads the socket into a new buffer; a full read before asks for a large
// one now. Where it waits, it holds no memory.
func (f *feed) fill() error {
	size := Small
	if f.full && !f.c.Narrow() {
		size = Large
	}
	var n int
	if f.c.fd == noFD {
		b, got, err := f.c.readPooled(size)
		if err != nil {
			return err
		}
		f.buf, n = b, got
	} else {
		b := get(size)
		got, e := rawRead(f.c.fd, b)
		if e != 0 || got == 0 {
			Put(b)
			if e == syscall.EAGAIN {
				return errWouldBlock
			}
			return ended(got, e)
		}
		f.buf, n = b, got
	}
	f.full, f.unseen = n == len(f.buf), false
	f.r, f.w = 0, n
	return nil
}

// Write implements net.Conn.
func (f *feed) Write(p []byte) (int, error) { return f.c.writeSocket(p) }

// Close implements net.Conn. The socket is closed by Conn.Close.
func (f *feed) Close() error { return nil }

// LocalAddr implements net.Conn.
func (f *feed) LocalAddr() net.Addr { return f.c.sock.LocalAddr() }

// RemoteAddr implements net.Conn.
func (f *feed) RemoteAddr() net.Addr { return f.c.sock.RemoteAddr() }

// Deadlines are Conn's. Those that crypto/tls would set around a close_notify
// would take back an expiry, and leave the socket unwritable.

// SetDeadline implements net.Conn.
func (f *feed) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (f *feed) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (f *feed) SetWriteDeadline(time.Time) error { return nil }

// Server starts TLS as the server and runs the handshake, which must end
// before deadline. Bytes that were buffered before belong to the handshake.
func (c *Conn) Server(cfg *tls.Config, deadline time.Time) error {
	return c.handshake(tls.Server(c.under(), cfg), deadline)
}

// Client starts TLS as the client and runs the handshake, which must end
// before deadline.
func (c *Conn) Client(cfg *tls.Config, deadline time.Time) error {
	return c.handshake(tls.Client(c.under(), cfg), deadline)
}

func (c *Conn) under() *feed {
	c.feed = &feed{c: c}
	if c.r < c.w {
		c.feed.buf, c.feed.r, c.feed.w = c.buf, c.r, c.w
		c.buf, c.r, c.w = nil, 0, 0
	}
	return c.feed
}

func (c *Conn) handshake(t *tls.Conn, deadline time.Time) error {
	c.SetExact(deadline)
	if err := t.Handshake(); err != nil {
		return c.failure(err)
	}
	c.tls = t
	c.SetExact(time.Time{})
	return nil
}
