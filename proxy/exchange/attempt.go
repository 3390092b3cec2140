package exchange

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// attempt makes one try against one endpoint, up to and with the response when
// it may be passed on. again reports that nothing was passed on and another
// attempt may be considered; then an error response is still unread in x.up.
func (x *exchange) attempt(began time.Duration) (r outcome.Reason, again bool) {
	x.status, x.sent, x.heard, x.unsent = 0, 0, false, false
	x.call.reset()
	if x.stream {
		x.uploader.begin()
	}
	ep := x.cl.Pick(began, &x.wish, &x.tried)
	if ep == nil {
		if x.tried.Broken() {
			x.cause = upstream.ErrAllBroken
			return outcome.BreakerOpen, false
		}
		if x.tried.Full() {
			x.cause = upstream.ErrAllFull
			return outcome.LimitRequests, false
		}
		if ep = x.awaitEndpoint(); ep == nil {
			if err := x.wish.Refusal(); err != nil {
				x.cause = err
			}
			return outcome.NoEndpoints, false
		}
	}
	x.ep = ep
	x.cl.Begin(ep, began)
	a := telemetry.Attempt{Endpoint: ep.Address(), Cluster: x.cl.Of(ep), Offset: began - x.start}
	if child := x.s.srv.Tracer.Child(x.trace, rand.Uint64()); x.s.srv.Tracer != nil {
		a.Span = child.Span
	}
	if r = x.meet(began); r == outcome.OK {
		r = x.try(ep, began, a.Span)
		x.rec.ConnectTime = max(x.rec.ConnectTime-x.fate.held, 0)
	}
	if x.status == 0 {
		x.now() // else it was read when the answer came
	}
	if x.race != nil && x.race.n > 0 {
		r, began = x.settle(r, &a, began)
		ep = x.ep
	}
	rtt := x.at - x.sent + x.heldTime()
	if x.sent == 0 {
		rtt = x.at - began
	}
	if x.pol.Hedge != nil {
		x.learn(r, rtt)
	}
	x.heedRetryAfter()
	a.Status, a.Reason, a.Fault = uint16(x.status), r, x.faultWords()
	if r == outcome.OK && !x.call.held {
		r = x.deliver(r)
		a.Reason = r
	}
	a.Duration = x.at - began
	a.First, a.Sent = x.moments(began)
	x.rec.AddAttempt(a)
	x.cl.Finish(ep, x.at, rtt, x.judged(r), x.status)
	x.confess()
	return r, r != outcome.FaultInjected || x.fate.as != outcome.OK
}

// try sends the request to ep and reads up to the final response head.
func (x *exchange) try(ep *upstream.Endpoint, began time.Duration, span telemetry.SpanID) outcome.Reason {
	r := x.connect(ep, began, false)
	if r != outcome.OK {
		return r
	}
	r = x.roundTrip(span)
	if x.armed {
		x.disarm()
	}
	if r == outcome.StaleConnection && x.kept() && (x.unsent || x.repeatable()) && x.calledOff() == outcome.OK {
		// Nobody's fault and nothing was read: once more on a new
		// connection, as part of the same attempt.
		x.unsent = false
		if x.stream {
			x.uploader.begin()
		}
		if r = x.connect(ep, x.now(), true); r == outcome.OK {
			r = x.roundTrip(span)
			if x.armed {
				x.disarm()
			}
		}
	}
	return r
}

// kept reports whether the request can be sent a second time.
func (x *exchange) kept() bool {
	return !x.began && (!x.stream || x.uploader.replayable())
}

// repeatable reports whether it may be, although an endpoint may have seen it.
func (x *exchange) repeatable() bool {
	return x.req.Method.Idempotent() || x.pol.Retry != nil && x.pol.Retry.NonIdempotent
}

