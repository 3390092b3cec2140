package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// Interception says what becomes of connections that the kernel has redirected
// to a listener, by where they were going. It is immutable once the plan is
// built.
type Interception struct {
	// Socket says that the destination is the socket's own address (TPROXY); else
	// the kernel is asked for what it was before it was redirected (REDIRECT).
	Socket bool
	// Unready says that this stands before the first plan, and Early what becomes
	// of connections meanwhile.
	Unready  bool
	Early    Early
	HoldTime time.Duration
	MaxHeld  int
	// Unknown takes connections to unknown destinations; nil resets them.
	Unknown *Listener
	// Own are the addresses that this proxy listens on.
	Own []netip.AddrPort

	// Instances are the endpoints that are found by their addresses, and Direct
	// who takes connections to those of a cluster.
	Instances *upstream.Instances
	Direct    map[*upstream.Cluster]*Listener

	addresses map[netip.Addr]*Listener // on all ports
	ports     map[netip.AddrPort]*Listener
}

// Ports says what becomes of connections that the kernel has redirected to a
// listener which serves those to one port itself.
type Ports struct {
	// Socket is as in Interception.
	Socket bool
	// Service is the port whose connections the listener serves, besides those that
	// were made to its own address. Only there plaintext is permitted.
	Service uint16
	// All has it serve those to other ports, too.
	All bool
	// Others takes those to other ports; nil resets them.
	Others *Listener
}

// Early is what becomes of connections that come before the first plan.
type Early uint8

// What becomes of them.
const (
	EarlyHold Early = iota
	EarlyAllow
	EarlyRefuse
)

// String returns the word used in configuration.
func (e Early) String() string {
	switch e {
	case EarlyAllow:
		return "allow"
	case EarlyRefuse:
		return "refuse"
	}
	return "hold"
}

// Add makes l what is found at a; port 0 means all ports.
func (i *Interception) Add(a netip.AddrPort, l *Listener) {
	if a.Port() == 0 {
		if i.addresses == nil {
			i.addresses = map[netip.Addr]*Listener{}
		}
		i.addresses[a.Addr()] = l
		return
	}
	if i.ports == nil {
		i.ports = map[netip.AddrPort]*Listener{}
	}
	i.ports[a] = l
}

// Find returns the listener that has the address a, or nil. One that has it with
// the port comes before one that has all ports.
func (i *Interception) Find(a netip.AddrPort) *Listener {
	if len(i.ports) > 0 {
		if l := i.ports[a]; l != nil {
			return l
		}
	}
	return i.addresses[a.Addr()]
}

// Instance returns the listener of connections to the instance that is meant by
// a, with the address of its endpoint; nil where it is none.
func (i *Interception) Instance(a netip.AddrPort) (*Listener, netip.AddrPort) {
	if len(i.Direct) == 0 {
		return nil, netip.AddrPort{}
	}
	e := i.Instances.Find(a)
	if e == nil {
		return nil, netip.AddrPort{}
	}
	l := i.Direct[e.Home()]
	if l == nil { // it belongs to another plan
		return nil, netip.AddrPort{}
	}
	return l, e.AddrPort()
}

// Addresses returns where l is found, sorted; port 0 stands for all ports.
func (i *Interception) Addresses(l *Listener) (list []netip.AddrPort) {
	for a, at := range i.addresses {
		if at == l {
			list = append(list, netip.AddrPortFrom(a, 0))
		}
	}
	for a, at := range i.ports {
		if at == l {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, netip.AddrPort.Compare)
	return list
}

// text describes the interception; listeners are those of its plan.
func (i *Interception) text(listeners []*Listener) string {
	var b strings.Builder
	how := "redirect"
	if i.Socket {
		how = "tproxy"
	}
	fmt.Fprintf(&b, "  mode         %s\n", how)
	fmt.Fprintf(&b, "  early        %s, at most %d for %s\n", i.Early, i.MaxHeld, i.HoldTime)
	for _, l := range listeners {
		for _, a := range i.Addresses(l) {
			fmt.Fprintf(&b, "  destination  %s: %s\n", destination(a), l.Name)
		}
	}
	for _, l := range listeners {
		for c, at := range i.Direct {
			if at == l {
				fmt.Fprintf(&b, "  destination  an instance of %s: %s\n", c.Name(), l.Name)
			}
		}
	}
	unknown := "refuse"
	if i.Unknown != nil {
		unknown = i.Unknown.Name
	}
	fmt.Fprintf(&b, "  unknown      %s\n", unknown)
	return b.String()
}

func destination(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// OwnAddress reports whether a is where this proxy listens itself, on that very
// address or on all of a loopback address.
func (i *Interception) OwnAddress(a netip.AddrPort) bool {
	for _, o := range i.Own {
		if o.Port() == a.Port() && (o.Addr() == a.Addr() || o.Addr().IsUnspecified() && a.Addr().IsLoopback()) {
			return true
		}
	}
	return false
}
