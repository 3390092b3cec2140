package authz

import "bytes"

// plain reports whether a path is in normal form as it stands, which nearly all
// are: an absolute path without escapes, dot segments, repeated slashes,
// backslashes, fragment or control characters.
func plain(path []byte) bool {
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	before := byte(0)
	for _, c := range path {
		switch {
		case c < 0x20 || c == 0x7f || c == '%' || c == '\\' || c == '#':
			return false
		case (c == '/' || c == '.') && before == '/':
			return false
		}
		before = c
	}
	return true
}

// normalize appends the normal form of an absolute path without query to dst:
// percent-encoding undone once, dot segments removed as in RFC 3986 section
// 5.2.4, repeated slashes joined. It is not ok for a path that servers read
// in different ways: an encoded slash, a backslash plain or encoded, a control
// character plain or encoded, a fragment, a broken escape, a dot segment with
// parameters ("..;x"), or no leading slash.
func normalize(dst, path []byte) (normal []byte, ok bool) {
	if len(path) == 0 || path[0] != '/' {
		return dst, false
	}
	base := len(dst)
	// segment is where in dst the current segment begins, after its slash.
	segment := base
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '/' {
			if i > 0 {
				if dst, ok = endSegment(dst, base, segment); !ok {
					return dst, false
				}
			}
			if len(dst) == base || dst[len(dst)-1] != '/' {
				dst = append(dst, '/')
			}
			segment = len(dst)
			continue
		}
		if c == '%' {
			if i+2 >= len(path) {
				return dst, false
			}
			hi, okHi := unhex(path[i+1])
			lo, okLo := unhex(path[i+2])
			if !okHi || !okLo {
				return dst, false
			}
			if c = hi<<4 | lo; c == '/' {
				return dst, false
			}
			i += 2
		} else if c == '#' {
			return dst, false
		}
		if c < 0x20 || c == 0x7f || c == '\\' {
			return dst, false
		}
		dst = append(dst, c)
	}
	return endSegment(dst, base, segment)
}

// endSegment resolves the segment that ends dst if it is a dot segment. The
// result ends with a slash then, as RFC 3986 has it.
func endSegment(dst []byte, base, segment int) ([]byte, bool) {
	s := dst[segment:]
	switch {
	case len(s) == 1 && s[0] == '.':
		return dst[:segment], true
	case len(s) == 2 && s[0] == '.' && s[1] == '.':
		dst = dst[:segment]
		if segment-1 > base {
			// dst ends with a slash; cut back to the slash before it.
			dst = dst[:bytes.LastIndexByte(dst[:segment-1], '/')+1]
		}
		return dst, true
	case bytes.HasPrefix(s, []byte(".;")), bytes.HasPrefix(s, []byte("..;")):
		return dst, false
	}
	return dst, true
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// decoded undoes percent-encoding and nothing else; escapes must be whole.
func decoded(s string) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			hi, _ := unhex(s[i+1])
			lo, _ := unhex(s[i+2])
			c, i = hi<<4|lo, i+2
		}
		out = append(out, c)
	}
	return out
}
