package http1

import (
	"encoding/binary"
	"math/bits"
)

// Classes of bytes.
const (
	classToken  = 1 << iota // tchar, RFC 9110 section 5.6.2
	classTarget             // what a request target may hold: visible ASCII without '#'
	classHost               // unreserved and sub-delims without ',', RFC 3986 section 2
	classHex
)

// classes is read only; bytes from 128 on are in no class.
var classes = [256]uint8{
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 7, 2, 1, 7, 3, 7, 7, 6, 6, 7, 7, 2, 7, 7, 2,
	15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 2, 6, 2, 6, 2, 2,
	2, 15, 15, 15, 15, 15, 15, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 2, 2, 2, 3, 7,
	3, 15, 15, 15, 15, 15, 15, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 2, 3, 2, 7, 0,
}

const (
	ones     = 0x0101010101010101
	halfOnes = 0x01010101
	highs    = 0x8080808080808080
)

// scanText returns the position at or after i of the first byte of b that is a
// control byte other than HTAB, or len(b).
func scanText(b []byte, i int) int {
	for {
		for len(b)-i >= 8 {
			x := binary.LittleEndian.Uint64(b[i:])
			// The top bit of a byte ends up set if the byte is below 0x20 or 0x7f. A
			// carry or borrow can set others, so the byte found is looked at again.
			if m := ((x - 0x20*ones) | (x + ones)) &^ x & highs; m != 0 {
				i += bits.TrailingZeros64(m) >> 3
				goto found
			}
			i += 8
		}
		for ; i < len(b); i++ {
			if c := b[i]; c < 0x20 || c == 0x7f {
				goto found
			}
		}
		return i
	found:
		if c := b[i]; c != '\t' && (c < 0x20 || c == 0x7f) {
			return i
		}
		i++
	}
}

// scanName returns the position at or after i of the first byte of b that is a
// control byte, a space or a colon, or len(b).
func scanName(b []byte, i int) int {
	for len(b)-i >= 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		y := x ^ ':'*ones
		// The lowest bit set is right: borrows go upwards from a right one.
		if m := ((x-0x21*ones)&^x | (y-ones)&^y) & highs; m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(b) && b[i] > 0x20 && b[i] != ':' {
		i++
	}
	return i
}

// scanTarget returns the position at or after i of the first byte of b that a
// request target may not hold, or len(b).
func scanTarget(b []byte, i int) int {
	for len(b)-i >= 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		y := x ^ '#'*ones
		// As in scanText, but the top bit itself is wrong here as well. Carries come
		// from bytes that are wrong themselves, so the lowest bit set is right.
		if m := ((x-0x21*ones)&^x | x | (x + ones) | (y-ones)&^y) & highs; m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(b) && classes[b[i]]&classTarget != 0 {
		i++
	}
	return i
}

// equalFold reports whether name is lower but for case. name must have no control
// bytes and lower no other characters than small letters, '-' and digits, for
// then setting bit 5 folds exactly.
func equalFold(name []byte, lower string) bool {
	n := len(name)
	if n != len(lower) {
		return false
	}
	if n < 8 {
		if n >= 4 { // as below, with words of half the size
			return binary.LittleEndian.Uint32(name)|0x20*halfOnes == halfWord(lower, 0) &&
				binary.LittleEndian.Uint32(name[n-4:])|0x20*halfOnes == halfWord(lower, n-4)
		}
		for i := range name {
			if name[i]|0x20 != lower[i] {
				return false
			}
		}
		return true
	}
	if binary.LittleEndian.Uint64(name[n-8:])|0x20*ones != word(lower, n-8) {
		return false
	}
	for i := 0; i < n-8; i += 8 {
		if binary.LittleEndian.Uint64(name[i:])|0x20*ones != word(lower, i) {
			return false
		}
	}
	return true
}

// word loads eight bytes of s from i.
func word(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// halfWord loads four bytes of s from i.
func halfWord(s string, i int) uint32 {
	s = s[i : i+4]
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// equalFoldBytes compares two tokens without regard to case.
func equalFoldBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if d := b[i]; c != d && (c|0x20 != d|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// trim returns s without leading and trailing whitespace.
func (s Span) trim(b []byte) Span {
	for s.Off < s.End && isSpace(b[s.Off]) {
		s.Off++
	}
	for s.Off < s.End && isSpace(b[s.End-1]) {
		s.End--
	}
	return s
}

// equalName is equalFold for any bytes: an equal name is a token by itself.
func equalName(name []byte, lower string) bool {
	return equalFold(name, lower) && isToken(name)
}

func hasPrefixFold(name []byte, lower string) bool {
	return len(name) >= len(lower) && equalName(name[:len(lower)], lower)
}

func isToken(s []byte) bool {
	for _, c := range s {
		if classes[c]&classToken == 0 {
			return false
		}
	}
	return len(s) > 0
}
