// Package wire is the byte stream under an exchange: sockets read without a failed read first, TLS over them, pooled buffers and swept deadlines.
package wire

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/memory"
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

// Unix is how the address of a Unix socket begins; its path follows.
const Unix = "unix:"

// Socket is what a Conn is made of: a *net.TCPConn or a *net.UnixConn that is a
// stream.
type Socket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// Conn is one connection, by TCP or a Unix socket, plain or under TLS. It owns a
// read buffer that exists only while there is something in it.
//
// One goroutine reads and one (mostly the same) writes. Expire and Close may
// be called by any.
type Conn struct {
	sock Socket
	raw  syscall.RawConn
	tls  *tls.Conn
	feed *feed

	buf  []byte // pooled; nil while empty and waiting
	r, w int    // buf[r:w] is unread
	more bool   // the last TLS read was full: crypto/tls may hold more
	over bool   // the last TLS read found the end, which need not be the socket's

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
	hook     atomic.Pointer[Canceler]
	swept    int // position in the sweeper's list, under its lock
	sweeper  *Sweeper
	aborted  bool // closing resets

	// MayRest has Await return ErrResting when nothing has come for a while.
	MayRest bool
	asleep  atomic.Bool // in rest, at slot
	roused  atomic.Bool // not to rest, or not for long
	slot    int32
	rest    *Resting
	wakeUp  func()

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
func New(sock Socket, sw *Sweeper) (*Conn, error) {
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

// Socket returns the socket below. Reading from or writing to it directly is only
// right for a plain connection with nothing buffered.
func (c *Conn) Socket() Socket { return c.sock }

// TLS returns the TLS connection, or nil for a plain one.
func (c *Conn) TLS() *tls.Conn { return c.tls }

// RemoteAddr returns the peer's address, with IPv4-mapped addresses unmapped. That
// of a Unix socket is not valid.
func (c *Conn) RemoteAddr() netip.AddrPort { return addrPort(c.sock.RemoteAddr()) }

// LocalAddr returns the own address, with IPv4-mapped addresses unmapped. That of a
// Unix socket is not valid.
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
// it and memory allows.
func (c *Conn) Widen() {
	if c.r == c.w && !c.Narrow() && len(c.buf) != Large {
		if c.buf != nil {
			Put(c.buf)
		}
		c.buf, c.r, c.w = GetLarge(), 0, 0
	}
}

// Narrow reports whether memory is so short that long bodies have to be moved in
// small pieces.
func (c *Conn) Narrow() bool { return c.sweeper != nil && c.sweeper.Memory.At(memory.Narrow) }

// Release gives the buffer back if nothing is in it.
func (c *Conn) Release() {
	if c.r == c.w && c.buf != nil {
		Put(c.buf)
		c.buf, c.r, c.w = nil, 0, 0
	}
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
	if c.tls != nil && !c.aborted {
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

// PeerEnded reports whether the peer has ended its side, or the connection is
// broken, and nothing that it sent before is unread. Others than the reader must
// not call it.
func (c *Conn) PeerEnded() bool {
	ended := false
	return c.raw.Control(func(fd uintptr) { ended = rawPeek(fd) == peekEnd }) != nil || ended
}
