package compile

import "github.com/outrigger-mesh/outrigger/proxy/upstream"

// bindLatencies gives the routes that hedge what was learnt of their latency. That
// outlives plans as long as the route keeps its place and name.
func bindLatencies(uses []use, clusters []*upstream.Cluster) {
	for spec, c := range clusters {
		var names []string
		var mine []use
		for _, u := range uses {
			if u.spec != spec || u.route.Path == "" {
				continue
			}
			p := u.route.Policy
			if p == nil {
				p = c.Policy()
			}
			if p.Hedge != nil {
				names, mine = append(names, u.route.Path+" "+u.route.Name), append(mine, u)
			}
		}
		for i, l := range c.KeepLatencies(names) {
			mine[i].route.Latency = l
		}
	}
}
