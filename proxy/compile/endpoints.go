package compile

import (
	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// Endpoints are those of a service as its cluster has them. cut is how many have
// more metadata than is kept.
func Endpoints(svc *discovery.Service) (list []upstream.EndpointSpec, cut int) {
	list = make([]upstream.EndpointSpec, len(svc.Endpoints))
	var labels []balance.Label
	for i := range svc.Endpoints {
		e := &svc.Endpoints[i]
		labels = labels[:0]
		e.Metadata(func(key, value string) { labels = append(labels, balance.Label{Key: key, Value: value}) })
		l, some := balance.NewLabels(labels)
		if some {
			cut++
		}
		list[i] = upstream.EndpointSpec{
			Address: e.Address, ID: e.ID, Weight: e.Weight,
			Healthy: e.Health != discovery.Critical, Health: e.Health.String(),
			Region: e.Region, Zone: e.Zone, Priority: e.Priority, Draining: e.Draining, Labels: l,
		}
	}
	return list, cut
}
