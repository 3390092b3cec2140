package intercept

import (
	"fmt"
	"slices"
)

// State says how the rules of a namespace stand to what they should be.
type State string

// The states.
const (
	Installed State = "installed" // as they were meant
	Missing   State = "missing"   // there are none
	Changed   State = "changed"   // not as they were meant
	Foreign   State = "foreign"   // a table of our name that is not ours
)

// Counter is a rule that leads somewhere, with what has met it.
type Counter struct {
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Rule    string `json:"rule"`
	Comment string `json:"comment,omitempty"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Status is what there is in a namespace.
type Status struct {
	State State `json:"state"`
	// Config is what the rules should do; where Given is false, as the table
	// itself says.
	Config *Config `json:"config,omitempty"`
	Given  bool    `json:"given"`
	// Differences are the lines that the tables lack (-) or have too much (+),
	// and what else is not as it should be.
	Differences []string  `json:"differences,omitempty"`
	Counters    []Counter `json:"counters,omitempty"`
	// Beside are chains of other tables at the same hooks: they may have
	// decided before ours.
	Beside []string `json:"beside,omitempty"`
	// Listening says for each of the proxy's ports whether somebody listens.
	Listening map[uint16]bool `json:"listening,omitempty"`
	// Tables are ours, as read from the kernel.
	Tables []Table `json:"-"`
}

// Status reads the rules of the table's name and compares them with what is
// meant: want, or if that is nil what the table says of itself.
func (h *Host) Status(name string, want *Config) (Status, error) {
	all, err := h.k.all()
	if err != nil {
		return Status{}, h.explain(err)
	}
	s := Status{State: Missing, Given: want != nil, Config: want}
	there, ours := find(all, name)
	s.Beside = beside(all, name)
	if len(there) == 0 {
		return s, nil
	}
	s.Tables = there
	if !ours {
		s.State = Foreign
		return s, nil
	}
	s.State = Installed
	for _, t := range there {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				if c.Name != chainIntent && len(r.Do) > 0 {
					s.Counters = append(s.Counters, Counter{string(t.Family) + " " + t.Name, c.Name, r.String(), r.Comment, r.Packets, r.Bytes})
				}
			}
		}
	}
	if s.Config == nil {
		c, err := Intent(&there[0])
		if err != nil {
			s.State = Changed
			s.Differences = []string{err.Error() + "; give the options of install to compare with"}
			return s, nil
		}
		s.Config = &c
	}
	if err := h.compare(&s); err != nil {
		return Status{}, err
	}
	listens, err := h.ns.Listeners()
	if err != nil {
		return Status{}, err
	}
	s.Listening = map[uint16]bool{}
	for _, p := range []uint16{s.Config.OutboundPort, s.Config.InboundPort} {
		if p != 0 {
			s.Listening[p] = listens(anyPort(p))
		}
	}
	return s, nil
}

// compare fills in what is not as the configuration has it.
func (h *Host) compare(s *Status) error {
	c := *s.Config
	var groups []Group
	for _, path := range c.ProxyCgroups {
		g, err := FindGroup(path)
		if err != nil {
			s.Differences = append(s.Differences, err.Error())
			g.Path = path
		}
		groups = append(groups, g)
	}
	inet := slices.ContainsFunc(s.Tables, func(t Table) bool { return t.Family == Inet })
	// The kernel may lack what can be done without.
	modes := []bool{true, false}
	if slices.ContainsFunc(s.Tables, usesFib) {
		modes = modes[:1]
	}
	var least []string
	for i, fib := range modes {
		d := difference(Build(c, groups, Support{Inet: inet, Fib: fib}), s.Tables)
		if i == 0 || len(d) < len(least) {
			least = d
		}
	}
	s.Differences = append(s.Differences, least...)
	if c.Mode == TProxy {
		ok, err := h.k.routed(c.Mark)
		if err != nil {
			return h.explain(err)
		}
		if !ok {
			s.Differences = append(s.Differences, fmt.Sprintf("no routing rule delivers packets with the mark %#x on this machine", c.Mark))
		}
	}
	if len(s.Differences) > 0 {
		s.State = Changed
	}
	return nil
}

// usesFib reports whether a rule of t asks for addresses of this machine.
func usesFib(t Table) bool {
	return slices.ContainsFunc(t.Chains, func(c Chain) bool { return slices.ContainsFunc(c.Rules, uses("", LocalDest, LocalSource)) })
}

// difference returns the lines that only one of both has.
func difference(want, got []Table) []string {
	lines := func(tables []Table) (list []string) {
		for _, t := range tables {
			for _, l := range t.Lines(false)[1:] {
				list = append(list, string(t.Family)+" "+l)
			}
		}
		return list
	}
	return diff(lines(want), lines(got))
}

// diff returns the lines of a that b lacks (-) and those that b has too much
// (+), in order, by the longest common subsequence.
func diff(a, b []string) (out []string) {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	const most = 4096 // lines to compare one by one; ours are fewer
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	length := make([][]int16, len(a)+1)
	for i := range length {
		length[i] = make([]int16, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			length[i][j] = max(length[i+1][j], length[i][j+1])
			if a[i] == b[j] {
				length[i][j] = length[i+1][j+1] + 1
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && length[i+1][j] >= length[i][j+1]:
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return out
}

// beside lists the chains of others that meet the same packets before they
// leave our hands: those that do NAT, and those that could drop.
func beside(all []Table, name string) (list []string) {
	for _, t := range all {
		if t.Name == name {
			continue
		}
		for _, c := range t.Chains {
			if c.Hook == "" || c.Hook == Forward || c.Hook == Post || len(c.Rules) == 0 && !c.Drop {
				continue
			}
			when := ""
			if c.Type == "nat" {
				when = pick(c.Priority < priorityNAT, ", before ours: where it changes a destination ours do not see the connection", ", after ours")
			}
			list = append(list, fmt.Sprintf("table %s %s, %s (%d rules)%s", t.Family, t.Name, c.head(), len(c.Rules), when))
		}
	}
	return list
}
