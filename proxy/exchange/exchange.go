package exchange

import (
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// exchange is one request with its response. It is pooled; nothing keeps it
// after free.
type exchange struct {
	s   *Session
	l   *plan.Listener
	cl  *upstream.Cluster
	pol *upstream.Policy

	req  http1.Request
	res  http1.Response
	in   http1.ChunkReader // the request's body
	resp http1.ChunkReader // the response's body

	raw    []byte // the bytes that req's spans refer to
	body   []byte // the whole request body as it is sent upstream, when kept
	spool  []byte // memory of body where that is not a view of the buffer
	own    []byte // memory of raw in a detached exchange
	stream bool   // the body is read while it is sent

	out    []byte // a head in the making; pooled
	id     []byte // request id; a view of raw or of idMem
	idMem  [telemetry.RequestIDLen]byte
	parent telemetry.TraceContext
	trace  telemetry.TraceContext

	start        time.Duration
	headDeadline time.Duration
	sent         time.Duration // the present attempt's request
	deadline     time.Duration // of the whole exchange; 0 none
	attemptEnd   time.Duration // of the present attempt, until its response begins; 0 none

	tried    upstream.Tried
	up       *wire.Conn
	ep       *upstream.Endpoint
	upID     string        // the endpoint's SPIFFE ID
	exactAt  time.Duration // when up's exact deadline is, 0 without one
	heard    bool          // the attempt has had a byte of an answer
	status   int
	headLen  int  // of the response head in up's buffer
	close    bool // the downstream connection must end
	began    bool // response bytes were sent downstream
	chunked  bool // the response goes out chunked
	counted  bool // the cluster counts this exchange as active
	failed   outcome.Reason
	cause    error
	rule     string
	detail   string
	upload   uploadState
	uploader uploader

	rec telemetry.Record
}

type uploadState uint8

const (
	uploadNone uploadState = iota
	uploadRunning
	uploadDone
	uploadFailed // or cut off
)

func newExchange(s *Session, l *plan.Listener) *exchange {
	x := exchanges.Get().(*exchange)
	x.s, x.l = s, l
	x.start = s.srv.Sweeper.Now()
	s.exchange.Add(1)
	return x
}

// free forgets everything but named memory and gives x back.
func (x *exchange) free() {
	for _, b := range [...][]byte{x.out, x.spool, x.own} {
		if b != nil {
			wire.Put(b)
		}
	}
	x.req.Reset()
	x.res.Reset()
	x.rec.Reset()
	x.s, x.l, x.cl, x.pol, x.up, x.ep = nil, nil, nil, nil, nil, nil
	x.raw, x.body, x.spool, x.own, x.out, x.id = nil, nil, nil, nil, nil, nil
	x.stream, x.heard, x.close, x.began, x.chunked, x.counted = false, false, false, false, false, false
	x.exactAt = 0
	x.parent, x.trace = telemetry.TraceContext{}, telemetry.TraceContext{}
	x.start, x.headDeadline, x.deadline, x.attemptEnd = 0, 0, 0, 0
	x.tried.Reset()
	x.status, x.headLen, x.failed, x.cause = 0, 0, outcome.OK, nil
	x.rule, x.detail, x.upID = "", "", ""
	x.upload = uploadNone
	x.uploader.reset()
	exchanges.Put(x)
}

func (x *exchange) now() time.Duration { return x.s.srv.Sweeper.Now() }

// run carries the exchange to its end: checks, attempts, response, record.
func (x *exchange) run() {
	x.cl = x.l.Route.Cluster
	x.pol = x.cl.Policy()
	x.rec.Start = time.Now()
	x.cl.Metrics().Begin(x.s.shard)
	x.counted = true
	if !x.req.KeepAlive {
		x.close = true
	}
	x.identify()
	// While the endpoint is waited for, its own deadlines end the exchange; the
	// downstream's must not, or nothing could be said any more.
	x.s.conn.SetDeadline(0)
	if r := x.admit(); r != outcome.OK {
		x.reply(r, nil)
		x.finish(r)
		return
	}
	if !x.cl.Limits.Acquire(&x.pol.Limits, limit.Requests) {
		x.cl.Metrics().Limited(telemetry.LimitRequests)
		x.reply(outcome.LimitRequests, nil)
		x.finish(outcome.LimitRequests)
		return
	}
	r := x.attempts()
	x.cl.Limits.Release(limit.Requests)
	if r != outcome.OK && !x.began {
		x.reply(r, x.cause)
	} else if r != outcome.OK && r != outcome.UpstreamError {
		// The response is cut off: only closing says so.
		x.close = true
	}
	x.settleUpload()
	x.finish(r)
}

// idleBy is when the exchange ends unless a byte moves.
func (x *exchange) idleBy() time.Duration {
	if x.pol.StreamIdle <= 0 {
		return 0
	}
	return x.now() + x.pol.StreamIdle
}

// admit checks what must hold before any attempt.
func (x *exchange) admit() outcome.Reason {
	if x.req.Method == http1.MethodConnect {
		x.close = true // what follows may be meant for the tunnel
		return outcome.Unsupported
	}
	if x.s.draining() {
		x.close = true
	}
	if p := x.l.Route.Authz; p != nil {
		v := p.Check(x.s.peer.ID, x.req.MethodSpan.Of(x.raw), x.target())
		x.rule = v.Rule
		if v.Refuse() {
			return outcome.Denied
		}
		if !v.Allowed {
			x.cl.Metrics().WouldHave(telemetry.WouldDeny)
		}
	}
	if t := x.pol.Timeout; t > 0 {
		x.deadline = x.start + t
	}
	if left, ok := x.callerDeadline(); ok && (x.deadline == 0 || x.start+left < x.deadline) {
		x.deadline = x.start + left
	}
	return outcome.OK
}

// attempts tries endpoints until one answers or policy says to stop. The fixed
// nesting is deadline, budget, breaker, pick, per-try timeout, round trip,
// classify, observe.
func (x *exchange) attempts() outcome.Reason {
	m := x.cl.Metrics()
	budget := x.cl.Budget()
	if budget != nil {
		budget.Deposit(x.start)
	}
	for n := 1; ; n++ {
		if x.deadline > 0 && x.now() >= x.deadline {
			return outcome.RequestTimeout
		}
		b := x.cl.Breaker()
		var ticket breaker.Ticket
		if b != nil {
			t, ok := b.Allow(x.now())
			if !ok {
				return outcome.BreakerOpen
			}
			ticket = t
		}
		began := x.now()
		r, again := x.attempt(n, began)
		ended := x.now()
		if b != nil {
			b.Done(ticket, ended, breakerResult(r))
		}
		if r == outcome.OK || x.began || !again {
			return r
		}
		d, ok := x.decide(n, r, ended-began, budget)
		if !ok {
			if x.status != 0 {
				return x.forward(r)
			}
			return r
		}
		m.Retried(r)
		x.discardResponse()
		x.tried.Add(x.ep)
		x.ep = nil
		if d > 0 {
			time.Sleep(d)
		}
	}
}

func breakerResult(r outcome.Reason) breaker.Result {
	switch {
	case r == outcome.OK:
		return breaker.Success
	case r.Row().Blame:
		return breaker.Failure
	default:
		return breaker.Ignored
	}
}

// decide asks the retry machine about a failed attempt.
func (x *exchange) decide(n int, r outcome.Reason, took time.Duration, budget *retry.Budget) (time.Duration, bool) {
	if x.pol.Retry == nil || r == outcome.DownstreamGone {
		return 0, false
	}
	q := retry.Question{
		Attempt: n, Retryable: retryClass[r.Row().Retryable], Condition: condition(r),
		Status: uint16(x.status), Idempotent: x.req.Method.Idempotent(), Elapsed: took,
		BodyReplayable: x.upload == uploadNone,
	}
	if x.deadline > 0 {
		if q.Deadline = x.deadline - x.now(); q.Deadline == 0 {
			q.Deadline = -1
		}
	}
	if x.status != 0 {
		if v, ok := x.res.Get(http1.RetryAfter); ok {
			q.RetryAfter, _ = retry.ParseRetryAfter(v.Of(x.up.Buffered()), time.Now())
		}
	}
	d := x.pol.Retry.Decide(q, budget, x.now(), rand.Uint64())
	if d.Again {
		return d.Wait, true
	}
	switch d.Why {
	case retry.Observed:
		x.cl.Metrics().WouldHave(telemetry.WouldRetry)
	default:
		x.cl.Metrics().RetryWithheld(withheld(d.Why))
	}
	return 0, false
}

var retryClass = [...]retry.Class{
	outcome.RetryNever: retry.Never, outcome.RetryUnsent: retry.IfUnsent, outcome.RetryIdempotent: retry.IfIdempotent,
}

func condition(r outcome.Reason) retry.Condition {
	switch r {
	case outcome.ConnectFailed, outcome.ConnectTimeout, outcome.PeerIdentity, outcome.HandshakeFailed:
		return retry.ConnectFailure
	case outcome.UpstreamReset, outcome.TryTimeout:
		return retry.Reset
	case outcome.StaleConnection:
		return retry.StaleConnection
	}
	return retry.NoCondition
}

func withheld(w retry.Why) telemetry.RetryWithheld {
	switch w {
	case retry.AttemptsSpent:
		return telemetry.RetryAttemptsSpent
	case retry.NotRetryable:
		return telemetry.RetryNotRetryable
	case retry.NotIdempotent:
		return telemetry.RetryNotIdempotent
	case retry.BodyNotKept:
		return telemetry.RetryBodyNotKept
	case retry.BudgetSpent:
		return telemetry.RetryBudgetSpent
	case retry.DeadlineTooNear, retry.RetryAfterTooLong:
		return telemetry.RetryDeadlineTooNear
	}
	return telemetry.RetryNotConfigured
}

// attempt makes one try against one endpoint, up to and with the response when
// it may be passed on. again reports that nothing was passed on and another
// attempt may be considered; then an error response is still unread in x.up.
func (x *exchange) attempt(n int, began time.Duration) (r outcome.Reason, again bool) {
	x.status, x.sent, x.heard = 0, 0, false
	ep := x.cl.Pick(began, &x.tried)
	if ep == nil {
		return outcome.NoEndpoints, false
	}
	x.ep = ep
	x.cl.Begin(ep, began)
	a := telemetry.Attempt{Endpoint: ep.Address(), Offset: began - x.start}
	if child := x.s.srv.Tracer.Child(x.trace, rand.Uint64()); x.s.srv.Tracer != nil {
		a.Span = child.Span
	}
	r = x.connect(ep, began, false)
	if r == outcome.OK {
		r = x.roundTrip(a.Span, n)
		if r == outcome.StaleConnection && x.replayable() {
			// Nobody's fault and nothing was read: once more on a new
			// connection, as part of the same attempt.
			if r = x.connect(ep, x.now(), true); r == outcome.OK {
				r = x.roundTrip(a.Span, n)
			}
		}
	}
	rtt := x.now() - x.sent
	if x.sent == 0 {
		rtt = x.now() - began
	}
	a.Status, a.Reason = uint16(x.status), r
	if r == outcome.OK {
		r = x.forward(r)
		a.Reason = r
	}
	a.Duration = x.now() - began
	x.rec.AddAttempt(a)
	x.cl.Finish(ep, x.now(), rtt, r, x.status)
	return r, true
}

// replayable reports whether the request may be sent a second time although an
// endpoint may have seen it.
func (x *exchange) replayable() bool {
	return !x.began && !x.stream && (x.req.Method.Idempotent() || x.pol.Retry != nil && x.pol.Retry.NonIdempotent)
}

// connect gets x.up.
func (x *exchange) connect(ep *upstream.Endpoint, now time.Duration, fresh bool) outcome.Reason {
	c, oe := ep.Get(upstream.Want{
		Now: now, Deadline: x.deadline, Fresh: fresh,
		Careful: x.stream || !x.req.Method.Idempotent(),
	})
	x.rec.ConnectTime = 0
	if oe != nil {
		x.cause = oe
		if oe.Reason == outcome.ConnectTimeout && x.deadline > 0 && x.now() >= x.deadline {
			return outcome.RequestTimeout
		}
		return oe.Reason
	}
	x.up, x.upID = c, c.PeerID
	if !c.Reused {
		x.rec.ConnectTime = x.now() - now
	}
	x.attemptEnd = 0
	if !x.stream || !x.hasBody() { // else the time begins with the end of the body
		x.attemptEnd = x.tryEnd(now)
	}
	x.setUpstreamDeadline()
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
	now := x.now()
	end := sooner(x.deadline, x.attemptEnd)
	at := end
	if x.pol.StreamIdle > 0 {
		at = sooner(end, now+x.pol.StreamIdle)
	}
	x.up.SetDeadline(at)
	if end == 0 || end-now >= wire.Exact {
		end = 0
	}
	switch {
	case end == x.exactAt:
	case end == 0:
		x.up.SetExact(time.Time{})
	default:
		x.up.SetExact(time.Now().Add(end - now))
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
func (x *exchange) roundTrip(span telemetry.SpanID, n int) outcome.Reason {
	x.buildRequest(span, n)
	x.res.Reset()
	x.sent = x.now()
	var err error
	if x.stream && x.hasBody() || x.req.Upgrade {
		if _, err = x.up.Write(x.out); err == nil && x.stream && x.hasBody() {
			x.startUpload()
		}
		if err == nil {
			x.up.Room(wire.Large)
			err = x.up.Fill()
		}
	} else {
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
		case x.res.Status == 101 && (!x.res.Upgrade || !x.req.Upgrade || !offered(x.req.UpgradeProto.Of(x.raw), x.res.UpgradeProto.Of(b))):
			x.cause = errUnasked
			x.dropUpstream()
			return outcome.UpstreamProtocol
		default:
			x.status = x.res.Status
			x.rec.FirstByteTime = x.now() - x.start
			x.headLen = k
			x.attemptEnd = 0
			x.uploader.answered.Store(true)
			if x.status >= 500 && x.status != 501 && x.status != 505 {
				return outcome.UpstreamError
			}
			return outcome.OK
		}
	}
}

var errUnasked = errors.New("101 to a request that did not ask for an upgrade, or with another protocol's name")

// upstreamFailed names the reason of a failed read or write on the upstream
// leg and drops the connection.
func (x *exchange) upstreamFailed(err error) outcome.Reason {
	x.cause = err
	stale := x.up.Reused && !x.heard
	if end := x.uploader.end.Load(); end > 0 && !x.heard {
		x.attemptEnd = time.Duration(end)
	}
	x.dropUpstream()
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
	var alert tls.AlertError
	if stale && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return outcome.StaleConnection
	}
	if errors.As(err, &alert) {
		// TLS 1.3 clients learn of a refused certificate only here
		// (RFC 8446 section 4.4.2.4).
		return outcome.HandshakeFailed
	}
	return outcome.UpstreamReset
}

func (x *exchange) dropUpstream() {
	if x.up != nil {
		if x.upload == uploadRunning {
			x.up.Expire()
			x.uploader.discard()
		}
		x.ep.Drop(x.up)
		x.up, x.exactAt = nil, 0
	}
}

// keepUpstream puts the connection back into its pool if another exchange may
// use it.
func (x *exchange) keepUpstream(clean bool) {
	if x.up == nil {
		return
	}
	if clean && x.upload == uploadRunning && x.uploader.read.Load() {
		x.awaitLastWrite()
	}
	if !clean || !x.res.KeepAlive || len(x.up.Buffered()) > 0 || x.upload == uploadRunning || x.upload == uploadFailed {
		x.dropUpstream()
		return
	}
	x.up.Release()
	x.inexact()
	x.ep.Put(x.up, x.now())
	x.up = nil
}
