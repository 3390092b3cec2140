package compile

import (
	"errors"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

var rateKeys = map[config.RateKey]plan.RateKey{
	config.RateKeyIdentity: plan.RateIdentity,
	config.RateKeySourceIP: plan.RateSourceIP,
	config.RateKeyHeader:   plan.RateField,
	config.RateKeyRoute:    plan.RateRoute,
	config.RateKeyPath:     plan.RatePath,
	config.RateKeyMethod:   plan.RateMethod,
}

var rateTells = map[config.RateTell]plan.RateTell{config.RateTellAlways: plan.TellAlways, config.RateTellNever: plan.TellNever}

// rateLimits prepares the rate limits of a cluster.
func (c *compiler) rateLimits(path, cluster string, list []config.RateLimit) []*plan.RateLimit {
	var limits []*plan.RateLimit
	for i := range list {
		r := &list[i]
		match, ok := c.match(path+"["+strconv.Itoa(i)+"].match", &r.Match)
		if !ok {
			continue
		}
		l := &plan.RateLimit{
			Name: r.Name, Cluster: cluster, Scope: string(r.Scope), Key: rateKeys[r.Key], Field: strings.ToLower(r.Header), MaxKeys: r.MaxKeys,
			Mode: r.Mode, Match: match, OnlyHTTP: r.OnlyHTTP(), Tell: rateTells[r.Tell], FailShut: r.OnError == config.RateRefuse,
			Refusal: errors.New("rate limit " + r.Name),
		}
		if r.Rate != nil {
			l.Rate = *r.Rate
		}
		l.Policy = plan.PolicyText(r.Name, l.Rate)
		if r.Scope == config.RateScopePeers {
			l.Peers = r.MinPeers
		}
		if r.Scope == config.RateScopeRedis {
			side, _, _ := strings.Cut(path, ".") // inbound or policies
			l.Entries, l.Counted = buckets(r, side+":"+cluster+":"+r.Name)
		}
		if r.Scope == config.RateScopeGRPC {
			l.Entries, l.Counted = entries(r)
		}
		if l.Key == plan.RateAll {
			l.MaxKeys = 1
		}
		limits = append(limits, l)
	}
	return limits
}

// bindRates gives the limits of a cluster their buckets and metrics.
func (d *Draft) bindRates(limits []*plan.RateLimit, c *upstream.Cluster, m *telemetry.Metrics) {
	var want []upstream.RateSpec
	var own []*plan.RateLimit
	for _, l := range limits {
		l.Direction, l.Metrics = c.Direction(), m.RateLimit(l.Cluster, c.Direction(), l.Name)
		if l.Counted != nil {
			switch {
			case d.limiters == nil:
			case l.Scope == string(config.RateScopeRedis):
				l.Shared = d.limiters.Redis(l.Counted)
			default:
				l.Shared = d.limiters.GRPC(l.Counted)
			}
			continue
		}
		own = append(own, l)
		want = append(want, upstream.RateSpec{Name: l.Name, Key: l.Key.String(), Rate: l.Rate, Keys: l.MaxKeys, Field: l.Field})
	}
	for i, t := range c.KeepRates(want) {
		l := own[i]
		l.Table = t
		if l.Peers == 0 {
			t.Divide(1)
		}
		l.Metrics.BindShares(l.Peers > 0, func() float64 { return float64(t.Shares()) })
		l.Metrics.Bind(func() float64 { return float64(t.Len()) })
	}
}
