package http2

import "github.com/outrigger-mesh/outrigger/proxy/http1"

// sectionKind says which rules a field section is under.
type sectionKind uint8

const (
	sectionRequest sectionKind = iota
	sectionResponse
	sectionTrailers
)

// span is a range of section.pseudo.
type span struct{ off, end int }

func (s span) of(b []byte) []byte { return b[s.off:s.end] }
func (s span) empty() bool        { return s.off == s.end }

// section turns a field section into an HTTP/1.1 head, and checks it against
// RFC 9113 sections 8.1.1, 8.2 and 8.3.
type section struct {
	conn *conn
	kind sectionKind
	bulk bool // streams send much
	self bool // the stream is said to depend on itself

	out     []byte // the head, or field lines of trailers
	lines   []byte // memory for trailers that were not compressed
	origin  Origin // of a request that was not compressed
	pseudo  []byte // values of pseudo-header fields
	cookies []byte
	key     []byte // made for an extended CONNECT, or of the request it answers

	method, scheme, authority, path, protocol, status1 span
	seen                                               uint8
	begun                                              bool // a regular field has come
	hasHost, hasCookie                                 bool
	connect                                            bool
	upgraded                                           bool // the response may become a 101
	plain                                              bool // the last field is what entry.plain says
	malformed                                          string
	tooLarge                                           bool
	size, fields                                       int
	length                                             int64
	status                                             int
}

const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
	seenProtocol
	seenStatus
)

// begin forgets the section before. s is the stream that a response is for.
func (x *section) begin(kind sectionKind, s *Stream) {
	x.kind = kind
	x.out, x.pseudo, x.cookies, x.key = x.out[:0], x.pseudo[:0], x.cookies[:0], x.key[:0]
	x.method, x.scheme, x.authority, x.path, x.protocol, x.status1 = span{}, span{}, span{}, span{}, span{}, span{}
	x.seen, x.begun, x.hasHost, x.hasCookie, x.connect, x.upgraded = 0, false, false, false, false, false
	x.malformed, x.tooLarge, x.size, x.fields, x.length, x.status = "", false, 0, 0, -1, 0
	if kind == sectionResponse {
		x.connect = s.connect
		x.upgraded = s.connect && len(s.Protocol) > 0
		if x.upgraded {
			x.protocol = x.save(s.Protocol)
			x.key = append(x.key, s.key...)
		}
	}
}

func (x *section) fault(reason string) {
	if x.malformed == "" {
		x.malformed = reason
	}
}

// entry takes the next field, which is an entry of the decoder's. One that was looked at
// before, and means the same in any section, is copied.
func (x *section) entry(e *entry) {
	t := &x.conn.dec.table
	if !e.plain || !x.begun || x.kind == sectionTrailers {
		x.plain = false
		x.field(t.fieldOf(e))
		e.plain = x.plain
		return
	}
	x.size += e.bytes()
	x.fields++
	if x.size > x.conn.cfg.HeaderBytes || x.fields > x.conn.cfg.Fields+pseudoFields {
		x.tooLarge = true
		return
	}
	if x.malformed == "" {
		x.out = append(x.out, t.lineOf(e)...)
	}
}

