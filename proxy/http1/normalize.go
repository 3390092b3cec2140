package http1

import "bytes"

// Normalization says into what form requests are brought before anything looks
// at them. The zero value changes nothing.
type Normalization struct {
	// Path: dot segments are removed, escapes of unreserved characters undone (RFC
	// 3986 section 6.2.2), backslashes made slashes; an escaped NUL is refused.
	Path bool
	// MergeSlashes makes repeated slashes one, after all else.
	MergeSlashes bool
	Slashes      EscapedSlashes
	Underscores  Underscores
}

// EscapedSlashes is what becomes of %2F and %5C in a path.
type EscapedSlashes uint8

// The ways.
const (
	KeepSlashes EscapedSlashes = iota
	RejectSlashes
	// RedirectSlashes undoes them and has the request sent again so.
	RedirectSlashes
	// ForwardSlashes undoes them.
	ForwardSlashes
)

// Underscores is what becomes of fields with an underscore in their names, which
// some applications read as a hyphen.
type Underscores uint8

// The ways.
const (
	KeepUnderscores Underscores = iota
	RejectUnderscores
	// DropUnderscores forgets such fields: nothing finds them by name any more.
	DropUnderscores
)

// Normalize brings the request whose head Parse has found in b into the form
// that n wants, within b: the path never grows, and what stands before it moves
// towards it. moved says that n wants the request sent again to the path as it is
// now. After an error path and fields are as they came.
func (r *Request) Normalize(b []byte, n *Normalization) (moved bool, err error) {
	if n.Underscores == RejectUnderscores && r.underscored(b, false) {
		return false, ErrUnderscore
	}
	if moved, err = r.normalizePath(b, n); err == nil && n.Underscores == DropUnderscores {
		r.underscored(b, true)
	}
	return moved, err
}

// underscored reports whether a name has an underscore; drop forgets the fields.
func (r *Request) underscored(b []byte, drop bool) bool {
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.ID != Other || bytes.IndexByte(f.Name.Of(b), '_') < 0 {
			continue
		}
		if !drop {
			return true
		}
		f.Drop, f.Name.End = true, f.Name.Off
	}
	return false
}

func (r *Request) normalizePath(b []byte, n *Normalization) (moved bool, err error) {
	path := r.Path.Of(b)
	if len(path) == 0 || path[0] != '/' {
		return false, nil // "*", or nothing
	}
	at := n.suspect(path)
	if at == len(path) {
		return false, nil
	}
	if err := n.refuses(path[at:]); err != nil {
		return false, err
	}
	size, unescaped := n.rewrite(path, at)
	if n.MergeSlashes {
		size = mergeSlashes(path[:size])
	}
	if d := r.Path.End - r.Path.Off - uint32(size); d > 0 {
		copy(b[r.MethodSpan.Off+d:], b[r.MethodSpan.Off:r.Path.Off+uint32(size)])
		r.MethodSpan.Off += d
		r.MethodSpan.End += d
		r.Target.Off += d
		r.Path.Off += d
		if r.Form == AbsoluteForm {
			r.Authority.Off += d
			r.Authority.End += d
			r.Host = r.Authority
		}
	}
	return unescaped && n.Slashes == RedirectSlashes, nil
}

// suspect is where the first byte is from which on path may have to change.
func (n *Normalization) suspect(path []byte) int {
	before := byte(0)
	for i, c := range path {
		switch {
		case c == '%', n.Path && (c == '\\' || c == '.' && before == '/'), n.MergeSlashes && c == '/' && before == '/':
			return i
		}
		before = c
	}
	return len(path)
}

// refuses looks at the escapes of path, which are whole.
func (n *Normalization) refuses(path []byte) error {
	for {
		i := bytes.IndexByte(path, '%')
		if i < 0 {
			return nil
		}
		switch unhex(path[i+1])<<4 | unhex(path[i+2]) {
		case '/', '\\':
			if n.Slashes == RejectSlashes {
				return ErrEscapedSlash
			}
		case 0:
			if n.Path {
				return ErrEscapedNUL
			}
		}
		path = path[i+3:]
	}
}

// rewrite writes path anew from byte at on, over itself, and returns its size.
// Nothing before at has to change but that segments may be taken back.
func (n *Normalization) rewrite(path []byte, at int) (size int, unescaped bool) {
	w := at
	// segment is where the current one begins, after its slash.
	segment := bytes.LastIndexByte(path[:at], '/') + 1
	for i := at; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			d := unhex(path[i+1])<<4 | unhex(path[i+2])
			switch {
			case (d == '/' || d == '\\') && n.Slashes >= RedirectSlashes:
				c, unescaped = d, true
			case n.Path && unreserved(d):
				c = d
			default:
				w += copy(path[w:], path[i:i+2])
				c = path[i+2]
			}
			i += 2
		}
		if n.Path && c == '\\' {
			c = '/'
		}
		if c == '/' && n.Path {
			if end, dots := undot(path[:w], segment); dots {
				w, segment = end, end
				continue
			}
		}
		path[w] = c
		w++
		if c == '/' {
			segment = w
		}
	}
	if n.Path {
		w, _ = undot(path[:w], segment)
	}
	return w, unescaped
}

// undot takes back the last segment of path, which begins at segment, if it is
// "." or "..", and with the latter the one before, and returns what then is the
// size (RFC 3986 section 5.2.4).
func undot(path []byte, segment int) (size int, dots bool) {
	switch string(path[segment:]) {
	case ".":
		return segment, true
	case "..":
		return max(bytes.LastIndexByte(path[:segment-1], '/')+1, 1), true
	}
	return len(path), false
}

// mergeSlashes makes repeated slashes one, in place.
func mergeSlashes(path []byte) (size int) {
	for _, c := range path {
		if c != '/' || size == 0 || path[size-1] != '/' {
			path[size] = c
			size++
		}
	}
	return size
}

// unreserved: RFC 3986 section 2.3.
func unreserved(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
		return true
	}
	return false
}
