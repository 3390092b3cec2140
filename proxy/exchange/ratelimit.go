package exchange

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// rateSaid is what was said of an exchange for a rate limit.
type rateSaid struct {
	limit *plan.RateLimit // nil: nothing
	said  ratelimit.Answer
}

// rated asks the route's rate limits in order. Those behind the one that
// refuses are not asked, so that nothing is taken from them. It returns OK when
// the request may go on.
func (x *exchange) rated() outcome.Reason {
	for _, l := range x.route.RateLimits {
		if !l.Counts(&x.req, x.raw) {
			continue
		}
		if l.Shared != nil {
			if r := x.shared(l); r != outcome.OK {
				return r
			}
			continue
		}
		k := x.rateKeyOf(l)
		d := l.Table.Take(x.at, &k)
		if !decided(l, &d, x.tried.Draw, x.s.shard, x.cl.Metrics()) {
			x.over, x.cause = rateSaid{limit: l, said: ratelimit.Answer{Decision: d}}, l.Refusal
			return outcome.RateLimited
		}
		x.tell(l, &ratelimit.Answer{Decision: d})
	}
	return outcome.OK
}

// rateKeyOf is whose bucket is asked.
func (x *exchange) rateKeyOf(l *plan.RateLimit) ratelimit.Key {
	switch l.Key {
	case plan.RateField:
		return x.keys.KeyOf(plan.FieldValue(l.Field, &x.req, x.raw))
	case plan.RateRoute:
		return ratelimit.KeyOf([]byte(x.route.Name))
	case plan.RatePath:
		return x.keys.KeyOf(plan.RatePathOf(&x.req, x.raw))
	case plan.RateMethod:
		return ratelimit.KeyOf(x.req.MethodSpan.Of(x.raw))
	}
	return rateKey(l, x.s.peer, x.s.peerID)
}

// rated asks the limits that concern connections which are not HTTP.
func (t *tcpExchange) rated(shard uint32) outcome.Reason {
	now := t.srv.Sweeper.Now()
	for _, l := range t.l.Route.RateLimits {
		if l.OnlyHTTP {
			continue
		}
		if l.Shared != nil {
			if r := t.shared(l, now, shard); r != outcome.OK {
				return r
			}
			now = t.srv.Sweeper.Now()
			continue
		}
		k := t.rateKey(l)
		if d := l.Table.Take(now, &k); !decided(l, &d, t.tried.Draw, shard, t.cl.Metrics()) {
			t.cause = l.Refusal
			return outcome.RateLimited
		}
	}
	return outcome.OK
}

// overRate reports whether rated would refuse now. It takes nothing: it is not
// known yet what the connection speaks. Who counts for several proxies is not
// asked, for it cannot be asked without taking.
func (t *tcpExchange) overRate() bool {
	now := t.srv.Sweeper.Now()
	for _, l := range t.l.Route.RateLimits {
		if l.OnlyHTTP || !l.Mode.Acts(t.tried.Draw) || l.Shared != nil {
			continue
		}
		if k := t.rateKey(l); !l.Table.Has(now, &k) {
			return true
		}
	}
	return false
}

func (t *tcpExchange) rateKey(l *plan.RateLimit) ratelimit.Key {
	id := ""
	if !t.peer.ID.IsZero() {
		id = t.peer.ID.String()
	}
	return rateKey(l, &t.peer, id)
}

// rateKey is whose bucket is asked where that depends on the caller alone.
func rateKey(l *plan.RateLimit, p *Peer, id string) ratelimit.Key {
	switch l.Key {
	case plan.RateIdentity:
		return ratelimit.KeyOf([]byte(id))
	case plan.RateSourceIP:
		a := p.Addr.Addr().As16() // of IPv4 the same as of IPv4 in IPv6
		return ratelimit.KeyOf(a[:])
	}
	return ratelimit.Key{}
}