// field takes the next field.
func (x *section) field(name, value []byte) {
	x.size += len(name) + len(value) + entryOverhead
	x.fields++
	if x.size > x.conn.cfg.HeaderBytes || x.fields > x.conn.cfg.Fields+pseudoFields {
		x.tooLarge = true
		return
	}
	if x.malformed != "" {
		return
	}
	if len(name) == 0 {
		x.fault("empty field name")
		return
	}
	if !validValue(value) {
		x.fault("field value with a forbidden byte")
		return
	}
	if name[0] == ':' {
		x.pseudoField(name, value)
		return
	}
	if !x.begun {
		x.begun = true
		x.startLine()
	}
	if !validName(name) {
		x.fault("malformed field name")
		return
	}
	switch string(name) {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		x.fault("connection-specific field")
		return
	case "te":
		if !equalFold(value, []byte("trailers")) {
			x.fault("te other than trailers")
			return
		}
		if x.kind == sectionRequest {
			// HTTP/1.1 has it named by Connection (RFC 9110 section 10.1.4).
			x.out = append(x.out, "te: trailers\r\n"...)
			return
		}
	case "http2-settings":
		return // of an upgrade from HTTP/1.1, which this is not
	case "cookie":
		if x.kind == sectionRequest {
			if x.hasCookie {
				x.cookies = append(x.cookies, "; "...)
			}
			x.hasCookie = true
			x.cookies = append(x.cookies, value...)
			return
		}
	case "host":
		if x.kind == sectionRequest && x.host(value) {
			return
		}
	case "content-length":
		if x.kind == sectionTrailers {
			return // it may not be there, and must not be believed
		}
		n := parseLength(value)
		if n < 0 || x.length >= 0 && n != x.length {
			x.fault("malformed content-length")
			return
		}
		if x.length >= 0 || x.connect {
			return // said already, or without a meaning
		}
		x.length = n
	case "sec-websocket-key":
		if x.protocol.end > 0 && x.kind == sectionRequest {
			return
		}
	case "sec-websocket-accept":
		if x.upgraded {
			return
		}
	default:
		x.plain = true
	}
	if x.kind == sectionTrailers && !http1.MayTrail(name) {
		return
	}
	x.line(name, value)
}

// pseudoFields is how many pseudo-header fields come on top of Config.Fields.
const pseudoFields = 6

func (x *section) line(name, value []byte) {
	x.out = append(x.out, name...)
	x.out = append(x.out, ": "...)
	x.out = append(x.out, value...)
	x.out = append(x.out, "\r\n"...)
}

// host judges a host field. It reports true if that is not to be written.
func (x *section) host(value []byte) bool {
	if x.hasHost && x.seen&seenAuthority == 0 {
		x.fault("more than one host")
		return true
	}
	if x.seen&seenAuthority != 0 {
		if !equalFold(value, x.authority.of(x.pseudo)) {
			x.fault("host differs from :authority")
		}
		return true
	}
	x.hasHost = true
	return false
}

func (x *section) save(value []byte) span {
	off := len(x.pseudo)
	x.pseudo = append(x.pseudo, value...)
	return span{off, len(x.pseudo)}
}

// pseudoField takes a field whose name begins with a colon, RFC 9113 section 8.3.
func (x *section) pseudoField(name, value []byte) {
	if x.begun {
		x.fault("pseudo-header field behind a field")
		return
	}
	var bit uint8
	var to *span
	switch {
	case x.kind == sectionTrailers:
		x.fault("pseudo-header field in trailers")
		return
	case x.kind == sectionResponse:
		if string(name) == ":status" {
			bit, to = seenStatus, &x.status1
		}
	default:
		switch string(name) {
		case ":method":
			bit, to = seenMethod, &x.method
		case ":scheme":
			bit, to = seenScheme, &x.scheme
		case ":authority":
			bit, to = seenAuthority, &x.authority
		case ":path":
			bit, to = seenPath, &x.path
		case ":protocol":
			bit, to = seenProtocol, &x.protocol
		}
	}
	switch {
	case bit == 0:
		x.fault("unknown pseudo-header field")
	case x.seen&bit != 0:
		x.fault("pseudo-header field twice")
	default:
		x.seen |= bit
		*to = x.save(value)
	}
}

// startLine writes what comes before the first field.
func (x *section) startLine() {
	switch x.kind {
	case sectionRequest:
		x.requestLine()
	case sectionResponse:
		x.statusLine()
	case sectionTrailers:
	}
}

