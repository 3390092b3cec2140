package proxy

import (
	"net/netip"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/names"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// newNames opens the address on which DNS queries are taken, if there is one.
func (p *Proxy) newNames(loaded *config.Loaded) (err error) {
	c := loaded.Config.DNS
	if c.Listen == "" {
		return nil
	}
	if p.names, err = names.Listen(c, p.log); err != nil {
		return loaded.Problem("dns.listen", "cannot take queries: "+err.Error())
	}
	return nil
}

// setNames makes the upstreams of c the names that are known.
func (p *Proxy) setNames(c *config.Config) {
	if p.names == nil {
		return
	}
	list := make([]names.Name, 0, len(c.Outbound.Upstreams))
	for i := range c.Outbound.Upstreams {
		if n := nameOf(&c.Outbound.Upstreams[i]); len(n.Addresses) > 0 {
			list = append(list, n)
		}
	}
	p.names.SetTable(names.NewTable(c.DNS, list))
}

// nameOf is what the application is told of u: the addresses by which it is found
// behind redirected connections, else that of its own listener. One that takes
// every address of the host is called by loopback.
func nameOf(u *config.Upstream) names.Name {
	n := names.Name{Service: u.Title()}
	for _, text := range u.Addresses {
		if a, err := netip.ParseAddr(text); err == nil {
			n.Addresses = append(n.Addresses, a.Unmap())
		} else if at, err := netip.ParseAddrPort(text); err == nil {
			n.Addresses = append(n.Addresses, at.Addr().Unmap())
		}
	}
	at, err := netip.ParseAddrPort(u.Listen)
	if len(n.Addresses) > 0 || err != nil {
		return n
	}
	a := at.Addr().Unmap()
	switch {
	case a == netip.IPv4Unspecified():
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case a == netip.IPv6Unspecified():
		a = netip.IPv6Loopback()
	}
	n.Addresses, n.Port = []netip.Addr{a}, at.Port()
	return n
}

// bindNames lets the metrics read what became of DNS queries.
func (p *Proxy) bindNames(g *telemetry.ProcessGauges) {
	if p.names == nil {
		return
	}
	g.DNSQueries = []telemetry.Named{
		{Name: "answered", Value: func() uint64 { return p.names.Stats().Answered }},
		{Name: "unknown", Value: func() uint64 { return p.names.Stats().Unknown }},
		{Name: "forwarded", Value: func() uint64 { return p.names.Stats().Forwarded }},
		{Name: "failed", Value: func() uint64 { return p.names.Stats().Failed }},
		{Name: "refused", Value: func() uint64 { return p.names.Stats().Refused }},
	}
}
