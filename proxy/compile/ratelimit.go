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
}

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
			Name: r.Name, Cluster: cluster, Rate: r.Rate, Key: rateKeys[r.Key], Field: strings.ToLower(r.Header), MaxKeys: r.MaxKeys,
			Mode: r.Mode, Match: match, OnlyHTTP: r.OnlyHTTP(), Policy: plan.PolicyText(r.Name, r.Rate),
			Refusal: errors.New("rate limit " + r.Name),
		}
		if l.Key == plan.RateAll {
			l.MaxKeys = 1
		}
		limits = append(limits, l)
	}
	return limits
}

// bindRates gives the limits of a cluster their buckets and metrics.
func bindRates(limits []*plan.RateLimit, c *upstream.Cluster, m *telemetry.Metrics) {
	want := make([]upstream.RateSpec, len(limits))
	for i, l := range limits {
		want[i] = upstream.RateSpec{Name: l.Name, Key: l.Key.String(), Rate: l.Rate, Keys: l.MaxKeys, Field: l.Field}
	}
	for i, t := range c.KeepRates(want) {
		l := limits[i]
		l.Table, l.Direction, l.Metrics = t, c.Direction(), m.RateLimit(l.Cluster, c.Direction(), l.Name)
		l.Metrics.Bind(func() float64 { return float64(t.Len()) })
	}
}
