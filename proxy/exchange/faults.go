package exchange

import (
	"errors"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/faults"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/fault"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// fateful is the fault made on purpose that an attempt meets.
type fateful struct {
	rule *faults.Rule // of the last one; nil: none yet
	hit  fault.Hit    // of the present attempt
	now  bool         // the present attempt has met one
	held time.Duration
	as   outcome.Reason // as what an abort or reset passes
}

// meet asks the faults that are in force about an attempt that began at began,
// whose endpoint has been picked. OK: it goes on.
func (x *exchange) meet(began time.Duration) outcome.Reason {
	if !x.s.srv.Faults.InForce() {
		x.fate.now, x.fate.held = false, 0
		return outcome.OK
	}
	return x.strike(began)
}

func (x *exchange) strike(began time.Duration) outcome.Reason {
	f := &x.fate
	f.now, f.held, f.as = false, 0, outcome.OK
	x.uploader.slow.Store(nil)
	q := faults.Question{
		Cluster: x.cl, Route: x.route.Name, Endpoint: x.ep.Address(), Caller: x.s.peerID,
		Request: &x.req, Raw: x.raw, GRPC: x.grpc, Now: began,
	}
	r, hit := x.s.srv.Faults.Strike(&q)
	if r == nil {
		return outcome.OK
	}
	f.rule, f.hit, f.now = r, hit, true
	x.rec.Fault = r.Name
	wait := hit.Delay
	if hit.Request > 0 {
		wait += paceOf(len(x.body), hit.Request) // of a body that goes out with the head
		x.uploader.slow.Store(&slowness{r, hit.Request})
	}
	if wait > 0 {
		if why := x.hold(wait, began); why != outcome.OK {
			return why
		}
	}
	if !hit.Ends() {
		return outcome.OK
	}
	x.cause = r.Cause()
	x.res.Reset()
	f.as = outcome.UpstreamReset
	if hit.Reset {
		return outcome.FaultInjected
	}
	switch {
	case hit.Abort.Code != 0:
		x.status, x.call.status, x.call.bare = 200, hit.Abort.Code, true
		p := x.pol.Retry
		if f.as = outcome.OK; blamesEndpoint(hit.Abort.Code) || p != nil && slices.Contains(p.GRPCStatuses, retry.GRPCStatus(hit.Abort.Code)) {
			f.as = outcome.UpstreamError
		}
	default:
		x.status = hit.Abort.Status
		f.as = statusReason(x.status)
	}
	return outcome.FaultInjected
}

// hold keeps an attempt waiting for d, for as long as its caller does and its
// timeouts allow, unless the fault ends before. OK: it goes on.
func (x *exchange) hold(d, began time.Duration) outcome.Reason {
	from := x.now()
	end := from + d
	limit := x.deadline
	if !x.waits() { // else the attempt's own time has not begun
		limit = sooner(limit, x.tryEnd(began))
	}
	gone := make(waiting, 1)
	if x.st != nil {
		x.caller.watch(gone)
		defer x.caller.watch(nil)
	} else {
		x.s.conn.Notify(gone)
		defer x.s.conn.Notify(nil)
	}
	for {
		x.fate.held = x.at - from
		switch {
		case x.caller.gone.Load():
			x.cause = x.st.Err()
			return outcome.DownstreamGone
		case x.st == nil && x.s.conn.Expired():
			x.cause = wire.ErrExpired
			return x.expired(outcome.DownstreamGone)
		case x.deadline > 0 && x.at >= x.deadline:
			x.cause = x.fate.rule.Cause()
			return outcome.RequestTimeout
		case limit > 0 && x.at >= limit:
			x.cause = x.fate.rule.Cause()
			return outcome.TryTimeout
		case x.at >= end:
			return outcome.OK
		}
		if !wait(sooner(end, limit)-x.at, gone, x.fate.rule) {
			end = 0
		}
		x.now()
	}
}

// wait waits for d, and reports false when the fault has ended before. A caller
// that goes ends it too.
func wait(d time.Duration, gone waiting, r *faults.Rule) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-gone:
	case <-r.Over():
		return false
	}
	return true
}

// judged is the reason by which an attempt counts for its endpoint: what was
// done on purpose does not, unless it is to.
func (x *exchange) judged(r outcome.Reason) outcome.Reason {
	f := &x.fate
	switch {
	case !f.now:
	case f.rule.Counts():
		if r == outcome.FaultInjected {
			return f.as
		}
	case r == outcome.RequestTimeout || r == outcome.TryTimeout:
		return outcome.FaultInjected // whose time the fault has taken
	}
	return r
}

