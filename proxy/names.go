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

// setNames makes the upstreams of c the names that are known. With a listener
// that takes every address of the host, that is loopback.
func (p *Proxy) setNames(c *config.Config) {
	if p.names == nil {
		return
	}
	list := make([]names.Name, 0, len(c.Outbound.Upstreams))
	for i := range c.Outbound.Upstreams {
		u := &c.Outbound.Upstreams[i]
		at, err := netip.ParseAddrPort(u.Listen)
		if err != nil {
			continue
		}
		a := at.Addr().Unmap()
		switch {
		case a == netip.IPv4Unspecified():
			a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		case a == netip.IPv6Unspecified():
			a = netip.IPv6Loopback()
		}
		list = append(list, names.Name{Service: u.Title(), Addresses: []netip.Addr{a}, Port: at.Port()})
	}
	p.names.SetTable(names.NewTable(c.DNS, list))
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
