package http1

// AmbiguousPath reports whether a path is one that servers read in different
// ways, so that it may mean something else at its end than it did on the way: one
// with a dot segment (also encoded, with parameters, or between encoded slashes),
// a backslash or a control character, plain or encoded. The parser has checked
// the escapes of path.
func AmbiguousPath(path []byte) bool {
	before := byte(0)
	for _, c := range path {
		if c == '%' || c == '\\' || c == '.' && before == '/' || c <= ' ' {
			return dotted(path, otherSegment)
		}
		before = c
	}
	return false
}

// AmbiguousRest is AmbiguousPath for the end of a path, before which another
// beginning is put that may end with a slash.
func AmbiguousRest(rest []byte) bool { return dotted(rest, 0) }

// otherSegment stands for a segment that holds more than dots.
const otherSegment = -1

// dotted looks at all segments. dots is how many the first of them has already.
func dotted(path []byte, dots int) bool {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
		}
		switch {
		case c == '\\' || c < ' ' || c == 0x7f:
			return true
		case c == '/' || c == ';':
			if dots == 1 || dots == 2 {
				return true
			}
			dots = otherSegment
			if c == '/' {
				dots = 0
			}
		case c == '.' && dots >= 0:
			dots++
		default:
			dots = otherSegment
		}
	}
	return dots == 1 || dots == 2
}

// unhex is the value of a hexadecimal digit.
func unhex(c byte) byte {
	if c >= 'A' {
		return c&^0x20 - 'A' + 10
	}
	return c - '0'
}
