package exchange

import (
	"errors"
	"sync"

	"github.com/outrigger-mesh/outrigger/proxy/faults"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/relay"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// meet asks the faults that are in force about a connection to whose endpoint
// there is one, too. An abort has no meaning here: it takes an answer.
func (t *tcpExchange) meet(up upstream.Leg) outcome.Reason {
	if !t.srv.Faults.InForce() {
		return outcome.OK
	}
	q := faults.Question{Cluster: t.cl, Route: t.l.Route.Name, Endpoint: t.ep.Address(), Now: t.srv.Sweeper.Now()}
	if !t.peer.ID.IsZero() {
		q.Caller = t.peer.ID.String()
	}
	r, hit := t.srv.Faults.Strike(&q)
	if r == nil {
		return outcome.OK
	}
	t.fate = &fateful{rule: r, hit: hit, now: true}
	t.rec.Fault = r.Name
	defer func() {
		a := &t.rec.Attempts[min(max(t.rec.AttemptCount, 1), telemetry.MaxAttempts)-1]
		a.Fault = r.Title(&t.fate.hit, t.fate.held)
	}()
	if hit.Delay > 0 {
		gone := make(waiting, 1)
		t.down.Notify(gone)
		wait(hit.Delay, gone, r)
		t.down.Notify(nil)
		t.fate.held = t.srv.Sweeper.Now() - q.Now
		if err, _ := t.down.Err(); err != nil {
			t.cause = err
			return t.left(err)
		}
	}
	if hit.Reset {
		t.cause = r.Cause()
		t.down.Cut(true)
		return outcome.FaultInjected
	}
	return outcome.OK
}

// left is why a connection has ended that a fault held.
func (t *tcpExchange) left(err error) outcome.Reason {
	if errors.Is(err, wire.ErrExpired) {
		return t.expired()
	}
	return outcome.DownstreamGone
}

// giveUp ends a leg to the endpoint that is not used.
func (t *tcpExchange) giveUp(up upstream.Leg) {
	if up.Stream != nil {
		up.Stream.Close()
		return
	}
	t.ep.Drop(up.Conn)
}

// move relays between downstream and the endpoint, at the rates of a fault.
func (t *tcpExchange) move(up relay.Leg, o relay.Options) relay.Result {
	down := t.down
	if f := t.fate; f != nil && f.hit.Response+f.hit.Request > 0 {
		p := &pacer{rule: f.rule, o: o, legs: [2]relay.Leg{down, up}}
		if f.hit.Response > 0 {
			down = pacedLeg{down, p, f.hit.Response}
		}
		if f.hit.Request > 0 {
			up = pacedLeg{up, p, f.hit.Request}
		}
	}
	return relay.Run(down, up, o)
}

// pacer is what the two directions of a slowed relay have in common.
type pacer struct {
	rule *faults.Rule
	o    relay.Options
	mu   sync.Mutex
	legs [2]relay.Leg
}

// touch keeps both legs from being idle while a part is on its way.
func (p *pacer) touch() {
	if p.o.Idle <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.o.Now() + p.o.Idle
	for _, l := range p.legs {
		l.SetDeadline(at)
	}
}

// pacedLeg is a leg that is written to at the rate of a fault.
type pacedLeg struct {
	relay.Leg
	p    *pacer
	rate int64
}

// Put implements relay.Leg.
func (l pacedLeg) Put(b []byte) error {
	for len(b) > 0 {
		if l.p.rule.Ended() {
			return l.Leg.Put(b)
		}
		n := min(len(b), pieceOf(l.rate))
		if err := l.Leg.Put(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		l.p.touch()
		for left := paceOf(n, l.rate); left > 0; left -= paceStep {
			if err, _ := l.Leg.Err(); err != nil {
				return err
			}
			if !wait(min(left, paceStep), nil, l.p.rule) {
				break
			}
		}
	}
	return nil
}
