package intercept

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// meant says what a configuration means for a packet, from its words alone and
// without rules: the slow model beside Build and Walk.
func meant(c Config, groups []Group, can Support, p Packet) (Fate, netip.AddrPort) {
	in := func(list []Range, n uint32) bool {
		return slices.ContainsFunc(list, func(r Range) bool { return r.Lo <= n && n <= r.Hi })
	}
	within := func(list []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	port := uint32(p.Dst.Port())
	wait := func(f Fate, to netip.AddrPort) (Fate, netip.AddrPort) {
		if c.BeforeReady == Hold && p.Proto == "tcp" && !p.Listens(to) && (to.Port() == c.OutboundPort || to.Port() == c.InboundPort) {
			return Dropped, netip.AddrPort{}
		}
		return f, to
	}
	if p.In {
		switch {
		case p.Proto != "tcp", c.InboundPort == 0,
			can.Fib && !p.Local(p.Dst.Addr()),
			within(c.ExcludeInboundCIDRs, p.Src.Addr()),
			in(c.ExcludeInboundPorts, port),
			len(c.IncludeInboundPorts) > 0 && !in(c.IncludeInboundPorts, port):
			return Passes, netip.AddrPort{}
		}
		if c.Mode == TProxy {
			to := netip.AddrPortFrom(unspecified(p.Dst.Addr()), c.InboundPort)
			if p.Listens(to) {
				return Given, to
			}
			return pick(c.BeforeReady == Hold, Dropped, Refused), netip.AddrPort{}
		}
		return wait(Redirected, netip.AddrPortFrom(p.Dst.Addr(), c.InboundPort))
	}
	own := in(c.ProxyUIDs, p.UID) || in(c.ProxyGIDs, p.GID)
	for _, g := range groups {
		own = own || int(g.Level) < len(p.Groups) && p.Groups[g.Level] == g.ID
	}
	if own {
		return Passes, netip.AddrPort{}
	}
	if port == 53 && (len(c.DNSServers) == 0 || slices.Contains(c.DNSServers, p.Dst.Addr())) {
		for _, to := range c.DNSTo {
			if to.Addr().Is4() == p.Dst.Addr().Is4() && (to.Addr().IsLoopback() || !p.Dst.Addr().IsLoopback()) {
				return wait(Redirected, to)
			}
		}
	}
	switch {
	case p.Proto != "tcp", in(c.ExcludeUIDs, p.UID), within(c.ExcludeOutboundCIDRs, p.Dst.Addr()), in(c.ExcludeOutboundPorts, port),
		p.Dst.Addr().IsLoopback(),
		can.Fib && p.Local(p.Dst.Addr()) && (p.Dst.Port() == c.OutboundPort || p.Dst.Port() == c.InboundPort),
		len(c.IncludeUIDs) > 0 && !in(c.IncludeUIDs, p.UID),
		len(c.IncludeOutboundCIDRs) > 0 && !within(c.IncludeOutboundCIDRs, p.Dst.Addr()),
		len(c.IncludeOutboundPorts) > 0 && !in(c.IncludeOutboundPorts, port):
		return Passes, netip.AddrPort{}
	}
	return wait(Redirected, netip.AddrPortFrom(loopback(p.Dst.Addr()), c.OutboundPort))
}

// chance makes configurations and packets that meet each other often.
type chance struct{ *rand.Rand }

func (r chance) ranges(most uint32) (list []Range) {
	for range r.IntN(3) {
		lo := 1 + r.Uint32N(most)
		list = append(list, Range{lo, lo + r.Uint32N(4)*r.Uint32N(2)})
	}
	return list
}

func (r chance) addr() netip.Addr {
	return netip.MustParseAddr([]string{"10.0.0.1", "10.0.0.2", "10.0.1.1", "127.0.0.1", "127.0.0.9", "192.168.0.1", "fd00::1", "fd00::2", "fd00:1::1", "::1"}[r.IntN(10)])
}

func (r chance) prefixes() (list []netip.Prefix) {
	for range r.IntN(3) {
		a := r.addr()
		list = append(list, netip.PrefixFrom(a, a.BitLen()-8*r.IntN(3)-r.IntN(8)).Masked())
	}
	return list
}

func (r chance) config() Config {
	c := Config{
		ProxyUIDs: []Range{{3, 3}}, ProxyGIDs: r.ranges(6), ExcludeUIDs: r.ranges(6), ExcludeInboundPorts: r.ranges(60), ExcludeInboundCIDRs: r.prefixes(),
		ExcludeOutboundPorts: r.ranges(60), ExcludeOutboundCIDRs: r.prefixes(), OutboundPort: 51, BeforeReady: []BeforeReady{Refuse, Hold}[r.IntN(2)], Mode: Redirect,
	}
	if r.IntN(4) > 0 {
		c.InboundPort = 55
		c.Mode = []Mode{Redirect, TProxy}[r.IntN(2)]
	}
	if r.IntN(4) == 0 {
		c.IncludeInboundPorts, c.IncludeOutboundPorts = r.ranges(60), r.ranges(60)
	}
	if r.IntN(4) == 0 {
		c.IncludeUIDs, c.IncludeOutboundCIDRs = r.ranges(6), r.prefixes()
	}
	if r.IntN(2) == 0 {
		c.DNSTo = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8600"), netip.MustParseAddrPort("[fd00::2]:53")}
		if r.IntN(2) == 0 {
			c.DNSTo = c.DNSTo[:1]
		}
		for range r.IntN(3) {
			if a := r.addr(); !a.IsLoopback() || a.Is4() {
				c.DNSServers = append(c.DNSServers, a)
			}
		}
	}
	if err := c.Complete(); err != nil {
		panic(err)
	}
	return c
}

func (r chance) packet() Packet {
	dst, src := r.addr(), r.addr()
	for src.Is4() != dst.Is4() {
		src = r.addr()
	}
	port := []uint16{53, 51, 55, uint16(1 + r.IntN(60))}[r.IntN(4)]
	listens := r.IntN(2) == 0
	in := r.IntN(2) == 0
	for in && dst.IsLoopback() { // the kernel throws such packets away
		if dst = r.addr(); dst.Is4() != src.Is4() {
			dst = netip.IPv6Loopback()
		}
	}
	return Packet{
		In: in, Proto: []string{"tcp", "tcp", "udp"}[r.IntN(3)], Src: netip.AddrPortFrom(src, 9), Dst: netip.AddrPortFrom(dst, port), UID: r.Uint32N(8), GID: r.Uint32N(8),
		Groups: []uint64{1, r.Uint64N(3), 7},
		Local: func(a netip.Addr) bool {
			return a.IsLoopback() || a.String() == "10.0.0.1" || a.String() == "fd00::1" || a == netip.MustParseAddr("fd00::2")
		},
		Listens: func(netip.AddrPort) bool { return listens },
	}
}

// What the rules do is what the configuration says, for configurations and
// packets by chance, with every kind of table.
func TestWalkIsAsMeant(t *testing.T) {
	groups := []Group{{"/a", 2, 1}}
	fates := map[Fate]int{}
	for seed := range uint64(150) {
		r := chance{rand.New(rand.NewPCG(seed, 1))}
		c := r.config()
		for _, can := range []Support{{true, true}, {false, true}, {true, false}} {
			if c.Mode == TProxy && !can.Fib {
				continue
			}
			tables := Build(c, groups, can)
			for range 60 {
				p := r.packet()
				want, to := meant(c, groups, can, p)
				got := Walk(tables, p)
				fates[got.Fate]++
				if got.Fate != want || want == Redirected && got.To != to {
					t.Fatalf("seed %d, %+v: in %v, %s from %s to %s, user %d, group %d, groups %v: %s %s, want %s %s\n%+v\n%s\n%+v",
						seed, can, p.In, p.Proto, p.Src, p.Dst, p.UID, p.GID, p.Groups, got.Fate, got.To, want, to, got.Steps, lines(tables), c)
				}
			}
		}
	}
	for _, f := range []Fate{Passes, Redirected, Given, Dropped, Refused} {
		if fates[f] < 100 {
			t.Errorf("only %d packets met the fate %q: %v", fates[f], f, fates)
		}
	}
}

func lines(tables []Table) string {
	var all []string
	for _, t := range tables {
		all = append(all, t.Lines(true)...)
	}
	return strings.Join(all, "\n")
}

// Rules of others that are not understood are never taken for anything else,
// nor do they matter to packets that do not come to them.
func TestWalkSaysWhatItCannotTell(t *testing.T) {
	c := everything()
	tables := Build(c, nil, Support{Inet: true, Fib: true})
	out := tables[0].Chain(chainOutbound)
	out.Rules = append([]Rule{{Match: []Match{{Field: UID, Lo: 9, Hi: 9}}, Unknown: "limit", Do: []Action{{Verb: Return}}}}, out.Rules...)
	p := Packet{
		Proto: "tcp", Src: netip.MustParseAddrPort("10.0.0.1:1"), Dst: netip.MustParseAddrPort("10.0.0.5:80"), UID: 9,
		Local: func(netip.Addr) bool { return false }, Listens: func(netip.AddrPort) bool { return true },
	}
	if got := Walk(tables, p); got.Fate != Unclear {
		t.Errorf("a rule that is not understood: %s", got.Fate)
	}
	p.UID = 10
	if got := Walk(tables, p); got.Fate != Redirected {
		t.Errorf("a packet that does not come to it: %s", got.Fate)
	}
	// Chains of the same name that jump in a circle cannot be in a kernel.
	out.Rules = []Rule{{Do: []Action{{Verb: Jump, Chain: chainOutbound}}}}
	if got := Walk(tables, p); got.Fate != Unclear {
		t.Errorf("a circle: %s", got.Fate)
	}
}

func TestDiff(t *testing.T) {
	for _, x := range []struct{ a, b, want string }{
		{"", "", "[]"},
		{"a b c", "a b c", "[]"},
		{"a b c", "a c", "[- b]"},
		{"a c", "a b c", "[+ b]"},
		{"a b c d", "d a b c", "[+ d - d]"},
		{"a b", "", "[- a - b]"},
		{"a x c", "a y c", "[- x + y]"},
	} {
		if got := fmt.Sprint(diff(strings.Fields(x.a), strings.Fields(x.b))); got != x.want {
			t.Errorf("%q, %q: %s, want %s", x.a, x.b, got, x.want)
		}
	}
}
