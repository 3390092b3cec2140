package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Memory is what Outrigger's memory for idle connections consists of.
type Memory struct {
	Scenario    string   `json:"scenario"`
	Connections int      `json:"connections"`
	Parts       []Amount `json:"parts"`     // by Go's own accounting; about what the operating system sees
	Functions   []Amount `json:"functions"` // that allocated what is live, the largest first, sampled
}

// Amount is a part of the memory of one connection.
type Amount struct {
	Name string  `json:"name"`
	KB   float64 `json:"kb_per_connection"` // kB of 1024 bytes
}

// Heap is Go's accounting at one moment, in bytes (runtime.MemStats).
type Heap struct {
	Stacks  uint64 // of goroutines
	Objects uint64 // live ones and those not collected yet
	Free    uint64 // heap that is neither used nor given back
	Runtime uint64 // the runtime's own
}

// NewMemory compares two moments between which connections came, and adds up
// what the second one's live objects were allocated for, in bytes.
func NewMemory(scenario string, connections int, before, after Heap, live []Stack) Memory {
	m := Memory{Scenario: scenario, Connections: connections}
	each := func(bytes float64) float64 { return round(bytes / 1024 / float64(connections)) }
	for _, part := range []struct {
		name          string
		before, after uint64
	}{
		{"goroutine stacks", before.Stacks, after.Stacks},
		{"objects, garbage among them", before.Objects, after.Objects},
		{"heap not given back", before.Free, after.Free},
		{"the runtime's own", before.Runtime, after.Runtime},
	} {
		m.Parts = append(m.Parts, Amount{part.name, each(float64(part.after) - float64(part.before))})
	}
	by := make(map[string]float64)
	for _, s := range live {
		if len(s.Functions) > 0 {
			by[s.Functions[0]] += s.Value
		}
	}
	for name, bytes := range by {
		if kb := each(bytes); kb > 0 {
			m.Functions = append(m.Functions, Amount{name, kb})
		}
	}
	slices.SortFunc(m.Functions, func(a, b Amount) int { return cmp.Or(cmp.Compare(b.KB, a.KB), strings.Compare(a.Name, b.Name)) })
	m.Functions = m.Functions[:min(topFunctions, len(m.Functions))]
	return m
}

// Text is the profile as a list for a file of its own.
func (m *Memory) Text() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d: kB for each\n\n", title(m.Scenario), m.Connections)
	for _, list := range [][]Amount{m.Parts, m.Functions} {
		for _, a := range list {
			fmt.Fprintf(&b, "%8.2f  %s\n", a.KB, a.Name)
		}
		b.WriteString("\n")
	}
	return []byte(b.String())
}

// summary names the parts, the largest first.
func (m *Memory) summary() string {
	parts := slices.Clone(m.Parts)
	slices.SortStableFunc(parts, func(a, b Amount) int { return cmp.Compare(b.KB, a.KB) })
	var list []string
	for _, p := range parts[:min(3, len(parts))] {
		list = append(list, fmt.Sprintf("%s %s kB", p.Name, number(p.KB)))
	}
	return strings.Join(list, ", ")
}

// memoryTable writes where the memory of idle connections goes.
func (r *Report) memoryTable(b *strings.Builder) {
	if len(r.Memory) == 0 {
		return
	}
	b.WriteString("\n### Where the memory goes\n\nWhat Outrigger's memory for an idle connection consists of, in kB, by Go's own accounting, and what allocated the most of the live objects.\n\n| |")
	for _, p := range r.Memory[0].Parts {
		fmt.Fprintf(b, " %s |", p.Name)
	}
	b.WriteString(" the largest allocations |\n|---|" + strings.Repeat("--:|", len(r.Memory[0].Parts)) + "---|\n")
	for _, m := range r.Memory {
		fmt.Fprintf(b, "| %s |", title(m.Scenario))
		for _, p := range m.Parts {
			fmt.Fprintf(b, " %s |", number(p.KB))
		}
		var list []string
		for _, f := range m.Functions[:min(6, len(m.Functions))] {
			list = append(list, fmt.Sprintf("`%s` %s", strings.TrimPrefix(f.Name, modulePrefix), number(f.KB)))
		}
		fmt.Fprintf(b, " %s |\n", strings.Join(list, ", "))
	}
}
