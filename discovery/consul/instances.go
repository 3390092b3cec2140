package consul

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// endpoints translates Consul's instances. Those that cannot be connected to
// are left out and counted in the warning.
func endpoints(entries []*api.ServiceEntry) (eps []discovery.Endpoint, warning string) {
	left, example := 0, ""
	eps = make([]discovery.Endpoint, 0, len(entries))
	for _, e := range entries {
		if e == nil || e.Service == nil {
			left, example = left+1, "an entry without a service"
			continue
		}
		ep, err := endpointOf(e)
		if err != nil {
			left, example = left+1, fmt.Sprintf("%q %v", e.Service.ID, err)
			continue
		}
		eps = append(eps, ep)
	}
	if left > 0 {
		warning = fmt.Sprintf("%d of %d instances are not used: %s", left, len(entries), example)
	}
	return discovery.SortEndpoints(eps), warning
}

func endpointOf(e *api.ServiceEntry) (discovery.Endpoint, error) {
	host := e.Service.Address
	var node, datacenter string
	var nodeMeta map[string]string
	if e.Node != nil {
		node, datacenter, nodeMeta = e.Node.Node, e.Node.Datacenter, nonEmpty(e.Node.Meta)
		if host == "" {
			host = e.Node.Address
		}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return discovery.Endpoint{}, fmt.Errorf("has the address %q, which is not an IP address", host)
	}
	port := e.Service.Port
	if port == 0 {
		port = e.Service.DefaultPort()
	}
	if port < 1 || port > 65535 {
		return discovery.Endpoint{}, fmt.Errorf("has the port %d", port)
	}
	health, weight := healthOf(e)
	region, zone := placeOf(e)
	return discovery.Endpoint{
		Address: netip.AddrPortFrom(addr.Unmap(), uint16(port)), ID: e.Service.ID,
		Weight: weight, Health: health,
		Tags: append([]string(nil), e.Service.Tags...), Meta: nonEmpty(e.Service.Meta),
		Node: node, Datacenter: datacenter, NodeMeta: nodeMeta,
		Region: region, Zone: zone, Priority: priorityOf(e), Draining: drainOf(e),
	}, nil
}

// healthOf maps the checks of an instance and of its node to one health and
// the weight that goes with it. Maintenance is critical. Consul's weight 0 for
// warning instances means no traffic, which is critical here too.
func healthOf(e *api.ServiceEntry) (discovery.Health, uint32) {
	passing := weightOf(e.Service.Weights.Passing)
	switch status(e.Checks) {
	case api.HealthPassing:
		return discovery.Passing, passing
	case api.HealthWarning:
		w := e.Service.Weights
		if w.Warning == 0 && w.Passing != 0 {
			return discovery.Critical, passing
		}
		return discovery.Warning, weightOf(w.Warning)
	}
	return discovery.Critical, passing
}

// status is HealthChecks.AggregatedStatus with an unknown state as critical
// instead of an empty string, whatever comes before it.
func status(checks api.HealthChecks) string {
	worst := api.HealthPassing
	for _, c := range checks {
		switch {
		case c == nil:
		case c.CheckID == api.NodeMaint || strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix):
			return api.HealthMaint
		case c.Status == api.HealthPassing:
		case c.Status == api.HealthWarning && worst == api.HealthPassing:
			worst = api.HealthWarning
		case c.Status != api.HealthWarning:
			worst = api.HealthCritical
		}
	}
	return worst
}

func weightOf(w int) uint32 { return uint32(min(max(w, 1), discovery.MaxWeight)) }

func nonEmpty(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
