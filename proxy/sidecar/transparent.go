package sidecar

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
)

// outboundPort is Consul's default of OutboundListenerPort.
const outboundPort = 15001

// transparentMode reports whether the kernel redirects the application's
// connections.
func (t *translation) transparentMode() bool { return t.own.Proxy.Mode == "transparent" }

// transparent takes redirected connections, where the registration says that
// there are some.
func (t *translation) transparent() {
	p, from := &t.own.Proxy, "Consul "+t.entry
	switch p.Mode {
	case "", "direct":
		return
	case "transparent":
	default:
		t.find(Refused, t.entry, "Proxy.Mode", "is "+p.Mode+", which is not known; connections are not intercepted", "write direct or transparent")
		return
	}
	out := &t.Config.Outbound.Transparent
	if *out == nil {
		*out = new(config.OutboundTransparent)
		(*out).SetDefaults()
		t.Came("outbound.transparent", from+" Proxy.Mode")
	}
	port, portFrom := p.TransparentProxy.OutboundListenerPort, from+" Proxy.TransparentProxy.OutboundListenerPort"
	if port == 0 {
		port, portFrom = outboundPort, "Consul's default"
	}
	put(t, &(*out).Listen, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "outbound.transparent.listen", portFrom)
	unknown := config.UnknownPassthrough
	if t.s.Mesh.TransparentProxy.MeshDestinationsOnly {
		unknown = config.UnknownRefuse
	}
	put(t, &(*out).Unknown, unknown, "outbound.transparent.unknown", "Consul mesh entry TransparentProxy.MeshDestinationsOnly")
	t.destinations((*out).Unknown)
	if !t.Config.Service.Called() {
		return
	}
	in := &t.Config.Inbound.Transparent
	if *in == nil {
		*in = new(config.InboundTransparent)
		(*in).SetDefaults()
		t.Came("inbound.transparent", from+" Proxy.Mode")
	}
	put(t, &(*in).OtherPorts, config.OtherPortsService, "inbound.transparent.other_ports", "Consul, whose sidecars take connections to any port for the service's")
}

// destinations says that terminating gateways are not used, and what becomes of
// connections that would go through them.
func (t *translation) destinations(unknown config.UnknownDestination) {
	becomes, remedy := "are passed on as they come, without mTLS and intentions", "set TransparentProxy.MeshDestinationsOnly of the mesh entry to have them refused, or remove Destination"
	if unknown == config.UnknownRefuse {
		becomes, remedy = "are refused", "remove Destination, or unset TransparentProxy.MeshDestinationsOnly of the mesh entry to have them passed on"
	}
	for _, d := range t.s.Destinations {
		t.find(Refused, "service-defaults/"+d.Name, "Destination", fmt.Sprintf("is reached through a terminating gateway, which is not used here; connections to %s, port %d, %s", strings.Join(d.Addresses, ", "), d.Port, becomes), remedy)
	}
}

// implied are the upstreams that the registration does not name: the
// application calls them by their virtual addresses.
func (t *translation) implied(named map[string]bool) (list []*upstream) {
	if !t.transparentMode() {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(t.s.Chains)) {
		c := t.s.Chains[name]
		if named[name] || c == nil {
			continue
		}
		u := &mesh.Upstream{DestinationType: "service", DestinationName: c.ServiceName, DestinationNamespace: c.Namespace, DestinationPartition: c.Partition, Datacenter: c.Datacenter}
		n := &upstream{Upstream: u, name: name, at: "upstream " + name, chain: c}
		// What was written for it without an address, else for all ("*").
		var all map[string]any
		at := "Proxy.Upstreams[*]"
		for i := range t.own.Proxy.Upstreams {
			switch given := &t.own.Proxy.Upstreams[i]; {
			case given.DestinationName == "*":
				all = given.Config
			case given.CentrallyConfigured && mesh.UpstreamName(given, t.own) == name:
				u.Config, u.MeshGateway, at = given.Config, given.MeshGateway, "Proxy.Upstreams["+name+"]"
			}
		}
		if u.Config == nil {
			u.Config = all
		}
		n.config = t.opaque(t.entry, at+".Config", u.Config)
		list = append(list, n)
	}
	return list
}

// byAddress reports whether the application finds u by its addresses.
func (t *translation) byAddress(u *upstream) bool {
	return t.transparentMode() && u.chain != nil && u.LocalBindPort == 0 && u.LocalBindSocketPath == ""
}

// addresses says where up is found by address. Of an upstream without any, which
// nobody could call, it reports false.
func (t *translation) addresses(u *upstream, up *config.Upstream, path string) bool {
	if !t.transparentMode() || u.chain == nil {
		return true
	}
	entry := "discovery chain " + u.name
	if up.Title() == config.Passthrough {
		t.find(Refused, entry, "ServiceName", "is "+config.Passthrough+", which is what connections to unknown destinations are counted as; it cannot be called", "give the service another name")
		return false
	}
	for _, list := range []struct {
		field string
		ips   []string
	}{{"AutoVirtualIPs", u.chain.AutoVirtualIPs}, {"ManualVirtualIPs", u.chain.ManualVirtualIPs}} {
		for _, text := range list.ips {
			a, err := config.ParseVirtual(text)
			switch {
			case err != nil:
				t.find(Refused, entry, list.field, err.Error(), "")
			case t.virtual[a] == u.name:
			case t.virtual[a] != "":
				t.find(Refused, entry, list.field, "has "+text+", which is "+t.virtual[a]+"'s already; it stays with that", "give each service virtual addresses of its own")
			default:
				if t.virtual == nil {
					t.virtual = map[netip.AddrPort]string{}
				}
				t.virtual[a] = u.name
				t.Came(path+".addresses", "Consul "+entry+" "+list.field)
				up.Addresses = append(up.Addresses, text)
			}
		}
	}
	if up.Listen == "" && len(up.Addresses) == 0 && !slices.ContainsFunc(slices.Collect(maps.Values(u.chain.Targets)), dialled) {
		t.find(Refused, entry, "AutoVirtualIPs", "and ManualVirtualIPs are empty, so the application has no address for it", "upgrade Consul, or give the upstream a LocalBindPort")
		return false
	}
	return true
}

func dialled(target *mesh.Target) bool { return target.TransparentProxy.DialedDirectly }

// direct says whether the instances of up, of which it is known where it leads,
// are found by their addresses.
func (t *translation) direct(u *upstream, up *config.Upstream, path string) {
	if !t.transparentMode() || u.chain == nil {
		return
	}
	entry := "discovery chain " + u.name
	var elsewhere []string
	for _, id := range slices.Sorted(maps.Keys(u.chain.Targets)) {
		target := u.chain.Targets[id]
		if !dialled(target) {
			continue
		}
		if name := mesh.TargetName(target, t.own); name == up.Service {
			up.Direct = true
			t.Came(path+".direct", "Consul "+entry+" target "+id+" TransparentProxy.DialedDirectly")
		} else {
			elsewhere = append(elsewhere, name)
		}
	}
	if len(elsewhere) > 0 {
		t.find(Differs, entry, "Targets.TransparentProxy.DialedDirectly", "is set of "+strings.Join(elsewhere, ", ")+", whose instances are not found by their addresses here: they are reached by routes only", "")
	}
}
