package config

import "slices"

// MaxFailover is how many services may have the attempts of one whose endpoints
// cannot be used.
const MaxFailover = 8

// Services returns the names of all services that may be called, each once: the
// upstreams, the destinations of their routes, in the order of the file, and
// those that have the attempts of these while they have no endpoints.
func (c *Config) Services() []string {
	names := c.Outbound.services()
	for _, name := range slices.Clone(names) {
		for _, other := range c.failover(name) {
			if !slices.Contains(names, other) {
				names = append(names, other)
			}
		}
	}
	return names
}

// failover is that of a service's policy; the policy "*" has none.
func (c *Config) failover(service string) []string { return c.Policies[service].Failover }

// failoverProtocol is what is spoken with a service that only failover names:
// the same as with the first of those whose attempts it has.
func (c *Config) failoverProtocol(service string) (Protocol, bool) {
	for _, name := range c.Outbound.services() {
		if name != service && slices.Contains(c.failover(name), service) {
			return c.ServiceProtocol(name), true
		}
	}
	return "", false
}

// checkFailover checks the services that have the attempts of name.
func (v *validator) checkFailover(path, name string, p *Policy) {
	path += ".failover"
	if name == AnyService && len(p.Failover) > 0 {
		v.say(path, "cannot be that of every service, itself among them; write it in the policies of those that have others to take their place")
		return
	}
	if len(p.Failover) > MaxFailover {
		v.say(path, "names %d services; at most %d", len(p.Failover), MaxFailover)
	}
	for i, other := range p.Failover {
		at := joinIndex(path, i)
		switch {
		case !serviceName(other):
			v.say(at, "is %q; %s", other, nameRule)
		case other == name:
			v.say(at, "is the service itself; name others, which are called while it has no endpoint that can be used")
		case slices.Contains(p.Failover[:i], other):
			v.say(at, "is %q, which is listed already", other)
		default:
			own, its := v.ServiceProtocol(name), v.ServiceProtocol(other)
			if own.HTTP() != its.HTTP() || own != its && !own.HTTP() {
				v.say(at, "is %q, with which %s is spoken, and %s with %s; what is to take its place speaks the same", other, its, own, name)
			}
		}
	}
}

// sameProtocol refuses two upstreams that lead to one service by two protocols.
func (v *validator) sameProtocol(path string, n int) {
	u := &v.Outbound.Upstreams[n]
	for i := range v.Outbound.Upstreams[:n] {
		if o := &v.Outbound.Upstreams[i]; o.Service == u.Service && o.Protocol != u.Protocol {
			v.say(path+".protocol", "is %s, and outbound.upstreams[%d] leads to %s by %s; write one", u.Protocol, i, u.Service, o.Protocol)
		}
	}
}
