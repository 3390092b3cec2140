package sidecar

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
)

// Bounds of a chain: Consul compiles none that comes near them.
const (
	maxNesting = 16  // splitters below each other
	maxShares  = 512 // of one route
)

// chain is the translation of one upstream's discovery chain.
type chain struct {
	*translation
	u     *upstream
	up    *config.Upstream
	path  string // of up
	entry string // as findings name it
	first string // the first service that it leads to
	// needs are the policies of the services that it leads to, put into the
	// configuration once the whole chain is understood.
	needs map[string]config.Policy
	done  map[string]bool // those of which the resolver has been read
}

// broken is why a chain, or a part of one, cannot be followed.
type broken struct{ field, problem, remedy string }

// lead says where calls go, by the upstream's chain. Where the chain cannot be
// followed every request gets 503 with the reason, and no connection is listened
// for where there are no requests: false refuses the upstream.
func (t *translation) lead(u *upstream, up *config.Upstream, path string) bool {
	c := &chain{translation: t, u: u, up: up, path: path, entry: "discovery chain " + u.name, needs: map[string]config.Policy{}, done: map[string]bool{}}
	b := c.follow()
	if b == nil {
		b = c.check()
	}
	if b == nil {
		for name, p := range c.needs {
			t.Config.Policies[name] = p
		}
		return true
	}
	said := "every request to it is answered with 503"
	if !up.Protocol.HTTP() {
		said = "nothing listens for it"
	}
	t.find(Refused, c.entry, b.field, b.problem+"; "+said, b.remedy)
	if !up.Protocol.HTTP() {
		return false
	}
	up.Service, up.Name, up.Unmatched = u.name, "", config.UnmatchedForward
	up.Routes = []config.Route{{Name: "refused", Respond: &config.RouteReply{
		Status: 503, ContentType: "text/plain; charset=utf-8", Body: shortened("the discovery chain of " + u.name + " cannot be followed: " + b.field + " " + b.problem + "\n"),
	}}}
	t.Came(path+".routes[0]", "Consul "+c.entry)
	return true
}

func shortened(s string) string { return s[:min(len(s), 1024)] }

// follow makes the routes of the chain; nil when all of it was understood.
func (c *chain) follow() *broken {
	start := c.u.chain.Nodes[c.u.chain.StartNode]
	if start == nil {
		return &broken{"StartNode", fmt.Sprintf("is %q, which is none of its nodes", c.u.chain.StartNode), ""}
	}
	b := c.extensions()
	switch {
	case b != nil:
	case start.Type == "resolver":
		b = c.resolved(start)
	case !c.up.Protocol.HTTP():
		b = &broken{"Protocol", fmt.Sprintf("is %s, of which a %s sees no requests", c.up.Protocol, start.Type), "remove the " + start.Type + ", or set the service's protocol to http"}
	case start.Type == "splitter":
		c.up.Routes = []config.Route{{Name: "splitter"}}
		c.Came(c.path+".routes[0]", c.of(start))
		b = c.next(&c.up.Routes[0], c.path+".routes[0]", c.u.chain.StartNode)
	case start.Type == "router":
		b = c.router(start)
	default:
		b = &broken{"Nodes", fmt.Sprintf("has one of the type %q, which is not known", start.Type), ""}
	}
	if b != nil {
		return b
	}
	if c.up.Service = c.first; c.first != c.u.name {
		c.up.Name = c.u.name
		c.Came(c.path+".name", "Consul "+c.translation.entry+" "+c.u.at)
	}
	for i := range c.up.Routes {
		if r := &c.up.Routes[i]; r.To == c.first {
			r.To = ""
		}
	}
	return nil
}

// extensions says that those that the called service asks of its callers' Envoys
// are not run. What the registration has as well is said of that.
func (c *chain) extensions() *broken {
	for i, e := range c.u.chain.EnvoyExtensions {
		name, _ := e["Name"].(string)
		field := fmt.Sprintf("EnvoyExtensions[%d] (%s)", i, name)
		const remedy = "remove it from the service-defaults of the service, or from proxy-defaults"
		if required, _ := e["Required"].(bool); required {
			return &broken{field, "is required and cannot be run here", remedy + ", or set Required: false"}
		}
		if !slices.ContainsFunc(c.own.Proxy.EnvoyExtensions, func(o map[string]any) bool { return reflect.DeepEqual(o, e) }) {
			c.find(Refused, c.entry, field, "is an extension of Envoy, which is not run", remedy)
		}
	}
	return nil
}

