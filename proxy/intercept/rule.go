package intercept

import (
	"fmt"
	"net/netip"
	"strings"
)

// Family is the family of a table.
type Family string

// The families that are used: inet where the kernel can do NAT in it (since
// 5.2), else ip and ip6.
const (
	Inet Family = "inet"
	IP   Family = "ip"
	IP6  Family = "ip6"
)

// carries reports whether packets of a's version pass tables of the family.
func (f Family) carries(a netip.Addr) bool { return f == Inet || (f == IP) == a.Is4() }

// Field is what a rule looks at.
type Field string

// The fields. Those that say so are compared with Lo and Hi.
const (
	NFProto     Field = "meta nfproto"    // Lo: 2 for IPv4, 10 for IPv6
	L4Proto     Field = "meta l4proto"    // Lo
	Source      Field = "saddr"           // Prefix
	Dest        Field = "daddr"           // Prefix
	DestPort    Field = "dport"           // Lo to Hi
	UID         Field = "meta skuid"      // Lo to Hi
	GID         Field = "meta skgid"      // Lo to Hi
	Cgroup      Field = "socket cgroupv2" // Lo is the group's id, Level its depth
	InInterface Field = "iifname"         // Name
	CtDirection Field = "ct direction"    // Lo: 0 original, 1 reply
	CtState     Field = "ct state"        // Lo: a bit of the state
	CtStatus    Field = "ct status"       // Lo: a bit of the status
	CtMark      Field = "ct mark"         // Lo
	LocalDest   Field = "fib daddr type local"
	LocalSource Field = "fib saddr type local"
	Listener    Field = "socket transparent <= 1" // a socket takes the packet
)

// Bits of conntrack.
const (
	stateNew   = 8      // NF_CT_STATE_BIT(IP_CT_NEW)
	statusDNAT = 1 << 5 // IPS_DST_NAT
	protoTCP   = 6
	protoUDP   = 17
	nfIPv4     = 2
	nfIPv6     = 10
)

// Match is one condition of a rule.
type Match struct {
	Field  Field
	Not    bool
	Lo, Hi uint64
	Prefix netip.Prefix
	Name   string
	Level  uint32
}

// String writes the condition nearly as nft does.
func (m Match) String() string {
	not := ""
	if m.Not {
		not = "!= "
	}
	value := fmt.Sprint(m.Lo)
	if m.Hi != m.Lo {
		value = fmt.Sprintf("%d-%d", m.Lo, m.Hi)
	}
	switch m.Field {
	case NFProto:
		if m.Lo == nfIPv4 || m.Lo == nfIPv6 {
			value = pick(m.Lo == nfIPv4, "ipv4", "ipv6")
		}
	case L4Proto:
		if m.Lo == protoTCP || m.Lo == protoUDP {
			value = pick(m.Lo == protoTCP, "tcp", "udp")
			if !m.Not {
				return value
			}
		}
	case Source, Dest:
		p := m.Prefix.String()
		if m.Prefix.IsSingleIP() {
			p = m.Prefix.Addr().String()
		}
		return pick(m.Prefix.Addr().Is4(), "ip ", "ip6 ") + string(m.Field) + " " + not + p
	case Cgroup:
		return fmt.Sprintf("socket cgroupv2 level %d %sid %d", m.Level, not, m.Lo)
	case InInterface:
		value = m.Name
	case CtDirection:
		value = pick(m.Lo == 0, "original", "reply")
	case CtState:
		value = pick(m.Lo == stateNew, "new", fmt.Sprintf("%#x", m.Lo))
	case CtStatus:
		value = pick(m.Lo == statusDNAT, "dnat", fmt.Sprintf("%#x", m.Lo))
	case CtMark:
		value = fmt.Sprintf("%#x", m.Lo)
	case LocalDest, LocalSource:
		if m.Not {
			return strings.Replace(string(m.Field), "type", "type !=", 1)
		}
		return string(m.Field)
	case Listener:
		return string(m.Field)
	}
	return string(m.Field) + " " + not + value
}

