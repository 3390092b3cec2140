package compile

import "github.com/outrigger-mesh/outrigger/proxy/upstream"

// bindGuards gives the routes their breakers and throttles, where the policies
// of their clusters want one a route. A route is known by its listener and its
// name, by which they stay what they were. clusters are those of the specs.
func (d *Draft) bindGuards(clusters []*upstream.Cluster) {
	routes := make([][]string, len(d.specs))
	for _, u := range d.uses {
		routes[u.spec] = append(routes[u.spec], u.listener+"/"+u.route.Name)
	}
	breakers := make([][]*upstream.RouteBreaker, len(d.specs))
	throttles := make([][]*upstream.Throttle, len(d.specs))
	for i, c := range clusters {
		breakers[i], throttles[i] = c.KeepBreakers(routes[i]), c.KeepThrottles(routes[i])
	}
	for _, u := range d.uses {
		if list := breakers[u.spec]; list != nil {
			u.route.Breaker, breakers[u.spec] = list[0], list[1:]
		}
		if list := throttles[u.spec]; list != nil {
			u.route.Throttle, throttles[u.spec] = list[0], list[1:]
		}
	}
}
