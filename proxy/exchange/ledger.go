package exchange

import (
	"bytes"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
)

// notes are what is kept for the ledger while an exchange runs: nothing but the
// last decision, until a second attempt makes it certain that it is recorded.
type notes struct {
	draft     *ledger.Entry // of an exchange that has been tried again
	attempts  int           // that are in draft
	asked     bool          // verdict is about the last attempt
	verdict   retry.Decision
	budget    float64 // after verdict
	hasBudget bool
	deadline  ledger.Deadline
	wouldDeny bool
	caller    time.Duration // the caller's own deadline, from the start; 0 none
	refused   time.Duration // when an attempt was refused, from the start; 0 none was
	answers   answers       // for the outcome log
}

// decided notes the answer to whether another attempt may follow.
func (n *notes) decided(d retry.Decision, b *retry.Budget, now time.Duration) {
	n.asked, n.verdict, n.hasBudget = true, d, b != nil
	if b != nil {
		n.budget = b.Balance(now)
	}
}

// attempted moves the last attempt of rec into the draft, before the next pick
// forgets what was looked at.
func (n *notes) attempted(ring *ledger.Ring, rec *telemetry.Record, tried *upstream.Tried, at time.Duration) {
	if ring == nil {
		return
	}
	if rec.AttemptCount == n.attempts {
		if n.draft != nil {
			n.answer(n.draft.Latest())
		}
		return
	}
	if n.draft == nil {
		n.draft = ring.Draft()
	}
	n.attempts = rec.AttemptCount
	t := &rec.Attempts[min(rec.AttemptCount, telemetry.MaxAttempts)-1]
	a := n.draft.Next()
	a.Endpoint, a.Offset, a.Duration, a.Connect, a.Reason, a.Status = t.Endpoint, t.Offset, t.Duration, rec.ConnectTime, t.Reason, t.Status
	a.Fault, a.Cluster = t.Fault, t.Cluster
	a.Hedge = t.Hedge
	seen := tried.Seen()
	a.Algorithm, a.Compared = seen.Algorithm, seen.Count
	for i := range seen.Count {
		c := &seen.Compared[i]
		a.Candidates[i] = ledger.Candidate{Address: c.Endpoint.Address(), Score: c.Score, State: c.Endpoint.Condition(at)}
	}
	n.answer(a)
}

// answer notes with an attempt whether another may follow.
func (n *notes) answer(a *ledger.Attempt) {
	if n.asked {
		a.Asked, a.Why, a.Wait, a.Budget, a.HasBudget = true, n.verdict.Why, n.verdict.Wait, n.budget, n.hasBudget
		n.asked = false
	}
}

// forget drops what no record was made of.
func (n *notes) forget(ring *ledger.Ring) {
	if n.draft != nil {
		ring.Discard(n.draft)
	}
	if n.answers.any {
		n.answers = answers{}
	}
	n.draft, n.attempts, n.asked, n.verdict = nil, 0, false, retry.Decision{}
	n.budget, n.hasBudget, n.deadline, n.wouldDeny, n.caller, n.refused = 0, false, 0, false, 0, 0
}

// at is where an exchange has ended, and when.
type at struct {
	route *plan.Route // nil before one was chosen
	ep    *upstream.Endpoint
	time  time.Duration
}

func (a at) breaker() *upstream.RouteBreaker {
	if a.route == nil {
		return nil
	}
	return a.route.Breaker
}

// entry completes the draft with what HTTP and TCP exchanges have in common.
func (n *notes) entry(ring *ledger.Ring, rec *telemetry.Record, l *plan.Listener, cl *upstream.Cluster, pol *upstream.Policy, tried *upstream.Tried, at at) *ledger.Entry {
	n.attempted(ring, rec, tried, at.time)
	e := n.draft
	if n.draft = nil; e == nil {
		e = ring.Draft()
	}
	e.Start, e.Duration, e.Reason, e.Status = rec.Start, rec.Duration, rec.Reason, rec.Status
	e.Inbound, e.Listener, e.Plan = l.Direction == telemetry.Inbound, l.Name, l.Version
	e.DeadlineBy, e.WouldDeny = n.deadline, n.wouldDeny
	e.BytesIn, e.BytesOut = rec.BytesIn, rec.BytesOut
	if cl == nil {
		return e
	}
	e.Cluster = cl.Name()
	e.ConnectTimeout, e.StreamIdle = pol.ConnectTimeout, pol.StreamIdle
	if e.MaxAttempts = 1; pol.Retry != nil {
		e.MaxAttempts, e.PerTryTimeout = pol.Retry.Attempts, pol.Retry.PerTryTimeout
	}
	seen := tried.Seen()
	e.Usable, e.Total, e.Panicking = seen.Usable, seen.Total, seen.Panicking
	e.Breaker, e.HasBreaker = cl.BreakerState(at.breaker(), at.ep, at.time)
	return e
}

// remember puts the exchange into the ledger, if it is one that is kept. The
// record has its times, status, reason and bytes.
func (x *exchange) remember() {
	ring, rec := x.s.srv.Ledger, &x.rec
	if ring == nil {
		return
	}
	grpc := uint8(0)
	if x.grpc {
		grpc = x.callStatus(rec.Reason)
	}
	if !ring.Keeps(rec.Reason, grpc != 0, rec.AttemptCount, rec.FirstByteTime) && x.fate.rule == nil {
		return
	}
	e := x.notes.entry(ring, rec, x.l, x.cl, x.pol, &x.tried, at{x.route, x.ep, x.at})
	e.ID = x.id
	e.IsGRPC, e.GRPC = x.grpc, grpc
	e.FirstByte = rec.FirstByteTime
	if x.pol != nil {
		e.Timeout = x.pol.Timeout
	}
	if x.deadline > 0 {
		e.Deadline = x.deadline - x.start
	}
	if r := x.route; r != nil {
		e.Route, e.RoutePath, e.RouteWhy = r.Name, r.Path, r.Why
	}
	e.Method, e.Authority = x.req.MethodSpan.Of(x.raw), x.req.Host.Of(x.raw)
	e.Path, _, _ = bytes.Cut(x.req.Target.Of(x.raw), question)
	e.Protocol = x.protocol()
	e.Caller, e.Original, e.CallerID, e.Rule = x.s.peer.Addr, x.s.peer.Original, x.s.peerID, x.rule
	switch {
	case x.detail != "":
		e.Detail = x.detail
	case x.cause != nil && rec.Reason != outcome.OK:
		e.Detail = x.cause.Error()
	}
	e.UpstreamID = x.upID
	x.turn.note(e)
	ring.Put(e)
}

var question = []byte("?")

// remember puts the connection into the ledger, if it is one that is kept.
func (t *tcpExchange) remember(callerID string) {
	ring, rec := t.srv.Ledger, &t.rec
	if ring == nil {
		return
	}
	if !ring.Keeps(rec.Reason, false, rec.AttemptCount, rec.ConnectTime) && t.fate == nil {
		t.notes.forget(ring)
		return
	}
	e := t.notes.entry(ring, rec, t.l, t.cl, t.pol, &t.tried, at{&t.l.Route, t.ep, t.start + rec.Duration})
	e.Route, e.Protocol = t.l.Route.Name, rec.Protocol
	e.StreamIdle = t.pol.TCPIdle
	e.Caller, e.Original, e.CallerID, e.Rule = t.peer.Addr, t.peer.Original, callerID, rec.Rule
	if t.cause != nil && rec.Reason != outcome.OK {
		e.Detail = t.cause.Error()
	}
	e.UpstreamID = rec.UpstreamID
	t.turn.note(e)
	ring.Put(e)
}