// Verb is what a rule does.
type Verb string

// The verbs.
const (
	Return     Verb = "return"
	Accept     Verb = "accept"
	Drop       Verb = "drop"
	Jump       Verb = "jump"
	Goto       Verb = "goto"
	RedirectTo Verb = "redirect to"
	DNATTo     Verb = "dnat to"
	TProxyTo   Verb = "tproxy to"
	Reset      Verb = "reject with tcp reset"
	SetMark    Verb = "meta mark set"
	SetCtMark  Verb = "ct mark set"
)

// Action is one thing that a rule does.
type Action struct {
	Verb  Verb
	Chain string         // Jump, Goto
	To    netip.AddrPort // RedirectTo, TProxyTo: the port alone
	Port  uint16
	Mark  uint32
}

// String writes the action nearly as nft does.
func (a Action) String() string {
	switch a.Verb {
	case Jump, Goto:
		return string(a.Verb) + " " + a.Chain
	case RedirectTo, TProxyTo:
		return fmt.Sprintf("%s :%d", a.Verb, a.Port)
	case DNATTo:
		return pick(a.To.Addr().Is4(), "dnat ip to ", "dnat ip6 to ") + a.To.String()
	case SetMark, SetCtMark:
		return fmt.Sprintf("%s %#x", a.Verb, a.Mark)
	}
	return string(a.Verb)
}

// Rule does something with the packets that meet all its conditions.
type Rule struct {
	Match []Match
	Do    []Action
	// Comment says why the rule is there.
	Comment string
	// Packets and Bytes have met the rule, as the kernel counts them.
	Packets, Bytes uint64
	// Unknown names what of the rule, as read from the kernel, is not
	// understood here. Nothing can then be said of it.
	Unknown string
}

// String writes conditions and actions, without comment and counters.
func (r Rule) String() string {
	var b strings.Builder
	for _, m := range r.Match {
		b.WriteString(m.String() + " ")
	}
	if r.Unknown != "" {
		b.WriteString("(not understood: " + r.Unknown + ") ")
	}
	for _, a := range r.Do {
		b.WriteString(a.String() + " ")
	}
	return strings.TrimSpace(b.String())
}

// Hook is where a base chain meets packets.
type Hook string

// The hooks.
const (
	Prerouting Hook = "prerouting"
	Input      Hook = "input"
	Forward    Hook = "forward"
	Output     Hook = "output"
	Post       Hook = "postrouting"
)

// Chain is a list of rules. One with a hook is a base chain; others are
// reached by jump and goto.
type Chain struct {
	Name     string
	Hook     Hook
	Type     string // filter, nat, route
	Priority int32
	Drop     bool // the policy of a base chain, when it is not accept
	Rules    []Rule
}

// head is the chain's declaration.
func (c Chain) head() string {
	if c.Hook == "" {
		return "chain " + c.Name
	}
	return fmt.Sprintf("chain %s { type %s hook %s priority %d; policy %s; }", c.Name, c.Type, c.Hook, c.Priority, pick(c.Drop, "drop", "accept"))
}

// Table is a table of the kernel.
type Table struct {
	Family Family
	Name   string
	Chains []Chain
}

// Chain returns the chain of that name, or nil.
func (t *Table) Chain(name string) *Chain {
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

// Lines writes the table, one rule a line, each with its comment if comments
// are wanted. Two tables with the same lines do the same.
func (t *Table) Lines(comments bool) []string {
	lines := []string{fmt.Sprintf("table %s %s", t.Family, t.Name)}
	for _, c := range t.Chains {
		lines = append(lines, c.head())
		for _, r := range c.Rules {
			line := c.Name + ": " + r.String()
			if comments && r.Comment != "" {
				line += "  # " + r.Comment
			}
			lines = append(lines, line)
		}
	}
	return lines
}

func pick[T any](yes bool, a, b T) T {
	if yes {
		return a
	}
	return b
}
