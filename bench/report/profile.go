package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Profile is where Outrigger's CPU time went under the load of one scenario.
type Profile struct {
	Scenario    string  `json:"scenario"`
	Connections int     `json:"connections"` // all concurrent streams
	Streams     int     `json:"streams_per_connection,omitempty"`
	CPUMS       float64 `json:"cpu_ms"`    // that was sampled, over all sidecars
	Parts       []Share `json:"parts"`     // by what it was spent on; they sum up to 100
	Packages    []Share `json:"packages"`  // of Outrigger's own code, the largest first
	Functions   []Share `json:"functions"` // the largest first, without what they call
}

// Share is a part of the CPU time.
type Share struct {
	Name    string  `json:"name"`
	Percent float64 `json:"percent"` // of all that was sampled
}

// Stack is one sampled stack, the innermost function first.
type Stack struct {
	Value     float64 // ms of CPU time, or bytes
	Functions []string
}

// Parts of a profile, in the order of the table's columns.
const (
	partSockets  = "reading and writing sockets"
	partPoll     = "waiting for sockets"
	partThreads  = "waking threads"
	partKernel   = "other system calls"
	partTLS      = "TLS"
	partMemory   = "allocation and GC"
	partCopy     = "copying"
	partRuntime  = "Go's scheduler and runtime"
	partOwn      = "Outrigger's code"
	partLibrary  = "other libraries"
	modulePrefix = "github.com/outrigger-mesh/outrigger/"
	topFunctions = 40
	topPackages  = 4
)

var parts = []string{partSockets, partPoll, partThreads, partKernel, partTLS, partMemory, partCopy, partRuntime, partOwn, partLibrary}

// NewProfile adds stacks up. It is nil when nothing was sampled.
func NewProfile(scenario string, connections, streams int, stacks []Stack) *Profile {
	p := &Profile{Scenario: scenario, Connections: connections, Streams: streams}
	byPart, byPackage, byFunction := make(map[string]float64), make(map[string]float64), make(map[string]float64)
	for _, s := range stacks {
		if len(s.Functions) == 0 {
			continue
		}
		p.CPUMS += s.Value
		part := partOf(s.Functions)
		byPart[part] += s.Value
		byFunction[s.Functions[0]] += s.Value
		if part == partOwn {
			byPackage[ownPackage(s.Functions)] += s.Value
		}
	}
	if p.CPUMS <= 0 {
		return nil
	}
	for _, name := range parts {
		if v := byPart[name]; v > 0 {
			p.Parts = append(p.Parts, Share{name, round(100 * v / p.CPUMS)})
		}
	}
	p.Packages = largest(byPackage, p.CPUMS, topPackages)
	p.Functions = largest(byFunction, p.CPUMS, topFunctions)
	p.CPUMS = round(p.CPUMS)
	return p
}

func largest(of map[string]float64, all float64, n int) []Share {
	list := make([]Share, 0, len(of))
	for name, v := range of {
		list = append(list, Share{name, round(100 * v / all)})
	}
	slices.SortFunc(list, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Percent, a.Percent), strings.Compare(a.Name, b.Name))
	})
	return list[:min(n, len(list))]
}

// partOf says what the innermost function of a stack was working for.
func partOf(stack []string) string {
	leaf := stack[0]
	touches := func(words ...string) bool {
		return slices.ContainsFunc(stack, func(f string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(f, w) })
		})
	}
	switch {
	case leaf == "runtime.futex" || leaf == "runtime.usleep" || leaf == "runtime.osyield" || leaf == "runtime.tgkill":
		return partThreads
	case systemCall(leaf):
		return systemCallPart(stack)
	case touches("runtime.gcBgMarkWorker", "runtime.mallocgc", "runtime.gcAssist", "runtime.bgsweep", "runtime.bgscavenge", "runtime.newobject", "runtime.makeslice", "runtime.growslice"):
		return partMemory
	case touches("crypto/"):
		return partTLS
	case leaf == "runtime.memmove":
		return partCopy
	case strings.HasPrefix(leaf, "runtime.") || strings.HasPrefix(leaf, "internal/runtime/") || strings.HasPrefix(leaf, "runtime/"):
		return partRuntime
	case touches(modulePrefix):
		return partOwn
	}
	return partLibrary
}

