package exchange

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// uploader passes a long request body on while the response is awaited, in a
// goroutine of its own that settleUpload waits for.
type uploader struct {
	done   chan struct{}
	read   atomic.Bool   // the body has been read from downstream whole
	reason atomic.Uint32 // outcome.Reason of a failure on the downstream leg
	bytes  atomic.Uint64
	end    atomic.Int64 // the attempt's end by its per-try timeout; 0 until the body is sent
	// answered: the response has begun, so that the per-try timeout is over.
	answered atomic.Bool

	mu    sync.Mutex // held while upstream is written to
	blind bool       // read and throw away: upstream is gone or has answered
	err   error      // the cause of reason
}

func (u *uploader) reset() {
	u.read.Store(false)
	u.reason.Store(uint32(outcome.OK))
	u.bytes.Store(0)
	u.end.Store(0)
	u.answered.Store(false)
	u.blind, u.err = false, nil
}

func (u *uploader) failed() outcome.Reason { return outcome.Reason(u.reason.Load()) }

// discard makes the uploader leave upstream alone from now on. A write that is
// under way ends first, so expire the connection before.
func (u *uploader) discard() {
	u.mu.Lock()
	u.blind = true
	u.mu.Unlock()
}

// startUpload begins to pass the body on to x.up.
func (x *exchange) startUpload() {
	x.upload = uploadRunning
	if x.uploader.done == nil {
		x.uploader.done = make(chan struct{}, 1)
	}
	switch {
	case x.ust != nil:
		go x.uploadStream(x.bodyFrom(), streamOut{x.ust}, x.ust)
	case x.st != nil:
		go x.uploadStream(x.bodyFrom(), bodyOut{x.up, x.req.Framing == http1.FramingChunked}, x.up)
	default:
		go x.uploadBody(x.up)
	}
}

// lastWrite is how long a response that is complete waits for the last bytes of
// the request to be sent, so that the connection can be kept.
const lastWrite = 50 * time.Millisecond

// awaitLastWrite waits for an uploader that has read the body whole.
func (x *exchange) awaitLastWrite() {
	select {
	case <-x.uploader.done:
		x.uploaded()
		return
	default:
	}
	t := time.NewTimer(lastWrite)
	defer t.Stop()
	select {
	case <-x.uploader.done:
		x.uploaded()
	case <-t.C:
	}
}

// waitUpload waits for the uploader's end.
func (x *exchange) waitUpload() {
	<-x.uploader.done
	x.uploaded()
}

// uploaded is called once the uploader has ended.
func (x *exchange) uploaded() {
	x.upload = uploadDone
	if x.uploader.blind || x.uploader.failed() != outcome.OK {
		x.upload = uploadFailed
	}
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
func (x *exchange) uploadBody(up *wire.Conn) {
	u := &x.uploader
	defer func() { u.done <- struct{}{} }()
	down := x.s.conn
	var out []byte // what is sent of a chunked body
	if x.req.Framing == http1.FramingChunked {
		x.in.Reset(&x.l.HTTP.Limits)
		out = wire.GetLarge()
		defer wire.Put(out)
	}
	left := x.req.Length
	x.moveUpload(up, false)
	for {
		b := down.Buffered()
		if len(b) == 0 {
			down.Widen()
			if err := down.Fill(); err != nil {
				x.uploadBroke(up, reasonOfRead(err), err)
				return
			}
			b = down.Buffered()
		}
		used, send, done, err := x.take(b, out[:0], &left)
		if err != nil {
			x.uploadBroke(up, outcome.BadRequest, err)
			return
		}
		u.bytes.Add(uint64(used))
		if done {
			u.read.Store(true)
		}
		u.mu.Lock()
		if !u.blind {
			if _, err := up.Write(send); err != nil {
				// The response, or its absence, tells why.
				u.blind = true
			}
		}
		u.mu.Unlock()
		down.Consume(used)
		x.moveUpload(up, done)
		if done {
			return
		}
	}
}

// moveUpload moves the deadlines of both legs after a part of the body was
// passed on; at its end the attempt's own time begins.
func (x *exchange) moveUpload(up upstreamLeg, done bool) {
	u := &x.uploader
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.blind {
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

// take takes what b holds of the body: used bytes of it, which become send.
func (x *exchange) take(b, out []byte, left *int64) (used int, send []byte, done bool, err error) {
	if x.req.Framing == http1.FramingLength {
		used = int(min(int64(len(b)), *left))
		*left -= int64(used)
		return used, b[:used], *left == 0, nil
	}
	used, send, _, done, err = recode(&x.in, codable(b, out), out, true)
	return used, send, done, err
}

// uploadBroke notes why the downstream leg failed and wakes the other.
func (x *exchange) uploadBroke(up upstreamLeg, r outcome.Reason, err error) {
	u := &x.uploader
	u.mu.Lock()
	u.err = err
	u.reason.Store(uint32(r))
	if !u.blind {
		up.Expire()
	}
	u.mu.Unlock()
}

// upstreamLeg is what an upload needs of the leg beside a place to write to.
type upstreamLeg interface {
	Expire()
	SetDeadline(at time.Duration) bool
}

// bodyFrom is the request's body, decoded.
func (x *exchange) bodyFrom() source {
	if x.st != nil {
		return x.st
	}
	return newBodyIn(x.s.conn, x.req.Framing, x.req.Length, &x.in, &x.l.HTTP.Limits)
}

// guarded writes to upstream for as long as the exchange wants it.
type guarded struct {
	u  *uploader
	to sink
}

func (g guarded) put(p []byte) error {
	return g.do(func() error { return g.to.put(p) })
}

func (g guarded) end(trailers []byte) error {
	g.u.read.Store(true)
	return g.do(func() error { return g.to.end(trailers) })
}

func (g guarded) do(f func() error) error {
	g.u.mu.Lock()
	defer g.u.mu.Unlock()
	if !g.u.blind && f() != nil {
		// The response, or its absence, tells why.
		g.u.blind = true
	}
	return nil
}

// uploadStream is uploadBody where either leg is HTTP/2. It runs in its own
// goroutine.
func (x *exchange) uploadStream(from source, to sink, up upstreamLeg) {
	u := &x.uploader
	defer func() { u.done <- struct{}{} }()
	x.moveUpload(up, false)
	if _, err := pump(from, guarded{u, to}, func(n int) {
		u.bytes.Add(uint64(n))
		x.moveUpload(up, false)
	}); err != nil {
		r := reasonOfRead(err)
		if e, ok := errors.AsType[*http1.Error](err); ok {
			r, err = outcome.BadRequest, e
		}
		x.uploadBroke(up, r, err)
		return
	}
	x.moveUpload(up, true)
}

func reasonOfRead(err error) outcome.Reason {
	if errors.Is(err, wire.ErrExpired) {
		return outcome.DownstreamTimeout
	}
	return outcome.DownstreamGone
}
