package report

import (
	"fmt"
	"slices"
	"strings"
)

// columns are the subjects in the order of the table; others follow.
var columns = []string{own, "haproxy", "haproxy-h2", "nginx", "envoy", "envoy-h2", "nghttpx", "caddy", "traefik", "reverseproxy"}

// glance writes the one table with everything: a line for each scenario and
// level, a column for each subject.
func (r *Report) glance(b *strings.Builder) {
	type line struct{ scenario, label string }
	var lines []line
	var subjects []string
	for _, t := range tables {
		if t.scenario == Guards { // compares Outrigger with itself
			continue
		}
		for _, row := range r.rowsOf(t.scenario) {
			if l := (line{row.Scenario, row.label()}); !slices.Contains(lines, l) {
				lines = append(lines, l)
			}
			if row.Subject != directName && !slices.Contains(subjects, row.Subject) {
				subjects = append(subjects, row.Subject)
			}
		}
	}
	if len(lines) == 0 {
		return
	}
	place := func(subject string) int {
		if i := slices.Index(columns, subject); i >= 0 {
			return i
		}
		return len(columns)
	}
	slices.SortStableFunc(subjects, func(a, b string) int { return place(a) - place(b) })
	b.WriteString("\n### At a glance\n\nMedians: CPU time in µs per request, message, MB or handshake, kB per idle connection, and the latency at a fixed rate in µs. " +
		"Less is better; the least of each line is bold, and so is what lies within 3 % of it. – is not offered or not measured, see below each table.\n\n| |")
	for _, s := range subjects {
		fmt.Fprintf(b, " %s |", s)
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(subjects)) + "\n")
	write := func(name string, l line, of func(Row) float64) {
		values := make([]float64, len(subjects))
		least := 0.0
		for _, row := range r.Rows {
			i := slices.Index(subjects, row.Subject)
			if i < 0 || row.Scenario != l.scenario || row.label() != l.label {
				continue
			}
			if values[i] = of(row); values[i] > 0 && (least == 0 || values[i] < least) {
				least = values[i]
			}
		}
		fmt.Fprintf(b, "| %s |", name)
		for _, v := range values {
			if v > 0 && v <= 1.03*least {
				fmt.Fprintf(b, " **%s** |", number(v))
			} else {
				fmt.Fprintf(b, " %s |", cell(v))
			}
		}
		b.WriteString("\n")
	}
	for _, l := range lines {
		switch name := title(l.scenario); l.scenario {
		case Latency:
			write(name+", p99", l, func(row Row) float64 { return row.P99 })
			write(name+", p99.9", l, func(row Row) float64 { return row.P999 })
		case Idle, IdleH2, Handshake:
			write(name, l, func(row Row) float64 { return row.figure() })
		default:
			write(name+", "+l.label, l, func(row Row) float64 { return row.figure() })
		}
	}
}

// title is what the page calls a scenario.
func title(scenario string) string {
	for _, t := range tables {
		if within(scenario, t.scenario) {
			return t.title
		}
	}
	return scenario
}

// within says whether a scenario is the one of a table, or of its family.
func within(scenario, of string) bool {
	return scenario == of || strings.HasSuffix(of, "-") && strings.HasPrefix(scenario, of)
}

func peerName(subject string) string {
	for _, p := range peerNames {
		if p.subject == subject {
			return p.name
		}
	}
	return subject
}
