package h2

import (
	"bytes"

	"golang.org/x/net/http2/hpack"
)

// Encoder encodes the header blocks of one direction of one connection, each
// one of a few unchanging lists of fields. The first blocks fill the peer's
// dynamic table (RFC 7541, section 2.3.2); from then on every block is the
// same few index bytes, which are only copied.
type Encoder struct {
	enc    *hpack.Encoder
	out    bytes.Buffer
	blocks []block
}

type block struct {
	list   []hpack.HeaderField
	cached []byte // nil until the table holds all of it
}

// NewEncoder makes ready to encode the given lists of fields.
func NewEncoder(lists ...[]hpack.HeaderField) *Encoder {
	e := &Encoder{}
	e.enc = hpack.NewEncoder(&e.out)
	for _, l := range lists {
		e.blocks = append(e.blocks, block{list: l})
	}
	return e
}

// SetTableSize follows the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *Encoder) SetTableSize(n uint32) {
	e.enc.SetMaxDynamicTableSizeLimit(n)
	for i := range e.blocks {
		e.blocks[i].cached = nil
	}
}

// Block is the encoded list number i, valid until the next call.
func (e *Encoder) Block(i int) []byte {
	b := &e.blocks[i]
	if b.cached != nil {
		return b.cached
	}
	e.out.Reset()
	for _, f := range b.list {
		_ = e.enc.WriteField(f) // into a buffer, which takes everything
	}
	if Neutral(e.out.Bytes()) {
		b.cached = bytes.Clone(e.out.Bytes())
		return b.cached
	}
	for k := range e.blocks { // the table has changed, and indices with it
		e.blocks[k].cached = nil
	}
	return e.out.Bytes()
}

// Neutral says whether a header block leaves the dynamic table as it is: then
// the same bytes mean the same fields for as long as no other block changes
// the table. A block that is cut off is not neutral.
func Neutral(block []byte) bool {
	for i := 0; i < len(block); {
		var ok bool
		switch c := block[i]; {
		case c&0x80 != 0: // indexed field
			_, i, ok = integer(block, i, 7)
		case c&0x40 != 0, c&0x20 != 0: // added to the table; table resized
			return false
		default: // literal that is not added
			var index int
			if index, i, ok = integer(block, i, 4); ok && index == 0 {
				i, ok = text(block, i)
			}
			if ok {
				i, ok = text(block, i)
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// integer reads a number with a prefix of n bits (RFC 7541, section 5.1).
func integer(b []byte, i, n int) (v, next int, ok bool) {
	if i >= len(b) {
		return 0, i, false
	}
	mask := 1<<n - 1
	v = int(b[i]) & mask
	i++
	if v < mask {
		return v, i, true
	}
	for shift := 0; i < len(b) && shift < 28; shift += 7 {
		c := b[i]
		i++
		v += int(c&0x7f) << shift
		if c&0x80 == 0 {
			return v, i, true
		}
	}
	return 0, i, false
}

// text skips a string (RFC 7541, section 5.2).
func text(b []byte, i int) (next int, ok bool) {
	n, i, ok := integer(b, i, 7)
	if !ok || i+n > len(b) {
		return i, false
	}
	return i + n, true
}

// Status is what a load generator wants to know of a header block.
type Status struct {
	HTTP string // :status, empty in trailers
	GRPC string // grpc-status, empty where it is missing
}

// Decoder reads the header blocks of one direction of one connection. It
// remembers the latest neutral blocks, which need no decoding again.
type Decoder struct {
	dec   *hpack.Decoder
	found Status
	known [4]struct {
		block  []byte
		status Status
	}
	next int
}

// NewDecoder makes a decoder with the default table size.
func NewDecoder() *Decoder {
	d := &Decoder{}
	d.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case ":status":
			d.found.HTTP = f.Value
		case "grpc-status":
			d.found.GRPC = f.Value
		}
	})
	return d
}

// Status decodes a whole header block.
func (d *Decoder) Status(block []byte) (Status, error) {
	for i := range d.known {
		if k := &d.known[i]; len(k.block) > 0 && bytes.Equal(k.block, block) {
			return k.status, nil
		}
	}
	d.found = Status{}
	if _, err := d.dec.Write(block); err != nil {
		return Status{}, err
	}
	if err := d.dec.Close(); err != nil {
		return Status{}, err
	}
	if Neutral(block) {
		k := &d.known[d.next%len(d.known)]
		d.next++
		k.block, k.status = append(k.block[:0], block...), d.found
		return d.found, nil
	}
	for i := range d.known { // indices have moved
		d.known[i].block = d.known[i].block[:0]
	}
	return d.found, nil
}
