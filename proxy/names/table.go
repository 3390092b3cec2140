package names

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Name is a service that the proxy answers for.
type Name struct {
	Service string
	// Addresses are those that lead to the service, in either family.
	Addresses []netip.Addr
	// Port is the one on which it is reached there; 0 where any port will do.
	Port uint16
}

// Table is what is known about names at one moment. It is immutable.
type Table struct {
	zones  []string // in canonical form, the longest first
	byName map[string]*Name
	byAddr map[netip.Addr]string // the whole name
	ttl    uint32
}

// NewTable returns the table for list. Of two services whose names differ in
// nothing but case the first counts.
func NewTable(c Config, list []Name) *Table {
	t := &Table{byName: make(map[string]*Name, len(list)), byAddr: map[netip.Addr]string{}, ttl: uint32(c.TTL.Seconds())}
	for _, z := range c.Zones {
		t.zones = append(t.zones, dns.CanonicalName(z))
	}
	slices.SortStableFunc(t.zones, func(a, b string) int { return len(b) - len(a) })
	for i := range list {
		n := &list[i]
		key := strings.ToLower(n.Service)
		if _, taken := t.byName[key]; taken {
			continue
		}
		t.byName[key] = n
		for _, a := range n.Addresses {
			// Listeners share an address, virtual addresses belong to one service.
			if _, taken := t.byAddr[a]; !taken && n.Port == 0 && len(t.zones) > 0 {
				t.byAddr[a] = key + "." + t.zones[0]
			}
		}
	}
	return t
}

// Answer is what the table makes of a question.
type Answer struct {
	// Ours is whether the name is in one of the zones, or an address of a
	// service's: nobody else may know better.
	Ours bool
	// Known is whether there is such a name.
	Known bool
	// Records answer the question; there may be none although the name is known.
	Records []dns.RR
	// Extra are addresses that go with them.
	Extra []dns.RR
	// Zone is where the name is, for the SOA record of an answer without records.
	Zone string
}

// Ask answers q from the table alone.
func (t *Table) Ask(q dns.Question) Answer {
	name := dns.CanonicalName(q.Name)
	if a, ok := reversed(name); ok {
		full, known := t.byAddr[a]
		if !known {
			return Answer{}
		}
		ans := Answer{Ours: true, Known: true, Zone: name}
		if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
			ans.Records = []dns.RR{&dns.PTR{Hdr: t.header(q.Name, dns.TypePTR), Ptr: full}}
		}
		return ans
	}
	for _, z := range t.zones {
		service, in := within(name, z)
		if !in {
			continue
		}
		ans := Answer{Ours: true, Zone: z, Known: service == ""}
		if n := t.byName[service]; n != nil {
			ans.Known = true
			t.answer(&ans, q, n, z)
		}
		return ans
	}
	return Answer{}
}

// within returns what name has before zone, "" for the zone itself.
func within(name, zone string) (service string, ok bool) {
	if name == zone {
		return "", true
	}
	service, ok = strings.CutSuffix(name, "."+zone)
	return service, ok
}

func (t *Table) answer(ans *Answer, q dns.Question, n *Name, zone string) {
	if q.Qtype == dns.TypeSRV {
		if n.Port != 0 {
			target := dns.CanonicalName(n.Service + "." + zone)
			ans.Records = []dns.RR{&dns.SRV{Hdr: t.header(q.Name, dns.TypeSRV), Priority: 1, Weight: 1, Port: n.Port, Target: target}}
			ans.Extra = t.addresses(target, n, dns.TypeANY)
		}
		return
	}
	ans.Records = t.addresses(q.Name, n, q.Qtype)
}

// addresses returns those of n that qtype asks for.
func (t *Table) addresses(name string, n *Name, qtype uint16) (list []dns.RR) {
	for _, a := range n.Addresses {
		switch {
		case a.Is4() && (qtype == dns.TypeA || qtype == dns.TypeANY):
			list = append(list, &dns.A{Hdr: t.header(name, dns.TypeA), A: a.AsSlice()})
		case a.Is6() && (qtype == dns.TypeAAAA || qtype == dns.TypeANY):
			list = append(list, &dns.AAAA{Hdr: t.header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return list
}

func (t *Table) header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: t.ttl}
}

// soa goes with answers without records, so that these may be kept as long as
// others (RFC 2308, section 5).
func (t *Table) soa(zone string) dns.RR {
	return &dns.SOA{
		Hdr: t.header(zone, dns.TypeSOA), Ns: "ns." + zone, Mbox: "hostmaster." + zone,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: t.ttl,
	}
}

// reversed reads a name under in-addr.arpa (RFC 1035, section 3.5) or ip6.arpa
// (RFC 3596, section 2.5).
func reversed(name string) (netip.Addr, bool) {
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(v4, ".")
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil && a.Is4()
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(v6) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 62; i >= 0; i -= 2 {
		if i < 62 && v6[i+1] != '.' {
			return netip.Addr{}, false
		}
		b.WriteByte(v6[i])
		if i%8 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil && a.Is6()
}
