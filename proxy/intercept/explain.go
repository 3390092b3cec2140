package intercept

import (
	"fmt"
	"net/netip"
	"strings"
)

// Question is a packet that somebody wants to know the fate of.
type Question struct {
	In       bool
	Proto    string
	From     netip.Addr // unspecified: one of this machine, or a caller
	To       netip.AddrPort
	UID, GID uint32
	Cgroup   string
}

// Answer is what becomes of the packet, in words and with the rules it met.
type Answer struct {
	Packet   string   `json:"packet"`
	Verdict  string   `json:"verdict"`
	Trace    Trace    `json:"trace"`
	Notes    []string `json:"notes,omitempty"`
	Prevents bool     `json:"-"` // the packet does not arrive anywhere
}

// Explain walks the packet through our tables as the kernel has them.
func (h *Host) Explain(name string, q Question) (Answer, error) {
	all, err := h.k.all()
	if err != nil {
		return Answer{}, h.explain(err)
	}
	tables, _ := find(all, name)
	p := Packet{In: q.In, Proto: q.Proto, Dst: q.To, UID: q.UID, GID: q.GID}
	if p.Proto != "tcp" && p.Proto != "udp" {
		return Answer{}, fmt.Errorf("protocol %q: give tcp or udp", q.Proto)
	}
	if p.Local, err = h.ns.Local(); err != nil {
		return Answer{}, err
	}
	if p.Listens, err = h.ns.Listeners(); err != nil {
		return Answer{}, err
	}
	if q.Cgroup != "" {
		if p.Groups, err = groupLine(q.Cgroup); err != nil {
			return Answer{}, err
		}
	}
	from := q.From
	if !from.IsValid() || from.IsUnspecified() {
		from = netip.IPv6Unspecified()
		if q.To.Addr().Is4() {
			from = netip.IPv4Unspecified()
		}
		if !q.In {
			from = loopback(q.To.Addr()) // an address of this machine
		}
	}
	p.Src = netip.AddrPortFrom(from, 0)
	a := Answer{Packet: describe(q), Trace: Walk(tables, p)}
	a.Verdict, a.Prevents = a.Trace.words(p, len(tables) > 0)
	for _, b := range beside(all, name) {
		a.Notes = append(a.Notes, "not taken into account: "+b)
	}
	return a, nil
}

func describe(q Question) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %s, ", q.Proto, q.To)
	if q.In {
		b.WriteString("from outside")
		if q.From.IsValid() {
			fmt.Fprintf(&b, " (%s)", q.From)
		}
		return b.String()
	}
	fmt.Fprintf(&b, "sent here by user %d, group %d", q.UID, q.GID)
	if q.Cgroup != "" {
		b.WriteString(", control group " + q.Cgroup)
	}
	return b.String()
}

// words says what the trace comes to, and whether the packet is lost.
func (t Trace) words(p Packet, there bool) (string, bool) {
	because := ""
	if t.By >= 0 {
		s := t.Steps[t.By]
		because = fmt.Sprintf(" by rule %d of chain %s", s.Number, s.Chain)
		if s.Comment != "" {
			because += ": " + s.Comment
		}
	}
	switch t.Fate {
	case Redirected:
		if p.Proto == "tcp" && p.Local(t.To.Addr()) && p.Listens != nil && !p.Listens(t.To) {
			return fmt.Sprintf("goes to %s%s, where nobody listens: it is refused", t.To, because), true
		}
		return fmt.Sprintf("goes to %s%s", t.To, because), false
	case Given:
		return fmt.Sprintf("is given to the proxy's socket on port %d as it is%s", t.To.Port(), because), false
	case Dropped:
		return "is dropped" + because, true
	case Refused:
		return "is refused with a reset" + because, true
	case Unclear:
		return "cannot be told" + because + " (somebody else has written it)", true
	}
	switch {
	case !there:
		return "goes its way: there are no rules in this network namespace", false
	case t.By < 0:
		return "goes its way: no rule is for it", false
	}
	return "goes its way" + because, false
}

func anyPort(p uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), p) }
