package exchange

import (
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
)

// exchange is one request with its response. It is pooled; nothing keeps it
// after free.
type exchange struct {
	s    *Session
	down downstream    // s itself, or the stream below
	st   *http2.Stream // where the request came from by HTTP/2; else nil
	l    *plan.Listener
	cl   *upstream.Cluster
	pol  *upstream.Policy

	route *plan.Route // nil until one is chosen

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
	at           time.Duration // when the clock was last read
	late         bool          // time has passed since, before the first attempt: something was waited for
	timed        bool          // it was read when the upstream leg was given back, at the end of the answer
	headDeadline time.Duration
	sent         time.Duration // the present attempt's request
	deadline     time.Duration // of the whole exchange; 0 none
	attemptEnd   time.Duration // of the present attempt, until its response begins; 0 none

	tried    upstream.Tried
	wish     upstream.Wish
	given    given
	up       *wire.Conn    // the upstream leg by HTTP/1.1
	ust      *http2.Stream // the upstream leg by HTTP/2
	ep       *upstream.Endpoint
	upID     string        // the endpoint's SPIFFE ID
	exactAt  time.Duration // when up's exact deadline is, 0 without one
	heard    bool          // the attempt has had a byte of an answer
	unsent   bool          // the endpoint says that it did not process the request
	earlier  int           // attempts before this one that an endpoint may have seen
	grpc     bool          // the request is a gRPC call
	call     call          // what is known of its answer
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
	hop      hop
	throttle *upstream.Throttle // to be told how the exchange went; nil for none
	heldBack time.Duration      // how long who was held back had better wait
	turn     turn
	fate     fateful
	over     rateSaid   // the rate limit that has refused, and what it said
	told     []rateSaid // what the answer tells of others
	keys     ratelimit.Memory
	values   [][]byte // what the one asked now is told
	tokens   authz.Tokens
	upload   uploadState
	uploader uploader
	hearing  hearing
	trailers []byte // pooled: a response's, less what was heard
	unfit    error  // what the listener's normalization refuses
	moved    bool   // it wants the request sent again
	caller   caller

	ahead    uint32 // requests of the cluster in flight when this one was let in
	race     *race  // nil until an attempt may be hedged
	rival    rival
	armed    bool // race's timer runs
	watching bool // caller has the upstream leg

	notes notes
	rec   telemetry.Record
}

type uploadState uint8

const (
	uploadNone uploadState = iota
	uploadRunning
	uploadDone
)

func newExchange(s *Session, l *plan.Listener) *exchange {
	x := exchanges.Get().(*exchange)
	x.s, x.down, x.l = s, s, l
	x.start = x.now()
	s.exchange.Add(1)
	return x
}

// free forgets everything but named memory and gives x back.
func (x *exchange) free() {
	for _, b := range [...][]byte{x.out, x.spool, x.own, x.trailers} {
		if b != nil {
			wire.Put(b)
		}
	}
	x.req.Reset()
	x.res.Reset()
	x.rec.Reset()
	x.notes.forget(x.s.srv.Ledger)
	x.route = nil
	x.s, x.down, x.st, x.l, x.cl, x.pol, x.up, x.ust, x.ep = nil, nil, nil, nil, nil, nil, nil, nil, nil
	x.raw, x.body, x.spool, x.own, x.out, x.id = nil, nil, nil, nil, nil, nil
	x.unsent, x.grpc, x.earlier = false, false, 0
	x.call.reset()
	x.stream, x.heard, x.close, x.began, x.chunked, x.counted = false, false, false, false, false, false
	x.exactAt = 0
	x.parent, x.trace = telemetry.TraceContext{}, telemetry.TraceContext{}
	x.ahead = 0
	x.start, x.at, x.headDeadline, x.deadline, x.attemptEnd = 0, 0, 0, 0, 0
	x.late = false
	x.tried.Reset()
	x.wish, x.given.of = upstream.Wish{}, nil
	x.status, x.headLen, x.failed, x.cause = 0, 0, outcome.OK, nil
	x.rule, x.detail, x.upID = "", "", ""
	if x.over.limit != nil {
		x.over = rateSaid{}
	}
	x.turn, x.fate = turn{}, fateful{}
	clear(x.told)
	clear(x.values)
	clear(x.tokens)
	x.tokens = x.tokens[:0]
	x.told, x.values = x.told[:0], x.values[:0]
	x.throttle, x.heldBack = nil, 0
	x.unfit, x.moved = nil, false
	x.hearing, x.trailers = hearing{}, nil
	x.hop.above = false
	x.upload = uploadNone
	x.uploader.reset()
	if x.caller.gone.Load() {
		x.caller.gone.Store(false)
	}
	if x.rival.of != nil {
		x.rival = rival{}
	}
	x.watching = false
	if x.race != nil {
		x.race.total = 0
	}
	exchanges.Put(x)
}