// passesAs is what the retry machine is told of a failed attempt.
func (x *exchange) passesAs(r outcome.Reason) outcome.Reason {
	if r == outcome.FaultInjected {
		return x.fate.as
	}
	return r
}

// heldTime is what a fault has held an attempt, where that is to count.
func (x *exchange) heldTime() time.Duration {
	if x.fate.now && x.fate.rule.Counts() {
		return x.fate.held
	}
	return 0
}

// faultWords says what an attempt met, for the ledger; empty without a fault.
func (x *exchange) faultWords() string {
	if !x.fate.now {
		return ""
	}
	return x.fate.rule.Title(&x.fate.hit, x.fate.held)
}

// faultRow is the row of the local reply for a fault: with the status or code
// that was ordered.
func (x *exchange) faultRow(row *outcome.Row) *outcome.Row {
	a := x.fate.hit.Abort
	own := *row
	switch {
	case x.fate.hit.Reset, !x.fate.now:
		return row
	case a.Code != 0:
		own.GRPC = a.Code
	default:
		own.Status, own.GRPC = uint16(a.Status), statusOfHTTP(a.Status)
	}
	return &own
}

// cut resets the caller's connection, or stream, in place of an answer, where a
// fault of the inbound listener says so.
func (x *exchange) cut(r outcome.Reason) bool {
	if r != outcome.FaultInjected || !x.fate.hit.Reset || x.l.Direction != telemetry.Inbound {
		return false
	}
	x.status = 0
	x.close = true
	if x.st != nil {
		x.st.Reset(http2.InternalError)
		return true
	}
	x.s.abort = true
	x.s.conn.Abort()
	return true
}

var errSlowed = errors.New("the exchange's deadline passed while a fault slowed it down")

// paceOf is how long n bytes take.
func paceOf(n int, rate int64) time.Duration {
	return time.Duration(float64(n) / float64(rate) * float64(time.Second))
}

// Pieces of what is slowed down: as much as passes in paceStep.
const (
	paceStep  = 50 * time.Millisecond
	pieceMost = 16 << 10
)

func pieceOf(rate int64) int { return int(min(max(rate/int64(time.Second/paceStep), 1), pieceMost)) }

// slowed reports whether the response goes out at a rate.
func (x *exchange) slowed() bool { return x.fate.now && x.fate.hit.Response > 0 }

// pacedOut is a body on its way out, at the rate of a fault.
type pacedOut struct {
	sink
	x *exchange
}

func (o pacedOut) put(p []byte) error {
	x := o.x
	for len(p) > 0 {
		if x.fate.rule.Ended() {
			return o.sink.put(p)
		}
		n := min(len(p), pieceOf(x.fate.hit.Response))
		if err := o.sink.put(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		x.down.setDeadline(x.idleBy())
		x.setUpstreamDeadline()
		if !x.pacing(paceOf(n, x.fate.hit.Response)) {
			return errSlowed
		}
	}
	return nil
}

// pacing waits for d while the fault runs; false: the exchange's deadline has
// passed.
func (x *exchange) pacing(d time.Duration) bool {
	if x.deadline > 0 {
		if d = min(d, x.deadline-x.now()); d <= 0 {
			return false
		}
	}
	if !x.caller.gone.Load() { // else the next write tells
		wait(d, nil, x.fate.rule)
	}
	return true
}

// slowness is the rate at which a fault has a request's body go on.
type slowness struct {
	rule *faults.Rule
	rate int64
}

// slowUpload has the uploader wait for as long as the next n bytes take, unless
// there is nobody to upload to.
func (x *exchange) slowUpload(n int) {
	f := x.uploader.slow.Load()
	if f == nil {
		return
	}
	left := paceOf(n, f.rate)
	for left > 0 && x.uploader.wanted() {
		d := min(left, paceStep)
		if !wait(d, nil, f.rule) {
			return
		}
		left -= d
		x.moveUpload(false) // this is not idleness
	}
}

// retried is what is counted as the reason of another attempt. A fault that took
// the attempt's time is one.
func (x *exchange) retried(r, as outcome.Reason) outcome.Reason {
	if r == outcome.FaultInjected || r == outcome.TryTimeout && x.fate.now {
		return outcome.FaultInjected
	}
	return as
}
