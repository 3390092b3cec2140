package exchange

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/relay"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/resilience/verdict"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// ServeTCP carries one TCP connection to an endpoint and back. It does not
// close conn.
func (s *Server) ServeTCP(conn *wire.Conn, peer Peer, source *atomic.Pointer[plan.Listener]) {
	s.serveTCP(relay.Conn(conn), peer, source)
}

func (s *Server) serveTCP(down relay.Leg, peer Peer, source *atomic.Pointer[plan.Listener]) {
	t := s.newTCP(down, peer, source)
	t.serve(t.connect)
}

func (s *Server) newTCP(down relay.Leg, peer Peer, source *atomic.Pointer[plan.Listener]) *tcpExchange {
	l := source.Load()
	t := &tcpExchange{srv: s, source: source, down: down, l: l, cl: l.Route.Cluster, peer: peer, start: s.Sweeper.Now()}
	t.pol = t.cl.Policy()
	if l.Route.Partial {
		t.tried.Draw = guard.DrawOf(rand.Uint64())
	}
	t.wishes()
	t.rec.Start, t.rec.Protocol = time.Now(), "tcp"
	return t
}

// serve carries the connection on the leg that open gives.
func (t *tcpExchange) serve(open func() (upstream.Leg, outcome.Reason)) {
	shard := t.srv.shards.Add(1)
	t.cl.Metrics().Begin(shard)
	r := t.run(open, shard)
	t.finish(r, shard)
}

// onTCP carries one TCP connection on a stream. What is not for this listener is
// reset.
func (s *Session) onTCP(l *plan.Listener, st *http2.Stream, tcp bool) {
	switch {
	case !tcp:
		return
	case l.Protocol == plan.HTTP:
		st.Reset(noTCP)
		return
	}
	s.exchange.Add(1)
	defer s.contain(l, st)
	t := &tunnelled{leg: relay.Stream(st)}
	s.tunnels.add(t)
	defer s.tunnels.remove(t)
	s.srv.serveTCP(t.leg, *s.peer, s.source)
}

// noTCP tells another sidecar that its TCP connection came to a listener that
// takes HTTP only, apart from all that may befall one.
const noTCP = http2.HTTP11Required

type tcpExchange struct {
	source *atomic.Pointer[plan.Listener]
	srv    *Server
	down   relay.Leg
	l      *plan.Listener
	cl     *upstream.Cluster
	pol    *upstream.Policy
	peer   Peer
	start  time.Duration
	tried  upstream.Tried
	wish   upstream.Wish
	ep     *upstream.Endpoint
	cause  error
	rec    telemetry.Record
	// announced is set once the leg, a stream, has been begun.
	announced bool
	ahead     uint32 // as in exchange
	turn      turn
	fate      *fateful // the fault made on purpose that it meets; nil without one
	notes     notes
}

func (t *tcpExchange) run(open func() (upstream.Leg, outcome.Reason), shard uint32) outcome.Reason {
	if p := t.l.Route.Authz; p != nil {
		v := p.CheckConn(t.peer.ID)
		t.rec.Rule = v.Rule
		if v.Refuse(t.tried.Draw) {
			t.cause = v.Err()
			return outcome.Denied
		}
		if !v.Allowed {
			t.notes.wouldDeny = true
			t.cl.Metrics().WouldHave(telemetry.WouldDeny)
		}
	}
	if r := t.rated(shard); r != outcome.OK {
		return r
	}
	if r := t.enter(); r != outcome.OK {
		return r
	}
	defer func() {
		t.tried.Vacate()
		t.cl.Gate.Leave(t.srv.Sweeper.Now())
	}()
	t.ahead = besides(t.cl)
	throttle := throttleOf(t.cl, &t.l.Route)
	if !ask(throttle, t.cl, t.srv.Sweeper.Soon(), t.tried.Draw) {
		t.cause = throttle.Refusal
		return outcome.Throttled
	}
	up, r := open()
	if throttle != nil { // accepted once an endpoint has taken it
		throttle.Done(t.srv.Sweeper.Soon(), admissionResult(throttle.Config(), r, 0, 0))
	}
	if r != outcome.OK {
		return r
	}
	if r := t.meet(up); r != outcome.OK {
		t.giveUp(up)
		return r
	}
	// For balancing the connection is in flight until it ends.
	t.cl.Begin(t.ep, 0)
	defer func() { t.ep.Load.End(0, -1, false) }()
	t.rec.UpstreamID = up.PeerID
	res := t.relay(up)
	t.rec.BytesIn, t.rec.BytesOut = res.Sent, res.Received
	t.cause = res.Err
	switch {
	case res.Broke == relay.Nobody:
		return outcome.OK
	case errors.Is(res.Err, wire.ErrExpired):
		return t.expired()
	case res.Broke == relay.Downstream:
		return outcome.DownstreamGone
	}
	return outcome.UpstreamReset
}

