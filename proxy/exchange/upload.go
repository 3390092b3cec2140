package exchange

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// uploader passes a request's body on as it comes, in a goroutine of its own that
// settleUpload waits for. While the response is awaited it keeps what it has
// passed on: as long as that is all, another attempt can be made, which gets it
// again and then the rest.
type uploader struct {
	done   chan struct{}
	read   atomic.Bool   // the body has been read from downstream whole
	reason atomic.Uint32 // outcome.Reason of a failure on the downstream leg
	bytes  atomic.Uint64
	end    atomic.Int64 // the attempt's end by its per-try timeout; 0 until the body is sent
	// answered: the response has begun, so that the per-try timeout is over.
	answered atomic.Bool

	slow atomic.Pointer[slowness] // nil: as it comes

	writing sync.Mutex // held while upstream is written to; detach, which waits for it, holds nothing else

	mu    sync.Mutex
	wake  sync.Cond  // of mu: the next attempt has a leg, or there is none
	up    *wire.Conn // where the body goes: one of these,
	ust   *http2.Stream
	sent  bool // the present attempt's leg has had the body whole
	final bool // there is no further attempt: what no leg takes is thrown away
	err   error

	keep     int    // how much may be kept
	kept     []byte // pooled: what was passed on, decoded
	lost     bool   // more was passed on than is kept
	whole    bool   // kept is all of the body
	trailers []byte // behind it
}

func (u *uploader) reset() {
	// Nearly always nothing was uploaded, and to store costs more than to look.
	if u.read.Load() {
		u.read.Store(false)
	}
	if u.reason.Load() != uint32(outcome.OK) {
		u.reason.Store(uint32(outcome.OK))
	}
	if u.bytes.Load() != 0 {
		u.bytes.Store(0)
	}
	if u.end.Load() != 0 {
		u.end.Store(0)
	}
	if u.answered.Load() {
		u.answered.Store(false)
	}
	if u.slow.Load() != nil {
		u.slow.Store(nil)
	}
	u.forget()
	u.up, u.ust, u.err, u.trailers = nil, nil, nil, nil
	u.sent, u.final, u.lost, u.whole, u.keep = false, false, false, false, 0
}

func (u *uploader) forget() {
	if u.kept != nil {
		wire.Put(u.kept)
		u.kept = nil
	}
}

func (u *uploader) failed() outcome.Reason { return outcome.Reason(u.reason.Load()) }

// leg is where the body goes at present, or nil. u.mu is held.
func (u *uploader) leg() upstreamLeg {
	switch {
	case u.up != nil:
		return u.up
	case u.ust != nil:
		return u.ust
	}
	return nil
}

// upstreamLeg is what an upload needs of the leg beside a place to write to.
type upstreamLeg interface {
	Expire()
	SetDeadline(at time.Duration) bool
}

// wanted reports whether what comes of the body goes anywhere at present.
func (u *uploader) wanted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.leg() != nil
}

// startUpload begins to pass the body on.
func (x *exchange) startUpload() {
	x.upload = uploadRunning
	if x.uploader.done == nil {
		x.uploader.done = make(chan struct{}, 1)
	}
	go x.uploadBody()
}

// lastWrite is how long a response that is complete waits for the last bytes of
// the request to be sent, so that the connection can be kept.
const lastWrite = 50 * time.Millisecond

// awaitLastWrite waits for an uploader that has read the body whole.
func (x *exchange) awaitLastWrite() {
	select {
	case <-x.uploader.done:
		x.upload = uploadDone
		return
	default:
	}
	t := time.NewTimer(lastWrite)
	defer t.Stop()
	select {
	case <-x.uploader.done:
		x.upload = uploadDone
	case <-t.C:
	}
}

// waitUpload waits for the uploader's end. No attempt may follow.
func (x *exchange) waitUpload() {
	<-x.uploader.done
	x.upload = uploadDone
}

// settleUpload ends an upload after the response: what the caller still sends
// is read for a while, so that it gets to see the response.
func (x *exchange) settleUpload() {
	if x.upload == uploadRunning {
		if !x.uploader.read.Load() {
			// A stream is reset then, without an error (RFC 9113 section 8.1). Many
			// clients lose a response that such a reset follows at once.
			x.close = true
			x.down.setDeadline(x.now() + lingerTime)
		}
		x.waitUpload()
		x.now()
		if !x.uploader.read.Load() {
			x.close = true
		}
		if x.cause == nil || x.uploader.failed() != outcome.OK {
			x.cause = x.uploader.err
		}
	}
	x.rec.BytesIn += x.uploader.bytes.Load()
}

