package exchange

import (
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// keepable is how much of a body that is passed on as it comes is kept: nothing
// where no attempt could follow.
func (x *exchange) keepable() int {
	r := x.pol.Retry
	if r == nil || r.Attempts <= 1 || !x.pol.HTTP2 && !x.pol.Mesh && !x.grpc && !x.repeatable() || !x.keepsBodies() {
		return 0
	}
	if x.s.srv.Memory.At(memory.Narrow) {
		return 0
	}
	return min(r.MaxBodyBytes, wire.Large)
}

// begin makes the uploader ready for an attempt.
func (u *uploader) begin() {
	u.end.Store(0)
	u.answered.Store(false)
	u.mu.Lock()
	u.sent = false
	u.mu.Unlock()
}

// replayable reports whether all that was passed on can be sent again.
func (u *uploader) replayable() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.lost && !u.final && u.failed() == outcome.OK
}

// again is what earlier attempts had of the body, or has come with the head; with
// whole that is all. It stays as it is until attach.
func (u *uploader) again() (body, trailers []byte, whole bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.kept, u.trailers, u.whole
}

// complete notes that the present attempt's leg has had the body whole.
func (u *uploader) complete() {
	u.mu.Lock()
	u.sent = true
	u.mu.Unlock()
}

// hadWhole reports whether the present attempt's leg has had the body whole.
func (u *uploader) hadWhole() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent
}

// waits reports whether something of the body is still to come.
func (x *exchange) waits() bool {
	if !x.stream || !x.hasBody() {
		return false
	}
	_, _, whole := x.uploader.again()
	return !whole
}

// resume sends what earlier attempts had of the body on an HTTP/1.1 connection
// and has the rest follow.
func (x *exchange) resume() error {
	body, trailers, whole := x.uploader.again()
	if len(body) > 0 || whole {
		if err := writeConn(x.up, body, trailers, x.req.Framing == http1.FramingChunked, whole); err != nil {
			return err
		}
	}
	if whole {
		x.uploader.complete()
		return nil
	}
	if !x.attach() {
		return x.uploader.err
	}
	return nil
}

// attach has what comes of the body go to the present attempt's leg, which has
// had what came before. It reports false when the downstream leg has failed.
func (x *exchange) attach() bool {
	u := &x.uploader
	if x.upload == uploadNone {
		u.keep = x.keepable()
	}
	u.mu.Lock()
	if len(u.kept) > u.keep {
		u.lost = true
		u.forget()
	}
	u.up, u.ust = x.up, x.ust
	u.wake.Broadcast()
	u.mu.Unlock()
	if x.upload == uploadNone {
		x.startUpload()
	}
	return u.failed() == outcome.OK
}

// detach takes the leg away from the uploader. A write that is under way ends
// first, so expire the leg before.
func (u *uploader) detach() {
	u.mu.Lock()
	u.up, u.ust = nil, nil
	u.mu.Unlock()
	u.writing.Lock()
	defer u.writing.Unlock() // nothing is guarded: the write is awaited
}

// commit says that no other attempt follows. What comes from now on and no leg
// takes is read and thrown away.
func (u *uploader) commit() {
	u.mu.Lock()
	u.final = true
	u.forget()
	u.wake.Broadcast()
	u.mu.Unlock()
}

// remember keeps p behind what is kept, if there is room.
func (u *uploader) remember(p []byte) {
	n := len(u.kept) + len(p)
	switch {
	case n > u.keep:
		u.lost = true
		u.forget()
		return
	case len(p) == 0:
		return
	case u.kept == nil && n <= wire.Small:
		u.kept = wire.GetSmall()[:0]
	case n > cap(u.kept):
		b := append(wire.GetLarge()[:0], u.kept...)
		u.forget()
		u.kept = b
	}
	u.kept = append(u.kept, p...)
}
