package relay

import (
	"errors"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// Leg is one side of a relay. One goroutine reads from it (Peek, Discard,
// Release) and one writes to it (Put, End); the others are for any.
type Leg interface {
	// Peek waits for bytes, to be taken with Discard; io.EOF once the peer has
	// ended its side.
	Peek() ([]byte, error)
	Discard(n int)
	// Release gives back what reading holds.
	Release()
	// Put sends all of p.
	Put(p []byte) error
	// End ends the sending side.
	End() error

	// SetDeadline makes all that waits fail with wire.ErrExpired after at, and
	// Expire at once.
	SetDeadline(at time.Duration) bool
	Expire()
	// Notify has w told when the leg ends before its time; nil takes it back.
	Notify(w http2.Canceler)
	// Err is why the leg takes nothing more, if it knows. finished says that
	// its peer had ended its side before, so that what it said stands.
	Err() (err error, finished bool)
	// Cut gives the leg up before its end. With reset its peer is to know that
	// what it got is not all.
	Cut(reset bool)
}

// Conn is the leg of a connection. Closing it is left to the owner.
func Conn(c *wire.Conn) Leg { return conn{c} }

// Stream is the leg of an HTTP/2 stream past its head: END_STREAM ends a side,
// RST_STREAM with CANCEL the leg. Giving it back is left to the owner.
func Stream(s *http2.Stream) Leg { return stream{s} }

type conn struct{ *wire.Conn }

func (c conn) Peek() ([]byte, error) {
	for {
		if b := c.Buffered(); len(b) > 0 {
			return b, nil
		}
		c.Widen()
		if err := c.Fill(); err != nil {
			return nil, err
		}
	}
}

func (c conn) Discard(n int) { c.Consume(n) }

func (c conn) Put(p []byte) error {
	_, err := c.Write(p)
	return err
}

func (c conn) End() error {
	if err := c.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		return err
	}
	return nil
}

func (c conn) Notify(w http2.Canceler) { c.Conn.Notify(w) }

func (c conn) Err() (err error, finished bool) {
	if c.Expired() {
		return wire.ErrExpired, false
	}
	return nil, false
}

func (c conn) Cut(reset bool) {
	if reset {
		c.Abort()
	}
}

type stream struct{ *http2.Stream }

func (s stream) Release()           {}
func (s stream) Put(p []byte) error { return s.Write(p, 0) }
func (s stream) End() error         { return s.Write(nil, http2.End) }
func (s stream) Cut(bool)           { s.Reset(http2.Cancel) }

func (s stream) Err() (err error, finished bool) {
	err = s.Stream.Err()
	_, finished = s.Readable()
	return err, finished && !s.Expired()
}
