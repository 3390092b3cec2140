package plan

import (
	"bytes"
	"regexp"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// Match is a set of conditions that a request must all meet. What is compared
// are the bytes as received: nothing is decoded.
type Match struct {
	Path    Text     // without the query
	Methods []string // any of them; none means all
	Fields  []FieldMatch
	Query   []QueryMatch
	GRPC    bool // the content type must be that of gRPC
}

// TextKind is how a Text compares.
type TextKind uint8

// The kinds.
const (
	AnyText TextKind = iota // everything; of a field or parameter, that it is there
	Exact
	Prefix
	Suffix
	Regexp // all of it must match
)

// Text is a condition on a piece of text.
type Text struct {
	Kind   TextKind
	Value  string // in lower case with Fold
	Regexp *regexp.Regexp
	Fold   bool // without regard to the case of ASCII letters; not for Regexp, which says so itself
}

func (t *Text) matches(b []byte) bool {
	n := len(t.Value)
	switch t.Kind {
	case Exact:
		return t.equal(b)
	case Prefix:
		return len(b) >= n && t.equal(b[:n])
	case Suffix:
		return len(b) >= n && t.equal(b[len(b)-n:])
	case Regexp:
		return t.Regexp.Match(b)
	}
	return true
}

func (t *Text) equal(b []byte) bool {
	if !t.Fold {
		return string(b) == t.Value
	}
	return http1.EqualFold(b, t.Value)
}

// FieldMatch is met when one of the field lines with that name has such a
// value; with Invert when none has. The name host stands for the authority that
// the request is for, whose case does not matter.
type FieldMatch struct {
	ID     http1.FieldID
	Name   string // in lower case; only for http1.Other
	Value  Text
	Invert bool
}

func (f *FieldMatch) matches(r *http1.Request, raw []byte) bool {
	return f.found(r, raw) != f.Invert
}

func (f *FieldMatch) found(r *http1.Request, raw []byte) bool {
	if f.ID == http1.Host {
		return r.HasHost && f.Value.matches(r.Host.Of(raw))
	}
	if f.ID != http1.Other && !r.Has(f.ID) {
		return false
	}
	for i := range r.Fields {
		l := &r.Fields[i]
		if l.ID == f.ID && (f.ID != http1.Other || http1.EqualFold(l.Name.Of(raw), f.Name)) && f.Value.matches(l.Value.Of(raw)) {
			return true
		}
	}
	return false
}

// QueryMatch is met when one of the query's parameters of that name has such a
// value. A parameter without "=" has an empty one.
type QueryMatch struct {
	Name  string
	Value Text
}

func (q *QueryMatch) matches(query []byte) bool {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, ampersand)
		name, value, _ := bytes.Cut(pair, equals)
		if string(name) == q.Name && q.Value.matches(value) {
			return true
		}
	}
	return false
}

var ampersand, equals = []byte("&"), []byte("=")

// beside reports whether all conditions but that on the path are met.
func (m *Match) beside(r *http1.Request, raw []byte) bool {
	if len(m.Methods) > 0 && !oneOf(m.Methods, r.MethodSpan.Of(raw)) {
		return false
	}
	if m.GRPC && !IsGRPC(r, raw) {
		return false
	}
	for i := range m.Fields {
		if !m.Fields[i].matches(r, raw) {
			return false
		}
	}
	for i := range m.Query {
		if !m.Query[i].matches(r.Query.Of(raw)) {
			return false
		}
	}
	return true
}

func oneOf(list []string, b []byte) bool {
	for _, s := range list {
		if string(b) == s {
			return true
		}
	}
	return false
}

// IsGRPC reports whether a request is a gRPC call, by its content type.
func IsGRPC(r *http1.Request, raw []byte) bool {
	v, ok := r.Get(http1.ContentType)
	if !ok {
		return false
	}
	t := v.Of(raw)
	return bytes.HasPrefix(t, grpcType) && (len(t) == len(grpcType) || t[len(grpcType)] == '+' || t[len(grpcType)] == ';')
}

var grpcType = []byte("application/grpc")

// pathOf is the path that routes are chosen by; empty for a target without one,
// which meets no condition on the path.
func pathOf(r *http1.Request, raw []byte) []byte {
	switch {
	case r.Path.Len() > 0:
		return r.Path.Of(raw)
	case r.Form == http1.AbsoluteForm:
		return root // RFC 9112 section 3.2.1
	}
	return nil
}

var root = []byte("/")
