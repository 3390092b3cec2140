package websocket

import "encoding/binary"

// GoingAway is the status of a close frame by which an endpoint says that it
// goes away, RFC 6455 section 7.4.1.
const GoingAway = 1001

// longestReason is what a control frame has room for beside the status, RFC 6455
// section 5.5.
const longestReason = 125 - 2

// AppendClose appends a close frame with a reason, which is cut to 123 bytes. To
// a server it is masked with a key that must be random; nil is for a client.
func AppendClose(b []byte, status uint16, reason string, key *[4]byte) []byte {
	reason = reason[:min(len(reason), longestReason)]
	n := byte(2 + len(reason))
	b = append(b, 0x80|byte(Close), n)
	if key != nil {
		b[len(b)-1] |= 0x80
		b = append(b, key[:]...)
	}
	at := len(b)
	b = append(binary.BigEndian.AppendUint16(b, status), reason...)
	if key != nil {
		for i := range b[at:] {
			b[at+i] ^= key[i%4]
		}
	}
	return b
}
