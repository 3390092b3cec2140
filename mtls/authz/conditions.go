package authz

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// Header is a condition on a header field: exactly one of exact, prefix, suffix,
// contains, regex and present. The values of several lines are compared together,
// with commas between them; a deny rule is met by one of them, too.
type Header struct {
	// The field's name, in any case. host is the authority that the request is for. Required.
	Name string `yaml:"name"`
	// The whole value.
	Exact string `yaml:"exact"`
	// What the value begins with.
	Prefix string `yaml:"prefix"`
	// What the value ends with.
	Suffix string `yaml:"suffix"`
	// What stands somewhere in the value.
	Contains string `yaml:"contains"`
	// A regular expression (RE2) that the whole value matches.
	Regex string `yaml:"regex"`
	// The field is there, with any value.
	Present bool `yaml:"present"`
	// Whether the condition must not be met. A field that is not there meets no condition on its
	// value, inverted or not; with present, invert means that it is not there.
	Invert bool `yaml:"invert"`
	// Whether exact, prefix, suffix and contains take ASCII letters in either case.
	IgnoreCase bool `yaml:"ignore_case"`
}

func (h *Header) validate(add func(field, problem string)) {
	switch {
	case h.Name == "":
		add("name", "is missing; write the name of a field")
	case !isToken(h.Name):
		add("name", fmt.Sprintf("%q is not the name of a field", h.Name))
	}
	n := 0
	for _, set := range [...]bool{h.Exact != "", h.Prefix != "", h.Suffix != "", h.Contains != "", h.Regex != "", h.Present} {
		if set {
			n++
		}
	}
	if n != 1 {
		add("exact", fmt.Sprintf("%d conditions on the value are given; write one of exact, prefix, suffix, contains, regex and present", n))
	}
	if h.Regex != "" {
		if _, err := wholly(h.Regex); err != nil {
			add("regex", err.Error())
		}
		if h.IgnoreCase {
			add("ignore_case", "does not concern regex; write (?i) at the beginning of the expression")
		}
	}
}

// wholly compiles an expression that must match all of a text.
func wholly(s string) (*regexp.Regexp, error) {
	if len(s) > maxRegex {
		return nil, fmt.Errorf("has %d bytes; at most %d are allowed", len(s), maxRegex)
	}
	if _, err := regexp.Compile(s); err != nil { // by itself: a stray ) must not end the group below
		return nil, fmt.Errorf("is no regular expression: %w", err)
	}
	return regexp.Compile(`\A(?:` + s + `)\z`)
}

// maxRegex bounds expressions: each request pays for them.
const maxRegex = 4096

type textKind uint8

const (
	textPresent textKind = iota
	textExact
	textPrefix
	textSuffix
	textContains
	textRegex
)

// fieldCondition is a compiled Header.
type fieldCondition struct {
	id     http1.FieldID
	name   string // in lower case; only for http1.Other
	kind   textKind
	value  []byte // in lower case with fold
	fold   bool
	regex  *regexp.Regexp
	invert bool
	each   bool // one of several lines is enough
}

func (h *Header) compile(a Action) (f fieldCondition, err error) {
	f = fieldCondition{id: http1.FieldOf(h.Name), name: strings.ToLower(h.Name), invert: h.Invert, fold: h.IgnoreCase, each: a != Allow}
	text := ""
	switch {
	case h.Exact != "":
		f.kind, text = textExact, h.Exact
	case h.Prefix != "":
		f.kind, text = textPrefix, h.Prefix
	case h.Suffix != "":
		f.kind, text = textSuffix, h.Suffix
	case h.Contains != "":
		f.kind, text = textContains, h.Contains
	case h.Regex != "":
		f.kind = textRegex
		f.regex, err = wholly(h.Regex)
	}
	if f.value = []byte(text); f.fold {
		f.value = lower(f.value)
	}
	return f, err
}

// lower changes ASCII letters in place.
func lower(b []byte) []byte {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return b
}

