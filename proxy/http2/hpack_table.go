package http2

import (
	"bytes"

	"golang.org/x/net/http2/hpack"
)

// entryOverhead is what an entry counts beyond its bytes, RFC 7541 section 4.1.
const entryOverhead = 32

// firstEntries is how many entries a ring has room for at first. It is doubled
// as needed, to at most the 128 that a table of tableSize bytes can hold.
const firstEntries = 16

// Bounds of a table's memory for text. Lines take less than tableSize bytes, for
// an entry has more overhead there than a line has here, so that half of the most
// is enough for all, and each byte is moved about once.
const (
	leastText = 256
	mostText  = 2 * tableSize
)

// lineExtra is what a line has beyond name and value.
const lineExtra = len(": \r\n")

// entry is a field in a dynamic table: a line "name: value\r\n" of its text, as
// HTTP/1.1 has it.
type entry struct {
	at, size uint16 // of the line
	name     uint16 // length of the name
	// plain says that the line is well-formed and means nothing to HTTP/2, so
	// that it can be passed on as it is.
	plain bool
	known uint8  // the static table's position of the name; the encoder's
	hash  uint32 // of the line; the encoder's
	nam   uint32 // of the name; the encoder's
}

// bytes is what an entry counts in the table.
func (e *entry) bytes() int { return int(e.size) - lineExtra + entryOverhead }

// table is a dynamic table: a ring of entries numbered from 1 as they come. Their
// lines lie in text one behind the other.
type table struct {
	ring  []entry // a power of two
	text  []byte
	last  uint32 // number of the newest entry
	count uint32
	size  int
	limit int // at most tableSize
}

// evict drops the oldest entries until extra more bytes fit.
func (t *table) evict(extra int) {
	for t.count > 0 && t.size+extra > t.limit {
		t.size -= t.at(t.last - t.count + 1).bytes()
		t.count--
	}
}

// add enters a field; one larger than the table empties it (RFC 7541 section 4.4).
// name and value must not be of an entry of the table.
func (t *table) add(name, value []byte) *entry {
	e := t.room(len(name), len(name)+len(value)+lineExtra)
	if e != nil {
		t.text = append(append(t.text, name...), ": "...)
		t.text = append(append(t.text, value...), "\r\n"...)
	}
	return e
}

// addLine is add for a line, which begins with a name of that length.
func (t *table) addLine(line []byte, name int) *entry {
	e := t.room(name, len(line))
	if e != nil {
		t.text = append(t.text, line...)
	}
	return e
}

// room makes room for a line of that size and returns its entry; nil if there
// cannot be any.
func (t *table) room(name, size int) *entry {
	counts := size - lineExtra + entryOverhead
	t.evict(counts)
	if counts > t.limit {
		return nil
	}
	if int(t.count) == len(t.ring) {
		t.grow(max(firstEntries, 2*len(t.ring)))
	}
	if len(t.text)+size > cap(t.text) {
		t.compact(size)
	}
	t.last++
	t.count++
	t.size += counts
	e := t.at(t.last)
	*e = entry{at: uint16(len(t.text)), size: uint16(size), name: uint16(name)}
	return e
}

// at returns the entry with that number.
func (t *table) at(n uint32) *entry { return &t.ring[n&uint32(len(t.ring)-1)] }

// lineOf returns an entry's line. It is valid until the next add.
func (t *table) lineOf(e *entry) []byte {
	end := int(e.at) + int(e.size)
	return t.text[e.at:end:end]
}

// fieldOf returns an entry's name and value, valid as long.
func (t *table) fieldOf(e *entry) (name, value []byte) {
	l := t.lineOf(e)
	return l[:e.name:e.name], l[int(e.name)+len(": ") : len(l)-len("\r\n")]
}

// grow makes a ring of n entries, which is a power of two and no less than count.
func (t *table) grow(n int) {
	old := *t
	t.ring = make([]entry, n)
	for i := range old.count {
		*t.at(old.last - i) = *old.at(old.last - i)
	}
}

// compact moves the lines to the front of text, which gets as large as it takes
// for extra more bytes.
func (t *table) compact(extra int) {
	from := t.oldest()
	live := t.text[from:]
	if need := 2 * (len(live) + extra); need <= cap(t.text) {
		t.text = t.text[:copy(t.text, live)]
	} else {
		t.text = append(make([]byte, 0, min(max(need, leastText), mostText)), live...)
	}
	t.moved(from)
}

// oldest is where the lines of the table begin in text.
func (t *table) oldest() int {
	if t.count == 0 {
		return len(t.text)
	}
	return int(t.at(t.last - t.count + 1).at)
}

// moved tells all entries that their lines have moved down.
func (t *table) moved(by int) {
	for i := range t.count {
		t.at(t.last - i).at -= uint16(by)
	}
}

// asSection returns a field section, of its own memory, that makes a table what this
// one is; nil for an empty one.
func (t *table) asSection() []byte {
	if t.count == 0 {
		return nil
	}
	b := make([]byte, 0, t.size)
	for i := t.count; i > 0; i-- {
		name, value := t.fieldOf(t.at(t.last - i + 1))
		k := staticName(name)
		b = appendInteger(b, 0x40, 6, uint64(k))
		if k == 0 {
			b = appendShortText(b, name)
		}
		b = appendShortText(b, value)
	}
	return bytes.Clone(b)
}

// appendShortText is appendText with Huffman coding where that is shorter.
func appendShortText(b, s []byte) []byte {
	n := hpack.HuffmanEncodeLength(string(s))
	if n >= uint64(len(s)) {
		return appendText(b, s)
	}
	return hpack.AppendHuffmanString(appendInteger(b, 0x80, 7, n), string(s))
}

func (t *table) setLimit(n int) {
	t.limit = n
	t.evict(0)
}

// live reports whether the entry with that number is still in the table.
func (t *table) live(n uint32) bool { return t.last-n < t.count }
