package sidecar

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
)

// upstream is one that the registration names, with what is made of it.
type upstream struct {
	*mesh.Upstream
	name   string
	at     string // how findings name it: "Proxy.Upstreams[api]"
	config *opaque
	chain  *mesh.Chain // nil of a prepared query
}

// upstreams lists those that the application calls on addresses of their own.
func (t *translation) upstreams() (list []*upstream) {
	seen := map[string]bool{}
	for i := range t.own.Proxy.Upstreams {
		u := &t.own.Proxy.Upstreams[i]
		if u.DestinationName == "*" || u.CentrallyConfigured {
			continue // what others start from, and those without an address
		}
		name := mesh.UpstreamName(u, t.own)
		n := &upstream{Upstream: u, name: name, at: "Proxy.Upstreams[" + name + "]", chain: t.s.Chains[name]}
		if seen[name] {
			t.find(Refused, t.entry, n.at, "is there twice; only the first is listened for", "keep one")
			continue
		}
		seen[name] = true
		n.config = t.opaque(t.entry, n.at+".Config", u.Config)
		list = append(list, n)
	}
	return append(list, t.implied(seen)...)
}

// upstream makes the listener and the policies of one upstream.
func (t *translation) upstream(u *upstream) {
	from := "Consul " + t.entry + " " + u.at
	word, _ := u.config.text("protocol")
	proto := t.protocol(t.entry, u.config.field("protocol"), word)
	protoFrom := u.config.fromOr("protocol", "Consul's default")
	if u.chain != nil {
		protoFrom = "Consul discovery chain " + u.name + " Protocol"
		proto = t.protocol("discovery chain "+u.name, "Protocol", u.chain.Protocol)
	}
	if !t.listenable(u) {
		return
	}
	up := config.Upstream{Service: u.name, Listen: t.listen(u), SocketMode: t.socketMode(u), Protocol: proto, Unmatched: config.UnmatchedForward}
	path := config.UpstreamPath(len(t.Config.Outbound.Upstreams))
	if !t.addresses(u, &up, path) {
		return
	}
	key := t.closed(u)
	if key != "" || u.DestinationType == "prepared_query" {
		p := t.Policy(u.name)
		t.policy(u, u.name, &p, proto) // identities and server name come with what a query finds
		if key == "" || proto.HTTP() {
			t.Config.Policies[u.name] = p
		}
	}
	switch {
	case key != "" && !proto.HTTP():
		t.find(Differs, t.entry, u.config.field("limits")+"."+key, "is 0, which lets nothing through: nothing listens for the upstream", "")
		return
	case key != "":
		t.find(Differs, t.entry, u.config.field("limits")+"."+key, "is 0, which lets nothing through: every request is answered with 503", "")
		up.Routes = []config.Route{{Name: "limit of 0", Respond: &config.RouteReply{
			Status: 503, ContentType: "text/plain; charset=utf-8", Body: key + " of " + u.name + " is 0, which lets nothing through\n",
		}}}
		for _, field := range []string{".name", ".respond.status", ".respond.body"} {
			t.Came(path+".routes[0]"+field, u.config.from("limits"))
		}
	case u.DestinationType == "prepared_query":
	case !t.lead(u, &up, path):
		return
	default:
		t.direct(u, &up, path)
	}
	u.config.rest()
	t.Config.Outbound.Upstreams = append(t.Config.Outbound.Upstreams, up)
	t.Came(path, from)
	t.Came(path+".service", from+".DestinationName")
	switch {
	case u.onSocket():
		t.Came(path+".listen", from+".LocalBindSocketPath")
		t.Came(path+".socket_mode", from+".LocalBindSocketMode")
	case up.Listen != "":
		t.Came(path+".listen", from+".LocalBindPort")
	}
	t.Came(path+".protocol", protoFrom)
}

// closed returns the limit that is 0, which in Consul is to let nothing through;
// empty without one.
func (t *translation) closed(u *upstream) string {
	c := u.config.section("limits")
	if c == nil {
		return ""
	}
	for _, key := range []string{"max_connections", "max_pending_requests", "max_concurrent_requests"} {
		if v, ok := c.get(key); ok {
			if n, ok := whole(v); ok && n == 0 {
				return key
			}
		}
	}
	return ""
}

