// Package detect tells from the first bytes of a connection what is spoken on it, and remembers what was learnt about destinations.
package detect

import "time"

// Kind is what a connection speaks.
type Kind uint8

// The kinds.
const (
	// Opaque is everything that is none of the others.
	Opaque Kind = iota
	// HTTP1 begins with the request line of HTTP/1.x (RFC 9112 section 3).
	HTTP1
	// HTTP2 begins with the preface of prior knowledge (RFC 9113 section 3.4).
	HTTP2
	// TLS begins with a ClientHello (RFC 8446 section 4.1.2).
	TLS
)

var kindNames = [...]string{"tcp", "http1", "http2", "tls"}

// String returns the word used in metrics, records and on the admin API.
func (k Kind) String() string { return kindNames[k] }

// HTTP reports whether k is HTTP of any version.
func (k Kind) HTTP() bool { return k == HTTP1 || k == HTTP2 }

// Bounds of what is looked at before it is decided.
const (
	// MaxLine is how much of a request line is read for its end. A longer one
	// is HTTP if it begins with one of HTTP's own methods.
	MaxLine = 1 << 10
	// MaxHello is within which a ClientHello must be whole, record headers
	// included; what is longer is opaque.
	MaxHello = 16 << 10
	// maxMethod is the longest method; the longest registered one has 17 bytes.
	maxMethod = 32
)

// Patience is how long somebody who mostly speaks first is waited for: the rest
// of what has begun, the first byte to a destination whose clients have spoken
// first before, and the first byte of a handshake where mTLS and plaintext are
// taken on one port.
const Patience = time.Second

// preface begins HTTP/2 by prior knowledge (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Classify tells what a client speaks that has sent b so far. more says that
// it takes further bytes to tell. Once it is told, further bytes do not change
// it. It reads MaxHello bytes at most and does not allocate.
func Classify(b []byte) (k Kind, more bool) {
	if len(b) == 0 {
		return Opaque, true
	}
	if b[0] == recordHandshake {
		return readHello(b, nil)
	}
	if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
		return HTTP2, n < len(preface)
	}
	return requestLine(b)
}

// ServerKind tells what a server speaks that has sent b before the client has
// sent anything: HTTP2 for the SETTINGS with which a server may begin, HTTP1
// for a response that nobody asked for, such as a 408, else Opaque. Only the
// last belongs to a protocol in which the server speaks first.
func ServerKind(b []byte) Kind {
	const status = "HTTP/1."
	switch {
	case len(b) >= len(status) && string(b[:len(status)]) == status:
		return HTTP1
	case len(b) >= 9 && b[0] == 0 && b[3] == frameSettings && b[4] == 0 && b[5]|b[6]|b[7]|b[8] == 0:
		return HTTP2
	}
	return Opaque
}

// frameSettings is the type of a SETTINGS frame (RFC 9113 section 6.5).
const frameSettings = 4

// requestLine judges the start of what may be a request line, behind the one
// empty line that a server should skip (RFC 9112 section 2.2).
func requestLine(b []byte) (k Kind, more bool) {
	start := 0
	if b[0] == '\r' {
		if len(b) == 1 {
			return Opaque, true
		}
		if b[1] != '\n' {
			return Opaque, false
		}
		start = 2
	}
	i := start
	for i < len(b) && isToken(b[i]) {
		if i++; i-start > maxMethod {
			return Opaque, false
		}
	}
	if i == len(b) {
		return Opaque, true
	}
	if b[i] != ' ' || i == start {
		return Opaque, false
	}
	method, target := b[start:i], i+1
	for i = target; i < len(b) && b[i] > ' ' && b[i] != 0x7f; {
		if i++; i == MaxLine {
			if isMethod(method) {
				return HTTP1, false
			}
			return Opaque, false
		}
	}
	if i == len(b) {
		return Opaque, true
	}
	if b[i] != ' ' || i == target {
		return Opaque, false
	}
	return version(b[i+1:])
}

// version judges the end of a request line. Which version it is, and whether
// the line ends as it should, is for the codec to say.
func version(v []byte) (k Kind, more bool) {
	const form = "HTTP/0.0\r\n"
	for i := range v {
		c := v[i]
		switch {
		case i == 5 || i == 7:
			if c < '0' || c > '9' {
				return Opaque, false
			}
		case i >= 8 && c == '\n':
			return HTTP1, false
		case c != form[i]:
			return Opaque, false
		}
	}
	return Opaque, true
}

// isToken reports whether c may be part of a token (RFC 9110 section 5.6.2).
func isToken(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}

// isMethod reports whether m is one of the methods of RFC 9110 section 9 or
// PATCH (RFC 5789).
func isMethod(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return true
	}
	return false
}