// connect gets x.up.
func (x *exchange) connect(ep *upstream.Endpoint, now time.Duration, fresh bool) outcome.Reason {
	w := upstream.Want{
		Now: now, Deadline: x.deadline, Fresh: fresh,
		Careful: x.stream || !x.req.Method.Idempotent(),
		HTTP2:   x.origin() != http2.FromHTTP1,
		Draw:    x.tried.Draw,
	}
	leg, oe := ep.Get(w)
	x.rec.ConnectTime = 0
	if oe != nil {
		x.cause = oe
		if oe.Reason == outcome.ConnectTimeout && x.deadline > 0 && x.now() >= x.deadline {
			return outcome.RequestTimeout
		}
		return oe.Reason
	}
	x.up, x.ust, x.upID = leg.Conn, leg.Stream, leg.PeerID
	if x.rival.of != nil && x.caller.gone.Load() {
		return x.unused()
	}
	if !leg.Reused {
		x.rec.ConnectTime = x.now() - now
	}
	x.attemptEnd = 0
	if !x.waits() { // else the time begins with the end of the body
		x.attemptEnd = x.tryEnd(now)
	}
	x.setUpstreamDeadline()
	if x.st != nil || x.rival.of != nil {
		x.watch()
	}
	return outcome.OK
}

// tryEnd is when an attempt that begins at from must have been answered; 0
// without a per-try timeout.
func (x *exchange) tryEnd(from time.Duration) time.Duration {
	if p := x.pol.Retry; p != nil && p.PerTryTimeout > 0 {
		return from + p.PerTryTimeout
	}
	return 0
}

// setUpstreamDeadline lets the upstream leg end at the earliest of the
// exchange's and the attempt's deadline and the stream's idle time. For the
// last of them, which moves all the time, the sweeper is precise enough.
func (x *exchange) setUpstreamDeadline() {
	end := sooner(x.deadline, x.attemptEnd)
	at := sooner(end, x.idleBy())
	if x.ust != nil {
		x.ust.SetDeadline(at)
		return
	}
	x.up.SetDeadline(at)
	if end > 0 && end-x.s.srv.Sweeper.Soon() >= wire.Exact {
		end = 0
	}
	switch {
	case end == x.exactAt:
	case end == 0:
		x.up.SetExact(time.Time{})
	default:
		x.up.SetExact(time.Now().Add(end - x.now()))
	}
	x.exactAt = end
}

// sooner returns the earlier of two times of which each is 0 if there is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// inexact takes back up's exact deadline.
func (x *exchange) inexact() {
	if x.exactAt != 0 {
		x.up.SetExact(time.Time{})
		x.exactAt = 0
	}
}

// roundTrip sends the request and reads up to the final response head.
func (x *exchange) roundTrip(span telemetry.SpanID) outcome.Reason {
	if x.ust != nil && x.req.Upgrade {
		if r := x.mayTunnel(); r != outcome.OK {
			return r
		}
	}
	head := x.buildRequest(span)
	x.res.Reset()
	x.sent = x.at
	if x.ust != nil {
		return x.roundTripStream(head)
	}
	var err error
	if x.stream && x.hasBody() || x.req.Upgrade {
		if _, err = x.up.Write(x.out); err == nil && x.stream && x.hasBody() {
			err = x.resume()
		}
		if err == nil {
			x.up.Room(wire.Large)
			err = x.up.Fill()
		}
	} else {
		if x.pol.Hedge != nil {
			x.arm()
		}
		err = x.up.WriteRead(x.out)
	}
	for {
		if err != nil {
			return x.upstreamFailed(err)
		}
		x.heard = true
		b := x.up.Buffered()
		k, perr := x.res.Parse(b, &x.l.HTTP.Limits, x.req.Method)
		switch {
		case perr != nil:
			x.cause = perr
			x.dropUpstream()
			return outcome.UpstreamProtocol
		case k == 0:
			if !x.up.Room(wire.Large) {
				x.cause = http1.ErrHeadTooLong
				x.dropUpstream()
				return outcome.UpstreamProtocol
			}
			err = x.up.Fill()
		case x.res.Interim:
			if r := x.forwardInterim(b[:k]); r != outcome.OK {
				x.dropUpstream()
				return r
			}
			x.up.Consume(k)
			if len(x.up.Buffered()) == 0 {
				x.up.Room(wire.Large)
				err = x.up.Fill()
			}
		case x.res.Status == 101 && !x.switched(b):
			x.cause = errUnasked
			x.dropUpstream()
			return outcome.UpstreamProtocol
		default:
			return x.answered(k, b)
		}
	}
}

