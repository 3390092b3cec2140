package intercept

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The chains of a table. No other name is ours.
const (
	chainPrerouting = "prerouting"
	chainOutput     = "output"
	chainInput      = "input"
	chainMark       = "mark_output"
	chainDNS        = "dns"
	chainInbound    = "inbound"
	chainToInbound  = "inbound_to_proxy"
	chainOutbound   = "outbound"
	chainToOutbound = "outbound_to_proxy"
	chainHold       = "hold"
	chainIntent     = "intent"
)

// The priorities. NAT comes just before that of iptables and of most others
// (-100), of whom the first to change a connection's destination wins.
const (
	priorityNAT    = -105
	priorityMangle = -150
	priorityFilter = 0
)

// chunk is how much of the configuration fits into one comment: the kernel
// takes 256 bytes of user data, nft reads comments of up to 128.
const chunk = 120

// Group is a control group of version 2.
type Group struct {
	Path  string
	ID    uint64 // the inode of its directory
	Level uint32 // how deep it lies below the root
}

// Support says what the kernel can do.
type Support struct {
	Inet bool // NAT in tables of the family inet
	Fib  bool // the question whether an address is one of this machine
}

// Build makes the tables that do what a complete configuration says. The
// groups are those of ProxyCgroups, in their order.
func Build(c Config, groups []Group, can Support) []Table {
	families := []Family{Inet}
	if !can.Inet {
		families = []Family{IP, IP6}
	}
	var tables []Table
	for _, f := range families {
		b := builder{c: c, groups: groups, can: can, family: f}
		tables = append(tables, b.table())
	}
	return tables
}

type builder struct {
	c      Config
	groups []Group
	can    Support
	family Family
	chains []Chain
}

var tcp = Match{Field: L4Proto, Lo: protoTCP, Hi: protoTCP}

func (b *builder) table() Table {
	b.output()
	if b.c.InboundPort != 0 {
		b.inbound()
	}
	if b.c.BeforeReady == Hold {
		b.hold()
	}
	b.intent()
	return Table{Family: b.family, Name: b.c.Table, Chains: b.chains}
}

func (b *builder) add(c Chain) { b.chains = append(b.chains, c) }

// own are the conditions that name the proxy, one rule each.
func (b *builder) own() (list []Rule) {
	for _, r := range b.c.ProxyUIDs {
		list = append(list, Rule{Match: []Match{ids(UID, r)}, Comment: "the proxy itself: user " + r.String()})
	}
	for _, r := range b.c.ProxyGIDs {
		list = append(list, Rule{Match: []Match{ids(GID, r)}, Comment: "the proxy itself: group " + r.String()})
	}
	for _, g := range b.groups {
		path := g.Path
		if len(path) > 80 {
			path = "..." + path[len(path)-77:]
		}
		list = append(list, Rule{Match: []Match{{Field: Cgroup, Lo: g.ID, Hi: g.ID, Level: g.Level}}, Comment: "the proxy itself: control group " + path})
	}
	return list
}

// exempt are rules that let the proxy's own traffic pass.
func (b *builder) exempt() []Rule {
	list := b.own()
	for i := range list {
		list[i].Do = []Action{{Verb: Return}}
	}
	return list
}

func (b *builder) output() {
	out := Chain{Name: chainOutput, Hook: Output, Type: "nat", Priority: priorityNAT}
	if len(b.c.DNSTo) > 0 {
		for _, proto := range []uint64{protoUDP, protoTCP} {
			out.Rules = append(out.Rules, Rule{
				Match: []Match{{Field: L4Proto, Lo: proto, Hi: proto}, {Field: DestPort, Lo: 53, Hi: 53}},
				Do:    []Action{{Verb: Jump, Chain: chainDNS}}, Comment: "DNS",
			})
		}
	}
	out.Rules = append(out.Rules, Rule{Match: []Match{tcp}, Do: []Action{{Verb: Jump, Chain: chainOutbound}}, Comment: "what is called from here"})
	b.add(out)
	if len(b.c.DNSTo) > 0 {
		b.dns()
	}
	b.outbound()
}

func (b *builder) dns() {
	c := Chain{Name: chainDNS, Rules: b.exempt()}
	for _, to := range b.c.DNSTo {
		if !b.family.carries(to.Addr()) {
			continue
		}
		version := Match{Field: NFProto, Lo: pick[uint64](to.Addr().Is4(), nfIPv4, nfIPv6)}
		version.Hi = version.Lo
		which := [][]Match{{version}}
		comment := "to the resolver"
		if !to.Addr().IsLoopback() {
			c.Rules = append(c.Rules, Rule{
				Match: []Match{prefix(Dest, loopbackOf(to.Addr()))}, Do: []Action{{Verb: Return}},
				Comment: "to a server on loopback: its source could not leave",
			})
		}
		if len(b.c.DNSServers) > 0 {
			which = nil
			for _, s := range b.c.DNSServers {
				if s.Is4() == to.Addr().Is4() {
					which = append(which, []Match{prefix(Dest, netip.PrefixFrom(s, s.BitLen()))})
				}
			}
			comment = "to this server: to the resolver"
		} else if b.family != Inet {
			which = [][]Match{nil}
		}
		for _, w := range which {
			for _, proto := range []uint64{protoUDP, protoTCP} {
				m := append(w[:len(w):len(w)], Match{Field: L4Proto, Lo: proto, Hi: proto})
				c.Rules = append(c.Rules, Rule{Match: m, Do: []Action{{Verb: DNATTo, To: to}}, Comment: comment})
			}
		}
	}
	b.add(c)
}

