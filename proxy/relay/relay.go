// Package relay moves bytes both ways between two connections until both have ended: half-close, idle time, splice.
package relay

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// Side is one of the two connections.
type Side uint8

// The sides.
const (
	Nobody Side = iota
	Downstream
	Upstream
)

// Result is how a relay ended.
type Result struct {
	Sent     uint64 // bytes from downstream to upstream
	Received uint64 // bytes from upstream to downstream
	// Broke is the side whose connection failed first; Nobody when both ended
	// in order.
	Broke Side
	Err   error
}

// Options tunes a relay.
type Options struct {
	Now  func() time.Duration // the clock of the connections' deadlines
	Idle time.Duration        // without a byte either way; 0 none
}

// Run relays until both directions have ended, or one connection fails, or
// nothing moves for the idle time, or either connection is expired from
// outside. The end of one direction is passed on as a half-close; the other
// goes on. A side that takes nothing more because it has closed is still read
// to its end. What either connection has buffered goes first. Neither is
// closed, but neither may be used for anything but Close afterwards.
func Run(down, up *wire.Conn, o Options) Result {
	wire.Tie(down, up)
	defer wire.Untie(down, up)
	r := &relay{down: down, up: up, o: o}
	r.touch()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.oneWay(up, down, Upstream, &r.received)
	}()
	r.oneWay(down, up, Downstream, &r.sent)
	<-done
	res := Result{Sent: r.sent.Load(), Received: r.received.Load()}
	if b := r.broke.Load(); b != nil {
		res.Broke, res.Err = b.side, b.err
	}
	return res
}

type relay struct {
	down, up       *wire.Conn
	o              Options
	sent, received atomic.Uint64
	broke          atomic.Pointer[breakage]
}

type breakage struct {
	side Side
	err  error
}

// touch moves the deadline of both connections: a byte either way keeps both.
func (r *relay) touch() {
	if r.o.Idle > 0 {
		at := r.o.Now() + r.o.Idle
		r.down.SetDeadline(at)
		r.up.SetDeadline(at)
	}
}

// moved counts bytes that dst has taken.
func (r *relay) moved(count *atomic.Uint64, n int) {
	count.Add(uint64(n))
	r.touch()
}

// oneWay copies src to dst until src ends, then half-closes dst.
func (r *relay) oneWay(src, dst *wire.Conn, from Side, count *atomic.Uint64) {
	side, err := r.copy(src, dst, from, count)
	if err == nil {
		if err = dst.CloseWrite(); err == nil || errors.Is(err, syscall.ENOTCONN) {
			return
		}
		side = other(from)
	}
	r.broke.CompareAndSwap(nil, &breakage{side, err})
	if side != from && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		// dst has closed. What it said before is still to be had by the other
		// direction, which comes to its end without waiting.
		return
	}
	src.Expire()
	dst.Expire()
}

func other(s Side) Side {
	if s == Downstream {
		return Upstream
	}
	return Downstream
}

// piece is what is written at once, so that a slow reader is seen to move: the
// most that a TLS record holds (RFC 8446 section 5.1).
const piece = 16 << 10

// copy returns nil at the end of src, else which side failed and how.
func (r *relay) copy(src, dst *wire.Conn, from Side, count *atomic.Uint64) (Side, error) {
	defer src.Release()
	for {
		if b := src.Buffered(); len(b) > 0 {
			n, err := dst.Write(b[:min(len(b), piece)])
			r.moved(count, n)
			if err != nil {
				return other(from), err
			}
			src.Consume(n)
			continue
		}
		if src.TLS() == nil && dst.TLS() == nil {
			src.Release()
			return r.splice(src, dst, from, count)
		}
		src.Widen()
		if err := src.Fill(); err != nil {
			if errors.Is(err, io.EOF) {
				return Nobody, nil
			}
			return from, err
		}
	}
}