// decided counts what a limit says, and reports whether the exchange of draw goes
// on.
func decided(l *plan.RateLimit, d *ratelimit.Decision, draw guard.Draw, shard uint32, m *telemetry.Cluster) bool {
	if d.Evicted {
		l.Metrics.Evicted.Inc()
	}
	switch {
	case d.OK:
		l.Metrics.Decided(shard, telemetry.RatePassed)
		return true
	case !l.Mode.Acts(draw):
		l.Metrics.Decided(shard, telemetry.RateWouldLimit)
		m.WouldHave(telemetry.WouldRateLimit)
		return true
	}
	l.Metrics.Decided(shard, telemetry.RateLimited)
	return false
}

// tell notes what the answer is to say of a limit that has let the request pass.
func (x *exchange) tell(l *plan.RateLimit, a *ratelimit.Answer) {
	if l.Tell == plan.TellAlways || len(a.Fields) > 0 {
		x.told = append(x.told, rateSaid{l, *a})
	}
}

// appendTold appends the fields that tell of the limits which have let the
// request pass, each as a line.
func (x *exchange) appendTold(b []byte) []byte {
	if len(x.told) == 0 {
		return b
	}
	n := len(b)
	b = appendRates(b, x.told)
	// They come after the end of the line before.
	copy(b[n:], b[min(n+2, len(b)):])
	if len(b) > n {
		b = append(b[:len(b)-2], "\r\n"...)
	}
	return b
}

// appendExceeded appends the fields that tell the caller of the limit, each
// after the end of the line before: Retry-After (RFC 9110 section 10.2.3) and
// those of appendRates.
func (x *exchange) appendExceeded(b []byte) []byte {
	l := x.over.limit
	switch {
	case x.turn.again:
		return append(b, "\r\nretry-after: 1"...)
	case l == nil:
		return b
	}
	if a := &x.over.said; !a.Partial {
		b = append(b, "\r\nretry-after: "...)
		b = http1.AppendInt(b, max(seconds(a.Wait), 1))
	}
	if l.Tell == plan.TellNever && len(x.over.said.Fields) == 0 {
		return b
	}
	one := [1]rateSaid{x.over}
	return appendRates(b, one[:])
}

// appendRates appends RateLimit-Policy and RateLimit
// (draft-ietf-httpapi-ratelimit-headers-10) for the limits of which these are to
// tell, and the fields that who counts has given, each after the end of the line
// before.
func appendRates(b []byte, list []rateSaid) []byte {
	sep := "\r\nratelimit-policy: "
	for i := range list {
		if text := list[i].policy(); text != "" {
			b = append(append(b, sep...), text...)
			sep = ", "
		}
	}
	sep = "\r\nratelimit: \""
	for i := range list {
		s := &list[i]
		if s.policy() == "" {
			continue
		}
		b = append(append(b, sep...), s.limit.Name...)
		b = append(b, "\";r="...)
		b = http1.AppendInt(b, s.said.Remaining)
		if !s.said.Partial {
			b = append(b, ";t="...)
			if s.said.OK {
				b = http1.AppendInt(b, seconds(s.said.Full))
			} else {
				b = http1.AppendInt(b, max(seconds(s.said.Wait), 1))
			}
		}
		sep = ", \""
	}
	for i := range list {
		b = append(b, list[i].said.Fields...)
	}
	return b
}

// policy is the limit's quota as RateLimit-Policy says it; empty where nothing
// is to be told of it, or nothing is known.
func (s *rateSaid) policy() string {
	switch {
	case s.limit.Tell == plan.TellNever, s.limit.Tell == plan.TellRefused && s.said.OK:
		return ""
	case s.said.Policy.Requests > 0:
		return plan.PolicyText(s.limit.Name, s.said.Policy)
	case s.limit.Shared != nil && s.said.Partial:
		return ""
	}
	return s.limit.Policy
}

// seconds rounds up, so that who waits as long comes in time.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}

// limitedThere reports whether an answer that begins b is that of a sidecar
// whose rate limit is exceeded, which says nothing about the endpoint's health.
func (x *exchange) limitedThere(b []byte) bool {
	v, ok := x.res.Lookup(b, "x-outrigger-reason")
	return ok && string(v.Of(b)) == outcome.RateLimited.String()
}
