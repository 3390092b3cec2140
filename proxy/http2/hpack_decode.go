package http2

import "errors"

// decoder decodes field sections. The slices that it hands out are of its own
// memory or of the input and valid until the next field.
type decoder struct {
	table
	scratch []byte // Huffman-decoded, or copied from the table
}

var (
	errCompression = errors.New("http2: malformed field section")
	errUpdateLate  = errors.New("http2: table size update behind a field")
)

// section calls emit with each field of b, which is a whole field section. known,
// unless it is nil, is called instead with fields that are in the dynamic table.
func (d *decoder) section(b []byte, emit func(name, value []byte), known func(e *entry)) error {
	updates := 0
	for first := true; len(b) > 0; {
		var n uint64
		var ok bool
		switch c := b[0]; {
		case c&0x80 != 0: // indexed, RFC 7541 section 6.1
			if n, b, ok = integer(b, 7); !ok {
				return errCompression
			}
			if n <= staticEntries && n > 0 {
				d.scratch = append(append(d.scratch[:0], static[n].name...), static[n].value...)
				k := len(static[n].name)
				emit(d.scratch[:k:k], d.scratch[k:])
			} else {
				e := d.indexed(n)
				if e == nil {
					return errCompression
				}
				if known != nil {
					known(e)
				} else {
					emit(d.fieldOf(e))
				}
			}
		case c&0x40 != 0: // literal to be indexed, section 6.2.1
			name, value, rest, ok := d.literal(b, 6)
			if !ok {
				return errCompression
			}
			b = rest
			emit(name, value)
			d.add(name, value)
		case c&0x20 != 0: // size update, section 6.3; at most two, section 4.2
			if n, b, ok = integer(b, 5); !ok || n > tableSize {
				return errCompression
			}
			if updates++; !first || updates > 2 {
				return errUpdateLate
			}
			d.setLimit(int(n))
			continue
		default: // literal not to be indexed, sections 6.2.2 and 6.2.3
			name, value, rest, ok := d.literal(b, 4)
			if !ok {
				return errCompression
			}
			b = rest
			emit(name, value)
		}
		first = false
	}
	return nil
}

// indexed returns the entry of the dynamic table with that index.
func (d *decoder) indexed(n uint64) *entry {
	if n <= staticEntries || n-staticEntries > uint64(d.count) {
		return nil
	}
	return d.at(d.last - uint32(n-staticEntries) + 1)
}

// literal reads a literal whose index has a prefix of the given bits. Name and
// value are never memory of the table, so that they can be added to it.
func (d *decoder) literal(b []byte, bits uint8) (name, value, rest []byte, ok bool) {
	n, b, ok := integer(b, bits)
	if !ok {
		return nil, nil, nil, false
	}
	s := d.scratch[:0]
	plain := false
	switch {
	case n == 0:
		if name, b, s, ok = text(b, s); !ok {
			return nil, nil, nil, false
		}
		plain = len(s) == 0
	case n <= staticEntries:
		s = append(s, static[n].name...)
	default:
		e := d.indexed(n)
		if e == nil {
			return nil, nil, nil, false
		}
		s = append(s, d.text[e.at:e.at+e.name]...)
	}
	k := len(s)
	v, b, s, ok := text(b, s)
	if !ok {
		return nil, nil, nil, false
	}
	d.scratch = s
	if !plain {
		name = s[:k:k]
	}
	if len(s) > k {
		v = s[k:]
	}
	return name, v, b, true
}

// text reads a string, RFC 7541 section 5.2. One that is coded is appended to s,
// and is then in s alone; an uncoded one is a part of b.
func text(b, s []byte) (plain, rest, scratch []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, s, false
	}
	coded := b[0]&0x80 != 0
	n, b, ok := integer(b, 7)
	if !ok || n > uint64(len(b)) {
		return nil, nil, s, false
	}
	if coded {
		s, ok = appendHuffman(s, b[:n])
		return nil, b[n:], s, ok
	}
	return b[:n:n], b[n:], s, true
}

// integer reads an integer with a prefix of the given bits, RFC 7541 section 5.1.
func integer(b []byte, bits uint8) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	top := uint64(1)<<bits - 1
	n = uint64(b[0]) & top
	b = b[1:]
	if n < top {
		return n, b, true
	}
	for shift := 0; shift < 28; shift += 7 {
		if len(b) == 0 {
			return 0, nil, false
		}
		c := b[0]
		b = b[1:]
		n += uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, true
		}
	}
	return 0, nil, false
}
