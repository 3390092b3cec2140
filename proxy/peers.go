package proxy

import "github.com/outrigger-mesh/outrigger/proxy/plan"

// divide has the limits of a plan that are divided among the instances of the own service
// keep to a share of as many as discovery finds alive, this one among them. p.dividing
// orders those who do so: what comes last has looked last.
func (p *Proxy) divide(pl *plan.Plan) {
	p.dividing.Lock()
	defer p.dividing.Unlock()
	if pl == nil {
		return
	}
	for _, l := range pl.RateLimits {
		if l.Peers == 0 {
			continue
		}
		live, before := p.registry.Live(p.initial.Config.Service.Name), l.Table.Shares()
		l.Table.Divide(max(live, l.Peers))
		if now := l.Table.Shares(); now != before {
			p.log.Info("rate limit divided anew", "event", "rate_shares", "cluster", l.Cluster, "limit", l.Name, "shares", now, "before", before, "alive", live)
		}
	}
}
