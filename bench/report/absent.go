package report

import (
	"fmt"
	"slices"
	"strings"
)

// Leave tells that a subject has no row in a scenario, once.
func (r *Report) Leave(scenario, subject, reason string) {
	a := Absence{scenario, subject, reason}
	if !slices.Contains(r.Absent, a) {
		r.Absent = append(r.Absent, a)
	}
}

// absent writes who is missing from a table, and why. Those with the same
// reason share a line.
func (r *Report) absent(b *strings.Builder, scenario string) {
	type group struct {
		reason   string
		subjects []string
	}
	var groups []group
	for _, a := range r.Absent {
		if !within(a.Scenario, scenario) {
			continue
		}
		reason := a.Reason
		if a.Scenario != scenario { // one of a family
			reason = a.Scenario + ": " + reason
		}
		i := slices.IndexFunc(groups, func(g group) bool { return g.reason == reason })
		if i < 0 {
			i = len(groups)
			groups = append(groups, group{reason: reason})
		}
		groups[i].subjects = append(groups[i].subjects, a.Subject)
	}
	if len(groups) == 0 {
		return
	}
	b.WriteString("\nNot in the table:\n\n")
	for _, g := range groups {
		fmt.Fprintf(b, "- %s: %s\n", strings.Join(g.subjects, ", "), strings.ReplaceAll(g.reason, "|", "\\|"))
	}
}
