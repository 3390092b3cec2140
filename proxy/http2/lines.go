package http2

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// line is a field line of a head to be sent. Offsets are into the head, or into
// conn.lower for a name that had capital letters.
type line struct {
	at              int // where the line begins
	name, nameEnd   int
	value, valueEnd int
	known           uint8 // staticName, or one of those below
	lowered         bool
	drop            bool
	plain           bool   // see entry.plain
	hash            uint32 // of the whole line, unless it is 0
	entry           uint32 // of the encoder's that is the same, unless it is 0
}

// Names that HTTP/2 treats apart, beyond the positions of the static table.
const (
	nameConnection = 100 + iota
	nameHop        // keep-alive, proxy-connection, transfer-encoding, http2-settings
	nameUpgrade
	nameTE
	nameHost
	nameKey
	nameAccept
)

func nameOf(name []byte) uint8 {
	if n := staticName(name); n != 0 {
		return n
	}
	switch string(name) {
	case "connection":
		return nameConnection
	case "keep-alive", "proxy-connection", "transfer-encoding", "http2-settings":
		return nameHop
	case "upgrade":
		return nameUpgrade
	case "te":
		return nameTE
	case "host":
		return nameHost
	case "sec-websocket-key":
		return nameKey
	case "sec-websocket-accept":
		return nameAccept
	}
	return 0
}

// fieldLines are what parseLines found besides the lines themselves.
type fieldLines struct {
	host    []byte
	upgrade []byte // the Upgrade field's value, if Connection names it
	key     []byte
	accept  []byte
}

// parseLines splits field lines, of head from pos, into c.lines. They end with
// an empty line or with head. One that is an entry of the encoder's has been looked
// at before.
func (c *conn) parseLines(head []byte, pos int) (f fieldLines, ok bool) {
	c.lines, c.lower = c.lines[:0], c.lower[:0]
	if !c.cfg.Raw {
		c.enc.remember()
	}
	var upgrade []byte
	named, options := false, false
	for pos < len(head) {
		n := bytes.IndexByte(head[pos:], '\n')
		if n < 1 || head[pos+n-1] != '\r' {
			return f, false
		}
		end := pos + n - 1
		if end == pos {
			break
		}
		h := uint32(0)
		if !c.cfg.Raw {
			whole := head[pos : pos+n+1]
			h = hash(0, whole)
			if i := c.enc.find(whole, h); i != 0 && c.enc.at(i).plain {
				e := c.enc.at(i)
				k := pos + int(e.name)
				c.lines = append(c.lines, line{
					at: pos, name: pos, nameEnd: k, value: k + len(": "), valueEnd: end,
					known: e.known, plain: true, hash: h, entry: i,
				})
				pos += n + 1
				continue
			}
		}
		k := bytes.IndexByte(head[pos:end], ':')
		if k < 1 {
			return f, false
		}
		l := line{at: pos, name: pos, nameEnd: pos + k, value: pos + k + 1, valueEnd: end}
		for l.value < l.valueEnd && (head[l.value] == ' ' || head[l.value] == '\t') {
			l.value++
		}
		for l.value < l.valueEnd && (head[l.valueEnd-1] == ' ' || head[l.valueEnd-1] == '\t') {
			l.valueEnd--
		}
		name := head[l.name:l.nameEnd]
		all, some := uint8(nameToken|nameCapital), uint8(0)
		for _, b := range name {
			all &= nameBytes[b]
			some |= nameBytes[b]
		}
		if all&nameToken == 0 {
			return f, false
		}
		if some&nameCapital != 0 {
			at := len(c.lower)
			c.lower = append(c.lower, name...)
			name = c.lower[at:]
			for j, b := range name {
				name[j] = lowerByte(b)
			}
			l.name, l.nameEnd, l.lowered = at, len(c.lower), true
		} else if l.value == l.nameEnd+len(": ") && head[l.nameEnd+1] == ' ' && l.valueEnd == end {
			l.hash = h
		}
		l.plain = true
		value := head[l.value:l.valueEnd]
		switch l.known = nameOf(name); l.known {
		case nameConnection:
			l.drop = true
			up, other := connectionOptions(value)
			named, options = named || up, options || other
		case nameHop:
			l.drop = true
		case nameUpgrade:
			l.drop = true
			upgrade = value
		case nameTE:
			l.drop = !equalFold(value, []byte("trailers"))
			l.known = 0
		case nameHost:
			l.drop = true
			f.host = value
		case nameKey:
			l.known, l.plain, f.key = 0, false, value
		case nameAccept:
			l.known, l.plain, f.accept = 0, false, value
		}
		if !validValue(value) {
			return f, false
		}
		c.lines = append(c.lines, l)
		pos += n + 1
	}
	if named && !equalFold(upgrade, []byte("h2c")) {
		f.upgrade = upgrade
	}
	if options {
		c.dropNamed(head)
	}
	return f, true
}

// nextOption splits the first element off a list.
func nextOption(v []byte) (option, rest []byte) {
	if i := bytes.IndexByte(v, ','); i >= 0 {
		return bytes.Trim(v[:i], " \t"), v[i+1:]
	}
	return bytes.Trim(v, " \t"), nil
}

// connectionOptions looks through the value of a Connection field: whether it
// names Upgrade, and any field that is not known to concern one connection.
func connectionOptions(v []byte) (upgrade, other bool) {
	for len(v) > 0 {
		var o []byte
		o, v = nextOption(v)
		switch {
		case equalFold(o, []byte("upgrade")):
			upgrade = true
		case len(o) == 0, equalFold(o, []byte("close")), equalFold(o, []byte("keep-alive")), equalFold(o, []byte("te")):
		default:
			other = true
		}
	}
	return upgrade, other
}

// dropNamed drops the fields that Connection names (RFC 9110 section 7.6.1), but
// for those that package http1 keeps as well.
func (c *conn) dropNamed(head []byte) {
	for i := range c.lines {
		if c.lines[i].known != nameConnection {
			continue
		}
		for v := head[c.lines[i].value:c.lines[i].valueEnd]; len(v) > 0; {
			var o []byte
			o, v = nextOption(v)
			for k := range c.lines {
				l := &c.lines[k]
				name := c.nameOfLine(head, l)
				if l.known == 0 && equalFold(name, o) && !bytes.HasPrefix(name, []byte("x-forwarded-")) &&
					!bytes.HasPrefix(name, []byte("x-outrigger-")) && string(name) != "te" {
					l.drop = true
				}
			}
		}
	}
}

// mayTrail reports whether a line may stand among trailers.
func (c *conn) mayTrail(lines []byte, l *line) bool {
	return !l.drop && http1.MayTrail(c.nameOfLine(lines, l))
}

func (c *conn) nameOfLine(head []byte, l *line) []byte {
	if l.lowered {
		return c.lower[l.name:l.nameEnd]
	}
	return head[l.name:l.nameEnd]
}

// appendLines encodes the lines that are not dropped.
func (c *conn) appendLines(b, head []byte) []byte {
	for i := range c.lines {
		l := &c.lines[i]
		switch {
		case l.drop:
		case l.entry != 0 && c.enc.live(l.entry):
			b = c.enc.again(b, l.entry)
		case l.hash != 0:
			b = c.enc.line(b, l.known, head[l.at:l.valueEnd+len("\r\n")], l.nameEnd-l.name, l.hash, l.plain)
		default:
			whole := c.enc.asLine(c.nameOfLine(head, l), head[l.value:l.valueEnd])
			b = c.enc.line(b, l.known, whole, l.nameEnd-l.name, hash(0, whole), l.plain)
		}
	}
	return b
}
