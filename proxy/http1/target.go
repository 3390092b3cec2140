package http1

import "bytes"

// TargetForm is the form of a request target, RFC 9112 section 3.2.
type TargetForm uint8

// The forms.
const (
	OriginForm    TargetForm = iota // /path?query
	AbsoluteForm                    // http://authority/path?query
	AsteriskForm                    // *, of OPTIONS
	AuthorityForm                   // host:port, of CONNECT, which the caller refuses if it is not a tunnel
)

// parseTarget splits the target.
func (r *Request) parseTarget(w []byte) error {
	t := r.Target
	switch {
	case r.Method == MethodConnect:
		if a := t.Of(w); !validHost(a, false) || a[len(a)-1] == ':' || !hasPort(a) {
			return ErrBadTarget
		}
		r.Form, r.Authority, r.Path = AuthorityForm, t, Span{}
		return nil
	case w[t.Off] == '/':
		r.Form, r.Path = OriginForm, t
	case t.Len() == 1 && w[t.Off] == '*':
		if r.Method != MethodOptions {
			return ErrBadTarget
		}
		r.Form, r.Path = AsteriskForm, t
		return nil
	default:
		a := t.Off + schemeLen(t.Of(w))
		end := a
		for end < t.End && w[end] != '/' && w[end] != '?' {
			end++
		}
		r.Authority = Span{a, end}
		if a == t.Off || !validHost(r.Authority.Of(w), false) {
			return ErrBadTarget
		}
		r.Form, r.Path = AbsoluteForm, Span{end, t.End}
	}
	if i := bytes.IndexByte(r.Path.Of(w), '?'); i >= 0 {
		q := r.Path.Off + uint32(i)
		r.Query = Span{q + 1, t.End}
		r.Path.End = q
	}
	if !validEscapes(r.Path.Of(w)) {
		return ErrBadTarget
	}
	return nil
}

// schemeLen returns the length of the http or https scheme with the "//" behind
// it, 0 for anything else.
func schemeLen(t []byte) uint32 {
	for _, s := range [...]string{"http://", "https://"} {
		if len(t) >= len(s) && equalFold(t[:len(s)-3], s[:len(s)-3]) && string(t[len(s)-3:len(s)]) == "://" {
			return uint32(len(s))
		}
	}
	return 0
}

// validEscapes reports whether each '%' of a path is followed by two hexadecimal
// digits. A query may hold anything.
func validEscapes(p []byte) bool {
	for {
		i := bytes.IndexByte(p, '%')
		if i < 0 {
			return true
		}
		if len(p)-i < 3 || classes[p[i+1]]&classes[p[i+2]]&classHex == 0 {
			return false
		}
		p = p[i+3:]
	}
}

// validHost reports whether h is uri-host [":" [port]] (RFC 9110 section 7.2)
// with a port of at most 65535. It takes less than the grammar allows: no
// percent-encoded or comma-holding name, which only attacks on lists and parsers
// have, and no IPvFuture. empty says whether h may be empty.
func validHost(h []byte, empty bool) bool {
	if len(h) == 0 {
		return empty
	}
	i := 0
	if h[0] == '[' {
		if i = bytes.IndexByte(h, ']'); i < 0 || !validIPv6(h[1:i]) {
			return false
		}
		i++
	} else {
		for i < len(h) && classes[h[i]]&classHost != 0 {
			i++
		}
		if i == 0 {
			return false
		}
	}
	if i == len(h) {
		return true
	}
	if h[i] != ':' || len(h)-i > 6 {
		return false
	}
	port := 0
	for _, c := range h[i+1:] {
		if c < '0' || c > '9' {
			return false
		}
		port = port*10 + int(c-'0')
	}
	return port <= 65535
}

// hasPort reports whether a valid host has a colon behind its name or literal.
func hasPort(h []byte) bool { return bytes.IndexByte(h[bytes.IndexByte(h, ']')+1:], ':') >= 0 }

// validIPv6 reports whether a is an IPv6 address without a zone, RFC 4291
// section 2.2.
func validIPv6(a []byte) bool {
	groups, gap := 0, false
	if len(a) >= 2 && a[0] == ':' && a[1] == ':' {
		gap = true
		a = a[2:]
	}
	for len(a) > 0 {
		n := 0
		for n < len(a) && n < 4 && classes[a[n]]&classHex != 0 {
			n++
		}
		if n < len(a) && a[n] == '.' {
			groups += 2
			return validIPv4(a) && (groups == 8 && !gap || groups < 8 && gap)
		}
		if n == 0 {
			return false
		}
		groups++
		a = a[n:]
		if len(a) == 0 {
			break
		}
		if a[0] != ':' || len(a) == 1 {
			return false
		}
		a = a[1:]
		if a[0] == ':' {
			if gap {
				return false
			}
			gap = true
			a = a[1:]
		}
	}
	return groups == 8 && !gap || groups < 8 && gap
}

// validIPv4 reports whether a is four decimal numbers up to 255 without leading zeros.
func validIPv4(a []byte) bool {
	for part := range 4 {
		n, v := 0, 0
		for n < len(a) && n < 3 && a[n] >= '0' && a[n] <= '9' {
			v = v*10 + int(a[n]-'0')
			n++
		}
		if n == 0 || v > 255 || n > 1 && a[0] == '0' {
			return false
		}
		a = a[n:]
		if part == 3 {
			break
		}
		if len(a) == 0 || a[0] != '.' {
			return false
		}
		a = a[1:]
	}
	return len(a) == 0
}
