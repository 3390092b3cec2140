package upstream

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// far says how far away an endpoint is. Zones of one name in two regions are two
// zones.
func (p *Policy) far(s *EndpointSpec) balance.Far {
	sameRegion := p.Region == s.Region
	switch {
	case s.Zone != "" && s.Zone == p.Zone && (sameRegion || p.Region == "" || s.Region == ""):
		return balance.Near
	case s.Region != "" && sameRegion:
		return balance.Around
	}
	return balance.Away
}

// measure takes in what the endpoints' attempts have shown, and divides attempts
// among endpoints and zones anew.
func (c *Cluster) measure(p *Policy, now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.endpoints {
		e.Load.Roll()
	}
	c.judge(p, now)
	if s := c.set.Load(); s != nil {
		c.spill.Tick(p.Balance, now, s.picker)
	}
	for _, sub := range c.subsets {
		if s := sub.set.Load(); s != nil && !s.fallback {
			sub.spill.Tick(p.Balance, now, s.picker)
		}
	}
}

// placed counts where an attempt goes.
func (c *Cluster) placed(p *balance.Picker, i int) {
	m := p.Member(i)
	c.metrics.Placed(telemetry.Place(m.Far), m.Level != p.FirstLevel())
}
