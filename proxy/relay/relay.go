// Package relay moves bytes both ways between two connections or HTTP/2 streams until both have ended: half-close, idle time, splice.
package relay

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/websocket"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// Side is one of the two legs.
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
	// Broke is the side whose leg failed first; Nobody when both ended in
	// order.
	Broke Side
	Err   error
	// Closed is why a WebSocket was closed, in order or after the time for that.
	Closed Closed
}

// Options tunes a relay.
type Options struct {
	Now  func() time.Duration // the clock of the legs' deadlines
	Idle time.Duration        // without a byte either way; 0 none
	// WebSocket says that the bytes are WebSocket frames, and limits them in
	// place of Idle. They are not spliced, which costs nothing for short messages
	// and some processor time for long ones (BenchmarkEcho).
	WebSocket *websocket.Config
}

// Relay moves bytes between two legs.
type Relay struct {
	down, up Leg
	o        Options
	ways     [2]way
	closing  *closing // of a WebSocket
	broke    atomic.Pointer[breakage]
	stopped  atomic.Bool
	mu       sync.Mutex // held while legs are expired from outside
	over     bool       // the legs are their owner's again
}

// New returns the relay between two legs.
func New(down, up Leg, o Options) *Relay {
	r := &Relay{down: down, up: up, o: o}
	r.ways[0] = way{r: r, src: down, dst: up, from: Downstream}
	r.ways[1] = way{r: r, src: up, dst: down, from: Upstream}
	if o.WebSocket != nil {
		r.closing = &closing{cfg: *o.WebSocket}
		r.ways[0].frames, r.ways[1].frames = new(frames), new(frames)
	}
	return r
}

// Run relays between two legs; see Relay.Run.
func Run(down, up Leg, o Options) Result { return New(down, up, o).Run() }

// Run relays until both directions have ended, or one leg fails, or nothing
// moves for the idle time, or either leg is expired from outside. The end of one
// direction is passed on as a half-close; the other goes on. A side that takes
// nothing more because it has closed is still read to its end. What either leg
// has received already goes first. Where a leg fails, the other is cut, by a
// reset unless it was time that ended them.
//
// Neither leg is closed, but neither may be used for anything but that
// afterwards. Nobody else may have a Notify on them meanwhile.
func (r *Relay) Run() Result {
	r.down.Notify(&r.ways[0])
	r.up.Notify(&r.ways[1])
	if r.closing != nil {
		r.begin()
	} else {
		r.touch()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ways[1].run()
	}()
	r.ways[0].run()
	<-done
	res := Result{Sent: r.ways[0].count.Load(), Received: r.ways[1].count.Load()}
	if r.closing != nil {
		res.Closed = r.finish()
	}
	r.down.Notify(nil)
	r.up.Notify(nil)
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	if b := r.broke.Load(); b != nil {
		res.Broke, res.Err = b.side, b.err
		timed := errors.Is(b.err, wire.ErrExpired)
		r.down.Cut(!timed && b.side != Downstream)
		r.up.Cut(!timed && b.side != Upstream)
	}
	return res
}

type breakage struct {
	side Side
	err  error
}

// fail notes which leg failed first.
func (r *Relay) fail(side Side, err error) { r.broke.CompareAndSwap(nil, &breakage{side, err}) }

// stop ends both directions.
func (r *Relay) stop() {
	if r.stopped.Swap(true) {
		return // expiring one leg tells of it, here again
	}
	r.mu.Lock()
	if !r.over {
		r.down.Expire()
		r.up.Expire()
	}
	r.mu.Unlock()
}

// touch moves the deadline of both legs: a byte either way keeps both.
func (r *Relay) touch() {
	switch {
	case r.closing != nil:
		r.closing.moved.Store(int64(r.o.Now()))
	case r.o.Idle > 0:
		at := r.o.Now() + r.o.Idle
		r.down.SetDeadline(at)
		r.up.SetDeadline(at)
	}
}

// way is one direction.
type way struct {
	r        *Relay
	src, dst Leg
	from     Side
	frames   *frames // nil where they are not followed
	count    atomic.Uint64
	done     atomic.Bool // src has ended, and dst knows
}

// Canceled implements http2.Canceler: src has ended before its time, which its
// reader may not notice.
func (w *way) Canceled() {
	err, finished := w.src.Err()
	switch finished = w.finished(err, finished); {
	case err == nil:
	case finished && !w.done.Load():
		w.r.hurry() // what it said goes on first
	default:
		w.dead(err, finished)
	}
}

// dead ends the relay since src takes nothing more. One that had said all
// before has ended in order.
func (w *way) dead(err error, finished bool) {
	if w.r.stopped.Load() {
		return
	}
	if !finished {
		w.r.fail(w.from, err)
	}
	w.r.stop()
}

// run copies src to dst until src ends, then half-closes dst.
func (w *way) run() {
	side, err := w.copy()
	if err == nil {
		if err = w.end(); err == nil {
			w.done.Store(true)
			if err, finished := w.src.Err(); err != nil {
				w.dead(err, w.finished(err, finished))
			}
			return
		}
		side = other(w.from)
	}
	if w.r.stopped.Load() {
		return // by the other direction, or in order
	}
	if side == w.from || !gone(err) {
		w.r.fail(side, err)
		w.r.stop()
		return
	}
	// dst has closed. What it said before is still to be had by the other
	// direction, which comes to its end without waiting.
	if !w.r.ways[side-Downstream].finished(err, false) {
		w.r.fail(side, err)
	}
}

// gone reports whether a write failed because the peer has closed or reset.
func gone(err error) bool {
	e, ok := errors.AsType[*http2.Error](err)
	return ok && e.Remote && !e.Conn || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
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
func (w *way) copy() (Side, error) {
	defer w.src.Release()
	if from, to := plain(w.src), plain(w.dst); w.frames == nil && from != nil && to != nil {
		return w.splice(from, to)
	}
	for {
		b, err := w.src.Peek()
		if err == io.EOF || err != nil && w.finished(err, false) {
			return Nobody, nil
		}
		if err != nil {
			return w.from, err
		}
		if side, err := w.put(b); err != nil {
			return side, err
		}
		if w.over() {
			return Nobody, nil
		}
	}
}

// put passes on a part of what src has.
func (w *way) put(b []byte) (Side, error) {
	var err error
	if w.frames != nil {
		err = w.putFrames(b) // whose idle time is long
	} else {
		b = b[:min(len(b), piece)]
		if err = w.dst.Put(b); err == nil {
			w.count.Add(uint64(len(b)))
		}
	}
	if err != nil {
		return other(w.from), err
	}
	w.src.Discard(len(b))
	w.r.touch()
	return Nobody, nil
}

// plain is the connection of a leg without TLS, which can be spliced.
func plain(l Leg) *wire.Conn {
	if c, ok := l.(conn); ok && c.TLS() == nil {
		return c.Conn
	}
	return nil
}
