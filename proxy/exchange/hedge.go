package exchange

import (
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/verdict"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// mostRivals is how many attempts may be started beside one.
const mostRivals = hedge.MostAttempts - 1

// race is an attempt of an exchange, made by its own goroutine, with the rivals
// that a timer has started beside it because it was slow to be answered. The
// first good answer wins; see docs/adr/0015-hedging.md. An exchange makes it for
// its first attempt that may be hedged and keeps it.
type race struct {
	timer *time.Timer
	wake  waiting // has a token once a rival has ended, or the caller has gone

	mu      sync.Mutex
	primary *exchange
	open    bool // the primary is sending or waiting: it may be read, and rivals started
	live    bool // rivals may win
	due     time.Duration
	delay   time.Duration
	rings   time.Duration // when the timer runs down, 0 when it does not run: it may be set earlier than due
	rivals  [mostRivals]*exchange
	n       int
	ended   int
	winner  *exchange

	lost  [mostRivals]lostRival // for the record, once the primary is in it
	nLost int
	total int // rivals of the exchange
}

// lostRival is what is told of a rival whose answer was not passed on.
type lostRival struct {
	attempt telemetry.Attempt
	tried   upstream.Tried
}

// arm has another attempt started if the one that is about to be sent is not
// answered in time. Where the policy does not hedge it is not called.
func (x *exchange) arm() {
	cfg := x.pol.Hedge
	if x.rival.of != nil || x.stream || x.req.Upgrade || !cfg.Hedges(x.req.Method.Idempotent(), x.rec.AttemptCount+1) {
		return
	}
	delay, ok := cfg.Wait(x.at, x.methodLatency(), x.route.Latency, &x.cl.Latencies().All)
	if !ok {
		x.cl.Metrics().HedgeWithheld(telemetry.HedgeAnswer(hedge.TooFewSamples))
		return
	}
	if x.deadline > 0 && x.at+delay >= x.deadline {
		return
	}
	r := x.race
	if r == nil {
		r = &race{wake: make(waiting, 1)}
		r.timer = time.AfterFunc(time.Hour, r.fire)
		r.timer.Stop()
		x.race = r
	}
	if x.st == nil {
		x.watch()
	}
	r.mu.Lock()
	r.primary, r.open, r.live = x, true, true
	r.delay, r.due = delay, x.at+delay
	if r.rings == 0 || r.rings > r.due {
		r.set(delay)
	}
	r.mu.Unlock()
	x.armed = true
}

// set has the timer run down at due, in so long. r.mu is held.
func (r *race) set(in time.Duration) {
	r.rings = r.due
	r.timer.Reset(in)
}

// leaveRunning is the delay from which on a timer is not stopped with its attempt
// but left to run down: at most so many times a second it starts a goroutine that
// finds nothing to do, or sets it again for a later attempt. Setting and stopping
// it for each attempt costs a busy proxy more.
const leaveRunning = 50 * time.Millisecond

// disarm lets no rival be started any more. Those that are under way may win
// until the attempt is settled.
func (x *exchange) disarm() {
	r := x.race
	r.mu.Lock()
	r.open = false
	if r.delay < leaveRunning {
		r.timer.Stop()
		r.rings = 0
	}
	r.mu.Unlock()
	x.armed = false
}

// methodLatency is what is known of the latency of a gRPC call's method, or nil.
func (x *exchange) methodLatency() *hedge.Latency {
	if !x.grpc {
		return nil
	}
	return x.cl.Latencies().Method(balance.KeyOf(x.req.Path.Of(x.raw)))
}

// learn notes how long the first attempt took to be answered, or how long it was
// waited for at least. Rivals are left out: they are not what would have been
// without hedging. What failed at once says nothing of how long answers take.
func (x *exchange) learn(r outcome.Reason, took time.Duration) {
	cfg := x.pol.Hedge
	if cfg.Delay > 0 || x.rec.AttemptCount > 0 || x.sent == 0 || x.stream {
		return
	}
	switch r {
	case outcome.OK, outcome.Superseded, outcome.TryTimeout, outcome.RequestTimeout:
	default:
		return
	}
	l := x.cl.Latencies()
	l.All.Observe(x.at, took)
	if m := x.route.Latency; m != nil {
		m.Observe(x.at, took)
	}
	if !x.grpc {
		return
	}
	m := x.methodLatency()
	if m == nil && r == outcome.OK {
		m = l.Learn(balance.KeyOf(x.req.Path.Of(x.raw)))
	}
	if m != nil {
		m.Observe(x.at, took)
	}
}

// fire starts a rival, in a goroutine of its own, when the timer has run down.
func (r *race) fire() {
	r.mu.Lock()
	r.rings = 0
	if !r.open {
		r.mu.Unlock()
		return
	}
	x := r.primary
	if left := r.due - x.s.srv.Sweeper.Now(); left > 0 { // it was set for an attempt before
		r.set(left)
		r.mu.Unlock()
		return
	}
	y := r.challenge(x)
	if y == nil {
		r.mu.Unlock()
		return
	}
	r.rivals[r.n] = y
	r.n++
	if x.rec.AttemptCount+1+r.n < x.pol.Hedge.MaxAttempts {
		r.due = y.rival.began + r.delay
		r.set(r.delay)
	}
	cl := x.cl
	cl.Join() // while the exchange is under way, and with it whoever waits
	r.mu.Unlock()
	defer cl.Leave()
	y.compete()
}

// settle ends the race of an attempt that has come to reason: it waits for the
// rivals where that is no good answer, and calls off those that are left. It
// returns what the attempt has come to as a whole. Where a rival has won, x has
// its leg and its answer from then on, and a and began are about it.
func (x *exchange) settle(reason outcome.Reason, a *telemetry.Attempt, began time.Duration) (outcome.Reason, time.Duration) {
	r := x.race
	waits := !x.conclusive(reason) && !hopeless(reason)
	if waits {
		x.caller.watch(r.wake)
	}
	r.mu.Lock()
	for waits && r.winner == nil && r.ended < r.n && !x.caller.gone.Load() {
		r.mu.Unlock()
		<-r.wake
		r.mu.Lock()
	}
	w := r.winner
	ended := r.finish(x.s.srv.Sweeper.Now())
	r.mu.Unlock()
	// From here on no rival touches x, and those that have ended belong to it.
	x.caller.beaten.Store(false)
	if waits {
		x.rewatch()
	}
	if waits && w == nil && x.caller.gone.Load() {
		x.dropUpstream()
		reason, x.cause, x.status = outcome.DownstreamGone, x.st.Err(), 0
	} else if waits && w == nil && x.status == 0 {
		w = answered(ended[:]) // it has failed as well, but has something to say
	}
	if w != nil {
		reason, began = x.adopt(w, reason, a, began), w.rival.began
	}
	for _, y := range ended {
		switch y {
		case nil:
		case w:
			x.cl.Metrics().Hedged(telemetry.HedgeWon)
			y.free()
		default:
			l := r.lose(y)
			l.attempt.Reason, l.attempt.Status, l.attempt.Duration = y.rival.reason, uint16(y.status), y.at-y.rival.began
			l.attempt.First, l.attempt.Sent = y.moments(y.rival.began)
			y.end()
		}
	}
	return reason, began
}

// finish calls off the rivals that are under way, of which nothing more is heard,
// and returns the others. r.mu is held: a rival that is not among its race's any
// more may be gone at once.
func (r *race) finish(now time.Duration) (ended [mostRivals]*exchange) {
	for i, y := range r.rivals[:r.n] {
		r.rivals[i] = nil
		if y.rival.done {
			ended[i] = y
			continue
		}
		l := r.lose(y)
		l.attempt.Reason, l.attempt.Duration = outcome.Superseded, now-y.rival.began
		y.caller.Canceled()
	}
	r.primary.earlier += r.n
	r.total += r.n
	r.n, r.ended, r.winner, r.live = 0, 0, nil, false
	select {
	case <-r.wake:
	default:
	}
	return ended
}

// lose keeps for the record what is known of y, whose answer is not passed on.
func (r *race) lose(y *exchange) *lostRival {
	l := &r.lost[r.nLost]
	r.nLost++
	l.attempt, l.tried = y.rival.attempt, y.tried
	return l
}

// answered returns a rival that has ended with an answer, or nil.
func answered(rivals []*exchange) *exchange {
	for _, y := range rivals {
		if y != nil && y.status != 0 {
			return y
		}
	}
	return nil
}

// hopeless reports whether no other attempt could come to anything either.
func hopeless(r outcome.Reason) bool {
	switch r {
	case outcome.RequestTimeout, outcome.DownstreamGone, outcome.Draining, outcome.Internal:
		return true
	}
	return false
}

// conclusive reports whether what an attempt has come to is passed on, whatever
// others may still say: of gRPC calls any status that policy does not except
// (gRFC A6, Hedging Policy), else all but failures of the endpoint.
func (x *exchange) conclusive(r outcome.Reason) bool {
	if !x.grpc || x.status == 0 {
		return r == outcome.OK
	}
	code := x.call.status
	switch {
	case code == noStatus && x.status == 200:
		return r == outcome.OK
	case code == noStatus:
		code = statusOfHTTP(x.status)
	}
	return x.pol.Hedge.Fatal(code)
}

// adopt makes the answer of the rival w that of x, whose own attempt has come to
// own, and returns what w has come to.
func (x *exchange) adopt(w *exchange, own outcome.Reason, a *telemetry.Attempt, began time.Duration) outcome.Reason {
	soFar := x.at - began
	if x.sent != 0 {
		soFar = x.at - x.sent
	}
	a.Status = uint16(x.status)
	a.First, a.Sent = x.moments(began)
	a.Fault = x.faultWords()
	switch {
	case own == outcome.OK: // too late, if only by a hair
		own = outcome.Superseded
		x.dropUpstream()
	case x.status != 0:
		x.heedRetryAfter()
		x.discardResponse()
	}
	a.Reason, x.status = own, int(a.Status)
	x.learn(own, soFar)
	a.Duration = x.at - began
	x.rec.AddAttempt(*a)
	x.notes.attempted(x.s.srv.Ledger, &x.rec, &x.tried, x.at)
	counted := x.judged(own)
	x.account(x.ep, counted, soFar)
	x.tried.Settle(x.at, verdict.Breaker(counted))
	x.tried.Add(x.ep)
	x.tried.Inherit(&w.tried)
	x.fate.now = false // w has met no fault

	w.caller.watch(nil)
	w.watching = false
	x.ep, x.up, x.ust, x.upID, x.exactAt = w.ep, w.up, w.ust, w.upID, w.exactAt
	w.up, w.ust, w.exactAt = nil, nil, 0
	x.res, w.res = w.res, x.res
	x.call, x.status, x.headLen, x.heard, x.unsent = w.call, w.status, w.headLen, w.heard, w.unsent
	x.cause, x.sent, x.at, x.attemptEnd = w.cause, w.sent, w.at, 0
	x.rec.ConnectTime, x.rec.FirstByteTime = w.rec.ConnectTime, w.rec.FirstByteTime
	if x.st != nil && (x.up != nil || x.ust != nil) {
		x.watch()
	}
	*a = w.rival.attempt
	return w.rival.reason
}

// confess puts the rivals that have lost into the record, behind the attempt that
// they were started beside.
func (x *exchange) confess() {
	r := x.race
	if r == nil || r.nLost == 0 {
		return
	}
	x.notes.attempted(x.s.srv.Ledger, &x.rec, &x.tried, x.at)
	for i := range r.lost[:r.nLost] {
		l := &r.lost[i]
		x.rec.AddAttempt(l.attempt)
		x.tried.Take(&l.tried)
		x.notes.attempted(x.s.srv.Ledger, &x.rec, &x.tried, x.at)
		*l = lostRival{}
	}
	r.nLost = 0
}

// account tells the cluster how an attempt at ep ended.
func (x *exchange) account(ep *upstream.Endpoint, r outcome.Reason, rtt time.Duration) {
	if r == outcome.Superseded {
		x.cl.Cut(ep, x.at, rtt)
		return
	}
	x.cl.Finish(ep, x.at, rtt, r, x.status)
}

// hedged is how many rivals the exchange has had.
func (x *exchange) hedged() int {
	if x.race == nil {
		return 0
	}
	return x.race.total
}
