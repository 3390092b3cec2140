// Package lint says of the configurations of a mesh, each valid by itself, where they will hurt each other or do nothing.
package lint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/outrigger-mesh/outrigger/config"
)

// Severity is how bad a finding is.
type Severity uint8

// The severities.
const (
	// Note: worth knowing; it may be meant so.
	Note Severity = iota
	// Warning: it will hurt under load or in a failure.
	Warning
	// Error: it cannot work as written.
	Error
)

var severities = [...]string{"note", "warning", "error"}

// String returns the word of the command line.
func (s Severity) String() string { return severities[s] }

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseSeverity reads the word of the command line.
func ParseSeverity(word string) (Severity, error) {
	if i := slices.Index(severities[:], word); i >= 0 {
		return Severity(i), nil
	}
	return 0, fmt.Errorf("%q is no severity; use note, warning or error", word)
}

// Finding is one thing that will hurt, with what to do about it.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Column   int      `json:"column"`
	Path     string   `json:"path"` // in the configuration
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"`
	Message  string   `json:"message"`
	Remedy   string   `json:"remedy"`
}

// String is a finding in a line, as compilers write them.
func (f *Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s [%s]; %s", f.File, f.Line, f.Column, f.Severity, f.Message, f.Rule, f.Remedy)
}

// Mesh is what is looked at together.
type Mesh struct {
	Configs []*config.Loaded
	// Instances is how many a service has, as catalogs or the command line say;
	// what depends on it is not said of services that are not in it.
	Instances map[string]int
}

// checker collects findings.
type checker struct {
	Mesh
	byService map[string][]*config.Loaded
	findings  []Finding
}

// Run returns all findings, in the order of files and places.
func Run(m Mesh) []Finding {
	c := &checker{Mesh: m, byService: map[string][]*config.Loaded{}}
	for _, l := range m.Configs {
		name := l.Config.Service.Name
		c.byService[name] = append(c.byService[name], l)
	}
	for _, l := range m.Configs {
		edges := edgesOf(l)
		for i := range edges {
			c.attempts(&edges[i])
			c.repeats(&edges[i])
			c.inverted(&edges[i])
			c.late(&edges[i])
			c.admitted(&edges[i])
		}
		for _, name := range l.Config.Services() {
			c.ejection(l, name)
			c.idle(l, name)
		}
		c.amplified(l)
	}
	c.capacities()
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(c.findings)
}

// say adds a finding at the place of path in l.
func (c *checker) say(l *config.Loaded, path, rule string, s Severity, remedy, format string, args ...any) {
	p := l.Problem(path, "")
	c.findings = append(c.findings, Finding{
		File: p.File, Line: p.Line, Column: p.Column, Path: path, Severity: s, Rule: rule, Message: fmt.Sprintf(format, args...), Remedy: remedy,
	})
}
