package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// own is the subject that goals are set for.
const own = "outrigger"

// Goal is one figure that Outrigger is to reach, as this run has it.
type Goal struct {
	Scenario    string `json:"scenario"`
	Connections int    `json:"connections"` // all concurrent streams
	Streams     int    `json:"streams_per_connection,omitempty"`
	Figure      string `json:"figure"` // cpu_ratio, mb_per_second_ratio, kb_per_connection, p99_us or p999_us
	// Peer is whom the figure is compared with: empty for a figure that stands
	// alone, and for the quantiles the peer with the lowest one.
	Peer string `json:"peer,omitempty"`
	// Limit is the most that Measured may be, and for the throughput the least.
	Limit    float64 `json:"goal"`
	Measured float64 `json:"measured"`
	// Best is the ratio of the best slices; 0 where there is none.
	Best    float64 `json:"measured_best,omitempty"`
	Reached bool    `json:"reached"`
}

// Names of the figures that goals are set for.
const (
	cpuRatio  = "cpu_ratio"
	flowRatio = "mb_per_second_ratio"
	kBytes    = "kb_per_connection"
	p99       = "p99_us"
	p999      = "p999_us"
)

// target is one line of the list of goals: a figure against some peers.
type target struct {
	scenario    string
	connections []int // of all concurrent streams; nil is whatever was measured
	figure      string
	limit       float64
	peers       []string
}

var targets = []target{
	{H1Plain, []int{64}, cpuRatio, 0.6, []string{"haproxy", "nginx"}},
	{H1Plain, []int{64}, cpuRatio, 0.4, []string{"envoy"}},
	{MeshHop, []int{16, 64}, cpuRatio, 0.4, []string{"haproxy", "nginx", "envoy", "envoy-h2"}},
	{MeshHop, []int{16, 64}, cpuRatio, 0.6, []string{"haproxy-h2"}},
	{GRPCUnary, []int{64}, cpuRatio, 0.6, []string{"nghttpx", "haproxy", "envoy"}},
	{GRPCUnary, []int{1}, cpuRatio, 1, []string{"nghttpx", "haproxy", "envoy"}},
	{TCP, nil, flowRatio, 1, []string{"haproxy"}},
	{TCP, nil, cpuRatio, 1, []string{"haproxy"}},
	{Idle, nil, kBytes, 4, nil},
	{IdleH2, nil, kBytes, 4, nil},
	{Guards + "h1", nil, cpuRatio, 1.1, []string{Bare}},
	{Guards + "grpc", nil, cpuRatio, 1.1, []string{Bare}},
	{Latency, nil, p99, 0, nil},
	{Latency, nil, p999, 0, nil},
}

// Results are the goals that the run has figures for, in the order of the list.
func (r *Report) Results() []Goal {
	var goals []Goal
	for _, t := range targets {
		for _, row := range r.Rows {
			if row.Scenario == t.scenario && row.Subject == own && (t.connections == nil || slices.Contains(t.connections, row.Connections)) {
				goals = append(goals, r.against(t, row)...)
			}
		}
	}
	return goals
}

// against compares one row with what a target asks of it.
func (r *Report) against(t target, mine Row) []Goal {
	base := Goal{Scenario: mine.Scenario, Connections: mine.Connections, Streams: mine.Streams, Figure: t.figure, Limit: t.limit}
	switch t.figure {
	case kBytes:
		if mine.KBPerConnection == nil {
			return nil
		}
		base.Measured, base.Reached = *mine.KBPerConnection, *mine.KBPerConnection <= t.limit
		return []Goal{base}
	case p99, p999:
		of := func(row Row) float64 { return row.P99 }
		if t.figure == p999 {
			of = func(row Row) float64 { return row.P999 }
		}
		for _, row := range r.Rows {
			other := row.Scenario == mine.Scenario && row.Connections == mine.Connections && row.Subject != own && row.Subject != directName
			if other && of(row) > 0 && (base.Peer == "" || of(row) < base.Limit) {
				base.Peer, base.Limit = row.Subject, of(row)
			}
		}
		if base.Peer == "" || of(mine) == 0 {
			return nil
		}
		base.Measured, base.Reached = of(mine), of(mine) < base.Limit
		return []Goal{base}
	}
	var goals []Goal
	for _, peer := range t.peers {
		i := slices.IndexFunc(r.Rows, func(row Row) bool {
			return row.Scenario == mine.Scenario && row.Connections == mine.Connections && row.Subject == peer
		})
		if i < 0 {
			continue
		}
		g, other := base, r.Rows[i]
		g.Peer = peer
		switch {
		case t.figure == flowRatio && other.MBPerSec > 0:
			g.Measured = round(mine.MBPerSec / other.MBPerSec)
			g.Reached = g.Measured >= t.limit
		case t.figure == cpuRatio && mine.figure() > 0 && other.figure() > 0:
			g.Measured = round(mine.figure() / other.figure())
			g.Reached = g.Measured <= t.limit
			if other.CPUMin > 0 {
				g.Best = round(mine.CPUMin / other.CPUMin)
			}
		default:
			continue
		}
		goals = append(goals, g)
	}
	return goals
}

