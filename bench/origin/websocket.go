package origin

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"slices"
)

// maxMessage bounds a WebSocket frame's payload in bytes.
const maxMessage = 1 << 20

// acceptGUID is what RFC 6455, section 1.3, adds to the client's key.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// AcceptKey is the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key.
func AcceptKey(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// receiveWebSocket upgrades the connection, then sends every data frame back.
func (s *Server) receiveWebSocket(c *conn, data []byte) bool {
	if len(c.in) > 0 {
		c.in = append(c.in, data...)
		data = c.in
	}
	var out []byte
	if !c.ws {
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 {
			c.in = append(c.in[:0], data...)
			return len(data) <= maxHead
		}
		key := ""
		for line := range bytes.SplitSeq(data[:end], []byte("\r\n")) {
			if hasName(line, "sec-websocket-key:") {
				key = string(bytes.TrimSpace(line[len("sec-websocket-key:"):]))
			}
		}
		if key == "" {
			return false
		}
		c.ws = true
		data = data[end+4:]
		out = append(out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+AcceptKey(key)+"\r\n\r\n"...)
	}
	for {
		n, reply, ok := echoFrame(data, out)
		if !ok {
			return false
		}
		if n == 0 {
			break
		}
		data, out = data[n:], reply
	}
	c.in = append(c.in[:0], data...)
	return len(out) == 0 || s.send(c, out)
}

// echoFrame appends the answer to the first frame in data and says how long
// that frame is, 0 when it is not whole yet. Every client frame must be masked
// (RFC 6455, section 5.1).
func echoFrame(data, out []byte) (int, []byte, bool) {
	if len(data) < 2 {
		return 0, out, true
	}
	if data[1]&0x80 == 0 {
		return 0, out, false
	}
	n, at := int(data[1]&0x7f), 2
	switch n {
	case 126:
		if len(data) < 4 {
			return 0, out, true
		}
		n, at = int(binary.BigEndian.Uint16(data[2:])), 4
	case 127:
		return 0, out, false
	}
	if n > maxMessage {
		return 0, out, false
	}
	if len(data) < at+4+n {
		return 0, out, true
	}
	mask, payload := data[at:at+4], data[at+4:at+4+n]
	first := data[0]
	switch first & 0x0f {
	case 0x9: // ping
		first = first&0xf0 | 0xa
	case 0xa: // pong: no answer
		return at + 4 + n, out, true
	}
	out = append(out, first)
	if n < 126 {
		out = append(out, byte(n))
	} else {
		out = binary.BigEndian.AppendUint16(append(out, 126), uint16(n))
	}
	out = slices.Grow(out, n)
	for i, b := range payload {
		out = append(out, b^mask[i&3])
	}
	return at + 4 + n, out, true
}