// listenable refuses upstreams that cannot be called.
func (t *translation) listenable(u *upstream) bool {
	refuse := func(field, problem, remedy string) bool {
		t.find(Refused, t.entry, u.at+field, problem, remedy)
		return false
	}
	switch {
	case u.onSocket() && config.CheckSocketPath(u.LocalBindSocketPath) != nil:
		return refuse(".LocalBindSocketPath", config.CheckSocketPath(u.LocalBindSocketPath).Error(), "")
	case u.LocalBindPort == 0 && !u.onSocket() && !t.byAddress(u):
		return refuse(".LocalBindPort", "is not given, so the application has no address for it; nothing listens for it", "give a port")
	case u.DestinationPeer != "" && len(t.Config.Identity.Bundles) == 0:
		return refuse(".DestinationPeer", "is in a peered cluster, whose roots cannot be read over Consul's HTTP API", "give them under identity.bundles of the file")
	case u.chain == nil && u.DestinationType != "prepared_query":
		why := t.s.Failures[u.name]
		if why == "" {
			why = "Consul has no discovery chain for it"
		}
		return refuse("", "cannot be called: "+why, "")
	}
	return true
}

// onSocket reports whether the application reaches u by a Unix socket.
func (u *upstream) onSocket() bool { return u.LocalBindPort == 0 && u.LocalBindSocketPath != "" }

// socketMode is who may connect to the socket of u. Consul reads a number as Go
// does: octal begins with 0.
func (t *translation) socketMode(u *upstream) string {
	if !u.onSocket() || u.LocalBindSocketMode == "" {
		return ""
	}
	mode, err := strconv.ParseUint(u.LocalBindSocketMode, 0, 32)
	if err != nil || mode > 0o777 {
		t.find(Differs, t.entry, u.at+".LocalBindSocketMode", fmt.Sprintf("is %q, which are no permissions; only the proxy's own user may connect", u.LocalBindSocketMode), "write octal digits with a leading 0, such as 0660")
		return "0600"
	}
	if mode == 0 {
		return ""
	}
	return fmt.Sprintf("%04o", mode)
}

// listen is the address on which the application reaches the upstream.
func (t *translation) listen(u *upstream) string {
	if u.onSocket() {
		return "unix:" + u.LocalBindSocketPath
	}
	if u.LocalBindPort == 0 {
		return "" // found by its addresses
	}
	host := u.LocalBindAddress
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(u.LocalBindPort))
}

// policy fills in what an upstream's opaque configuration says of calls to name, to
// which it leads.
func (t *translation) policy(u *upstream, name string, p *config.Policy, proto config.Protocol) {
	at, c := config.PolicyPath(name), u.config
	if proto.HTTP() && !t.Given("policies.*.timeout") {
		put(t, &p.Timeout, envoyTimeout, at+".timeout", byEnvoy)
	}
	if !t.Given("policies.*.balance.panic_percent") {
		put(t, &p.Balance.PanicPercent, 0, at+".balance.panic_percent", "Consul, which wants no panic balancing")
	}
	if d, ok := c.millis("connect_timeout_ms"); ok && d > 0 {
		put(t, &p.ConnectTimeout, d, at+".connect_timeout", c.from("connect_timeout_ms"))
	}
	t.limits(at, c.section("limits"), p)
	t.passiveHealth(at, c.section("passive_health_check"), p)
	if _, ok := c.text("balance_outbound_connections"); ok {
		t.find(Ignored, t.entry, c.field("balance_outbound_connections"), "is how Envoy shares connections among its threads; here all processors serve all connections", "")
	}
	if g := c.section("mesh_gateway"); g != nil {
		// What Consul merges is in both places.
		if mode, ok := g.text("mode"); ok && mode != u.MeshGateway.Mode {
			t.find(Differs, t.entry, c.field("mesh_gateway"), fmt.Sprintf("is %s, which is not heeded; what MeshGateway of the upstream or of the proxy says holds", mode), "write it as MeshGateway of the upstream")
		}
	}
}

// target fills in what the policy of a target follows from.
func (t *translation) target(name string, p *config.Policy, target *mesh.Target) {
	at, from := config.PolicyPath(name), "Consul discovery chain target "+target.ID
	if d := time.Duration(target.ConnectTimeout); d > 0 {
		put(t, &p.ConnectTimeout, d, at+".connect_timeout", from+" ConnectTimeout")
	}
	// Of a peer's service only discovery knows both.
	if p.Transport == config.TransportMTLS && ConsulIdentity(&t.Config.Identity) && t.s.TrustDomain != "" && target.Peer == "" {
		must(t, &p.Identities, []string{SpiffeID(t.s.TrustDomain, target)}, at+".identities", from)
		if target.SNI != "" {
			// What discovery says later would make another plan for each service.
			put(t, &p.ServerName, target.SNI, at+".server_name", from+" SNI")
		}
	}
}

