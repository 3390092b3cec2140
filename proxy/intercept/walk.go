package intercept

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Packet is the first packet of a connection (or a query by UDP), and what is
// known of where it comes from.
type Packet struct {
	// In says that it comes from outside; else a process here sends it.
	In       bool
	Proto    string // tcp or udp
	Src, Dst netip.AddrPort
	// UID and GID are those of the process that sends it.
	UID, GID uint32
	// Groups are the ids of the sender's control group and of those above it,
	// by depth; the root is the first.
	Groups []uint64
	// Local tells whether an address is one of this machine.
	Local func(netip.Addr) bool
	// Listens tells whether somebody listens on a port, of TCP.
	Listens func(netip.AddrPort) bool

	mark, connMark uint32
	natted         bool
}

// Step is one rule that a packet came to.
type Step struct {
	Table string `json:"table"` // family and name
	Chain string `json:"chain"`
	// Number is the rule's place in its chain, from 1; 0 is the chain's end.
	Number  int    `json:"number"`
	Rule    string `json:"rule"`
	Comment string `json:"comment,omitempty"`
	Met     bool   `json:"met"`
	// Why says which condition is not met.
	Why string `json:"why,omitempty"`
}

// Fate is what becomes of a packet.
type Fate string

// The fates.
const (
	Passes     Fate = "passes"     // goes its way as if there were no rules
	Redirected Fate = "redirected" // goes to To; the original destination is kept
	Given      Fate = "given"      // goes to the socket on port To as it is (tproxy)
	Dropped    Fate = "dropped"
	Refused    Fate = "refused" // answered with a reset
	Unclear    Fate = "unclear" // a rule that is not understood decides
)

// Trace is the way of a packet through tables.
type Trace struct {
	Steps []Step `json:"steps"`
	Fate  Fate   `json:"fate"`
	// To is where it goes; the address is unspecified where a port alone counts.
	To netip.AddrPort `json:"to,omitzero"`
	// By is the step that decided, or -1.
	By int `json:"by"`
}

// verdict of a rule or chain.
type verdict int

const (
	goOn     verdict = iota // the next rule
	broken                  // the rule ends here: the next rule
	back                    // return from the chain
	accepted                // done with this base chain
	ended                   // done with the packet
)

// Walk says what becomes of the packet under the rules of the tables, which
// are taken to be all the rules there are.
func Walk(tables []Table, p Packet) Trace {
	w := walker{p: p, t: Trace{Fate: Passes, By: -1}}
	first := Output
	if p.In {
		first = Prerouting
	}
	if w.hook(tables, first) && (p.In || w.t.Fate == Redirected || w.p.Local(w.p.Dst.Addr())) {
		w.hook(tables, Input)
	}
	return w.t
}

type walker struct {
	p Packet
	t Trace
	// depth bounds jumps, as the kernel does.
	depth int
}

