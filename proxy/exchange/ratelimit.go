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

// exceeded is the rate limit that has refused an exchange, and what it said.
type exceeded struct {
	limit *plan.RateLimit // nil: none has
	said  ratelimit.Decision
}

// rated asks the route's rate limits in order, and reports whether the request
// may go on. Those behind the one that refuses are not asked, so that nothing
// is taken from them.
func (x *exchange) rated() bool {
	for _, l := range x.route.RateLimits {
		if !l.Counts(&x.req, x.raw) {
			continue
		}
		var k ratelimit.Key
		switch l.Key {
		case plan.RateField:
			k = ratelimit.KeyOf(l.FieldValue(&x.req, x.raw))
		case plan.RateRoute:
			k = ratelimit.KeyOf([]byte(x.route.Name))
		default:
			k = rateKey(l, &x.s.peer, x.s.peerID)
		}
		if d := l.Table.Take(x.at, &k); !decided(l, &d, x.s.shard, x.cl.Metrics()) {
			x.over, x.cause = exceeded{limit: l, said: d}, l.Refusal
			return false
		}
	}
	return true
}

// rated asks the limits that concern connections which are not HTTP.
func (t *tcpExchange) rated(shard uint32) bool {
	now := t.srv.Sweeper.Now()
	for _, l := range t.l.Route.RateLimits {
		if l.OnlyHTTP {
			continue
		}
		k := t.rateKey(l)
		if d := l.Table.Take(now, &k); !decided(l, &d, shard, t.cl.Metrics()) {
			t.cause = l.Refusal
			return false
		}
	}
	return true
}

// overRate reports whether rated would refuse now. It takes nothing: it is not
// known yet what the connection speaks.
func (t *tcpExchange) overRate() bool {
	now := t.srv.Sweeper.Now()
	for _, l := range t.l.Route.RateLimits {
		if l.OnlyHTTP || l.Mode == guard.Observe {
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

// decided counts what a limit says, and reports whether the exchange goes on.
func decided(l *plan.RateLimit, d *ratelimit.Decision, shard uint32, m *telemetry.Cluster) bool {
	if d.Evicted {
		l.Metrics.Evicted.Inc()
	}
	switch {
	case d.OK:
		l.Metrics.Decided(shard, telemetry.RatePassed)
		return true
	case l.Mode == guard.Observe:
		l.Metrics.Decided(shard, telemetry.RateWouldLimit)
		m.WouldHave(telemetry.WouldRateLimit)
		return true
	}
	l.Metrics.Decided(shard, telemetry.RateLimited)
	return false
}

// appendExceeded appends the fields that tell the caller of the limit, each
// after the end of the line before: Retry-After (RFC 9110 section 10.2.3),
// RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10).
func (x *exchange) appendExceeded(b []byte) []byte {
	l := x.over.limit
	switch {
	case x.turn.again:
		return append(b, "\r\nretry-after: 1"...)
	case l == nil:
		return b
	}
	b = append(b, "\r\nretry-after: "...)
	b = http1.AppendInt(b, seconds(x.over.said.Wait))
	b = append(b, "\r\nratelimit-policy: "...)
	b = append(b, l.Policy...)
	b = append(b, "\r\nratelimit: \""...)
	b = append(b, l.Name...)
	b = append(b, "\";r="...)
	b = http1.AppendInt(b, x.over.said.Remaining)
	b = append(b, ";t="...)
	return http1.AppendInt(b, seconds(x.over.said.Wait))
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
