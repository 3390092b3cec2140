package config

import (
	"fmt"
	"net/netip"
	"time"
)

// Passthrough is the name under which connections to unknown destinations are
// counted and told: that of their listener and of their cluster.
const Passthrough = "passthrough"

// OutboundTransparent is where the application's connections arrive that the kernel has redirected, whatever
// address they were made to: see docs/interception.md.
type OutboundTransparent struct {
	// The address to which connections are redirected, "IP:PORT". With a loopback address of IPv4 the same port of
	// ::1 is taken as well, for connections by IPv6, where the machine has it.
	Listen string `yaml:"listen"`
	// How connections are brought here, which says where it is told where they were going: redirect (nftables or
	// iptables REDIRECT, as "outrigger intercept install" writes it) or tproxy (TPROXY by rules of your own, for which
	// the proxy needs CAP_NET_ADMIN). With tproxy the caller's address is kept as the source of connections that are
	// passed through.
	Mode InterceptMode `yaml:"mode" enum:"redirect,tproxy"`
	// What becomes of connections to addresses that no upstream has: passthrough connects them with where they were
	// going, as TCP, without mTLS; refuse resets them.
	Unknown UnknownDestination `yaml:"unknown" enum:"passthrough,refuse"`
	// What becomes of connections that come before the proxy has its first plan, such as while the identity or Consul is
	// waited for: hold keeps them until it has, allow passes all of them through to where they were going, without mTLS;
	// refuse resets them.
	BeforeReady BeforeReady `yaml:"before_ready" enum:"hold,allow,refuse"`
	// How long a connection is held; then it is reset.
	HoldTime time.Duration `yaml:"hold_time"`
	// How many connections are held at most; further ones are reset.
	MaxHeld int `yaml:"max_held"`
	// How long a connection to an unknown destination may take to be made.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// How long a connection that is passed through may stay without a byte in either direction. 0: no limit.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
}

// InboundTransparent is what becomes of the connections of others that the kernel has redirected to inbound.listen.
// Those that were going to the service's port, or to inbound.listen itself, are calls of the service.
type InboundTransparent struct {
	// How connections are brought here, which says where it is told where they were going: redirect (nftables or
	// iptables REDIRECT) or tproxy (TPROXY, for which the proxy needs CAP_NET_ADMIN, and inbound.listen must not be a
	// loopback address). With tproxy the caller's address is kept as the source of connections to other ports that are
	// passed through; calls of the service come from the proxy.
	Mode InterceptMode `yaml:"mode" enum:"redirect,tproxy"`
	// What becomes of connections to other ports of the application: refuse resets them; service takes them for calls
	// of the service, with mTLS, also where inbound.mtls is permissive; passthrough connects them with where they were
	// going, without mTLS and without rules.
	OtherPorts OtherPorts `yaml:"other_ports" enum:"refuse,service,passthrough"`
	// How long a connection that is passed through may take to be made.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// How long a connection that is passed through may stay without a byte in either direction. 0: no limit.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
}

// OtherPorts is what becomes of connections to ports that are not the service's.
type OtherPorts string

// What becomes of them.
const (
	OtherPortsRefuse      OtherPorts = "refuse"
	OtherPortsService     OtherPorts = "service"
	OtherPortsPassthrough OtherPorts = "passthrough"
)

// SetDefaults makes t what an empty section means.
func (t *InboundTransparent) SetDefaults() {
	*t = InboundTransparent{Mode: InterceptRedirect, OtherPorts: OtherPortsRefuse, ConnectTimeout: 5 * time.Second, IdleTimeout: time.Hour}
}

// Validate calls add for each mistake in the section by itself.
func (t InboundTransparent) Validate(add func(field, problem string)) {
	if t.ConnectTimeout <= 0 {
		add("connect_timeout", "must be above 0, or an application that says nothing would be waited for without end")
	}
}

// InterceptMode is how the kernel brings connections to the proxy.
type InterceptMode string

// The modes.
const (
	InterceptRedirect InterceptMode = "redirect"
	InterceptTProxy   InterceptMode = "tproxy"
)

// UnknownDestination is what becomes of connections to addresses of which the proxy knows nothing.
type UnknownDestination string

// What becomes of them.
const (
	UnknownPassthrough UnknownDestination = "passthrough"
	UnknownRefuse      UnknownDestination = "refuse"
)

// BeforeReady is what becomes of connections that come before there is a plan.
type BeforeReady string

// What becomes of them.
const (
	BeforeReadyHold   BeforeReady = "hold"
	BeforeReadyAllow  BeforeReady = "allow"
	BeforeReadyRefuse BeforeReady = "refuse"
)

