package intercept

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// feature is something that a kernel has or not.
type feature struct {
	what   string
	module string // its module and the kernel since which it is there
	chain  Chain
	needs  func(Rule) bool // whether a rule uses it
}

func uses(verb Verb, fields ...Field) func(Rule) bool {
	return func(r Rule) bool {
		return slices.ContainsFunc(r.Do, func(a Action) bool { return a.Verb == verb }) ||
			slices.ContainsFunc(r.Match, func(m Match) bool { return slices.Contains(fields, m.Field) })
	}
}

// features are what our rules need, the most basic first.
func features(f Family) []feature {
	nat := func(h Hook, rules ...Rule) Chain {
		return Chain{Name: "probe", Hook: h, Type: "nat", Priority: priorityNAT, Rules: rules}
	}
	filter := func(h Hook, rules ...Rule) Chain {
		return Chain{Name: "probe", Hook: h, Type: "filter", Rules: rules}
	}
	rule := func(m []Match, a ...Action) Rule { return Rule{Match: m, Do: a} }
	to := netip.MustParseAddrPort(pick(f == IP6, "[::1]:53", "127.0.0.1:53"))
	return []feature{
		{"tables of nftables", "nf_tables", filter(Output), nil},
		{"chains that do NAT in tables of the family " + string(f), pick(f == Inet, "nft_chain_nat, nf_nat; since Linux 5.2", "nft_chain_nat, nf_nat"), nat(Output), nil},
		{"redirection to a port", "nft_redir", nat(Output, rule([]Match{tcp}, Action{Verb: RedirectTo, Port: 1})), uses(RedirectTo)},
		{"a new destination for DNS", "nft_nat", nat(Output, rule([]Match{tcp}, Action{Verb: DNATTo, To: to})), uses(DNATTo)},
		{"questions to connection tracking", "nft_ct, nf_conntrack", filter(Input, rule([]Match{{Field: CtState, Lo: stateNew}})), uses(SetCtMark, CtState, CtStatus, CtDirection, CtMark)},
		{"giving packets to a transparent socket", "nft_tproxy", filter(Prerouting, rule([]Match{tcp}, Action{Verb: TProxyTo, Port: 1})), uses(TProxyTo)},
		{"the question whether somebody listens", "nft_socket; since Linux 4.18", filter(Input, rule([]Match{{Field: Listener}})), uses("", Listener)},
		{"control groups of version 2", "nft_socket with CONFIG_SOCK_CGROUP_DATA; since Linux 5.13", filter(Output, rule([]Match{{Field: Cgroup, Lo: 1, Hi: 1, Level: 1}})), uses("", Cgroup)},
		{"the question whether an address is one of this machine", "nft_fib, nft_fib_" + pick(f == Inet, "inet", strings.Replace(string(f), "ip", "ipv", 1)), filter(Output, rule([]Match{{Field: LocalDest}})), uses("", LocalDest, LocalSource)},
		{"answers with a reset", "nft_reject_" + pick(f == Inet, "inet", strings.Replace(string(f), "ip", "ipv", 1)), filter(Input, rule([]Match{tcp}, Action{Verb: Reset})), uses(Reset)},
	}
}

// try makes a table with the chain and takes it back, in one transaction: what
// the kernel does not know makes it fail, and nothing is ever in force.
func (k kernel) try(f Family, c Chain) error {
	conn, err := nftables.New(nftables.WithNetNSFd(k.ns.fd()))
	if err != nil {
		return err
	}
	t := conn.AddTable(nfTable(Table{Family: f, Name: "outrigger-probe"}))
	nc := conn.AddChain(nfChain(t, c))
	for _, r := range c.Rules {
		conn.AddRule(&nftables.Rule{Table: t, Chain: nc, Exprs: encode(r, f)})
	}
	conn.DelTable(t)
	return conn.Flush()
}

// missing asks for everything that the tables need and says what the kernel
// lacks.
func missing(k rules, tables []Table) (lack []string) {
	for _, t := range tables {
		for _, f := range features(t.Family) {
			needed := f.needs == nil
			for _, c := range t.Chains {
				needed = needed || slices.ContainsFunc(c.Rules, f.needs)
			}
			if !needed {
				continue
			}
			if err := k.try(t.Family, f.chain); err != nil && cannot(err) {
				lack = append(lack, fmt.Sprintf("%s (%s)", f.what, f.module))
			}
		}
	}
	return lack
}

// support asks what the kernel can do of that which we can do without.
func support(k rules) Support {
	can := func(f Family, name string) bool {
		for _, x := range features(f) {
			if strings.HasPrefix(x.what, name) {
				return k.try(f, x.chain) == nil
			}
		}
		return false
	}
	s := Support{Inet: can(Inet, "chains that do NAT")}
	s.Fib = can(pick(s.Inet, Inet, IP), "the question whether an address")
	return s
}
