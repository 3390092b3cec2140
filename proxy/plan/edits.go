package plan

import (
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// Edits are changes to the fields of a head. The zero value changes nothing.
type Edits struct {
	ids   []http1.FieldID // of fields that are removed
	names []string        // the same for those without an ID, in lower case
	lines []byte          // field lines that are added
}

// FieldLine is a field that Edits add.
type FieldLine struct{ Name, Value string }

// NewEdits returns the edits that remove the fields named in remove and set,
// and add lines for set and add. Names and values have been checked.
func NewEdits(set, add []FieldLine, remove []string) Edits {
	var e Edits
	for _, name := range remove {
		e.remove(name)
	}
	for _, f := range set {
		e.remove(f.Name)
		e.add(f)
	}
	for _, f := range add {
		e.add(f)
	}
	return e
}

// And returns the edits e with next after them.
func (e Edits) And(next Edits) Edits {
	e.ids = append(slices.Clone(e.ids), next.ids...)
	e.names = append(slices.Clone(e.names), next.names...)
	var lines []byte
	for line := range strings.Lines(string(e.lines)) {
		name, _, _ := strings.Cut(line, ":")
		id := http1.FieldOf(name)
		if id != http1.Other && slices.Contains(next.ids, id) || slices.Contains(next.names, strings.ToLower(name)) {
			continue
		}
		lines = append(lines, line...)
	}
	e.lines = append(lines, next.lines...)
	return e
}

func (e *Edits) remove(name string) {
	if id := http1.FieldOf(name); id != http1.Other {
		e.ids = append(e.ids, id)
	} else {
		e.names = append(e.names, strings.ToLower(name))
	}
}

func (e *Edits) add(f FieldLine) {
	e.lines = append(e.lines, f.Name...)
	e.lines = append(e.lines, ": "...)
	e.lines = append(e.lines, f.Value...)
	e.lines = append(e.lines, "\r\n"...)
}

// Drop keeps the fields that are removed out of the head, which was parsed from
// raw.
func (e *Edits) Drop(h *http1.Head, raw []byte) {
	for _, id := range e.ids {
		h.Drop(id)
	}
	for _, name := range e.names {
		h.DropNamed(raw, name)
	}
}

// Append appends the lines that are added.
func (e *Edits) Append(dst []byte) []byte { return append(dst, e.lines...) }

// Size is how many bytes Append appends.
func (e *Edits) Size() int { return len(e.lines) }

// text says what is changed, for people: "-name" is removed, "+name" added.
func (e *Edits) text() string {
	var words []string
	for _, id := range e.ids {
		words = append(words, "-"+id.String())
	}
	for _, name := range e.names {
		words = append(words, "-"+name)
	}
	for line := range strings.Lines(string(e.lines)) {
		name, _, _ := strings.Cut(line, ":")
		words = append(words, "+"+name) // its value may be a secret
	}
	return strings.Join(words, " ")
}