// systemCall says whether a function is the assembly that enters the kernel,
// to which the profiler accounts the kernel's time.
func systemCall(f string) bool {
	return strings.HasPrefix(f, "internal/runtime/syscall") || strings.HasPrefix(f, "syscall.raw") || strings.HasPrefix(f, "syscall.Raw") ||
		strings.HasPrefix(f, "runtime/internal/syscall") || f == "runtime.write1" || f == "runtime.read"
}

// systemCallPart tells system calls apart by the functions around the entry to
// the kernel.
func systemCallPart(stack []string) string {
	for _, f := range stack[:min(6, len(stack))] {
		name := strings.ToLower(f[strings.LastIndexByte(f, '/')+1:])
		switch {
		case strings.Contains(name, "epollwait") || strings.Contains(name, "netpoll"):
			return partPoll
		case strings.Contains(name, "futex"):
			return partThreads
		case strings.Contains(name, "write") || strings.Contains(name, "read") || strings.Contains(name, "splice") || strings.Contains(name, "send") || strings.Contains(name, "recv"):
			return partSockets
		}
	}
	return partKernel
}

// ownPackage is Outrigger's package that a stack is in, by the innermost of
// its functions.
func ownPackage(stack []string) string {
	for _, f := range stack {
		if rest, ok := strings.CutPrefix(f, modulePrefix); ok {
			slash := strings.LastIndexByte(rest, '/') + 1
			name, _, _ := strings.Cut(rest[slash:], ".")
			return rest[:slash] + name
		}
	}
	return "?"
}

// Text is the profile as a list of functions for a file of its own.
func (p *Profile) Text() []byte {
	var b strings.Builder
	row := Row{Scenario: p.Scenario, Connections: p.Connections, Streams: p.Streams}
	fmt.Fprintf(&b, "%s, %s: %.0f ms of Outrigger's CPU time sampled\n\n", title(p.Scenario), row.label(), p.CPUMS)
	for _, list := range [][]Share{p.Parts, p.Packages, p.Functions} {
		for _, s := range list {
			fmt.Fprintf(&b, "%6.2f %%  %s\n", s.Percent, s.Name)
		}
		b.WriteString("\n")
	}
	return []byte(b.String())
}

// profileTable writes where the time goes: a line for each scenario.
func (r *Report) profileTable(b *strings.Builder) {
	if len(r.Profiles) == 0 {
		return
	}
	b.WriteString("\n### Where the time goes\n\nOutrigger's CPU time under the load of a scenario, sampled by its own profiler (`admin.pprof`) in a slice that is not measured, both sidecars " +
		"together in the mesh. In percent; kernel time is accounted to the system call. The functions of each are in [bench/results/profiles](../bench/results/profiles).\n\n| scenario |")
	var used []string
	for _, name := range parts {
		if slices.ContainsFunc(r.Profiles, func(p Profile) bool { return p.share(name) > 0 }) {
			used = append(used, name)
			fmt.Fprintf(b, " %s |", name)
		}
	}
	b.WriteString(" the most of Outrigger's code |\n|---|" + strings.Repeat("--:|", len(used)) + "---|\n")
	for _, p := range r.Profiles {
		row := Row{Scenario: p.Scenario, Connections: p.Connections, Streams: p.Streams}
		fmt.Fprintf(b, "| %s, %s |", title(p.Scenario), row.label())
		for _, name := range used {
			fmt.Fprintf(b, " %.0f |", p.share(name))
		}
		var own []string
		for _, s := range p.Packages {
			if s.Percent >= 0.5 {
				own = append(own, fmt.Sprintf("%s %.0f", s.Name, s.Percent))
			}
		}
		fmt.Fprintf(b, " %s |\n", strings.Join(own, ", "))
	}
}

func (p *Profile) share(name string) float64 {
	for _, s := range p.Parts {
		if s.Name == name {
			return s.Percent
		}
	}
	return 0
}
