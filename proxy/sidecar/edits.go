package sidecar

import (
	"maps"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
)

// edits are changes to header fields; nil for none. What cannot be done is told
// and left out.
func (c *chain) edits(entry, field string, e *mesh.HeaderEdits) *config.HeaderEdits {
	if e == nil {
		return nil
	}
	n := &config.HeaderEdits{Set: map[string]string{}, Add: map[string]string{}}
	refuse := func(at, problem string) {
		c.find(Refused, entry, field+at, problem+"; it is left out", "")
	}
	seen := map[string]bool{}
	each := func(kind string, from, to map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(from)) {
			at := "." + kind + "[" + name + "]"
			if lower := kind + strings.ToLower(name); seen[lower] {
				refuse(at, "is there twice, in different case")
				continue
			} else {
				seen[lower] = true
			}
			value, ok := literal(from[name])
			if !ok {
				refuse(at, "has a variable of Envoy, which is not known here")
				continue
			}
			one := config.HeaderEdits{Set: map[string]string{name: value}}
			if problem := firstProblem(one); problem != "" {
				refuse(at, problem)
				continue
			}
			to[name] = value
		}
	}
	each("Set", e.Set, n.Set)
	each("Add", e.Add, n.Add)
	for _, name := range e.Remove {
		if problem := firstProblem(config.HeaderEdits{Remove: []string{name}}); problem != "" {
			refuse(".Remove["+name+"]", problem)
			continue
		}
		n.Remove = append(n.Remove, name)
	}
	return tidy(n)
}

// literal undoes Envoy's doubling of percent signs, and reports whether the value
// has no variables.
func literal(s string) (string, bool) {
	plain := strings.ReplaceAll(s, "%%", "")
	return strings.ReplaceAll(s, "%%", "%"), !strings.Contains(plain, "%")
}

type validates interface {
	Validate(add func(field, problem string))
}

// firstProblem is the first mistake in a part of the configuration; empty for none.
func firstProblem(v validates) (problem string) {
	v.Validate(func(_, p string) {
		if problem == "" {
			problem = p
		}
	})
	return problem
}

// tidy returns e without empty parts; nil where nothing is left.
func tidy(e *config.HeaderEdits) *config.HeaderEdits {
	if len(e.Set)+len(e.Add)+len(e.Remove) == 0 {
		return nil
	}
	if len(e.Set) == 0 {
		e.Set = nil
	}
	if len(e.Add) == 0 {
		e.Add = nil
	}
	return e
}

// joined returns the changes of a and, over them, those of b.
func joined(a, b *config.HeaderEdits) *config.HeaderEdits {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	n := &config.HeaderEdits{Set: maps.Clone(a.Set), Add: maps.Clone(a.Add), Remove: slices.Concat(a.Remove, b.Remove)}
	if n.Set == nil {
		n.Set = map[string]string{}
	}
	if n.Add == nil {
		n.Add = map[string]string{}
	}
	maps.Copy(n.Set, b.Set)
	maps.Copy(n.Add, b.Add)
	return tidy(n)
}