// hook runs all base chains of a hook and reports whether the packet lives.
func (w *walker) hook(tables []Table, h Hook) bool {
	type entry struct {
		t *Table
		c *Chain
	}
	var list []entry
	for i := range tables {
		t := &tables[i]
		if !t.Family.carries(w.p.Dst.Addr()) {
			continue
		}
		for j := range t.Chains {
			if t.Chains[j].Hook == h {
				list = append(list, entry{t, &t.Chains[j]})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(a.c.Priority, b.c.Priority) })
	for _, e := range list {
		if e.c.Type == "nat" && w.p.natted {
			continue // the first that changes the destination wins
		}
		v := w.chain(e.t, e.c)
		if v == ended {
			return false
		}
		if v != accepted && e.c.Drop {
			w.end(e.t, e.c, Dropped)
			return false
		}
	}
	return true
}

func (w *walker) end(t *Table, c *Chain, f Fate) {
	w.t.Steps = append(w.t.Steps, Step{Table: string(t.Family) + " " + t.Name, Chain: c.Name, Rule: "policy drop", Met: true})
	w.t.Fate, w.t.By = f, len(w.t.Steps)-1
}

func (w *walker) chain(t *Table, c *Chain) verdict {
	if w.depth++; w.depth > 16 {
		w.t.Fate = Unclear
		return ended
	}
	defer func() { w.depth-- }()
	for i := range c.Rules {
		r := &c.Rules[i]
		s := Step{Table: string(t.Family) + " " + t.Name, Chain: c.Name, Number: i + 1, Rule: r.String(), Comment: r.Comment}
		s.Why = w.unmet(r)
		s.Met = s.Why == ""
		w.t.Steps = append(w.t.Steps, s)
		if !s.Met {
			continue
		}
		at := len(w.t.Steps) - 1
		if r.Unknown != "" {
			w.t.Fate, w.t.By = Unclear, at
			return ended
		}
		for _, a := range r.Do {
			v := w.act(t, a, at)
			if v == back {
				return goOn
			}
			if v == broken {
				break
			}
			if v != goOn {
				return v
			}
		}
	}
	return goOn
}

func (w *walker) act(t *Table, a Action, at int) verdict {
	fate := func(f Fate, to netip.AddrPort) {
		w.t.Fate, w.t.To, w.t.By = f, to, at
	}
	switch a.Verb {
	case Return:
		if w.t.Fate == Passes {
			w.t.By = at
		}
		return back
	case Accept:
		return accepted
	case Drop:
		fate(Dropped, netip.AddrPort{})
		return ended
	case Reset:
		fate(Refused, netip.AddrPort{})
		return ended
	case Jump, Goto:
		c := t.Chain(a.Chain)
		if c == nil { // cannot be in a kernel
			w.t.Fate, w.t.By = Unclear, at
			return ended
		}
		v := w.chain(t, c)
		if v == goOn && a.Verb == Goto {
			return back
		}
		return v
	case RedirectTo:
		to := netip.AddrPortFrom(w.p.Dst.Addr(), a.Port)
		if !w.p.In {
			to = netip.AddrPortFrom(loopback(w.p.Dst.Addr()), a.Port)
		}
		w.p.Dst, w.p.natted = to, true
		fate(Redirected, to)
		return accepted
	case DNATTo:
		w.p.Dst, w.p.natted = a.To, true
		fate(Redirected, a.To)
		return accepted
	case TProxyTo:
		to := netip.AddrPortFrom(unspecified(w.p.Dst.Addr()), a.Port)
		if w.p.Listens != nil && !w.p.Listens(to) {
			w.t.Steps[at].Why = fmt.Sprintf("nobody listens on port %d", a.Port)
			return broken
		}
		fate(Given, to)
	case SetMark:
		w.p.mark = a.Mark
	case SetCtMark:
		w.p.connMark = a.Mark
	}
	return goOn
}

// unmet returns the first condition of the rule that the packet does not meet,
// and what the packet has instead.
func (w *walker) unmet(r *Rule) string {
	p := &w.p
	for _, m := range r.Match {
		ok, has := true, ""
		within := func(n uint64) {
			ok, has = m.Lo <= n && n <= m.Hi, fmt.Sprint(n)
		}
		switch m.Field {
		case NFProto:
			within(pick[uint64](p.Dst.Addr().Is4(), nfIPv4, nfIPv6))
			has = pick(p.Dst.Addr().Is4(), "ipv4", "ipv6")
		case L4Proto:
			within(pick[uint64](p.Proto == "udp", protoUDP, protoTCP))
			has = p.Proto
		case Source:
			ok, has = m.Prefix.Contains(p.Src.Addr()), p.Src.Addr().String()
		case Dest:
			ok, has = m.Prefix.Contains(p.Dst.Addr()), p.Dst.Addr().String()
		case DestPort:
			within(uint64(p.Dst.Port()))
		case UID, GID:
			if p.In {
				return m.String() + ": nobody here sends it"
			}
			within(uint64(pick(m.Field == UID, p.UID, p.GID)))
		case Cgroup:
			if p.In {
				return m.String() + ": nobody here sends it"
			}
			var id uint64
			if int(m.Level) < len(p.Groups) {
				id = p.Groups[m.Level]
			}
			within(id)
		case InInterface:
			ok, has = (m.Name == "lo") != p.In, pick(p.In, "another", "lo")
		case CtDirection:
			within(0)
			has = "original"
		case CtState:
			ok, has = m.Lo&stateNew != 0, "new"
		case CtStatus:
			status := pick[uint64](w.p.natted, statusDNAT, 0)
			ok, has = m.Lo&status != 0, pick(w.p.natted, "dnat", "not dnat")
		case CtMark:
			within(uint64(p.connMark))
		case LocalDest:
			ok = p.Local(p.Dst.Addr())
			has = p.Dst.Addr().String() + pick(ok, " is an address of this machine", " is no address of this machine")
		case LocalSource:
			ok = p.Local(p.Src.Addr())
			has = p.Src.Addr().String() + pick(ok, " is an address of this machine", " is no address of this machine")
		case Listener:
			ok = p.Listens == nil || p.Listens(p.Dst)
			has = pick(ok, "somebody", "nobody") + " listens on " + p.Dst.String()
		default:
			return m.String() + ": not understood"
		}
		if ok == m.Not {
			return m.String() + ": " + has
		}
	}
	return ""
}

func loopback(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
