package exchange

import (
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/resilience/verdict"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// rival is what an exchange has that is an attempt beside another exchange's: the
// upstream side of an exchange, with the request in memory of its own, and no
// downstream.
type rival struct {
	of       *race // nil in other exchanges
	began    time.Duration
	attempt  telemetry.Attempt
	byStream bool // the request came by HTTP/2
	origin   http2.Origin
	trailers []byte

	// Under race.mu until the race is settled.
	done   bool
	reason outcome.Reason
}

// challenge returns a rival to x, or nil where there shall be none. r.mu is held,
// so that x, which waits for an answer, can be read.
func (r *race) challenge(x *exchange) *exchange {
	now := x.s.srv.Sweeper.Now()
	q := hedge.Question{
		Draw:     x.tried.Draw,
		Attempts: x.rec.AttemptCount + 1 + r.n,
		Short:    x.s.srv.Memory.At(memory.Narrow) || len(x.raw) > wire.Large || len(x.body) > wire.Large,
	}
	tried := x.tried.Rival()
	tried.Add(x.ep)
	for _, y := range r.rivals[:r.n] {
		tried.Add(y.ep)
		if y.rival.done && y.call.pushback == retry.PushbackStop {
			q.Pushback = retry.PushbackStop
		}
	}
	x.cl.Strain(&q, &tried)
	if s, ok := x.cl.BreakerState(x.route.Breaker, nil, now); ok {
		q.Broken = s != breaker.Closed
	}
	why := x.pol.Hedge.Decide(q, x.cl.Budget(), now)
	m := x.cl.Metrics()
	switch why {
	case hedge.Started:
	case hedge.Observed:
		m.WouldHave(telemetry.WouldHedge)
		return nil
	default:
		m.HedgeWithheld(telemetry.HedgeAnswer(why))
		return nil
	}
	if ok, _ := passes(x.cl, x.route, now, &tried); !ok {
		m.HedgeWithheld(telemetry.HedgeAnswer(hedge.BreakerNotClosed))
		return nil
	}
	wish := x.wish
	ep := x.cl.Pick(now, &wish, &tried)
	if ep == nil || tried.Has(ep) {
		tried.Settle(now, breaker.Ignored)
		m.HedgeWithheld(telemetry.HedgeAnswer(hedge.NoOther))
		return nil
	}
	y := x.copied()
	y.ep, y.tried, y.at = ep, tried, now
	y.earlier = x.earlier + 1 + r.n
	y.rival.of, y.rival.began = r, now
	y.rival.attempt = telemetry.Attempt{Endpoint: ep.Address(), Cluster: x.cl.Of(ep), Offset: now - x.start, Hedge: true}
	if child := x.s.srv.Tracer.Child(x.trace, rand.Uint64()); x.s.srv.Tracer != nil {
		y.rival.attempt.Span = child.Span
	}
	x.cl.Begin(ep, now)
	return y
}

// copied returns an exchange that has the request of x in memory of its own.
func (x *exchange) copied() *exchange {
	y := exchanges.Get().(*exchange)
	y.s, y.l, y.cl, y.pol, y.route = x.s, x.l, x.cl, x.pol, x.route
	y.own = buffer(len(x.raw))
	y.raw = y.own[:copy(y.own, x.raw)]
	if len(x.body) > 0 {
		y.spool = buffer(len(x.body))
		y.body = y.spool[:copy(y.spool, x.body)]
	}
	fields := append(y.req.Fields[:0], x.req.Fields...)
	y.req = x.req
	y.req.Fields = fields
	if v, ok := y.req.Get(http1.XRequestID); ok && len(x.id) > 0 && &x.id[0] != &x.idMem[0] {
		y.id = v.Of(y.raw)
	} else {
		y.idMem = x.idMem
		y.id = y.idMem[:len(x.id)]
	}
	y.parent, y.trace, y.grpc = x.parent, x.trace, x.grpc
	y.start, y.deadline = x.start, x.deadline
	y.call.reset()
	y.rival.origin = x.origin()
	if x.st != nil {
		y.rival.byStream = true
		y.rival.trailers = append([]byte(nil), x.behind()...)
	}
	return y
}

// origin is how the request came into the mesh.
func (x *exchange) origin() http2.Origin {
	switch {
	case x.rival.of != nil:
		return x.rival.origin
	case x.st == nil:
		return http2.FromHTTP1
	case x.st.Raw():
		return x.st.Origin
	}
	return http2.FromHTTP2
}

// behind are the trailers of a request that came whole by HTTP/2.
func (x *exchange) behind() []byte {
	switch {
	case x.rival.of != nil:
		return x.rival.trailers
	case x.st != nil && !x.st.Ended:
		return x.st.Trailers()
	}
	return nil
}

// byStream reports whether the request came by HTTP/2.
func (x *exchange) byStream() bool { return x.st != nil || x.rival.byStream }

// compete makes the attempt of a rival, to the response head.
func (y *exchange) compete() {
	defer y.survive()
	r := y.try(y.ep, y.rival.began, y.rival.attempt.Span)
	if y.status == 0 {
		y.now()
	}
	y.report(r)
}

// survive keeps a defect met by a rival from ending the process.
func (y *exchange) survive() {
	if p := recover(); p != nil {
		y.s.srv.Log.Error("defect: a hedged attempt was dropped", "event", "panic", "listener", y.l.Name, "panic", p, "stack", string(debug.Stack()))
		y.report(outcome.Internal)
	}
}

// report tells the race what its rival has come to. One of which nobody wants to
// know any more ends here; the others belong to the exchange from then on.
func (y *exchange) report(reason outcome.Reason) {
	r := y.rival.of
	r.mu.Lock()
	mine := false
	for _, z := range r.rivals[:r.n] {
		mine = mine || z == y
	}
	if mine {
		y.rival.reason, y.rival.done = reason, true
		r.ended++
		if r.live && r.winner == nil && y.conclusive(reason) {
			r.winner = y
			r.primary.caller.beat()
		}
		r.wake.Expire()
	}
	r.mu.Unlock()
	if !mine {
		y.rival.reason = reason
		y.end()
	}
}

// end gives back a rival whose answer is not passed on.
func (y *exchange) end() {
	reason := y.rival.reason
	took := y.at - y.rival.began
	if y.sent != 0 {
		took = y.at - y.sent
	}
	switch {
	case reason == outcome.Superseded, reason == outcome.OK:
		y.cl.Metrics().Hedged(telemetry.HedgeCancelled)
	default:
		y.cl.Metrics().Hedged(telemetry.HedgeFailed)
	}
	if y.up != nil || y.ust != nil {
		y.heedRetryAfter()
	}
	y.account(y.ep, reason, took)
	y.dropUpstream()
	y.tried.Settle(y.at, verdict.Breaker(reason))
	y.free()
}

// beat ends the leg of an attempt because a rival has answered first.
func (c *caller) beat() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beaten.Store(true)
	if c.leg != nil {
		c.leg.Expire()
	}
}

// watch has the upstream leg ended with the caller, or when a rival has won.
func (x *exchange) watch() {
	x.watching = true
	x.rewatch()
}

func (x *exchange) rewatch() {
	switch {
	case x.ust != nil:
		x.caller.watch(x.ust)
	case x.up != nil:
		x.caller.watch(x.up)
	default:
		x.caller.watch(nil)
	}
}

// unwatch is called before the leg is given back.
func (x *exchange) unwatch() {
	if x.watching {
		x.watching = false
		x.caller.watch(nil)
	}
}

// calledOff is why nobody waits for the upstream leg any more; OK while somebody
// does.
func (x *exchange) calledOff() outcome.Reason {
	switch {
	case x.caller.beaten.Load(), x.rival.of != nil && x.caller.gone.Load():
		return outcome.Superseded
	case x.caller.gone.Load():
		x.cause = x.st.Err()
		return outcome.DownstreamGone
	}
	return outcome.OK
}

// unused gives back the leg of a rival that was called off before it was used.
func (y *exchange) unused() outcome.Reason {
	if y.up != nil {
		y.ep.Put(y.up, y.now())
		y.up = nil
	}
	y.dropUpstream()
	return outcome.Superseded
}
