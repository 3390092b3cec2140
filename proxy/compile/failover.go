package compile

import (
	"strconv"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// called is service for one that is called by itself: those that have its
// attempts while it has no endpoints are prepared, too.
func (c *compiler) called(path, name string) int {
	at := c.service(path, name)
	if at < 0 || c.draft.specs[at].failover != nil {
		return at
	}
	var list []int
	for i, other := range c.cfg.Policy(name).Failover {
		spec := c.service(config.PolicyPath(name)+".failover["+strconv.Itoa(i)+"]", other)
		if spec < 0 {
			return -1
		}
		list = append(list, spec)
	}
	c.draft.specs[at].failover = list
	return at
}

// bindFailover gives the clusters, which are in the order of the specs, those that
// have their attempts.
func (d *Draft) bindFailover(clusters []*upstream.Cluster) {
	for i := range d.specs {
		if d.specs[i].dir != telemetry.Outbound {
			continue
		}
		var list []*upstream.Cluster
		for _, at := range d.specs[i].failover {
			list = append(list, clusters[at])
		}
		clusters[i].SetFailover(list)
	}
}