// uploadBody runs in its own goroutine.
func (x *exchange) uploadBody() {
	u := &x.uploader
	defer func() { u.done <- struct{}{} }()
	from := x.bodyFrom()
	if in, ok := from.(*requestIn); ok {
		defer in.free()
	}
	x.moveUpload(false)
	for {
		p, err := from.Peek()
		if err != nil && err != io.EOF {
			x.uploadBroke(err)
			return
		}
		last := err == io.EOF || from.Last(len(p))
		if last {
			u.read.Store(true)
		}
		x.slowUpload(len(p))
		x.pass(p, from, last)
		if len(p) > 0 {
			from.Discard(len(p))
		}
		u.bytes.Add(uint64(len(p)))
		x.moveUpload(last)
		if last {
			return
		}
	}
}

// pass gives a part of the body to the present attempt and keeps it for the next.
// Between attempts it waits for that.
func (x *exchange) pass(p []byte, from bodySource, last bool) {
	u := &x.uploader
	up, ust, trailers := u.take(p, from, last)
	defer u.writing.Unlock()
	var err error
	switch {
	case ust != nil:
		err = writeStream(ust, p, trailers, last)
	case up != nil:
		err = writeConn(up, p, trailers, x.req.Framing == http1.FramingChunked, last)
	default:
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.leg() == nil: // taken away meanwhile
	case err != nil:
		// The response, or its absence, tells why.
		u.up, u.ust = nil, nil
	case last:
		u.sent = true
	}
}

// take waits for a leg, keeps p and returns where it goes: nowhere if it is to be
// thrown away. It returns with u.writing held.
func (u *uploader) take(p []byte, from bodySource, last bool) (up *wire.Conn, ust *http2.Stream, trailers []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.leg() == nil && !u.final && !u.lost {
		u.wake.Wait()
	}
	if !u.final && !u.lost {
		u.remember(p)
	}
	if last {
		trailers = from.Trailers()
		u.whole, u.trailers = !u.lost && !u.final, trailers
	}
	u.writing.Lock()
	return u.up, u.ust, trailers
}

func writeStream(s *http2.Stream, p, trailers []byte, last bool) error {
	if last && len(trailers) > 0 {
		if len(p) > 0 {
			if err := s.Write(p, http2.More); err != nil {
				return err
			}
		}
		return s.WriteTrailers(trailers)
	}
	f := http2.Flags(0)
	if last {
		f = http2.End
	}
	return s.Write(p, f)
}

func writeConn(c *wire.Conn, p, trailers []byte, chunked, last bool) error {
	o := bodyOut{c, chunked}
	if len(p) > 0 {
		if err := o.put(p); err != nil {
			return err
		}
	}
	if last {
		return o.end(trailers)
	}
	return nil
}

// moveUpload moves the deadlines of both legs after a part of the body was
// passed on; at its end the attempt's own time begins.
func (x *exchange) moveUpload(done bool) {
	u := &x.uploader
	u.mu.Lock()
	defer u.mu.Unlock()
	up := u.leg()
	if up == nil {
		return
	}
	at := x.idleBy()
	if !done && x.st == nil {
		// A stream that has expired can say nothing any more: one that stalls is
		// found by the upstream leg's deadline.
		x.down.setDeadline(at)
	}
	at = sooner(at, x.deadline)
	if done && !u.answered.Load() {
		end := x.tryEnd(x.s.srv.Sweeper.Now()) // x.now is for the exchange's own goroutine
		u.end.Store(int64(end))
		x.down.setDeadline(0)
		up.SetDeadline(sooner(at, end))
		if !u.answered.Load() {
			return
		}
		// The response has begun meanwhile and may have set its own deadlines
		// before; if not yet, it does so after these.
		x.down.setDeadline(x.idleBy())
	}
	up.SetDeadline(at)
}

// uploadBroke notes why the downstream leg failed and wakes the other.
func (x *exchange) uploadBroke(err error) {
	r := reasonOfRead(err)
	if e, ok := errors.AsType[*http1.Error](err); ok {
		r, err = outcome.BadRequest, e
	}
	u := &x.uploader
	u.mu.Lock()
	u.err = err
	u.reason.Store(uint32(r))
	if up := u.leg(); up != nil {
		up.Expire()
	}
	u.mu.Unlock()
}

func reasonOfRead(err error) outcome.Reason {
	if errors.Is(err, wire.ErrExpired) {
		return outcome.DownstreamTimeout
	}
	return outcome.DownstreamGone
}
