package http1

import "strings"

// FieldOf returns the ID of a field name in any case, Other for one that is not
// known.
func FieldOf(name string) FieldID { return lookupField([]byte(name)) }

// HopByHop reports whether a field concerns one connection only (RFC 9110
// section 7.6.1), so that it is never passed on.
func HopByHop(id FieldID) bool { return id != Other && hopByHop>>id&1 != 0 }

// EqualFold reports whether b is lower, a text in lower case, but for the case of
// ASCII letters.
func EqualFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// IsToken reports whether s is a token (RFC 9110 section 5.6.2), as names of
// fields and methods are.
func IsToken(s string) bool { return isToken([]byte(s)) }

// IsValue reports whether s can be the value of a field that is written (RFC
// 9110 section 5.5): without control characters but tab, and without whitespace
// at its ends.
func IsValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return s == strings.Trim(s, " \t")
}

// IsPath reports whether s can be the path of a request as this codec takes it:
// a slash, and behind it neither a query nor a fragment, a space or a broken
// escape.
func IsPath(s string) bool {
	b := []byte(s)
	return len(b) > 0 && b[0] == '/' && scanTarget(append(b, ' '), 0) == len(b) &&
		!strings.ContainsAny(s, "?#") && validEscapes(b)
}

// DropNamed is Drop for names without a FieldID. lower must be in lower case; b
// is the buffer that was parsed.
func (h *Head) DropNamed(b []byte, lower string) {
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID == Other && EqualFold(f.Name.Of(b), lower) {
			f.Drop = true
		}
	}
}

// AppendHeadAs is AppendHead for a request in origin or absolute form whose path
// begins with other bytes: to takes the place of all that stands before rest, a
// part of r.Path that ends where it does. The query follows unchanged.
func (r *Request) AppendHeadAs(dst, b []byte, to string, rest Span) []byte {
	dst = append(dst, b[r.MethodSpan.Off:r.Target.Off]...)
	dst = append(dst, to...)
	dst = append(dst, b[rest.Off:r.Target.End]...)
	dst = append(dst, " HTTP/1.1"...)
	if r.Form == AbsoluteForm {
		dst = append(dst, "\r\nHost: "...)
		dst = append(dst, r.Authority.Of(b)...)
	}
	return r.appendFields(dst, b, r.line)
}

// Resource is what the request in raw is about, path and query: what rules are
// asked about. For an absolute-form target without a path it is what that stands
// for (RFC 9112 section 3.2).
func (r *Request) Resource(raw []byte) []byte {
	switch {
	case r.Path.Len() > 0:
		return raw[r.Path.Off:r.Target.End]
	case r.Form != AbsoluteForm:
		return r.Target.Of(raw)
	case r.Method == MethodOptions && r.Authority.End == r.Target.End:
		return asterisk
	}
	return rootPath
}

var rootPath, asterisk = []byte("/"), []byte("*")
