package telemetry

import "encoding/binary"

// TraceID names a trace; zero is none.
type TraceID [16]byte

// SpanID names a span; zero is none.
type SpanID [8]byte

// Trace flags, W3C Trace Context section 3.2.2.5 and Level 2.
const (
	FlagSampled = 0x01 // the caller may have recorded the trace
	FlagRandom  = 0x02 // the trace id's last seven bytes are random
)

// TraceContext is what a traceparent field carries: the trace, the sender's
// span in it, and whether it is recorded. The zero value is none.
type TraceContext struct {
	Trace TraceID
	Span  SpanID
	Flags byte
}

// IsZero reports whether there is no trace.
func (c TraceContext) IsZero() bool { return c.Trace == TraceID{} }

// Sampled reports whether spans of this trace are to be recorded.
func (c TraceContext) Sampled() bool { return c.Flags&FlagSampled != 0 }

// TraceparentLen is the length of a version 00 traceparent value.
const TraceparentLen = 55

// ParseTraceparent reads the value of a traceparent field as W3C Trace
// Context section 3.2 demands: lower-case hexadecimal only, version ff and
// zero ids refused, version 00 of exact length, later versions read as far as
// they are known. False means that the field, and tracestate with it, must be
// ignored. Surrounding white space is the caller's to remove.
func ParseTraceparent(b []byte) (TraceContext, bool) {
	var c TraceContext
	if len(b) < TraceparentLen || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return TraceContext{}, false
	}
	var version, flags [1]byte
	if !fromHex(version[:], b[0:2]) || !fromHex(c.Trace[:], b[3:35]) || !fromHex(c.Span[:], b[36:52]) || !fromHex(flags[:], b[53:55]) {
		return TraceContext{}, false
	}
	known := byte(FlagSampled)
	switch {
	case version[0] == 0xff:
		return TraceContext{}, false
	case version[0] == 0:
		if len(b) != TraceparentLen {
			return TraceContext{}, false
		}
		known |= FlagRandom
	case len(b) > TraceparentLen && b[TraceparentLen] != '-':
		return TraceContext{}, false
	}
	if c.IsZero() || c.Span == (SpanID{}) {
		return TraceContext{}, false
	}
	c.Flags = flags[0] & known
	return c, true
}

// traceparentLen is the length of what AppendTraceparent appends.
const traceparentLen = 55

// AppendTraceparent appends c as the value of a version 00 traceparent field.
func AppendTraceparent(dst []byte, c TraceContext) []byte {
	var b [traceparentLen]byte
	b[0], b[1], b[2], b[35], b[52] = '0', '0', '-', '-', '-'
	putHex(b[3:], binary.BigEndian.Uint64(c.Trace[:8]))
	putHex(b[19:], binary.BigEndian.Uint64(c.Trace[8:]))
	putHex(b[36:], binary.BigEndian.Uint64(c.Span[:]))
	flags := c.Flags & (FlagSampled | FlagRandom)
	b[53], b[54] = hexDigits[flags>>4], hexDigits[flags&0x0f]
	return append(dst, b[:]...)
}

// NewSpanID makes a span id from a random word.
func NewSpanID(r uint64) SpanID {
	var s SpanID
	if r == 0 {
		r = 1 // zero is not a valid id
	}
	binary.BigEndian.PutUint64(s[:], r)
	return s
}

func newTraceID(r1, r2 uint64) TraceID {
	var t TraceID
	if r1|r2 == 0 {
		r2 = 1
	}
	binary.BigEndian.PutUint64(t[:8], r1)
	binary.BigEndian.PutUint64(t[8:], r2)
	return t
}

// RequestIDLen is the length of what AppendRequestID appends.
const RequestIDLen = 36

// AppendRequestID appends a new request id made from two random words: a
// version 4 UUID (RFC 9562 section 5.4), as Envoy writes in x-request-id.
func AppendRequestID(dst []byte, r1, r2 uint64) []byte {
	var d [32]byte
	putHex(d[:], r1&^0xf000|0x4000)
	putHex(d[16:], r2&^(3<<62)|2<<62)
	var b [RequestIDLen]byte
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	copy(b[:8], d[:8])
	copy(b[9:13], d[8:12])
	copy(b[14:18], d[12:16])
	copy(b[19:23], d[16:20])
	copy(b[24:], d[20:])
	return append(dst, b[:]...)
}

const hexDigits = "0123456789abcdef"

func appendHex(dst, src []byte) []byte {
	for _, c := range src {
		dst = append(dst, hexDigits[c>>4], hexDigits[c&0x0f])
	}
	return dst
}

// putHex writes the 16 digits of w to the beginning of dst.
func putHex(dst []byte, w uint64) {
	_ = dst[15]
	binary.BigEndian.PutUint64(dst, hexOf(uint32(w>>32)))
	binary.BigEndian.PutUint64(dst[8:], hexOf(uint32(w)))
}

// hexOf returns the eight digits of w, the first in the highest byte.
func hexOf(w uint32) uint64 {
	const each = 0x0101010101010101
	x := uint64(w)
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f // four bits in each byte
	letters := (x + 6*each) >> 4 & each // 1 where they are 10 or more
	return x + '0'*each + letters*('a'-'0'-10)
}

// fromHex fills dst from twice as many lower-case hexadecimal digits.
func fromHex(dst, src []byte) bool {
	bad := false
	for i := range dst {
		// By table, for digits are random and branches would be guessed wrong.
		hi, lo := digitOf[src[2*i]], digitOf[src[2*i+1]]
		bad = bad || hi == 0 || lo == 0
		dst[i] = (hi-1)<<4 | (lo - 1)
	}
	return !bad
}

// digitOf holds each digit's value and 1; 0 is none. It is read only.
var digitOf = [256]byte{
	'0': 1, '1': 2, '2': 3, '3': 4, '4': 5, '5': 6, '6': 7, '7': 8, '8': 9, '9': 10,
	'a': 11, 'b': 12, 'c': 13, 'd': 14, 'e': 15, 'f': 16,
}