// SetDefaults makes t what an empty section means.
func (t *OutboundTransparent) SetDefaults() {
	*t = OutboundTransparent{
		Listen: "127.0.0.1:15001", Mode: InterceptRedirect, Unknown: UnknownPassthrough,
		BeforeReady: BeforeReadyHold, HoldTime: 10 * time.Second, MaxHeld: 1024,
		ConnectTimeout: 5 * time.Second, IdleTimeout: time.Hour,
	}
}

// Validate calls add for each mistake in the section by itself.
func (t OutboundTransparent) Validate(add func(field, problem string)) {
	if t.Listen == "" {
		add("listen", "is empty; write the address to which connections are redirected, such as 127.0.0.1:15001")
	}
	if t.BeforeReady == BeforeReadyHold {
		if t.HoldTime <= 0 {
			add("hold_time", "must be above 0 with before_ready: hold; to hold nothing write before_ready: refuse")
		}
		if t.MaxHeld < 1 || t.MaxHeld > 1<<20 {
			add("max_held", fmt.Sprintf("is %d; write a number from 1 to %d", t.MaxHeld, 1<<20))
		}
	}
	if t.ConnectTimeout <= 0 {
		add("connect_timeout", "must be above 0, or a destination that says nothing would be waited for without end")
	}
}

// ParseVirtual reads an address at which an upstream is found: an IP address,
// on all ports of which it is (port 0), or "IP:PORT".
func ParseVirtual(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return virtual(a, 0)
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil || a.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("is %s; write an IP address for all of its ports, such as 240.0.0.2, or one with a port, such as 10.96.5.5:8080", quoteWord(text))
	}
	return virtual(a.Addr(), a.Port())
}

func virtual(a netip.Addr, port uint16) (netip.AddrPort, error) {
	a = a.Unmap()
	switch {
	case a.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("is %s, which has a zone; write it without", a)
	case a.IsUnspecified() || a.IsMulticast():
		return netip.AddrPort{}, fmt.Errorf("is %s, which no connection is made to; write the address that the application connects to", a)
	}
	return netip.AddrPortFrom(a, port), nil
}

// transparent checks how upstreams are found by address.
func (v *validator) transparent() {
	if v.Inbound.Transparent != nil && !v.Service.Called() {
		v.say("inbound.transparent", "has no effect: service.port is 0, so nobody calls the service")
	}
	if i := v.Inbound.Transparent; i != nil && i.Mode == InterceptTProxy && v.Service.Called() {
		if a, problem := parseListen(v.Inbound.Listen); problem == "" && a.Addr().IsLoopback() {
			v.say("inbound.listen", "is %s, where TPROXY brings nothing from outside: the kernel looks for who listens at the address of the interface; write [::]:%d", v.Inbound.Listen, a.Port())
		}
	}
	t := v.Outbound.Transparent
	taken := map[netip.AddrPort]int{}
	for i := range v.Outbound.Upstreams {
		u := &v.Outbound.Upstreams[i]
		path := joinIndex("outbound.upstreams", i)
		if t != nil && u.Title() == Passthrough {
			v.say(path+".service", "is called %s, which is what connections to unknown destinations are counted as; with outbound.transparent no upstream can have that name", Passthrough)
		}
		if u.Listen == "" && len(u.Addresses) == 0 && !u.Direct {
			v.say(path+".listen", "is required; write the address on which the application reaches it, such as 127.0.0.1:9001%s", orAddresses(t))
		}
		if t == nil && u.Direct {
			v.say(path+".direct", "has no effect without outbound.transparent, to which connections to its endpoints are redirected; write outbound: {transparent: {}}")
		}
		if t == nil && len(u.Addresses) > 0 {
			v.say(path+".addresses", "has no effect without outbound.transparent, to which connections to these addresses are redirected; write outbound: {transparent: {}}")
			continue
		}
		for j, text := range u.Addresses {
			at := joinIndex(path+".addresses", j)
			a, err := ParseVirtual(text)
			if err != nil {
				v.say(at, "%v", err)
				continue
			}
			if other, dup := taken[a]; dup {
				v.say(at, "is %s, which outbound.upstreams[%d] has already", text, other)
				continue
			}
			taken[a] = i
		}
	}
}

func orAddresses(t *OutboundTransparent) string {
	if t == nil {
		return ""
	}
	return ", or the addresses at which it is found by outbound.transparent"
}

// Twin is the address of IPv6 that is listened on beside Listen: rules that
// redirect locally made connections bring those by IPv4 to 127.0.0.1 and those
// by IPv6 to ::1. ok is false where there is none.
func (t *OutboundTransparent) Twin() (a netip.AddrPort, ok bool) {
	addr, problem := parseListen(t.Listen)
	if problem != "" || !addr.Addr().Is4() || !addr.Addr().IsLoopback() || addr.Port() == 0 {
		return a, false
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port()), true
}
