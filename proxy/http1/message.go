// Package http1 is the wire codec of HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112):
// it parses heads in place, decodes and encodes the chunked coding and rewrites
// heads for forwarding, without I/O and without allocation.
//
// Whatever it finds in a head is reported as a [Span] of the caller's buffer, so
// the buffer must hold the head from its first byte and stay unchanged for as
// long as the spans are used; it may be moved or grown.
//
// The parser is strict on purpose: anything that two implementations might read
// differently is refused with a distinct [Error], because a proxy that lets it
// pass is what request smuggling is made of.
package http1

// Defaults of Limits.
const (
	DefaultHeadBytes    = 60 << 10
	DefaultFields       = 100
	DefaultChunkLine    = 1024
	DefaultTrailerBytes = 8 << 10
)

// Limits bounds what a peer may send. A zero or negative member means its
// default, a nil *Limits all defaults. Counts are in bytes unless said otherwise.
type Limits struct {
	HeadBytes    int // start line, fields and the empty line; default 61440, at most 2^30
	Fields       int // field lines in a head, and again in a trailer section; default 100
	ChunkLine    int // one chunk-size line with its extensions; default 1024. All extensions of a body: 16 times this.
	TrailerBytes int // the trailer section; default 8192
}

func (l *Limits) headBytes() int {
	if l == nil || l.HeadBytes <= 0 {
		return DefaultHeadBytes
	}
	return min(l.HeadBytes, 1<<30)
}

func (l *Limits) fields() int {
	if l == nil || l.Fields <= 0 {
		return DefaultFields
	}
	return l.Fields
}

func (l *Limits) chunkLine() int {
	if l == nil || l.ChunkLine <= 0 {
		return DefaultChunkLine
	}
	return l.ChunkLine
}

func (l *Limits) trailerBytes() int {
	if l == nil || l.TrailerBytes <= 0 {
		return DefaultTrailerBytes
	}
	return l.TrailerBytes
}

// Span is a range of the buffer that was parsed.
type Span struct{ Off, End uint32 }

// Of returns the bytes of s in b, the buffer that was parsed.
func (s Span) Of(b []byte) []byte { return b[s.Off:s.End:s.End] }

// Len returns the length of s in bytes.
func (s Span) Len() int { return int(s.End - s.Off) }

// Field is one field line. Value has no leading or trailing whitespace.
type Field struct {
	Name, Value Span
	ID          FieldID
	Drop        bool // AppendHead leaves it out
}

// Framing says how the end of a body is found (RFC 9112 section 6.3).
type Framing uint8

// The framings.
const (
	FramingNone       Framing = iota // no body
	FramingLength                    // Length bytes (may be 0)
	FramingChunked                   // chunked transfer coding
	FramingUntilClose                // all until the connection ends; responses only
)

// String returns none, length, chunked or until_close.
func (f Framing) String() string {
	switch f {
	case FramingLength:
		return "length"
	case FramingChunked:
		return "chunked"
	case FramingUntilClose:
		return "until_close"
	default:
		return "none"
	}
}

// Method is a request method known by name; methods are case-sensitive.
type Method uint8

// The methods of RFC 9110 section 9 and RFC 5789; MethodOther is any other token.
const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPost
	MethodPut
	MethodDelete
	MethodConnect
	MethodOptions
	MethodTrace
	MethodPatch
)

// String returns the method's name, "other" for MethodOther.
func (m Method) String() string {
	switch m {
	case MethodGet:
		return "GET"
	case MethodHead:
		return "HEAD"
	case MethodPost:
		return "POST"
	case MethodPut:
		return "PUT"
	case MethodDelete:
		return "DELETE"
	case MethodConnect:
		return "CONNECT"
	case MethodOptions:
		return "OPTIONS"
	case MethodTrace:
		return "TRACE"
	case MethodPatch:
		return "PATCH"
	default:
		return "other"
	}
}

// Idempotent reports whether RFC 9110 section 9.2.2 defines m as idempotent.
func (m Method) Idempotent() bool {
	switch m {
	case MethodGet, MethodHead, MethodPut, MethodDelete, MethodOptions, MethodTrace:
		return true
	default:
		return false
	}
}

func parseMethod(m []byte) Method {
	switch string(m) {
	case "GET":
		return MethodGet
	case "HEAD":
		return MethodHead
	case "POST":
		return MethodPost
	case "PUT":
		return MethodPut
	case "DELETE":
		return MethodDelete
	case "CONNECT":
		return MethodConnect
	case "OPTIONS":
		return MethodOptions
	case "TRACE":
		return MethodTrace
	case "PATCH":
		return MethodPatch
	default:
		return MethodOther
	}
}