// directName is the row of the connection without a proxy.
const directName = "direct"

// what says what a goal is about.
func (g *Goal) what() string {
	row := Row{Scenario: g.Scenario, Connections: g.Connections, Streams: g.Streams}
	where := title(g.Scenario)
	switch g.Scenario {
	case Idle, IdleH2, Latency:
	case Guards + "h1", Guards + "grpc":
		where += ", " + row.label()
	case GRPCUnary:
		where += ", " + row.label() + " streams"
	default:
		where += ", " + strings.TrimSuffix(row.label()+" connections", map[bool]string{true: "s"}[row.label() == "1"])
	}
	switch g.Figure {
	case cpuRatio:
		return where + ": CPU to " + peerName(g.Peer)
	case flowRatio:
		return where + ": MB/s to " + peerName(g.Peer)
	case kBytes:
		return where + ": kB of a connection"
	case p99:
		return where + ": p99 in µs, below every peer's"
	default:
		return where + ": p99.9 in µs, below every peer's"
	}
}

// bound is the cell with what is asked for, value the one with what was measured.
func (g *Goal) bound() string {
	switch g.Figure {
	case flowRatio:
		return "≥ " + number(g.Limit)
	case p99, p999:
		return fmt.Sprintf("< %s (%s)", number(g.Limit), g.Peer)
	}
	return "≤ " + number(g.Limit)
}

func (g *Goal) value() string {
	if g.Best > 0 {
		return fmt.Sprintf("%s (%s)", number(g.Measured), number(g.Best))
	}
	return number(g.Measured)
}

// goalTable writes the goals with what was measured and, for those that are
// not reached, where the time went.
func (r *Report) goalTable(b *strings.Builder) {
	goals := r.Results()
	if len(goals) == 0 {
		return
	}
	reached := 0
	for _, g := range goals {
		if g.Reached {
			reached++
		}
	}
	fmt.Fprintf(b, "\n### Goals\n\n%d of %d reached. Ratios are of medians and, in brackets, of best slices; a goal is reached by its median. "+
		"What limits a figure is where Outrigger's time went under that load, by its profile: see [Where the time goes](#where-the-time-goes).\n\n", reached, len(goals))
	b.WriteString("| figure | goal | measured | reached | what limits it |\n|---|--:|--:|---|---|\n")
	for _, g := range goals {
		verdict, limits := "yes", ""
		if !g.Reached {
			verdict, limits = "**no**", r.limits(&g)
			if g.Best > 0 && g.Best <= g.Limit {
				verdict = "by best slices only"
			}
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", g.what(), g.bound(), g.value(), verdict, limits)
	}
}

// limits names the largest parts of the time in the profile of a scenario.
func (r *Report) limits(g *Goal) string {
	if g.Figure == kBytes {
		i := slices.IndexFunc(r.Memory, func(m Memory) bool { return m.Scenario == g.Scenario })
		if i < 0 {
			return "no profile in this run"
		}
		return r.Memory[i].summary()
	}
	i := slices.IndexFunc(r.Profiles, func(p Profile) bool { return p.Scenario == g.Scenario })
	if i < 0 {
		return "no profile in this run"
	}
	parts := slices.Clone(r.Profiles[i].Parts)
	slices.SortStableFunc(parts, func(a, b Share) int { return cmp.Compare(b.Percent, a.Percent) })
	var list []string
	for _, p := range parts[:min(3, len(parts))] {
		list = append(list, fmt.Sprintf("%s %.0f %%", p.Name, p.Percent))
	}
	return strings.Join(list, ", ")
}
