package authz

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
// percent-encoding undone once, repeated slashes joined. It is not ok for a
// path that servers read in different ways: an encoded slash, a backslash plain
// or encoded, a control character plain or encoded, a fragment, a broken
// escape, a dot segment ("..", also encoded or with parameters), or no leading
// slash. With slashes an encoded slash stays as it is, in capitals, and divides
// the path where dot segments are looked for.
func normalize(dst, path []byte, slashes bool) (normal []byte, ok bool) {
	if len(path) == 0 || path[0] != '/' {
		return dst, false
	}
	base := len(dst)
	// segment is where in dst the current segment begins, after its slash.
	segment := base
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '/' {
			if i > 0 && dotSegment(dst[segment:]) {
				return dst, false
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
			i += 2
			if c = hi<<4 | lo; c == '/' {
				if !slashes || dotSegment(dst[segment:]) {
					return dst, false
				}
				dst = append(dst, "%2F"...)
				segment = len(dst)
				continue
			}
		} else if c == '#' {
			return dst, false
		}
		if c < 0x20 || c == 0x7f || c == '\\' {
			return dst, false
		}
		dst = append(dst, c)
	}
	return dst, !dotSegment(dst[segment:])
}

// dotSegment reports whether a decoded segment is one that servers resolve, or
// not, before they look at the path: ".", "..", and either with parameters. The
// request goes on as it came, so it must not mean something else there.
func dotSegment(s []byte) bool {
	if len(s) > 0 && s[0] == '.' {
		s = s[1:]
		if len(s) > 0 && s[0] == '.' {
			s = s[1:]
		}
		return len(s) == 0 || s[0] == ';'
	}
	return false
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
