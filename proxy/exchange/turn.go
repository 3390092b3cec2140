package exchange

import (
	"errors"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
)

// turn is how an exchange has waited for its turn, under the limit on those
// that are active.
type turn struct {
	waited   time.Duration
	asked    bool // it had to; priority is what it had then
	priority queue.Priority
	again    bool // it may be sent again in a while: the reply says so
}

// enter waits for the exchange's turn, of its route where that has a limit of its
// own and then of its cluster. OK is followed by leave.
func (x *exchange) enter() outcome.Reason {
	g := x.route.Gate
	if g != nil {
		if r := x.through(g); r != outcome.OK {
			return r
		}
	}
	r := x.through(&x.cl.Gate)
	if r != outcome.OK && g != nil {
		g.Leave(x.at)
	}
	return r
}

func (x *exchange) leave() {
	x.tried.Vacate()
	x.cl.Gate.Leave(x.at)
	if g := x.route.Gate; g != nil {
		g.Leave(x.at)
	}
}

// through waits for the exchange's turn at one gate.
func (x *exchange) through(g *upstream.Gate) outcome.Reason {
	if g.TryEnter(x.tried.Draw) {
		return outcome.OK
	}
	if x.turn.waited > 0 {
		x.now()
	}
	a := upstream.Ask{
		Now: x.at, Deadline: x.deadline, Caller: callerKey(x.s.peer, x.s.peerID), Draw: x.tried.Draw,
		Priority: x.route.PriorityOf(x.s.peer.ID, &x.req, x.raw),
	}
	x.turn.priority, x.turn.asked = a.Priority, true
	w := make(waiting, 1)
	a.Gone = w
	if x.st != nil {
		x.caller.watch(w)
	} else {
		x.s.conn.Notify(w)
	}
	why, waited := g.Enter(&a)
	if x.st != nil {
		x.caller.watch(nil)
	} else {
		x.s.conn.Notify(nil)
	}
	x.turn.waited += waited
	x.late = true
	if why != queue.Entered {
		r, err := refusal(why, g)
		x.cause, x.turn.again = err, err != nil && r.Row().Status == 503
		if r == outcome.DownstreamGone && x.st != nil {
			x.cause = x.st.Err()
		}
		return r
	}
	if waited > 0 && x.st == nil && x.s.conn.PeerEnded() {
		g.Leave(x.at)
		x.cause, x.close = errLeft, true
		return outcome.DownstreamGone
	}
	return outcome.OK
}

// note puts into the ledger's entry that the exchange had to wait.
func (t *turn) note(e *ledger.Entry) {
	if t.asked {
		e.Priority, e.Queued = t.priority.String(), t.waited
	}
}

// What the records say of those who had no turn.
var (
	errFull      = errors.New("the queue was full")
	errDisplaced = errors.New("it had to leave the queue for a request of a higher priority, or of a caller with fewer")
	errDelayed   = errors.New("it had waited in the queue longer than target while the queue stood")
	errWaitedOut = errors.New("it had waited in the queue for max_wait")
	errTooLate   = errors.New("the deadline passed while it waited in the queue")
	errLeft      = errors.New("the caller ended its connection while the request waited in the queue")
)

// refusal is what follows from having had no turn.
func refusal(why queue.Result, g *upstream.Gate) (outcome.Reason, error) {
	switch why {
	case queue.Displaced:
		return outcome.LimitRequests, errDisplaced
	case queue.Delayed:
		return outcome.QueueTimeout, errDelayed
	case queue.WaitedOut:
		return outcome.QueueTimeout, errWaitedOut
	case queue.TooLate:
		return outcome.RequestTimeout, errTooLate
	case queue.Gone:
		return outcome.DownstreamGone, errLeft
	case queue.Stopped:
		return outcome.Draining, nil
	}
	if g.Queueing() {
		return outcome.LimitRequests, errFull
	}
	return outcome.LimitRequests, nil
}

// callerKey tells callers apart in a queue: by identity, else by address.
func callerKey(p *Peer, id string) uint64 {
	if id != "" {
		return balance.KeyOf(id)
	}
	a := p.Addr.Addr().As16()
	return balance.KeyOf(a[:])
}

// enter waits for the connection's turn.
func (t *tcpExchange) enter() outcome.Reason {
	g := &t.cl.Gate
	if g.TryEnter(t.tried.Draw) {
		return outcome.OK
	}
	id := ""
	if !t.peer.ID.IsZero() {
		id = t.peer.ID.String()
	}
	a := upstream.Ask{Now: t.srv.Sweeper.Now(), Caller: callerKey(&t.peer, id), Priority: t.l.Route.PriorityOfConn(t.peer.ID), Draw: t.tried.Draw}
	why, waited := g.Enter(&a)
	t.turn.asked, t.turn.priority = true, a.Priority
	if t.turn.waited += waited; why == queue.Entered {
		return outcome.OK
	}
	r, err := refusal(why, g)
	t.cause = err
	return r
}
