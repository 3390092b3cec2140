package http2

import "encoding/binary"

// encoder encodes field sections, without Huffman coding, which costs more than
// the bytes that it saves on a connection inside a data centre.
//
// It enters a field into the dynamic table the second time it meets it, so that
// values that never come again, such as request ids, take no room there. A field
// whose name alone comes again is entered once for the sake of its name.
type encoder struct {
	table
	seen *seen // nil until a field comes
	// resize is set when the peer's limit has changed: the next section tells
	// the smallest and the present limit (RFC 7541 section 4.2).
	resize   bool
	smallest int
}

// seen is what an encoder remembers of the fields before. Without it, it codes
// less well.
type seen struct {
	whole [hashed]uint32 // by hash of name and value: number of the newest entry
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
	if e.seen == nil {
		e.seen = new(seen)
	}
	k := e.seen
	nam := hash(0x9e3779b9, name)
	h := hash(nam, value)
	if n := k.whole[h%hashed]; n != 0 && e.live(n) {
		if x := e.at(n); x.hash == h && x.name == len(name) && len(x.text) == len(name)+len(value) &&
			string(x.text[:x.name]) == string(name) && string(x.text[x.name:]) == string(value) {
			return appendInteger(b, 0x80, 7, uint64(e.last-n)+staticEntries+1)
		}
	}
	index := uint64(known)
	if index == 0 {
		if n := k.named[nam%hashed]; n != 0 && e.live(n) {
			if x := e.at(n); x.nam == nam && string(x.text[:x.name]) == string(name) {
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
	if again && len(name)+len(value)+entryOverhead <= e.limit/4 {
		b = appendInteger(b, 0x40, 6, index)
		if index == 0 {
			b = appendText(b, name)
		}
		b = appendText(b, value)
		if x := e.add(name, value); x != nil {
			x.hash, x.nam = h, nam
			k.whole[h%hashed], k.named[nam%hashed] = e.last, e.last
		}
		return b
	}
	b = appendInteger(b, 0, 4, index)
	if index == 0 {
		b = appendText(b, name)
	}
	return appendText(b, value)
}

// hash mixes b into seed, eight bytes at a time. It need not withstand an
// attacker: what it finds is compared.
func hash(seed uint32, b []byte) uint32 {
	const k = 0x9e3779b97f4a7c15
	h := (uint64(seed) + uint64(len(b))) * k
	for len(b) >= 8 {
		h = (h ^ binary.LittleEndian.Uint64(b)) * k
		h ^= h >> 32
		b = b[8:]
	}
	if len(b) > 0 {
		var w uint64
		for i, c := range b {
			w |= uint64(c) << (8 * i)
		}
		h = (h ^ w) * k
		h ^= h >> 32
	}
	return uint32(h * k >> 32)
}

func appendText(b, s []byte) []byte {
	b = appendInteger(b, 0, 7, uint64(len(s)))
	return append(b, s...)
}

func appendInteger(b []byte, first byte, bits uint8, n uint64) []byte {
	top := uint64(1)<<bits - 1
	if n < top {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(top))
	for n -= top; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