func (x *section) requestLine() {
	p := x.pseudo
	method, path, authority := x.method.of(p), x.path.of(p), x.authority.of(p)
	switch {
	case !isToken(method):
		x.fault("malformed :method")
		return
	case !plain(authority):
		x.fault("malformed :authority")
		return
	case string(method) == "CONNECT":
		x.connect = true
	case x.seen&seenProtocol != 0:
		x.fault(":protocol without CONNECT")
		return
	}
	tunnel := x.connect && x.seen&seenProtocol == 0
	switch {
	case tunnel && x.seen&(seenScheme|seenPath) != 0:
		x.fault("CONNECT with :scheme or :path")
	case tunnel && len(authority) == 0:
		x.fault("CONNECT without :authority")
	case tunnel:
		x.out = append(x.out, "CONNECT "...)
		x.out = append(x.out, authority...)
	case x.seen&(seenScheme|seenPath) != seenScheme|seenPath || x.scheme.empty():
		x.fault("no :scheme or no :path")
	case !isToken(x.scheme.of(p)):
		x.fault("malformed :scheme")
	case len(path) == 0 || path[0] != '/' && (len(path) != 1 || path[0] != '*' || string(method) != "OPTIONS") || !plain(path):
		x.fault("malformed :path")
	case x.connect && (!x.conn.cfg.ExtendedConnect || len(authority) == 0 || !isToken(x.protocol.of(p))):
		x.fault("extended CONNECT that was not offered, or is malformed")
	default:
		if x.connect {
			x.out = append(x.out, "GET "...)
		} else {
			x.out = append(append(x.out, method...), ' ')
		}
		x.out = append(x.out, path...)
	}
	if x.malformed != "" {
		return
	}
	x.out = append(x.out, " HTTP/1.1\r\n"...)
	if x.seen&seenAuthority != 0 {
		x.out = append(x.out, "host: "...)
		x.out = append(x.out, authority...)
		x.out = append(x.out, "\r\n"...)
		x.hasHost = true
	}
	if x.connect && !tunnel {
		x.upgradeLines()
		if string(x.protocol.of(p)) == "websocket" {
			x.key = appendWebSocketKey(x.key)
			x.line([]byte("sec-websocket-key"), x.key)
		}
	}
}

func (x *section) upgradeLines() {
	x.out = append(x.out, "connection: upgrade\r\nupgrade: "...)
	x.out = append(x.out, x.protocol.of(x.pseudo)...)
	x.out = append(x.out, "\r\n"...)
}

func (x *section) statusLine() {
	v := x.status1.of(x.pseudo)
	if len(v) != 3 || v[0] < '1' || v[0] > '9' || v[1]-'0' > 9 || v[2]-'0' > 9 {
		x.fault("malformed :status")
		return
	}
	x.status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
	if x.status == 101 {
		x.fault("status 101, which HTTP/2 does not have")
		return
	}
	x.upgraded = x.upgraded && x.status/100 == 2
	x.connect = x.connect && x.status/100 == 2
	if x.upgraded {
		x.out = append(x.out, "HTTP/1.1 101 Switching Protocols\r\n"...)
		x.upgradeLines()
		if string(x.protocol.of(x.pseudo)) == "websocket" {
			x.out = append(x.out, "sec-websocket-accept: "...)
			x.out = appendWebSocketAccept(x.out, x.key)
			x.out = append(x.out, "\r\n"...)
		}
		return
	}
	x.out = append(x.out, "HTTP/1.1 "...)
	x.out = append(x.out, v...)
	x.out = append(x.out, ' ')
	x.out = append(x.out, http1.Phrase(x.status)...)
	x.out = append(x.out, "\r\n"...)
}

// end takes the end of the section; last says that it ends the stream.
func (x *section) end(last bool) {
	if !x.begun {
		x.startLine()
	}
	if x.malformed != "" || x.tooLarge || x.kind == sectionTrailers {
		return
	}
	if x.kind == sectionRequest {
		if !x.hasHost {
			x.out = append(x.out, "host: \r\n"...)
		}
		if x.hasCookie {
			x.out = append(x.out, "cookie: "...)
			x.out = append(x.out, x.cookies...)
			x.out = append(x.out, "\r\n"...)
		}
		if last && x.length > 0 {
			x.fault("content-length without DATA")
			return
		}
	}
	if !last && x.length < 0 && !x.connect && (x.kind == sectionRequest || x.status >= 200) {
		x.out = append(x.out, "transfer-encoding: chunked\r\n"...)
	}
	x.out = append(x.out, "\r\n"...)
}
