package compile

import (
	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// Endpoints are those of a service as its cluster has them.
func Endpoints(svc *discovery.Service) []upstream.EndpointSpec {
	list := make([]upstream.EndpointSpec, len(svc.Endpoints))
	for i := range svc.Endpoints {
		e := &svc.Endpoints[i]
		list[i] = upstream.EndpointSpec{
			Address: e.Address, ID: e.ID, Weight: e.Weight,
			Healthy: e.Health != discovery.Critical, Health: e.Health.String(),
		}
	}
	return list
}
