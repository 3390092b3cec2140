package explain

import (
	"fmt"
	"net/netip"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// parseAddress reads an address that a connection is made to; the port may be
// missing.
func parseAddress(text string) (a netip.AddrPort, ok bool) {
	if ip, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), 0), true
	}
	a, err := netip.ParseAddrPort(text)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), err == nil
}

// locateSocket finds the listener of a Unix socket.
func (e *explainer) locateSocket(address string) error {
	for _, l := range e.Plan.Listeners {
		if l.Address == address {
			e.l = l
			return nil
		}
	}
	return fmt.Errorf("%w: %s listens on no Unix socket %s", admin.ErrNotHere, e.own(), e.q.To)
}

// locateAddress finds the listener of a connection to dst that is redirected to
// the proxy. One that nobody takes stays with the listener that it comes to.
func (e *explainer) locateAddress(dst netip.AddrPort) error {
	var at *plan.Listener
	for _, l := range e.Plan.Listeners {
		if l.Address == dst.String() && l.Intercept == nil {
			e.l = l
			return nil
		}
		if at == nil && l.Intercept != nil && l.Direction == telemetry.Outbound {
			at = l
		}
	}
	if at == nil {
		return fmt.Errorf("%w: %s is an address, and %s has no outbound.transparent", admin.ErrNotHere, e.q.To, e.own())
	}
	e.dst, e.l, e.comesBy = dst, at, at
	switch l := at.Intercept.Find(dst); {
	case l != nil:
		e.l = l
	case at.Intercept.OwnAddress(dst):
	case e.meant(at.Intercept):
	case at.Intercept.Unknown != nil:
		e.l = at.Intercept.Unknown
	}
	return nil
}

// meant finds the instance that the connection means.
func (e *explainer) meant(i *plan.Interception) bool {
	l, only := i.Instance(e.dst)
	if l != nil {
		e.l, e.only = l, only
	}
	return l != nil
}

// unknown answers for an address that no upstream has. It reports false where
// one has it.
func (e *explainer) unknown() bool {
	switch {
	case !e.dst.IsValid():
		return false
	case e.l.Original:
		e.view.Request, e.view.Route = "a connection", e.l.Route.Name
		e.view.Detail = "no upstream has this address: the connection is passed through to where it was going, as TCP and without mTLS"
		d, _ := e.destination(&e.l.Route, 100)
		d.Reason, d.Usable, d.Balance = "", 1, "where it was going"
		d.Endpoints = append(d.Endpoints, admin.EndpointView{Cluster: d.Cluster, Address: e.dst.String(), State: "healthy"})
		e.view.Destinations = append(e.view.Destinations, d)
	case e.l == e.comesBy && e.l.Intercept.OwnAddress(e.dst):
		e.view.Request = "a connection"
		e.end(outcome.NoRoute, "the proxy itself listens there: the connection would go in a circle, and is reset")
		e.view.Status = 0
	case e.l == e.comesBy:
		e.view.Request = "a connection"
		e.end(outcome.NoRoute, "no upstream has this address, and outbound.transparent.unknown is refuse: the connection is reset")
		e.view.Status = 0
	default:
		return false
	}
	return true
}

// host is the Host of the request, unless the question gives another.
func (e *explainer) host() string {
	if a := e.dst.Addr(); a.Is6() && e.dst.Port() == 0 {
		return "[" + a.String() + "]"
	}
	return e.q.To
}
