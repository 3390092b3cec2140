package compile

import "github.com/outrigger-mesh/outrigger/proxy/upstream"

// bindBreakers gives the routes their breakers, where the policies of their
// clusters want one a route. A route is known by its listener and its name, by
// which its breaker stays what it was. clusters are those of the specs.
func (d *Draft) bindBreakers(clusters []*upstream.Cluster) {
	routes := make([][]string, len(d.specs))
	for _, u := range d.uses {
		routes[u.spec] = append(routes[u.spec], u.listener+"/"+u.route.Name)
	}
	breakers := make([][]*upstream.RouteBreaker, len(d.specs))
	for i, c := range clusters {
		breakers[i] = c.KeepBreakers(routes[i])
	}
	for _, u := range d.uses {
		if list := breakers[u.spec]; list != nil {
			u.route.Breaker, breakers[u.spec] = list[0], list[1:]
		}
	}
}
