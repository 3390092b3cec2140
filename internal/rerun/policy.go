package rerun

import (
	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// rules are a configuration as far as machines that are rerun obey it.
type rules struct {
	cfg    *config.Config
	policy []replay.Policy               // by cluster
	routes []map[uint16]*replay.Override // by cluster and route
	apart  []bool                        // by cluster: it has breakers of its routes or endpoints, which are not rerun
}

// newRules reads what cfg says of the clusters and routes of t.
func newRules(t *Trace, cfg *config.Config) *rules {
	r := &rules{cfg: cfg}
	for _, c := range t.clusters {
		p := policyOf(cfg, c)
		apart := p.Breaker != nil && p.Breaker.Scope != breaker.ScopeCluster
		if apart {
			p.Breaker = nil
		}
		r.policy, r.apart = append(r.policy, p), append(r.apart, apart)
		m := map[uint16]*replay.Override{}
		for _, route := range routesTo(cfg, c) {
			for i, name := range t.routes {
				if o := override(route.Route, &p); o != nil && name == route.name {
					m[uint16(i)] = o
				}
			}
		}
		r.routes = append(r.routes, m)
	}
	return r
}

// policyOf is the policy of c under cfg, as proxy/compile makes it.
func policyOf(cfg *config.Config, c *cluster) replay.Policy {
	if c.inbound {
		in := &cfg.Inbound
		local := retry.Default()
		local.On = []retry.Condition{retry.StaleConnection}
		return replay.Policy{Timeout: in.Timeout, ConnectTimeout: in.ConnectTimeout, Limits: in.Limits, Retry: &local}
	}
	p := cfg.Policy(c.name)
	return replay.Policy{
		Timeout: p.Timeout, ConnectTimeout: p.ConnectTimeout,
		Retry: p.Retry, Hedge: p.Hedge, Outlier: p.Outlier, Breaker: p.Breaker, Limits: p.Limits, Balance: p.Balance,
	}
}

type namedRoute struct {
	name string
	*config.Route
}

// routesTo are the routes whose exchanges may go to c.
func routesTo(cfg *config.Config, c *cluster) (list []namedRoute) {
	add := func(routes []config.Route) {
		for i := range routes {
			list = append(list, namedRoute{routes[i].Title(i), &routes[i]})
		}
	}
	if c.inbound {
		add(cfg.Inbound.Routes)
		return list
	}
	for i := range cfg.Outbound.Upstreams {
		add(cfg.Outbound.Upstreams[i].Routes)
	}
	return list
}

func override(r *config.Route, p *replay.Policy) *replay.Override {
	if r.Timeout == nil && r.Retry == nil {
		return nil
	}
	o := &replay.Override{Timeout: p.Timeout, Retry: r.Retry.Apply(p.Retry)}
	if r.Timeout != nil {
		o.Timeout = *r.Timeout
	}
	return o
}
