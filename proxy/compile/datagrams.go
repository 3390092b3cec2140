package compile

import (
	"strconv"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// datagrams is an address for UDP with the cluster that it is to have.
type datagrams struct {
	plan *plan.Datagrams
	spec int
}

// datagrams prepares the relay of what is sent to one service.
func (c *compiler) datagrams(i int) {
	u := &c.cfg.Outbound.UDP[i]
	spec := c.called("outbound.udp["+strconv.Itoa(i)+"].service", u.Service)
	if spec < 0 {
		return
	}
	p := &plan.Datagrams{Name: "udp:" + u.Service, Address: u.Listen, Idle: u.IdleTimeout, MaxFlows: u.MaxFlows}
	c.draft.datagrams = append(c.draft.datagrams, datagrams{p, spec})
}

// Datagrams returns the addresses that the plan will have for UDP.
func (d *Draft) Datagrams() []*plan.Datagrams {
	list := make([]*plan.Datagrams, len(d.datagrams))
	for i := range d.datagrams {
		list[i] = d.datagrams[i].plan
	}
	return list
}

// bindDatagrams gives them their clusters and metrics.
func (d *Draft) bindDatagrams(p *plan.Plan, m *telemetry.Metrics) {
	for i := range d.datagrams {
		g := &d.datagrams[i]
		g.plan.Cluster, g.plan.Metrics = p.Clusters[g.spec], m.Listener(telemetry.Outbound, g.plan.Name)
		p.Datagrams = append(p.Datagrams, g.plan)
	}
}
