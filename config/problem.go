package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Position is a place in a configuration file. Lines and columns count from 1;
// both are 0 for what is not in a file, and File says in words where it came from.
type Position struct {
	File   string
	Line   int
	Column int
}

// String returns "FILE:LINE:COL", or the words.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one mistake in a configuration.
type Problem struct {
	Position
	// Path is the place in the configuration, such as
	// "outbound.upstreams[0].listen"; empty when the file as a whole is meant.
	Path string
	// Message says what is wrong and how to put it right.
	Message string
}

// Error returns "FILE:LINE:COL: path: message".
func (p Problem) Error() string {
	if p.Path == "" {
		return p.Position.String() + ": " + p.Message
	}
	return p.Position.String() + ": " + p.Path + ": " + p.Message
}

// Problems are all mistakes of one configuration, in the order of the file.
type Problems []Problem

// Error returns one line a problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted returns the problems in the order of the file, each once.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(ps)
}