// of is the config entry that a node is made of, as an origin.
func (c *chain) of(n *mesh.Node) string {
	name, _, _ := strings.Cut(n.Name, ".")
	return "Consul service-" + n.Type + "/" + name
}

// resolved leads the whole upstream to one target. Only here does the resolver's
// RequestTimeout hold.
func (c *chain) resolved(n *mesh.Node) *broken {
	name, b := c.target(n)
	if b != nil {
		return b
	}
	c.first = name
	if d := time.Duration(n.Resolver.RequestTimeout); d != 0 && c.up.Protocol.HTTP() {
		limit := max(d, 0)
		c.up.Routes = []config.Route{{Name: "resolver", Timeout: &limit}}
		at := c.path + ".routes[0]"
		c.Came(at, c.resolver(n))
		c.Came(at+".timeout", c.resolver(n)+" RequestTimeout")
	}
	return nil
}

// resolver is the entry of a resolver as an origin.
func (c *chain) resolver(n *mesh.Node) string {
	if t := c.u.chain.Targets[n.Resolver.Target]; t != nil {
		return "Consul service-resolver/" + t.Service
	}
	return c.of(n)
}

// next leads a route to the node of that name.
func (c *chain) next(r *config.Route, path, node string) *broken {
	n := c.u.chain.Nodes[node]
	switch {
	case n == nil:
		return &broken{"Nodes", fmt.Sprintf("has none of the name %q, to which another leads", node), ""}
	case n.Type == "resolver":
		name, b := c.target(n)
		r.To = name
		c.lands(name)
		return b
	case n.Type != "splitter":
		return &broken{"Nodes", fmt.Sprintf("has a %s behind another node", n.Type), ""}
	}
	var shares []share
	if b := c.shares(n, node, 1, nil, nil, &shares); b != nil {
		return b
	}
	r.Split = splitOf(shares)
	c.Came(path+".split", c.of(n)+" Splits")
	if len(r.Split) == 1 && r.Split[0].RequestHeaders == nil && r.Split[0].ResponseHeaders == nil {
		r.To, r.Split = r.Split[0].Service, nil
	}
	return nil
}

func (c *chain) lands(name string) {
	if c.first == "" {
		c.first = name
	}
}

// target makes the policies of the targets of a resolver, and returns the name of
// the first.
func (c *chain) target(n *mesh.Node) (string, *broken) {
	if n.Resolver == nil {
		return "", &broken{"Nodes", fmt.Sprintf("has a resolver %q that says nothing", n.Name), ""}
	}
	t := c.u.chain.Targets[n.Resolver.Target]
	if t == nil {
		return "", &broken{"Targets", fmt.Sprintf("has none of the name %q, to which a resolver leads", n.Resolver.Target), ""}
	}
	name := mesh.TargetName(t, c.own)
	if c.done[name] {
		return name, nil
	}
	c.done[name] = true
	p, begun := c.needs[name] // as failover of another
	if !begun {
		var b *broken
		if p, b = c.need(name, t); b != nil {
			return "", b
		}
	}
	if t.Peer != "" && c.u.DestinationPeer == "" && len(c.Config.Identity.Bundles) == 0 {
		c.find(Refused, c.entry, "Targets["+t.ID+"].Peer", fmt.Sprintf("is the peered cluster %s, whose roots cannot be read over Consul's HTTP API; its instances are refused", t.Peer), "give them under identity.bundles of the file")
	}
	at := config.PolicyPath(name)
	if f := n.Resolver.Failover; f != nil && !c.Given(at+".failover") {
		if b := c.failover(name, &p, n); b != nil {
			return "", b
		}
	}
	c.loadBalancer(name, &p, n)
	c.needs[name] = p
	return name, nil
}