// met decides about one request. A request whose fields are not known meets no
// condition on them.
func (f *fieldCondition) met(p *Policy, r *Request) bool {
	if f.id == http1.Host {
		if len(r.Host) == 0 {
			return f.kind == textPresent && f.invert
		}
		return f.of(p, r.Host)
	}
	if r.Head == nil {
		return false
	}
	first, n := -1, 0
	for i := range r.Head.Fields {
		if !f.names(r, i) {
			continue
		}
		if n++; n == 1 {
			first = i
		}
	}
	switch {
	case n == 0:
		return f.kind == textPresent && f.invert
	case n == 1 || f.kind == textPresent:
		return f.of(p, r.Head.Fields[first].Value.Of(r.Raw))
	}
	scratch := p.scratch.Get().(*[]byte)
	defer p.scratch.Put(scratch)
	all := (*scratch)[:0]
	for i := first; i < len(r.Head.Fields); i++ {
		if !f.names(r, i) {
			continue
		}
		v := r.Head.Fields[i].Value.Of(r.Raw)
		if f.each && f.of(p, v) {
			return true
		}
		if i > first {
			all = append(all, ',')
		}
		all = append(all, v...)
	}
	*scratch = all
	return f.of(p, all)
}

func (f *fieldCondition) names(r *Request, i int) bool {
	l := &r.Head.Fields[i]
	return l.ID == f.id && (f.id != http1.Other || http1.EqualFold(l.Name.Of(r.Raw), f.name))
}

// of reports what the condition says of a value.
func (f *fieldCondition) of(p *Policy, v []byte) bool {
	if f.fold && f.kind != textPresent && f.kind != textRegex {
		scratch := p.scratch.Get().(*[]byte)
		defer p.scratch.Put(scratch)
		*scratch = append((*scratch)[:0], v...)
		v = lower(*scratch)
	}
	is := true
	switch f.kind {
	case textExact:
		is = bytes.Equal(v, f.value)
	case textPrefix:
		is = bytes.HasPrefix(v, f.value)
	case textSuffix:
		is = bytes.HasSuffix(v, f.value)
	case textContains:
		is = bytes.Contains(v, f.value)
	case textRegex:
		is = f.regex.Match(v)
	}
	return is != f.invert
}

type pathPattern struct {
	// text is in normal form; for a subtree without its final slash.
	text    string
	subtree bool
}

func parsePath(s string) (pathPattern, error) {
	base, wild := strings.CutSuffix(s, "/*")
	switch {
	case !strings.HasPrefix(s, "/"):
		return pathPattern{}, fmt.Errorf("%q does not begin with a slash", s)
	case strings.ContainsAny(s, "?#"):
		return pathPattern{}, fmt.Errorf("%q: a query or fragment plays no part in paths; leave it out", s)
	case strings.Contains(base, "*"):
		return pathPattern{}, fmt.Errorf(`%q: "*" is allowed after the last slash only; write %%2A for the character itself`, s)
	}
	if base == "" {
		return pathPattern{subtree: true}, nil
	}
	normal, ok := normalize(nil, []byte(base), false)
	if !ok {
		return pathPattern{}, fmt.Errorf("%q: a dot segment, a backslash, an encoded slash or backslash, a control character or a broken escape matches no request", s)
	}
	if string(decoded(base)) != string(normal) || wild && strings.HasSuffix(base, "/") {
		return pathPattern{}, fmt.Errorf("%q is not in normal form; requests are compared with repeated slashes joined", s)
	}
	return pathPattern{text: string(normal), subtree: wild}, nil
}

func (p pathPattern) matches(path []byte) bool {
	if !p.subtree {
		return string(path) == p.text
	}
	n := len(p.text)
	return len(path) >= n && string(path[:n]) == p.text && (len(path) == n || path[n] == '/')
}

// parsePrefix returns what paths in normal form begin with.
func parsePrefix(s string) (string, error) {
	if !strings.HasPrefix(s, "/") {
		return "", fmt.Errorf("%q does not begin with a slash", s)
	}
	if strings.ContainsAny(s, "?#") {
		return "", fmt.Errorf("%q: a query or fragment plays no part in paths; leave it out", s)
	}
	normal, ok := normalize(nil, []byte(s), false)
	if !ok {
		return "", fmt.Errorf("%q: a dot segment, a backslash, an encoded slash or backslash, a control character or a broken escape matches no request", s)
	}
	if string(decoded(s)) != string(normal) {
		return "", fmt.Errorf("%q is not in normal form; requests are compared with repeated slashes joined", s)
	}
	return string(normal), nil
}
