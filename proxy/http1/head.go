package http1

// Fields of a head that concern one connection only, RFC 9110 section 7.6.1.
const hopByHop = 1<<Connection | 1<<KeepAlive | 1<<ProxyConnection | 1<<TE |
	1<<TransferEncoding | 1<<Upgrade

// maxOptions bounds the options of all Connection fields of a head, since each of
// them is looked for among the fields.
const maxOptions = 32

// Head is what requests and responses have in common: the fields, and how far
// the parser has come.
type Head struct {
	// Fields are the field lines in the order received. The array is reused by
	// the next message.
	Fields []Field

	seen  uint64 // bit per FieldID
	line  uint32 // end of the start line, without its CRLF
	end   uint32 // end of the last field line
	pos   uint32 // incomplete: start of the first line not yet parsed
	scan  uint32 // incomplete: up to here that line holds no control byte but HTAB
	begun bool   // incomplete: the start line is parsed
}

// Get returns the value of the first field with the given name, dropped or not.
func (h *Head) Get(id FieldID) (Span, bool) {
	if h.seen>>id&1 != 0 {
		for i := range h.Fields {
			if f := &h.Fields[i]; f.ID == id {
				return f.Value, true
			}
		}
	}
	return Span{}, false
}

// Has reports whether there is a field with the given name, dropped or not.
func (h *Head) Has(id FieldID) bool { return h.seen>>id&1 != 0 }

// Count returns the number of field lines with the given name, dropped or not.
func (h *Head) Count(id FieldID) int {
	n := 0
	if h.seen>>id&1 != 0 {
		for i := range h.Fields {
			if h.Fields[i].ID == id {
				n++
			}
		}
	}
	return n
}

// Lookup returns the value of the first field whose name is lower but for case,
// for names without a FieldID. lower must be in lower case; b is the buffer that
// was parsed.
func (h *Head) Lookup(b []byte, lower string) (Span, bool) {
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID == Other && equalName(f.Name.Of(b), lower) {
			return f.Value, true
		}
	}
	return Span{}, false
}

// Drop keeps every field line with the given name out of AppendHead.
func (h *Head) Drop(id FieldID) {
	if h.seen>>id&1 != 0 {
		for i := range h.Fields {
			if h.Fields[i].ID == id {
				h.Fields[i].Drop = true
			}
		}
	}
}

// resume reports whether parsing an incomplete head again can lead any further,
// which takes a line end or a forbidden byte. It looks at every byte once.
func (h *Head) resume(w []byte) bool {
	if h.scan == 0 {
		return true
	}
	i := scanText(w, int(h.scan))
	if i == len(w) || i+1 == len(w) && w[i] == '\r' {
		h.scan = uint32(i)
		return false
	}
	return true
}

// pause records that w ends within the line at pos.
func (h *Head) pause(w []byte, pos int) {
	n := len(w)
	if n > 0 && w[n-1] == '\r' {
		n--
	}
	h.pos, h.scan = uint32(pos), uint32(n)
}

// parseFields parses field lines from pos to the empty line and returns the
// position after it, or 0 if w ends before. once are the fields that may not be
// repeated.
func (h *Head) parseFields(w []byte, pos, limit int, once uint64) (int, error) {
	fields, seen := h.Fields, h.seen
	for pos < len(w) {
		i := scanName(w, pos)
		if i == len(w) {
			break
		}
		if w[i] != ':' || i == pos {
			n, err := fieldsEnd(w, pos, i, len(fields) == 0)
			if n == 0 && err == nil {
				break
			}
			h.Fields, h.seen, h.end = fields, seen, uint32(pos)
			return n, err
		}
		id := lookupField(w[pos:i])
		if id == Other && !isToken(w[pos:i]) {
			return 0, ErrBadFieldName
		}
		v := i + 1
		if v < len(w) && w[v] == ' ' {
			v++
		}
		for v < len(w) && isSpace(w[v]) {
			v++
		}
		e := scanText(w, v)
		if e+1 >= len(w) {
			if e < len(w) && w[e] != '\r' {
				return 0, controlError(w[e])
			}
			break
		}
		if w[e] != '\r' || w[e+1] != '\n' {
			return 0, controlError(w[e])
		}
		end := e
		for end > v && isSpace(w[end-1]) {
			end--
		}
		bit := uint64(1) << id
		if seen&bit&once != 0 {
			return 0, repeated(id)
		}
		if len(fields) >= limit {
			return 0, ErrTooManyFields
		}
		seen |= bit
		fields = append(fields, Field{
			Name:  Span{uint32(pos), uint32(i)},
			Value: Span{uint32(v), uint32(end)},
			ID:    id,
			Drop:  bit&hopByHop != 0,
		})
		pos = e + 2
	}
	h.Fields, h.seen = fields, seen
	h.pause(w, pos)
	return 0, nil
}

// fieldsEnd judges a line that does not start with a name and a colon: it is the
// empty line, incomplete (0, nil) or wrong. i is its first control byte, space or
// colon.
func fieldsEnd(w []byte, pos, i int, first bool) (int, error) {
	switch c := w[i]; {
	case c == '\r':
		if i+1 == len(w) {
			return 0, nil
		}
		if w[i+1] != '\n' {
			return 0, ErrBareCR
		}
		if i == pos {
			return i + 2, nil
		}
		return 0, ErrMissingColon
	case c == ':':
		return 0, ErrEmptyName
	case isSpace(c) && i > pos:
		return 0, ErrSpaceBeforeColon
	case isSpace(c) && first:
		return 0, ErrSpaceBeforeField
	case isSpace(c):
		return 0, ErrObsFold
	default:
		return 0, controlError(c)
	}
}

// controlError is the error for a control byte that does not belong where it is.
func controlError(c byte) error {
	switch c {
	case '\r':
		return ErrBareCR
	case '\n':
		return ErrBareLF
	default:
		return ErrControlByte
	}
}

func repeated(id FieldID) error {
	switch id {
	case Host:
		return ErrDuplicateHost
	case ContentLength:
		return ErrDuplicateLength
	default:
		return ErrBadTransferEncoding
	}
}