// SpiffeID is the identity that a target's instances have: in its own datacenter,
// namespace and partition.
func SpiffeID(trustDomain string, target *mesh.Target) string {
	id := "spiffe://" + trustDomain
	if ap := target.Partition; ap != "" && ap != "default" {
		id += "/ap/" + ap
	}
	ns := target.Namespace
	if ns == "" {
		ns = "default"
	}
	return id + "/ns/" + ns + "/dc/" + target.Datacenter + "/svc/" + target.Service
}

// limits are Envoy's circuit breaker thresholds.
func (t *translation) limits(at string, c *opaque, p *config.Policy) {
	if c == nil {
		return
	}
	at += ".limits"
	for _, l := range [...]struct {
		key, name string
		dst       *int64
	}{
		{"max_connections", "max_connections", &p.Limits.MaxConnections},
		{"max_pending_requests", "max_pending", &p.Limits.MaxPending},
		{"max_concurrent_requests", "max_requests", &p.Limits.MaxRequests},
	} {
		if n, ok := c.number(l.key); ok {
			put(t, l.dst, n, at+"."+l.name, c.from(l.key))
		}
	}
	c.rest()
}

// passiveHealth is Envoy's outlier detection, where Consul asks for it.
func (t *translation) passiveHealth(at string, c *opaque, p *config.Policy) {
	if c == nil || p.Outlier == nil {
		return
	}
	at += ".outlier"
	o := p.Outlier
	window, ok := c.duration("interval")
	if !ok || window == 0 {
		window = 10 * time.Second
	}
	if w := min(max(window, 100*time.Millisecond), time.Hour); w != window {
		t.find(Differs, t.entry, c.field("interval"), fmt.Sprintf("is %s; %s is the nearest that is kept", window, w), "")
		window = w
	}
	put(t, &o.Window, window, at+".window", c.fromOr("interval", byEnvoy))
	failures, ok := c.number("max_failures")
	if !ok {
		failures = 5
	}
	put(t, &o.ConsecutiveFailures, uint32(min(failures, 1<<31)), at+".consecutive_failures", c.fromOr("max_failures", byEnvoy))
	base, ok := c.duration("base_ejection_time")
	if !ok || base == 0 {
		base = 30 * time.Second
	}
	base = min(max(base, time.Millisecond), 24*time.Hour)
	put(t, &o.BaseEjection, base, at+".base_ejection", c.fromOr("base_ejection_time", byEnvoy))
	put(t, &o.MaxEjection, max(base, 300*time.Second), at+".max_ejection", c.fromOr("base_ejection_time", byEnvoy))
	percent, ok := c.number("max_ejection_percent")
	if !ok {
		percent = 10
	}
	enforcing, given := c.number("enforcing_consecutive_5xx")
	switch {
	case percent == 0 || given && enforcing == 0:
		put(t, &o.Mode, guard.Observe, at+".mode", c.fromOr("enforcing_consecutive_5xx", byEnvoy))
		percent = max(percent, 1)
	case given && enforcing < 100:
		t.find(Differs, t.entry, c.field("enforcing_consecutive_5xx"), "is a chance of ejection; every ejection that is due is made", "write 0 for none or 100 for all")
	}
	put(t, &o.MaxEjectedPercent, float64(min(percent, 100)), at+".max_ejected_percent", c.fromOr("max_ejection_percent", byEnvoy))
	// The other rules of Envoy, which Consul leaves at their defaults.
	put(t, &o.FailurePercent, 0, at+".failure_percent", c.fromOr("max_failures", byEnvoy))
	put(t, &o.SuccessRateStdev, 1.9, at+".success_rate_stdev", byEnvoy)
	put(t, &o.MinimumRequests, 100, at+".minimum_requests", byEnvoy)
	put(t, &o.SuccessRateMinimumEndpoints, outlier.Default().SuccessRateMinimumEndpoints, at+".success_rate_minimum_endpoints", byEnvoy)
	put(t, &o.KeepEndpoints, 1, at+".keep_endpoints", "one is kept, where Envoy may eject all")
	c.rest()
}
