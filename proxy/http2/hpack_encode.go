package http2

import (
	"encoding/binary"
	"math/bits"
)

// encoder encodes field sections, without Huffman coding, which costs more than
// the bytes that it saves on a connection inside a data centre.
//
// It enters a field into the dynamic table the second time it meets it, so that
// values that never come again, such as request ids, take no room there. A field
// whose name alone comes again is entered once for the sake of its name.
type encoder struct {
	table
	seen    *seen  // nil until a field comes
	scratch []byte // a field as a line
	// resize is set when the peer's limit has changed: the next section tells
	// the smallest and the present limit (RFC 7541 section 4.2).
	resize   bool
	smallest int
}

// seen is what an encoder remembers of the fields before. Without it, it codes
// less well.
type seen struct {
	whole [hashed]uint32 // by hash of the line: number of the newest entry
	named [hashed]uint32 // by hash of the name
	met   [hashed]uint32 // hashes met once
}

// hashed is how many hashes each of the encoder's tables holds.
const hashed = 128

// setPeerLimit obeys the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *encoder) setPeerLimit(n uint32) {
	limit := int(min(n, tableSize))
	if limit == e.limit && !e.resize {
		return
	}
	if !e.resize || limit < e.smallest {
		e.smallest = limit
	}
	e.resize = true
	e.setLimit(limit)
}

// begin appends what comes before the first field of a section.
func (e *encoder) begin(b []byte) []byte {
	if e.resize {
		e.resize = false
		if e.smallest < e.limit {
			b = appendInteger(b, 0x20, 5, uint64(e.smallest))
		}
		b = appendInteger(b, 0x20, 5, uint64(e.limit))
	}
	return b
}

// indexed appends a field of the static table.
func indexed(b []byte, n uint8) []byte { return append(b, 0x80|n) }

// field appends a field. known is the static table's position of its name, or 0.
func (e *encoder) field(b []byte, known uint8, name, value []byte) []byte {
	line := e.asLine(name, value)
	return e.line(b, known, line, len(name), hash(0, line), false)
}

// asLine makes a line of a field. It is valid until the next call.
func (e *encoder) asLine(name, value []byte) []byte {
	e.scratch = append(append(e.scratch[:0], name...), ": "...)
	e.scratch = append(append(e.scratch, value...), "\r\n"...)
	return e.scratch
}

// find returns the number of the entry that is the line with that hash, 0 if there
// is none.
func (e *encoder) find(line []byte, h uint32) uint32 {
	n := e.seen.whole[h%hashed]
	if n == 0 || !e.live(n) {
		return 0
	}
	if x := e.at(n); x.hash != h || string(e.lineOf(x)) != string(line) {
		return 0
	}
	return n
}

// again appends a field that is an entry of the dynamic table.
func (e *encoder) again(b []byte, n uint32) []byte {
	return appendInteger(b, 0x80, 7, uint64(e.last-n)+staticEntries+1)
}

// remember makes e remember fields from here on.
func (e *encoder) remember() {
	if e.seen == nil {
		e.seen = new(seen)
	}
}

// line appends a field that is given as a line "name: value\r\n" with its hash and
// the length of its name. plain says what entry.plain does.
func (e *encoder) line(b []byte, known uint8, line []byte, name int, h uint32, plain bool) []byte {
	value := line[name+len(": ") : len(line)-len("\r\n")]
	switch known {
	case staticAuthorization, staticProxyAuth, staticCookie, staticSetCookie:
		// Never indexed: their values must not be guessed by trial (RFC 7541
		// section 7.1.3).
		b = appendInteger(b, 0x10, 4, uint64(known))
		return appendText(b, value)
	case staticContentLength:
		b = appendInteger(b, 0, 4, uint64(known))
		return appendText(b, value)
	}
	e.remember()
	if n := e.find(line, h); n != 0 {
		return e.again(b, n)
	}
	k := e.seen
	nam := hash(0x9e3779b9, line[:name])
	index := uint64(known)
	if index == 0 {
		if n := k.named[nam%hashed]; n != 0 && e.live(n) {
			if x := e.at(n); x.nam == nam && string(e.text[x.at:x.at+x.name]) == string(line[:name]) {
				index = uint64(e.last-n) + staticEntries + 1
			}
		}
	}
	again := k.met[h%hashed] == h
	k.met[h%hashed] = h
	if !again && index == 0 {
		again = k.met[nam%hashed] == nam
		k.met[nam%hashed] = nam
	}
	if again && len(line)-lineExtra+entryOverhead <= e.limit/4 {
		b = appendInteger(b, 0x40, 6, index)
		if index == 0 {
			b = appendText(b, line[:name])
		}
		b = appendText(b, value)
		if x := e.addLine(line, name); x != nil {
			x.hash, x.nam, x.known, x.plain = h, nam, known, plain
			k.whole[h%hashed], k.named[nam%hashed] = e.last, e.last
		}
		return b
	}
	b = appendInteger(b, 0, 4, index)
	if index == 0 {
		b = appendText(b, line[:name])
	}
	return appendText(b, value)
}

// hash mixes b into seed, sixteen bytes at a time. It need not withstand an
// attacker: what it finds is compared.
func hash(seed uint32, b []byte) uint32 {
	const k, l = 0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f
	h := (uint64(seed) + uint64(len(b))) * k
	for len(b) > 16 {
		hi, lo := bits.Mul64(binary.LittleEndian.Uint64(b)^k, binary.LittleEndian.Uint64(b[8:])^h)
		h = hi ^ lo
		b = b[16:]
	}
	// The two words of the rest overlap where it is short.
	var v, w uint64
	switch n := len(b); {
	case n >= 8:
		v, w = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		v, w = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n > 0:
		v, w = uint64(b[0])|uint64(b[n/2])<<8, uint64(b[n-1])
	}
	hi, lo := bits.Mul64(v^k, w^h)
	hi, lo = bits.Mul64(hi^lo, l)
	return uint32(hi ^ lo)
}

func appendText(b, s []byte) []byte {
	b = appendInteger(b, 0, 7, uint64(len(s)))
	return append(b, s...)
}

func appendInteger(b []byte, first byte, prefix uint8, n uint64) []byte {
	top := uint64(1)<<prefix - 1
	if n < top {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(top))
	for n -= top; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