func (b *builder) outbound() {
	pass := func(why string, m ...Match) Rule {
		return Rule{Match: m, Do: []Action{{Verb: Return}}, Comment: why}
	}
	c := Chain{Name: chainOutbound, Rules: b.exempt()}
	for _, r := range b.c.ExcludeUIDs {
		c.Rules = append(c.Rules, pass("excluded user", ids(UID, r)))
	}
	for _, p := range b.c.ExcludeOutboundCIDRs {
		if b.family.carries(p.Addr()) {
			c.Rules = append(c.Rules, pass("excluded destination", prefix(Dest, p)))
		}
	}
	for _, r := range b.c.ExcludeOutboundPorts {
		c.Rules = append(c.Rules, pass("excluded port", tcp, ids(DestPort, r)))
	}
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if b.family.carries(a) {
			c.Rules = append(c.Rules, pass("loopback", prefix(Dest, loopbackOf(a))))
		}
	}
	if b.can.Fib {
		for _, port := range []uint16{b.c.OutboundPort, b.c.InboundPort} {
			if port != 0 {
				n := uint64(port)
				c.Rules = append(c.Rules, pass("the proxy's own port: sending it there again would go round for ever", tcp, Match{Field: DestPort, Lo: n, Hi: n}, Match{Field: LocalDest}))
			}
		}
	}
	b.staged(c, chainToOutbound, [][]Match{
		matches(UID, b.c.IncludeUIDs), b.prefixes(b.c.IncludeOutboundCIDRs), matches(DestPort, b.c.IncludeOutboundPorts),
	})
	b.add(Chain{Name: chainToOutbound, Rules: []Rule{{
		Match: []Match{tcp}, Do: []Action{{Verb: RedirectTo, Port: b.c.OutboundPort}}, Comment: "to the proxy",
	}}})
}

func (b *builder) inbound() {
	pass := func(why string, m ...Match) Rule {
		return Rule{Match: m, Do: []Action{{Verb: Return}}, Comment: why}
	}
	pre := Chain{Name: chainPrerouting, Hook: Prerouting, Type: "nat", Priority: priorityNAT}
	in := Chain{Name: chainInbound}
	if b.c.Mode == TProxy {
		pre.Type, pre.Priority = "filter", priorityMangle
		pre.Rules = append(pre.Rules, pass("what goes from here to here is not inbound", Match{Field: InInterface, Name: "lo"}))
		in.Rules = append(in.Rules, pass("an answer to a connection that began here", Match{Field: CtDirection, Lo: 1, Hi: 1}))
	}
	pre.Rules = append(pre.Rules, Rule{Match: []Match{tcp}, Do: []Action{{Verb: Jump, Chain: chainInbound}}, Comment: "what comes from outside"})
	if b.can.Fib {
		in.Rules = append(in.Rules, pass("for another machine: only forwarded here", Match{Field: LocalDest, Not: true}))
	}
	for _, p := range b.c.ExcludeInboundCIDRs {
		if b.family.carries(p.Addr()) {
			in.Rules = append(in.Rules, pass("excluded caller", prefix(Source, p)))
		}
	}
	for _, r := range b.c.ExcludeInboundPorts {
		in.Rules = append(in.Rules, pass("excluded port", tcp, ids(DestPort, r)))
	}
	b.add(pre)
	b.staged(in, chainToInbound, [][]Match{matches(DestPort, b.c.IncludeInboundPorts)})
	to := Chain{Name: chainToInbound}
	if b.c.Mode != TProxy {
		to.Rules = []Rule{{Match: []Match{tcp}, Do: []Action{{Verb: RedirectTo, Port: b.c.InboundPort}}, Comment: "to the proxy"}}
		b.add(to)
		return
	}
	fresh := Match{Field: CtState, Lo: stateNew, Hi: stateNew}
	to.Rules = []Rule{{
		Match: []Match{tcp}, Do: []Action{{Verb: TProxyTo, Port: b.c.InboundPort}, {Verb: SetMark, Mark: b.c.Mark}, {Verb: Accept}}, Comment: "to the proxy",
	}}
	switch b.c.BeforeReady {
	case Hold:
		to.Rules = append(to.Rules, Rule{Match: []Match{tcp, fresh}, Do: []Action{{Verb: Drop}}, Comment: "nobody listens yet: the caller tries again"})
	default:
		to.Rules = append(to.Rules, Rule{Match: []Match{tcp, fresh}, Do: []Action{{Verb: Reset}}, Comment: "nobody listens: refused"})
	}
	b.add(to)
	b.mark()
}

