package compile

import (
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Listeners returns the listeners that the plan will have, so that their
// sockets can be bound before anything is changed.
func (d *Draft) Listeners() []*plan.Listener { return d.listeners }

// Services returns the names of the services whose endpoints discovery must
// find, sorted.
func (d *Draft) Services() []string {
	var names []string
	for _, s := range d.specs {
		if s.dir == telemetry.Outbound && !s.spec.Local {
			names = append(names, s.spec.Name)
		}
	}
	if d.peers != "" && !slices.Contains(names, d.peers) {
		names = append(names, d.peers)
	}
	slices.Sort(names)
	return names
}

// Build makes the plan: clusters are taken from the registry, where those that
// stay keep their endpoints, connections and ejections. It cannot fail. The
// caller calls Release for the plan that this one replaces.
func (d *Draft) Build(r *upstream.Registry, m *telemetry.Metrics) *plan.Plan {
	p := &plan.Plan{Version: d.version, Listeners: d.listeners, Faults: d.faults}
	if d.limiters != nil {
		d.limiters.Use(d.counting)
	}
	for i := range d.specs {
		s := &d.specs[i]
		c := r.Acquire(s.spec, s.dir)
		if s.spec.Local {
			c.SetLocal(s.local)
		}
		d.bindRates(s.rates, c, m)
		bindGates(d.gates, i, c)
		p.Clusters = append(p.Clusters, c)
		p.RateLimits = append(p.RateLimits, s.rates...)
	}
	for _, u := range d.uses {
		u.route.Cluster, u.route.RateLimits = p.Clusters[u.spec], d.specs[u.spec].rates
		if u.subset != "" {
			u.route.Subset = u.route.Cluster.Subset(u.subset)
		}
		u.route.Priorities = d.specs[u.spec].turns
		u.route.Partial = d.partial(&u)
	}
	d.bindFailover(p.Clusters)
	d.bindGuards(p.Clusters)
	d.bindDatagrams(p, m)
	bindLatencies(d.uses, p.Clusters)
	for _, l := range d.listeners {
		l.Metrics = m.Listener(l.Direction, l.Name)
		if l.Routes != nil {
			l.Routes.Bind(m, l)
		}
	}
	slices.SortFunc(p.Clusters, func(a, b *upstream.Cluster) int { return strings.Compare(a.Name(), b.Name()) })
	slices.SortFunc(p.Listeners, func(a, b *plan.Listener) int { return strings.Compare(a.Name, b.Name) })
	for i, l := range p.Listeners {
		l.Index = i
		if l.Intercept != nil {
			d.bindDirect(l.Intercept, &r.Instances)
		}
	}
	return p
}

// Release gives back what the plan holds, once another one serves.
func Release(p *plan.Plan, r *upstream.Registry) {
	for _, c := range p.Clusters {
		r.Release(c)
	}
	for _, l := range p.RateLimits {
		l.Metrics.Release()
	}
	for _, g := range p.Datagrams {
		g.Metrics.Release()
	}
	for _, l := range p.Listeners {
		l.Metrics.Release()
		if l.Routes != nil {
			l.Routes.Release()
		}
	}
}