// failover says who takes the place of a target.
func (c *chain) failover(name string, p *config.Policy, n *mesh.Node) *broken {
	f, at, from := n.Resolver.Failover, config.PolicyPath(name), c.resolver(n)+" Failover"
	var names []string
	for _, id := range f.Targets {
		t := c.u.chain.Targets[id]
		if t == nil {
			return &broken{"Targets", fmt.Sprintf("has none of the name %q, to which %s fails over", id, n.Resolver.Target), ""}
		}
		other := mesh.TargetName(t, c.own)
		if other == name || slices.Contains(names, other) {
			continue
		}
		if len(names) == config.MaxFailover {
			c.find(Differs, c.resolver(n)[len("Consul "):], "Failover", fmt.Sprintf("has more than %d targets; those behind are not asked", config.MaxFailover), "")
			break
		}
		if _, ok := c.needs[other]; !ok {
			need, b := c.need(other, t)
			if b != nil {
				return b
			}
			c.needs[other] = need
		}
		if t.Peer != "" {
			c.find(Differs, c.resolver(n)[len("Consul "):], "Failover", fmt.Sprintf("leads to %s in the peered cluster %s, whose roots Consul's HTTP API does not tell; its instances are refused until they are known", t.Service, t.Peer), "give the peer's roots in this proxy's own configuration")
		}
		names = append(names, other)
	}
	if len(names) == 0 {
		return nil
	}
	p.Failover = names
	c.Came(at+".failover", from)
	if f.Policy != nil && f.Policy.Mode != "" && f.Policy.Mode != "sequential" {
		c.find(Refused, c.resolver(n)[len("Consul "):], "Failover.Policy.Mode", fmt.Sprintf("is %q, which only Consul Enterprise has; the targets are asked in their order", f.Policy.Mode), "remove it")
	}
	if p.Outlier != nil {
		const why = "Consul failover, which may take the place of all"
		put(c.translation, &p.Outlier.MaxEjectedPercent, 100, at+".outlier.max_ejected_percent", why)
		put(c.translation, &p.Outlier.KeepEndpoints, 0, at+".outlier.keep_endpoints", why)
	}
	return nil
}

// need begins the policy of a target.
func (c *chain) need(name string, t *mesh.Target) (config.Policy, *broken) {
	if m := c.made[name]; m != nil {
		if m.protocol != c.up.Protocol {
			return config.Policy{}, &broken{"Protocol", fmt.Sprintf("is %s, and the upstream %s leads to %s by %s", c.up.Protocol, m.upstream, name, m.protocol), "give both upstreams the same protocol"}
		}
		if m.settings != c.settings(t) {
			c.find(Differs, c.translation.entry, c.u.at+".Config", fmt.Sprintf("or ConnectTimeout is not that of the upstream %s, which leads to %s as well; its settings hold for both", m.upstream, name), "")
		}
		return c.Config.Policies[name], nil
	}
	p := c.Policy(name)
	c.policy(c.u, name, &p, c.up.Protocol)
	c.translation.target(name, &p, t)
	return p, nil
}

// settings are what an upstream gives the policy of a target, for comparison.
func (c *chain) settings(t *mesh.Target) string {
	k := c.u.config
	return fmt.Sprint(t.ConnectTimeout, k.m["limits"], k.m["passivehealthcheck"])
}

// made is a target of which the policy is in the configuration.
type made struct {
	upstream string
	protocol config.Protocol
	settings string
}

// check validates what was made by itself, so that one chain spoils nothing but its
// own upstream. What is understood is noted as made.
func (c *chain) check() *broken {
	if c.plain() {
		return c.noted()
	}
	one := *c.Config
	one.Outbound = config.Outbound{Upstreams: []config.Upstream{*c.up}}
	one.Policies = map[string]config.Policy{config.AnyService: c.Config.Policies[config.AnyService]}
	for name, p := range c.needs {
		one.Policies[name] = p
	}
	called := one.Services()
	for name := range c.needs {
		if !slices.Contains(called, name) { // its share was too small
			delete(c.needs, name)
			delete(one.Policies, name)
		}
	}
	var b *broken
	one.WithDefaults().Validate(func(field, problem string) {
		field, mine := strings.CutPrefix(field, "outbound.upstreams[0].")
		if b == nil && (mine && field != "listen" || strings.HasPrefix(field, "policies.") && !strings.HasPrefix(field, "policies.*")) {
			b = &broken{field, problem, ""}
		}
	})
	if b != nil {
		return b
	}
	return c.noted()
}

// plain reports whether the chain leads to one service by a name that nobody will
// object to, and says nothing more: then there is nothing to check.
func (c *chain) plain() bool {
	start := c.u.chain.Nodes[c.u.chain.StartNode]
	if len(c.up.Routes) > 0 || len(c.needs) > 1 || start.LoadBalancer != nil || len(c.first) > 128 || c.up.Name != "" {
		return false
	}
	alone := func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	return c.first != "" && !strings.ContainsFunc(c.first, alone) && !strings.HasPrefix(c.first, "-") && !strings.HasSuffix(c.first, "-")
}

// noted notes the targets as made.
func (c *chain) noted() *broken {
	for _, t := range c.u.chain.Targets {
		name := mesh.TargetName(t, c.own)
		if _, ok := c.needs[name]; ok && c.made[name] == nil {
			c.made[name] = &made{c.u.name, c.up.Protocol, c.settings(t)}
		}
	}
	return nil
}