// mark brings the application's answers back to the proxy where the proxy has
// called it from its caller's address.
func (b *builder) mark() {
	c := Chain{Name: chainMark, Hook: Output, Type: "route", Priority: priorityMangle}
	if b.can.Fib {
		for _, r := range b.own() {
			r.Match = append(r.Match, tcp, Match{Field: LocalSource, Not: true})
			r.Do = []Action{{Verb: SetCtMark, Mark: b.c.Mark}}
			r.Comment = "the proxy calls with its caller's address"
			c.Rules = append(c.Rules, r)
		}
	}
	m := uint64(b.c.Mark)
	c.Rules = append(c.Rules, Rule{
		Match: []Match{{Field: CtMark, Lo: m, Hi: m}, {Field: CtDirection, Lo: 1, Hi: 1}},
		Do:    []Action{{Verb: SetMark, Mark: b.c.Mark}}, Comment: "the answer to it belongs to the proxy",
	})
	b.add(c)
}

func (b *builder) hold() {
	in := Chain{Name: chainInput, Hook: Input, Type: "filter", Priority: priorityFilter}
	ports := []uint16{b.c.OutboundPort}
	if b.c.InboundPort != 0 && b.c.Mode == Redirect {
		ports = append(ports, b.c.InboundPort)
	}
	for _, p := range ports {
		in.Rules = append(in.Rules, Rule{
			Match: []Match{
				tcp,
				{Field: DestPort, Lo: uint64(p), Hi: uint64(p)},
				{Field: CtState, Lo: stateNew, Hi: stateNew},
				{Field: CtStatus, Lo: statusDNAT, Hi: statusDNAT},
			},
			Do: []Action{{Verb: Goto, Chain: chainHold}}, Comment: "brought to the proxy",
		})
	}
	b.add(in)
	b.add(Chain{Name: chainHold, Rules: []Rule{
		{Match: []Match{{Field: Listener}}, Do: []Action{{Verb: Return}}, Comment: "the proxy listens"},
		{Do: []Action{{Verb: Drop}}, Comment: "nobody listens yet: the caller tries again"},
	}})
}

// staged adds first, which goes on to the last chain through one chain for
// each list of conditions, of which one must be met.
func (b *builder) staged(first Chain, last string, lists [][]Match) {
	lists = slices.DeleteFunc(lists, func(l []Match) bool { return len(l) == 0 })
	stage := func(i int) string {
		if i == len(lists) {
			return last
		}
		return fmt.Sprintf("%s_only_%d", first.Name, i+1)
	}
	first.Rules = append(first.Rules, Rule{Do: []Action{{Verb: Goto, Chain: stage(0)}}})
	b.add(first)
	for i, list := range lists {
		c := Chain{Name: stage(i)}
		for _, m := range list {
			r := Rule{Match: []Match{m}, Do: []Action{{Verb: Goto, Chain: stage(i + 1)}}, Comment: "one of those that are included"}
			if m.Field == DestPort {
				r.Match = []Match{tcp, m}
			}
			c.Rules = append(c.Rules, r)
		}
		b.add(c)
	}
}

// intent keeps the configuration in the table, in a chain that no packet
// comes to, so that status knows what was meant.
func (b *builder) intent() {
	c := Chain{Name: chainIntent}
	text := strings.ReplaceAll(b.c.encode(), `"`, "'") // nft writes comments in quotes
	for len(text) > 0 {
		n := min(chunk, len(text))
		c.Rules = append(c.Rules, Rule{Do: []Action{{Verb: Return}}, Comment: text[:n]})
		text = text[n:]
	}
	b.add(c)
}

// Intent returns the configuration that a table was made of.
func Intent(t *Table) (Config, error) {
	c := t.Chain(chainIntent)
	if c == nil {
		return Config{}, fmt.Errorf("table %s %s does not say what it was made of", t.Family, t.Name)
	}
	var b strings.Builder
	for _, r := range c.Rules {
		b.WriteString(r.Comment)
	}
	cfg, err := decodeConfig(strings.ReplaceAll(b.String(), "'", `"`))
	if err != nil {
		return Config{}, fmt.Errorf("table %s %s does not say any more what it was made of: %w", t.Family, t.Name, err)
	}
	return cfg, nil
}

// loopbackOf are the loopback addresses of an address's IP version.
func loopbackOf(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)
	}
	return netip.PrefixFrom(netip.IPv6Loopback(), 128)
}

func ids(f Field, r Range) Match { return Match{Field: f, Lo: uint64(r.Lo), Hi: uint64(r.Hi)} }

func matches(f Field, list []Range) (ms []Match) {
	for _, r := range list {
		ms = append(ms, ids(f, r))
	}
	return ms
}

func prefix(f Field, p netip.Prefix) Match { return Match{Field: f, Prefix: p.Masked()} }

func (b *builder) prefixes(list []netip.Prefix) (ms []Match) {
	for _, p := range list {
		if b.family.carries(p.Addr()) {
			ms = append(ms, prefix(Dest, p))
		}
	}
	if len(list) > 0 && len(ms) == 0 { // none of this version: nothing is included
		ms = []Match{{Field: NFProto, Lo: 0}}
	}
	return ms
}