// wishes finds what the cluster's balancing goes by and a connection has.
func (t *tcpExchange) wishes() {
	var k balance.Key
	for i := range t.pol.Balance.Hash {
		h, key, ok := &t.pol.Balance.Hash[i], uint64(0), false
		switch {
		case h.SourceIP:
			key, ok = balance.KeyOf(t.peer.Addr.Addr().String()), t.peer.Addr.IsValid()
		case h.Identity && !t.peer.ID.IsZero():
			key, ok = balance.KeyOf(t.peer.ID.String()), true
		}
		if k.Add(h, key, ok) {
			break
		}
	}
	t.wish = upstream.Wish{Key: k.Value, Keyed: k.Some, Only: t.peer.Instance}
}

// relay moves bytes between downstream and the endpoint. Between two sidecars the
// connection is a stream.
func (t *tcpExchange) relay(up upstream.Leg) relay.Result {
	o := relay.Options{Now: t.srv.Sweeper.Now, Idle: t.pol.TCPIdle}
	if up.Stream == nil {
		defer t.ep.Drop(up.Conn)
		return t.move(relay.Conn(up.Conn), o)
	}
	defer up.Stream.Close()
	if err := t.announce(up.Stream); err != nil {
		return relay.Result{Broke: relay.Upstream, Err: err}
	}
	return t.move(relay.Stream(up.Stream), o)
}

// announce has the other sidecar call its application, at once: that may be the
// one that speaks first.
func (t *tcpExchange) announce(up *http2.Stream) error {
	if t.announced {
		return nil
	}
	t.announced = true
	up.Origin = http2.FromTCP
	return up.WriteRequest(nil, nil, 0)
}

// expired is why the connection was ended from here: by the rules now in force,
// with this proxy, or because nothing moved.
func (t *tcpExchange) expired() outcome.Reason {
	l := t.source.Load()
	if p := l.Route.Authz; p != nil {
		if v := p.CheckConn(t.peer.ID); v.Refuse(0) {
			t.rec.Rule, t.cause = v.Rule, v.Err()
			return outcome.Denied
		}
	}
	switch {
	case t.srv.Draining.Load() && l.Direction == telemetry.Inbound:
		return outcome.Draining
	}
	return outcome.StreamIdle
}

// connect finds an endpoint that takes the connection. Nothing has been sent
// before, so that every failure may be tried elsewhere.
func (t *tcpExchange) connect() (upstream.Leg, outcome.Reason) {
	budget := t.cl.Budget()
	if budget != nil {
		budget.Deposit(t.start)
	}
	for n := 1; ; n++ {
		now := t.srv.Sweeper.Now()
		if ok, refusal := passes(t.cl, &t.l.Route, now, &t.tried); !ok {
			if refusal != nil {
				t.cause = refusal
			}
			return upstream.Leg{}, outcome.BreakerOpen
		}
		up, r := t.try(now)
		if r == outcome.OK || !t.again(n, r, budget) {
			return up, r
		}
	}
}

