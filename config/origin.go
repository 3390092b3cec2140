package config

import (
	"strconv"
	"strings"
)

// Origin is where a value came from.
type Origin struct {
	// Position is where the value stands, in a file or, of one that was made in
	// code, elsewhere. It is zero for a value that nothing was said of.
	Position Position
	// Via is the path that an inherited value was taken from, such as
	// "policies.*", or the value that this one follows, such as
	// "service.protocol"; else "".
	Via string
}

// String returns "default", "FILE:LINE:COL", or the same with what it came through.
func (o Origin) String() string {
	switch {
	case o.Position.File == "" && o.Via == "":
		return "default"
	case o.Position.File == "":
		return "from " + o.Via
	case o.Via == "":
		return o.Position.String()
	}
	return o.Position.String() + " (" + o.Via + ")"
}

// origins holds where the values of a configuration stand in the file, by
// path. Sections and lists are in it too, at their key.
type origins map[string]Origin

// of returns where the value at path came from; the zero Origin is the
// default. What the policy of an upstream does not say itself comes from the
// policy "*".
func (o origins) of(path string) Origin {
	if origin, ok := o[path]; ok {
		return origin
	}
	if service, rest, ok := splitPolicy(path); ok && service != AnyService && rest != "" {
		base := joinKey("policies", AnyService)
		if origin, ok := o[base+rest]; ok {
			origin.Via = base
			return origin
		}
	}
	return Origin{}
}

// nearest returns the place in the file of path, or of the innermost section
// around it that is in the file. It is the beginning of the file for a path
// none of which is there.
func (o origins) nearest(file, path string) Position {
	for {
		if origin := o.of(path); origin.Position.File != "" {
			return origin.Position
		}
		up, ok := parentPath(path)
		if !ok {
			return Position{File: file, Line: 1, Column: 1}
		}
		path = up
	}
}

// splitPolicy takes the path of a value in a policy apart: "policies.api.retry.on"
// is "api" and ".retry.on". The name is as in the path, quotes included.
func splitPolicy(path string) (service, rest string, ok bool) {
	tail, ok := strings.CutPrefix(path, "policies.")
	if !ok || tail == "" {
		return "", "", false
	}
	if tail[0] == '"' {
		name, err := strconv.QuotedPrefix(tail)
		if err != nil {
			return "", "", false
		}
		return name, tail[len(name):], true
	}
	if i := strings.IndexByte(tail, '.'); i >= 0 {
		return tail[:i], tail[i:], true
	}
	return tail, "", true
}
