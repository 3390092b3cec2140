// Package wire is the byte stream under an exchange: sockets read without a failed read first, TLS over them, pooled buffers and swept deadlines.
package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrExpired is returned by reads and writes after the connection's deadline
// has passed or Expire was called.
var ErrExpired = os.ErrDeadlineExceeded

// wouldBlock is what the socket side gives to crypto/tls when nothing can be
// read now. It is a temporary net.Error, which crypto/tls hands on without
// remembering it, so the read can be taken up again later.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "wire: no data yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

var errWouldBlock net.Error = wouldBlock{}

// noFD marks that no readiness wait is in progress.
const noFD = ^uintptr(0)

// Conn is one TCP connection, plain or under TLS. It owns a read buffer that
// exists only while there is something in it.
//
// One goroutine reads and one (mostly the same) writes. Expire and Close may
// be called by any.
type Conn struct {
	sock *net.TCPConn
	raw  syscall.RawConn
	tls  *tls.Conn
	feed *feed

	buf  []byte // pooled; nil while empty and waiting
	r, w int    // buf[r:w] is unread
	more bool   // the last TLS read was full: crypto/tls may hold more

	fd      uintptr // valid inside a readiness wait, else noFD
	onRead  func(fd uintptr) bool
	onPeek  func(fd uintptr)
	onBytes func() bool
	phase   waitPhase
	quiet   bool   // what onPeek found
	out     []byte // what WriteRead has to write first
	err     error
	n       int
	dst     []byte // where a blocking read wants its bytes; nil: pooled
	size    int    // of the pooled buffer that a blocking read takes up

	deadline atomic.Int64  // nanoseconds on the Sweeper's clock; 0 none; expired
	parked   atomic.Uint32 // see the sweeper's second look
	tied     atomic.Pointer[Conn]
	swept    int // position in the sweeper's list, under its lock
	sweeper  *Sweeper

	// LastUse is when the connection was last put into a pool, on the
	// caller's clock. Reused says that it has carried an exchange before.
	LastUse time.Duration
	Reused  bool
	// Generation is the caller's mark of the settings it was made under.
	Generation uint64
	// PeerID is the verified identity of the peer, as text; empty without.
	PeerID string
}

type waitPhase uint8

const (
	waitServe waitPhase = iota // Await: call onBytes for whatever comes
	waitReply                  // WriteRead: write first, then read once
	waitRead                   // Read, Fill: read once
)

const expired = int64(-1)

// New wraps an accepted or dialled connection. sw may be nil: then deadlines
// have no effect.
func New(sock *net.TCPConn, sw *Sweeper) (*Conn, error) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{sock: sock, raw: raw, fd: noFD, sweeper: sw, swept: -1}
	c.onRead = c.ready
	if sw != nil {
		sw.add(c)
	}
	return c, nil
}

// Socket returns the TCP connection below. Reading from or writing to it
// directly is only right for a plain connection with nothing buffered.
func (c *Conn) Socket() *net.TCPConn { return c.sock }

// TLS returns the TLS connection, or nil for a plain one.
func (c *Conn) TLS() *tls.Conn { return c.tls }

// Tie makes the expiry of either connection that of the other too: the two
// legs of a relay, of which one may have nothing left to read and so notices
// nothing itself.
func Tie(a, b *Conn) {
	a.tied.Store(b)
	b.tied.Store(a)
	if a.Expired() || b.Expired() {
		a.Expire()
		b.Expire()
	}
}

// Untie ends what Tie began. An expiry under way may still reach the other
// connection, so neither may be used for anything else afterwards.
func Untie(a, b *Conn) {
	a.tied.Store(nil)
	b.tied.Store(nil)
}

// RemoteAddr returns the peer's address, with IPv4-mapped addresses unmapped.
func (c *Conn) RemoteAddr() netip.AddrPort { return addrPort(c.sock.RemoteAddr()) }

// LocalAddr returns the own address, with IPv4-mapped addresses unmapped.
func (c *Conn) LocalAddr() netip.AddrPort { return addrPort(c.sock.LocalAddr()) }

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Buffered returns the bytes that were read and not yet consumed. They stay
// valid until the next call that reads.
func (c *Conn) Buffered() []byte { return c.buf[c.r:c.w] }