func (t *tcpExchange) try(now time.Duration) (upstream.Leg, outcome.Reason) {
	t.ep = t.cl.Pick(now, &t.wish, &t.tried)
	if t.ep == nil {
		t.tried.Settle(now, breaker.Ignored)
		if t.tried.Broken() {
			t.cause = upstream.ErrAllBroken
			return upstream.Leg{}, outcome.BreakerOpen
		}
		if t.tried.Full() {
			t.cause = upstream.ErrAllFull
			return upstream.Leg{}, outcome.LimitRequests
		}
		return upstream.Leg{}, outcome.NoEndpoints
	}
	t.cl.Begin(t.ep, now)
	leg, oe := t.ep.Get(upstream.Want{Now: now, Fresh: true, TCP: true, Draw: t.tried.Draw})
	r := outcome.OK
	if oe != nil {
		r, t.cause = oe.Reason, oe
		defer t.tried.Vacate()
	}
	took := t.srv.Sweeper.Now() - now
	t.cl.Finish(t.ep, now+took, took, r, 0)
	t.tried.Settle(now+took, verdict.Breaker(r))
	t.rec.ConnectTime = took
	t.rec.AddAttempt(telemetry.Attempt{Endpoint: t.ep.Address(), Cluster: t.cl.Of(t.ep), Reason: r, Offset: now - t.start, Duration: took})
	return leg, r
}

func (t *tcpExchange) again(n int, r outcome.Reason, budget *retry.Budget) bool {
	if t.pol.Retry == nil || t.ep == nil {
		return false
	}
	t.tried.Add(t.ep)
	now := t.srv.Sweeper.Now()
	d := t.pol.Retry.Decide(retry.Question{
		Attempt: n, Retryable: verdict.Class(r), Condition: verdict.Condition(r), Idempotent: true, BodyReplayable: true, Draw: t.tried.Draw,
	}, budget, now, rand.Uint64())
	t.notes.decided(d, budget, now)
	t.notes.answers.note(t.rec.AttemptCount, d)
	if !d.Again {
		if d.Why != retry.Observed {
			t.cl.Metrics().RetryWithheld(withheld(d.Why))
		} else {
			t.cl.Metrics().WouldHave(telemetry.WouldRetry)
		}
		return false
	}
	t.cl.Metrics().Retried(r)
	t.notes.attempted(t.srv.Ledger, &t.rec, &t.tried, now)
	time.Sleep(d.Wait)
	return true
}

func (t *tcpExchange) finish(r outcome.Reason, shard uint32) {
	rec := &t.rec
	rec.Duration = t.srv.Sweeper.Now() - t.start
	rec.Reason, rec.Queued = r, t.turn.waited
	if t.fate != nil {
		t.cl.Metrics().MetFault(r)
	}
	t.cl.Metrics().Finish(shard, r, 0, rec.Duration)
	if m := t.l.Metrics; m != nil {
		m.BytesIn.Add(rec.BytesIn)
		m.BytesOut.Add(rec.BytesOut)
	}
	id := ""
	if !t.peer.ID.IsZero() {
		id = t.peer.ID.String()
	}
	t.logOutcome()
	t.remember(id)
	t.srv.describe(rec, t.l, t.peer, id, t.cause)
	rec.Cluster = t.cl.Name()
	if t.ep != nil {
		rec.Endpoint, rec.UpstreamAddr = t.ep.Address(), t.ep.AddrPort()
	}
	if t.srv.logs(r) {
		t.srv.AccessLog.Write(rec)
	}
}

// describe fills in what records of HTTP and TCP exchanges have in common.
func (s *Server) describe(rec *telemetry.Record, l *plan.Listener, peer Peer, peerID string, cause error) {
	rec.Direction, rec.Listener, rec.Route = l.Direction, l.Name, l.Route.Name
	rec.DownstreamAddr, rec.DownstreamID = peer.Addr, peerID
	rec.OriginalDest = peer.Original
	rec.LocalID = s.LocalID()
	if cause != nil && rec.Reason != outcome.OK {
		rec.Detail = cause.Error()
	}
}
