package http2

import (
	"encoding/binary"
	"math"
)

// validValue reports whether a value holds no control byte but HTAB, and no space
// at its ends.
func validValue(v []byte) bool {
	n := len(v)
	if n == 0 {
		return true
	}
	if v[0] == ' ' || v[0] == '\t' || v[n-1] == ' ' || v[n-1] == '\t' {
		return false
	}
	if n < 8 {
		return validBytes(v)
	}
	for i := 0; n-i > 8; i += 8 {
		if !validWord(v[i : i+8]) {
			return false
		}
	}
	return validWord(v[n-8:]) // in part again
}

// validWord is validBytes for eight of them.
func validWord(v []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	w := binary.LittleEndian.Uint64(v)
	// Bytes below 0x20 or equal to 0x7f set their top bit, and a carry some
	// more: look closer then.
	return ((w-0x20*ones)|(w+ones))&^w&highs == 0 || validBytes(v)
}

func validBytes(v []byte) bool {
	for _, c := range v {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// plain reports whether v holds visible ASCII only.
func plain(v []byte) bool {
	for _, c := range v {
		if c <= 0x20 || c >= 0x7f {
			return false
		}
	}
	return true
}

// Classes of the bytes of a name.
const (
	nameToken   = 1 << iota // of a token, RFC 9110 section 5.6.2
	nameCapital             // and a capital letter
)

// nameBytes gives each byte's classes. It is read only.
var nameBytes = func() (t [256]uint8) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" {
		t[c] = nameToken
	}
	for c := 'A'; c <= 'Z'; c++ {
		t[c] = nameToken | nameCapital
	}
	return t
}()

func isToken(v []byte) bool {
	all := uint8(nameToken)
	for _, c := range v {
		all &= nameBytes[c]
	}
	return all != 0 && len(v) > 0
}

// validName reports whether a name is a token without capital letters.
func validName(v []byte) bool {
	all, some := uint8(nameToken), uint8(0)
	for _, c := range v {
		all &= nameBytes[c]
		some |= nameBytes[c]
	}
	return all != 0 && some&nameCapital == 0
}

func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if c != b[i] && lowerByte(c) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if c-'A' < 26 {
		return c | 0x20
	}
	return c
}

// parseLength reads 1*DIGIT, -1 if it is anything else or exceeds an int64.
func parseLength(v []byte) int64 {
	if len(v) == 0 || len(v) > 19 {
		return -1
	}
	var n uint64
	for _, c := range v {
		if c-'0' > 9 {
			return -1
		}
		n = n*10 + uint64(c-'0')
	}
	if n > math.MaxInt64 {
		return -1
	}
	return int64(n)
}