// now reads the clock, which costs as much as a good part of what is done
// between two readings; at is what it said last.
func (x *exchange) now() time.Duration {
	x.at = x.s.srv.Sweeper.Now()
	return x.at
}

// run carries the exchange to its end: checks, attempts, response, record.
func (x *exchange) run() {
	x.policy()
	x.cl.Metrics().Begin(x.s.shard)
	x.counted = true
	if !x.req.KeepAlive {
		x.close = true
	}
	x.identify()
	x.heedHop()
	x.grpc = plan.IsGRPC(&x.req, x.raw)
	// While the endpoint is waited for, its own deadlines end the exchange; the
	// downstream's must not, or nothing could be said any more.
	x.down.setDeadline(0)
	if r := x.admit(); r != outcome.OK {
		x.reply(r, nil)
		x.finish(r)
		return
	}
	if r := x.rated(); r != outcome.OK {
		x.reply(r, x.unknown(r))
		x.finish(r)
		return
	}
	if x.moved {
		x.redirect()
		return
	}
	if x.route.Reply != nil {
		x.answerFixed(x.route.Reply)
		return
	}
	if r := x.enter(); r != outcome.OK {
		x.notes.refused = max(x.at-x.start, 1)
		x.reply(r, x.cause)
		x.finish(r)
		return
	}
	x.ahead = besides(x.cl)
	r := outcome.Throttled
	if x.admitted() {
		r = x.attempts()
		x.tellThrottle(r)
	}
	if x.stream {
		x.uploader.commit()
	}
	x.leave()
	if r != outcome.OK && x.cut(r) {
		x.began = true
	} else if r != outcome.OK && !x.began {
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
	return x.s.srv.Sweeper.Soon() + x.pol.StreamIdle
}

// admit checks what must hold before any attempt.
func (x *exchange) admit() outcome.Reason {
	if r := x.tunnelRefused(); r != outcome.OK {
		return r
	}
	if m := x.s.srv.Memory; m.At(memory.Shed) {
		m.Gave(memory.Exchanges)
		return outcome.Overload
	}
	if x.s.draining() {
		x.close = true
	}
	if x.unfit != nil {
		x.detail = http1.Reason(x.unfit)
		return outcome.BadRequest
	}
	if p := x.l.Route.Authz; p != nil {
		asked := authz.Request{Method: x.req.MethodSpan.Of(x.raw), Resource: x.req.Resource(x.raw), Host: x.req.Host.Of(x.raw), Head: &x.req.Head, Raw: x.raw}
		if len(p.Verifiers()) > 0 {
			asked.Query, asked.Now, asked.Tokens = x.req.Query.Of(x.raw), x.s.srv.Sweeper.Wall(x.at), p.Tokens(x.tokens)
		}
		v := x.s.caller(p).Check(&asked)
		if len(p.Verifiers()) > 0 {
			x.tokens, x.late = asked.Tokens, true
			p.Drop(&asked)
		}
		x.rule = v.Rule
		if v.Refuse(x.tried.Draw) {
			x.cause = v.Err()
			return outcome.Denied
		}
		if !v.Allowed {
			x.notes.wouldDeny = true
			x.cl.Metrics().WouldHave(telemetry.WouldDeny)
		}
	}
	if r := x.routable(); r != outcome.OK {
		return r
	}
	if t := x.pol.Timeout; t > 0 {
		x.deadline, x.notes.deadline = x.start+t, ledger.PolicyDeadline
	}
	if left, ok := CallerDeadline(&x.req, x.raw); ok && x.notes.called(left) && (x.deadline == 0 || x.start+left < x.deadline) {
		x.deadline, x.notes.deadline = x.start+left, ledger.CallerDeadline
	}
	if x.grpc {
		if left, ok := GRPCTimeout(&x.req, x.raw); ok && x.notes.called(left) && (x.deadline == 0 || x.start+left < x.deadline) {
			x.deadline, x.notes.deadline = x.start+left, ledger.GRPCDeadline
		}
	}
	return outcome.OK
}
