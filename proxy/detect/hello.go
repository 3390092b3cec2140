package detect

// Hello is what a ClientHello says about whom it is meant for.
type Hello struct {
	name    [maxName]byte
	nameLen int
	alpn    [maxProtocols]byte
	alpnLen int
}

const (
	maxName      = 255 // the longest name of DNS (RFC 1035 section 2.3.4)
	maxProtocols = 128
)

// ServerName returns the name that the client wants to reach (RFC 6066 section
// 3), as it was sent; empty without one.
func (h *Hello) ServerName() []byte { return h.name[:h.nameLen] }

// Protocols returns the names of the protocols that the client offers by ALPN
// (RFC 7301), in its order with commas between them: those of the first that
// have room in 128 bytes.
func (h *Hello) Protocols() []byte { return h.alpn[:h.alpnLen] }

// ReadHello fills in h from the ClientHello that b begins with; false, and h
// empty, if b does not begin with a whole one.
func ReadHello(b []byte, h *Hello) bool {
	h.nameLen, h.alpnLen = 0, 0
	if len(b) == 0 {
		return false
	}
	if k, more := readHello(b, h); k == TLS && !more {
		return true
	}
	h.nameLen, h.alpnLen = 0, 0 // what came before the mistake
	return false
}

// What is looked for in records and in the ClientHello (RFC 8446 sections 4 and
// 5.1, IANA's TLS ExtensionType values).
const (
	recordHandshake  = 22
	recordHead       = 5
	maxRecord        = 16 << 10
	messageHello     = 1
	messageHead      = 4
	extensionName    = 0
	extensionALPN    = 16
	nameTypeHost     = 0
	maxSession       = 32
	versionAndRandom = 2 + 32
)

// readHello judges the start of what may be a ClientHello, in any number of
// records. h may be nil.
func readHello(b []byte, h *Hello) (k Kind, more bool) {
	full := len(b) >= MaxHello
	c := cursor{b: b[:min(len(b), MaxHello)], limit: messageHead}
	if kind := c.int(1); kind != messageHello && !c.short {
		return Opaque, false
	}
	n := c.int(3)
	if n > MaxHello-recordHead-messageHead && !c.short {
		return Opaque, false
	}
	start := c
	c.limit = n
	c.skip(n)
	switch {
	case c.bad, c.short && full:
		return Opaque, false
	case c.short:
		return Opaque, true
	}
	start.limit = n
	if !start.hello(h) {
		return Opaque, false
	}
	return TLS, false
}

// cursor reads a handshake message across the records that it comes in. After
// the first thing that cannot be right it is bad, and where b ends too early it
// is short; either way all further reads give nothing.
type cursor struct {
	b     []byte // from the present position on
	left  int    // of the present record
	limit int    // of the structure that is read
	bad   bool
	short bool
}

// ahead makes at least one byte of the present record the next one.
func (c *cursor) ahead() bool {
	if c.bad || c.short {
		return false
	}
	if c.left > 0 {
		c.short = len(c.b) == 0
		return !c.short
	}
	b := c.b
	if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 || len(b) > 2 && b[2] > 4 {
		c.bad = true
		return false
	}
	if len(b) < recordHead {
		c.short = true
		return false
	}
	c.left = int(b[3])<<8 | int(b[4])
	if c.left == 0 || c.left > maxRecord {
		c.bad = true
		return false
	}
	c.b = b[recordHead:]
	c.short = len(c.b) == 0
	return !c.short
}

// take returns up to n further bytes, those that stand together.
func (c *cursor) take(n int) []byte {
	if n > c.limit {
		c.bad = true
	}
	if !c.ahead() {
		return nil
	}
	n = min(n, c.left, len(c.b))
	p := c.b[:n]
	c.b, c.left, c.limit = c.b[n:], c.left-n, c.limit-n
	return p
}

func (c *cursor) skip(n int) {
	for n > 0 && !c.bad && !c.short {
		n -= len(c.take(n))
	}
}

// int reads an integer of n bytes.
func (c *cursor) int(n int) (v int) {
	for range n {
		if p := c.take(1); len(p) == 1 {
			v = v<<8 | int(p[0])
		}
	}
	return v
}

// copy fills dst.
func (c *cursor) copy(dst []byte) {
	for len(dst) > 0 && !c.bad && !c.short {
		dst = dst[copy(dst, c.take(len(dst))):]
	}
}

// within narrows c to the next n bytes and returns the limit behind them.
func (c *cursor) within(n int) (behind int) {
	if n > c.limit {
		c.bad = true
	}
	behind = c.limit - n
	c.limit = n
	return behind
}

// hello reads the body of a ClientHello, which is there as a whole.
func (c *cursor) hello(h *Hello) bool {
	c.skip(versionAndRandom)
	session := c.int(1)
	c.skip(session)
	suites := c.int(2)
	c.skip(suites)
	compressions := c.int(1)
	c.skip(compressions)
	if c.bad || session > maxSession || suites == 0 || suites%2 != 0 || compressions == 0 {
		return false
	}
	if c.limit == 0 {
		return true // before TLS 1.2 there need not be extensions
	}
	if c.int(2) != c.limit {
		return false
	}
	name, alpn := false, false
	for c.limit > 0 && !c.bad {
		kind := c.int(2)
		behind := c.within(c.int(2))
		switch {
		case kind == extensionName && !name:
			name = true
			c.names(h)
		case kind == extensionALPN && !alpn:
			alpn = true
			c.protocols(h)
		case kind == extensionName || kind == extensionALPN:
			return false // no extension may come twice
		default:
			c.skip(c.limit)
		}
		c.limit = behind
	}
	return !c.bad
}

// names reads the list of server names: one, in practice, of a host.
func (c *cursor) names(h *Hello) {
	if c.int(2) != c.limit || c.limit == 0 {
		c.bad = true
	}
	host := false
	for c.limit > 0 && !c.bad {
		kind := c.int(1)
		n := c.int(2)
		if kind != nameTypeHost || c.bad {
			c.skip(n)
			continue
		}
		if host || n == 0 || n > maxName {
			c.bad = true
			return
		}
		host = true
		if h == nil {
			c.skip(n)
			continue
		}
		c.copy(h.name[:n])
		h.nameLen = n
	}
}

// protocols reads the list of ALPN.
func (c *cursor) protocols(h *Hello) {
	if c.int(2) != c.limit || c.limit == 0 {
		c.bad = true
	}
	room := true
	for c.limit > 0 && !c.bad {
		n := c.int(1)
		if n == 0 {
			c.bad = true
			return
		}
		if h == nil {
			c.skip(n)
			continue
		}
		at := h.alpnLen
		if at > 0 {
			at++
		}
		if room = room && at+n <= len(h.alpn); !room {
			c.skip(n)
			continue
		}
		if at > 0 {
			h.alpn[at-1] = ','
		}
		c.copy(h.alpn[at : at+n])
		h.alpnLen = at + n
	}
}
