package compile

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// The listeners to which the kernel redirects the application's connections.
const (
	intercept     = "intercept"
	interceptTwin = "intercept6"
	otherPorts    = "inbound:other_ports"
)

// intercept prepares the listeners of outbound.transparent. The upstreams are
// prepared already.
func (c *compiler) intercept() {
	t := c.cfg.Outbound.Transparent
	if t == nil {
		return
	}
	i := &plan.Interception{
		Socket: t.Mode == config.InterceptTProxy, Unready: c.in.Early,
		HoldTime: t.HoldTime, MaxHeld: t.MaxHeld,
	}
	switch t.BeforeReady {
	case config.BeforeReadyAllow:
		i.Early = plan.EarlyAllow
	case config.BeforeReadyRefuse:
		i.Early = plan.EarlyRefuse
	}
	if t.Unknown == config.UnknownPassthrough || c.in.Early && i.Early == plan.EarlyAllow {
		i.Unknown = c.passthrough(telemetry.Outbound, config.Passthrough, i.Socket, t.ConnectTimeout, t.IdleTimeout)
	}
	if !c.in.Early {
		c.addresses(i)
	}
	i.Own = c.own()
	l := &plan.Listener{Name: intercept, Address: t.Listen, Direction: telemetry.Outbound, Protocol: plan.TCP, Intercept: i, Transparent: i.Socket}
	c.add(l)
	if twin, ok := t.Twin(); ok {
		second := *l
		second.Name, second.Address, second.Optional = interceptTwin, twin.String(), true
		c.add(&second)
	}
}

// otherPorts prepares what becomes of connections that are redirected to the
// inbound listener.
func (c *compiler) otherPorts(l *plan.Listener) {
	t := c.cfg.Inbound.Transparent
	if t == nil {
		return
	}
	l.Ports = &plan.Ports{Socket: t.Mode == config.InterceptTProxy, Service: uint16(c.cfg.Service.Port)}
	l.Transparent = l.Ports.Socket
	switch t.OtherPorts {
	case config.OtherPortsService:
		l.Ports.All = true
	case config.OtherPortsPassthrough:
		// Its callers are others, so that their number has the same bound.
		l.Ports.Others = c.passthrough(telemetry.Inbound, otherPorts, l.Ports.Socket, t.ConnectTimeout, t.IdleTimeout)
		l.Ports.Others.MaxConnections = l.MaxConnections
	}
}

// direct prepares the listener, without a socket, of connections to single
// instances of an upstream: where the upstream has routes, they do not concern
// those, as the application has made its choice.
func (c *compiler) direct(u *plan.Listener, spec int) {
	name, _ := strings.CutPrefix(u.Name, "outbound:")
	l := *u
	l.Name, l.Address, l.Routes = "direct:"+name, "", nil
	l.Route = plan.Route{Name: name}
	c.listener = l.Name
	c.use(&l.Route, spec)
	c.add(&l)
	s := &c.draft.specs[spec]
	s.spec.Direct = true
	c.draft.direct = append(c.draft.direct, &l)
}

// bindDirect tells i whose instances are found by their addresses.
func (d *Draft) bindDirect(i *plan.Interception, all *upstream.Instances) {
	if len(d.direct) == 0 {
		return
	}
	i.Instances, i.Direct = all, make(map[*upstream.Cluster]*plan.Listener, len(d.direct))
	for _, l := range d.direct {
		i.Direct[l.Route.Cluster] = l
	}
}

// addresses tells i where the upstreams are found.
func (c *compiler) addresses(i *plan.Interception) {
	for n := range c.cfg.Outbound.Upstreams {
		u := &c.cfg.Outbound.Upstreams[n]
		l := c.named("outbound:" + u.Title())
		if l == nil {
			continue // it has a mistake, which was told
		}
		for k, text := range u.Addresses {
			a, err := config.ParseVirtual(text)
			if err != nil {
				c.problem("outbound.upstreams["+strconv.Itoa(n)+"].addresses["+strconv.Itoa(k)+"]", "%v", err)
				continue
			}
			i.Add(a, l)
		}
	}
}

func (c *compiler) named(name string) *plan.Listener {
	for _, l := range c.draft.listeners {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// passthrough prepares the listener, without a socket, of connections that are
// passed through to where they were going.
func (c *compiler) passthrough(dir telemetry.Direction, name string, tproxy bool, connect, idle time.Duration) *plan.Listener {
	defer func(name string) { c.listener = name }(c.listener)
	c.listener = name
	l := &plan.Listener{
		Name: name, Direction: dir, Protocol: plan.TCP, Original: true, Transparent: tproxy,
		Route: plan.Route{Name: name},
	}
	c.draft.specs = append(c.draft.specs, clusterSpec{
		dir: dir,
		spec: upstream.Spec{
			Name: name, Protocol: string(config.ProtocolTCP), Local: true, Transport: "plaintext",
			Policy: upstream.Policy{ConnectTimeout: connect, TCPIdle: idle},
		},
	})
	c.use(&l.Route, len(c.draft.specs)-1)
	c.add(l)
	return l
}

// own are the addresses that this proxy listens on.
func (c *compiler) own() (list []netip.AddrPort) {
	add := func(text string) {
		if a, err := netip.ParseAddrPort(text); err == nil && a.Port() != 0 {
			list = append(list, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
		}
	}
	for i := range c.cfg.Outbound.Upstreams {
		add(c.cfg.Outbound.Upstreams[i].Listen)
	}
	if t := c.cfg.Outbound.Transparent; t != nil {
		add(t.Listen)
		if twin, ok := t.Twin(); ok {
			list = append(list, twin)
		}
	}
	if c.cfg.Service.Called() {
		add(c.cfg.Inbound.Listen)
	}
	for i := range c.cfg.Inbound.Expose {
		add(c.cfg.Inbound.Expose[i].Listen)
	}
	add(c.cfg.Admin.Listen)
	return list
}

// opaque are the ports on which auto means tcp where a connection was going there.
func (c *compiler) opaque() []uint16 {
	if c.cfg.Outbound.Transparent == nil {
		return nil
	}
	list := make([]uint16, 0, len(c.cfg.Detection.OpaquePorts))
	for _, p := range c.cfg.Detection.OpaquePorts {
		list = append(list, uint16(p))
	}
	return list
}
