package http2

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"
)

// appendWebSocketKey appends a key of RFC 6455 section 4.1.
func appendWebSocketKey(b []byte) []byte {
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:], rand.Uint64())
	binary.LittleEndian.PutUint64(raw[8:], rand.Uint64())
	return base64.StdEncoding.AppendEncode(b, raw[:])
}

// appendWebSocketAccept appends the answer to a key, RFC 6455 section 4.2.2.
func appendWebSocketAccept(b, key []byte) []byte {
	h := sha1.New()
	h.Write(key)
	h.Write([]byte("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	var sum [sha1.Size]byte
	return base64.StdEncoding.AppendEncode(b, h.Sum(sum[:0]))
}

// dropWebSocket drops a field of the opening handshake that RFC 8441 section 5
// does without.
func (c *conn) dropWebSocket(name string, head []byte) {
	for i := range c.lines {
		if l := &c.lines[i]; l.known == 0 && string(c.nameOfLine(head, l)) == name {
			l.drop = true
		}
	}
}