// Consume drops the first n buffered bytes.
func (c *Conn) Consume(n int) {
	c.r += n
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
}

// Room makes space for at least one more byte, moving what is buffered to the
// front or into a large buffer. It reports false when most bytes are buffered
// already, or a large buffer is full.
func (c *Conn) Room(most int) bool {
	switch {
	case c.buf == nil:
		c.buf, c.r, c.w = GetSmall(), 0, 0
	case c.w < len(c.buf):
	case c.r > 0:
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	case c.w >= most || len(c.buf) == Large:
		return false
	default:
		b := GetLarge()
		c.w = copy(b, c.buf[:c.w])
		Put(c.buf)
		c.buf = b
	}
	return true
}

// Widen replaces the buffer by a large one, for a long body, if nothing is in
// it.
func (c *Conn) Widen() {
	if c.r == c.w && len(c.buf) != Large {
		if c.buf != nil {
			Put(c.buf)
		}
		c.buf, c.r, c.w = GetLarge(), 0, 0
	}
}

// Release gives the buffer back if nothing is in it.
func (c *Conn) Release() {
	if c.r == c.w && c.buf != nil {
		Put(c.buf)
		c.buf, c.r, c.w = nil, 0, 0
	}
}

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
// at the peer's end, else the error.
func (c *Conn) Await(f func() bool) error {
	if c.r < c.w && !f() {
		return nil
	}
	c.onBytes, c.phase, c.err = f, waitServe, nil
	err := c.raw.Read(c.onRead)
	c.onBytes = nil
	c.parked.Store(awake)
	if err != nil {
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
		if !c.more && c.feed.empty() {
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
	c.more = n == len(p)
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
	if c.parked.Load() != awake {
		c.parked.Store(awake)
	}
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

// Write writes all of p, blocking as long as the peer does not take it and the
// deadline allows.
func (c *Conn) Write(p []byte) (int, error) {
	if c.tls != nil {
		n, err := c.tls.Write(p)
		if err != nil {
			err = c.failure(err)
		}
		return n, err
	}
	return c.writeSocket(p)
}

func (c *Conn) writeSocket(p []byte) (int, error) {
	done := 0
	if c.fd != noFD {
		n, e := rawWrite(c.fd, p)
		if e == 0 {
			if n == len(p) {
				return n, nil
			}
			done = n
		} else if e != syscall.EAGAIN {
			return 0, e
		}
	}
	n, err := c.sock.Write(p[done:])
	if err != nil {
		err = c.failure(err)
	}
	return done + n, err
}

// CloseWrite sends the end of the stream (a TLS close_notify first) and leaves
// the reading side open.
func (c *Conn) CloseWrite() error {
	if c.tls != nil {
		if err := c.tls.CloseWrite(); err != nil {
			return err
		}
	}
	return c.sock.CloseWrite()
}

// Close ends the connection and gives its buffers back. It must be called by
// the goroutine that reads; others use Expire.
func (c *Conn) Close() error {
	if c.sweeper != nil {
		c.sweeper.remove(c)
	}
	if c.tls != nil {
		// The close_notify must not wait for a peer that does not read.
		_ = c.sock.SetWriteDeadline(time.Now().Add(closeNotifyWait))
		_ = c.tls.Close()
	}
	if c.feed != nil {
		c.feed.release()
	}
	if c.buf != nil {
		Put(c.buf)
		c.buf, c.r, c.w = nil, 0, 0
	}
	return c.sock.Close()
}

const closeNotifyWait = 100 * time.Millisecond

// Quiet reports whether a kept-alive connection is still open with nothing
// unexpected to read. It costs one system call.
func (c *Conn) Quiet() bool {
	if c.r < c.w || c.more || c.feed != nil && !c.feed.between() {
		return false
	}
	if c.onPeek == nil {
		c.onPeek = c.peek
	}
	c.quiet = false
	return c.raw.Control(c.onPeek) == nil && c.quiet
}

func (c *Conn) peek(fd uintptr) { c.quiet = rawPeek(fd) == peekNothing }

// failure turns the poller's deadline error into ErrExpired and leaves others.
func (c *Conn) failure(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrExpired
	}
	return err
}
