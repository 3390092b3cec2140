package exchange

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// answers are what the retry policy said after each attempt, for the outcome log.
type answers struct {
	any  bool
	list [telemetry.MaxAttempts]struct {
		asked bool
		d     retry.Decision
	}
}

// note takes down what was said after attempt n, counted from 1.
func (a *answers) note(n int, d retry.Decision) {
	if n > 0 {
		e := &a.list[min(n, len(a.list))-1]
		e.asked, e.d, a.any = true, d, true
	}
}

// called takes down a deadline of the caller's, of which the soonest counts. It
// always is true.
func (n *notes) called(left time.Duration) bool {
	if left = max(left, 1); n.caller == 0 || left < n.caller {
		n.caller = left
	}
	return true
}

// besides is how many requests of cl are in flight beside this one, which was let in.
func besides(cl *upstream.Cluster) uint32 {
	return uint32(max(cl.Limits.Requests.Value()-1, 0))
}

// logOutcome gives the exchange, whose record has its times, to the outcome log.
func (x *exchange) logOutcome() {
	log := x.s.srv.Outcomes
	if !log.On() {
		return
	}
	o := outcomes.Exchange{Method: x.req.Method.String(), Active: x.ahead}
	o.Marks |= mark(x.req.Method.Idempotent(), outcomes.Idempotent) | mark(x.grpc, outcomes.IsGRPC) |
		mark(x.wish.Keyed, outcomes.Keyed) | mark(!x.stream || x.uploader.replayable(), outcomes.Replayable)
	if x.grpc {
		o.GRPC = x.callStatus(x.rec.Reason)
	}
	o.Key = x.wish.Key
	if x.notes.caller > 0 {
		o.Deadline = x.notes.caller
	}
	if x.route != nil {
		o.Route = x.route.Name
	}
	o.At, o.Waited = x.start, x.turn.waited
	x.notes.log(log, &o, &x.rec, x.l.Direction, x.cl, &x.tried)
}

// moments says from began on when the answer to the attempt came, if it did, and
// when the request was sent.
func (x *exchange) moments(began time.Duration) (first, sent time.Duration) {
	if x.status != 0 {
		first = x.start + x.rec.FirstByteTime - began
	}
	if x.sent != 0 {
		sent = x.sent - began
	}
	return first, sent
}

// logOutcome is the same for a TCP connection.
func (t *tcpExchange) logOutcome() {
	log := t.srv.Outcomes
	if !log.On() {
		return
	}
	o := outcomes.Exchange{At: t.start, Route: t.l.Route.Name, Key: t.wish.Key, Active: t.ahead, Waited: t.turn.waited}
	o.Marks = outcomes.IsTCP | outcomes.Idempotent | outcomes.Replayable | mark(t.wish.Keyed, outcomes.Keyed)
	t.notes.log(log, &o, &t.rec, t.l.Direction, t.cl, &t.tried)
}

func mark(on bool, m outcomes.Marks) outcomes.Marks {
	if on {
		return m
	}
	return 0
}

// log completes o with what HTTP and TCP exchanges have in common.
func (n *notes) log(log *outcomes.Log, o *outcomes.Exchange, rec *telemetry.Record, dir telemetry.Direction, cl *upstream.Cluster, tried *upstream.Tried) {
	o.Duration, o.Reason, o.Status, o.Attempts = rec.Duration, rec.Reason, rec.Status, rec.AttemptCount
	o.Marks |= mark(dir == telemetry.Inbound, outcomes.Inbound) | mark(n.wouldDeny, outcomes.WouldDeny)
	o.Refused = n.refused
	if cl != nil {
		o.Cluster = cl.Name()
	}
	var list [outcomes.MaxAttempts]outcomes.Attempt
	kept := min(rec.AttemptCount, telemetry.MaxAttempts)
	for i := range kept {
		a, l := &rec.Attempts[i], &list[i]
		l.Endpoint, l.Offset, l.Duration, l.First, l.Sent = a.Endpoint, a.Offset, a.Duration, a.First, a.Sent
		l.Reason, l.Status = a.Reason, a.Status
		if a.Hedge {
			l.Marks |= outcomes.Hedge
		}
		if p := &n.answers.list[i]; p.asked {
			l.Marks |= outcomes.Asked
			l.Why, l.Wait = p.d.Why, p.d.Wait
		}
	}
	if kept > 0 && tried.Panicking() {
		list[kept-1].Marks |= outcomes.Panicking
	}
	log.Put(o, list[:kept])
}