// answered notes the final response head, the first k bytes of b.
func (x *exchange) answered(k int, b []byte) outcome.Reason {
	x.status = x.res.Status
	x.rec.FirstByteTime = x.now() - x.start
	x.headLen = k
	x.attemptEnd = 0
	if x.stream {
		x.uploader.answered.Store(true)
	}
	if cfg := x.pol.Balance.ORCA; cfg != nil {
		x.hearHead(cfg, b)
	}
	if x.extended() && x.status/100 == 2 {
		return x.notSwitched()
	}
	r := statusReason(x.status)
	if x.grpc {
		r = x.callAnswered(b)
	}
	x.heedStatus(r, b)
	return r
}

var errUnasked = errors.New("101 to a request that did not ask for an upgrade, or with another protocol's name")

// upstreamFailed names the reason of a failed read or write on the upstream
// leg and drops the connection.
func (x *exchange) upstreamFailed(err error) outcome.Reason {
	x.cause = err
	stale := x.up != nil && x.up.Reused && !x.heard
	if end := x.uploader.end.Load(); end > 0 && !x.heard {
		x.attemptEnd = time.Duration(end)
	}
	x.dropUpstream()
	if r := x.calledOff(); r != outcome.OK {
		return r
	}
	if r := x.uploader.failed(); r != outcome.OK {
		x.cause = x.uploader.err
		if r == outcome.BadRequest {
			x.detail = http1.Reason(x.cause)
		}
		return r
	}
	if errors.Is(err, wire.ErrExpired) {
		switch now := x.now(); {
		case x.deadline > 0 && now >= x.deadline:
			return outcome.RequestTimeout
		case x.attemptEnd > 0 && now >= x.attemptEnd:
			return outcome.TryTimeout
		}
		return outcome.StreamIdle
	}
	var remote *net.OpError
	if errors.As(err, &remote) && remote.Op == "remote error" {
		// A TLS alert: TLS 1.3 clients learn of a refused certificate only
		// here (RFC 8446 section 4.4.2.4).
		return outcome.HandshakeFailed
	}
	if stale && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return outcome.StaleConnection
	}
	if e, ok := errors.AsType[*http2.Error](err); ok && !e.Conn {
		switch {
		case !e.Remote:
			return outcome.UpstreamProtocol // what came on the stream is malformed
		case e.Code == http2.Cancel && x.deadline > 0 && x.now() >= x.deadline-rounded:
			// The endpoint was told the deadline and gave the call up first.
			return outcome.RequestTimeout
		}
	}
	return outcome.UpstreamReset
}

// rounded is how much earlier than here a deadline may pass at an endpoint: it
// is told in whole units.
const rounded = time.Millisecond

func (x *exchange) dropUpstream() {
	x.unwatch()
	if x.ust != nil {
		if x.upload == uploadRunning {
			x.ust.Expire()
			x.uploader.detach()
		}
		x.ust.Close()
		x.ust = nil
	}
	if x.up != nil {
		if x.upload == uploadRunning {
			x.up.Expire()
			x.uploader.detach()
		}
		x.ep.Drop(x.up)
		x.up, x.exactAt = nil, 0
	}
}

// keepUpstream puts the connection back into its pool if another exchange may
// use it.
func (x *exchange) keepUpstream(clean bool) {
	if x.ust != nil {
		if clean && x.upload == uploadRunning && x.uploader.read.Load() {
			x.awaitLastWrite()
		}
		x.dropUpstream()
		return
	}
	if x.up == nil {
		return
	}
	if clean && x.upload == uploadRunning && x.uploader.read.Load() {
		x.awaitLastWrite()
	}
	if !clean || !x.res.KeepAlive || len(x.up.Buffered()) > 0 || x.upload == uploadRunning || x.stream && x.hasBody() && !x.uploader.hadWhole() {
		x.dropUpstream()
		return
	}
	x.unwatch()
	x.up.Release()
	x.inexact()
	x.ep.Put(x.up, x.now())
	x.up, x.timed = nil, true
}
