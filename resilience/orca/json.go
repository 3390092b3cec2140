package orca

// maxDepth bounds how deep objects and lists may lie in each other.
const maxDepth = 8

// json reads an object behind JSON. It is strict: what it takes, encoding/json
// takes too.
func (r *Report) json(b []byte) bool {
	s := scanner{b: b}
	s.blank()
	return s.object(r, 1) && s.ended()
}

// scanner goes through JSON (RFC 8259) and keeps nothing.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) blank() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r') {
		s.i++
	}
}

func (s *scanner) ended() bool {
	s.blank()
	return s.i == len(s.b)
}

// take steps over c, and blanks behind it, if it comes next.
func (s *scanner) take(c byte) bool {
	if s.i == len(s.b) || s.b[s.i] != c {
		return false
	}
	s.i++
	s.blank()
	return true
}

// object steps over an object, and takes what it says into r unless that is nil.
func (s *scanner) object(r *Report, depth int) bool {
	if depth > maxDepth || !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		name, ok := s.text()
		if !ok || !s.take(':') {
			return false
		}
		if r != nil && (r.place(name) != nil || string(name) == "rps") {
			value, ok := s.scalar()
			if !ok || !r.set(name, value) {
				return false
			}
		} else if !s.value(depth) {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// scalar returns a number, which protobuf's JSON may put into quotes.
func (s *scanner) scalar() ([]byte, bool) {
	if s.i < len(s.b) && s.b[s.i] == '"' {
		return s.text()
	}
	from := s.i
	n := numeral(s.b[s.i:])
	s.i += n
	v := s.b[from:s.i]
	s.blank()
	return v, n > 0
}

// text returns what is between quotes, as it is, and steps over them.
func (s *scanner) text() ([]byte, bool) {
	if s.i == len(s.b) || s.b[s.i] != '"' {
		return nil, false
	}
	from := s.i + 1
	for i := from; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			s.blank()
			return s.b[from:i], true
		case c < ' ':
			return nil, false
		case c == '\\':
			n := escape(s.b[i+1:])
			if n == 0 {
				return nil, false
			}
			i += n
		}
	}
	return nil, false
}

// escape is the length of what follows a backslash, 0 where it must not.
func escape(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch b[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 1
	case 'u':
		if len(b) < 5 {
			return 0
		}
		for _, c := range b[1:5] {
			if d := c | 0x20; c-'0' > 9 && (d < 'a' || d > 'f') {
				return 0
			}
		}
		return 5
	}
	return 0
}

// value steps over any value.
func (s *scanner) value(depth int) bool {
	if s.i == len(s.b) {
		return false
	}
	switch s.b[s.i] {
	case '{':
		return s.object(nil, depth+1)
	case '[':
		return s.list(depth + 1)
	case '"':
		_, ok := s.text()
		return ok
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if rest := s.b[s.i:]; len(rest) >= len(word) && string(rest[:len(word)]) == word {
			s.i += len(word)
			s.blank()
			return true
		}
	}
	_, ok := s.scalar()
	return ok
}

func (s *scanner) list(depth int) bool {
	if depth > maxDepth || !s.take('[') {
		return false
	}
	if s.take(']') {
		return true
	}
	for s.value(depth) {
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
	return false
}
