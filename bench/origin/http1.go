package origin

import (
	"bytes"
	"strconv"
	"time"
)

// maxHead bounds a request head in bytes; a longer one ends its connection.
const maxHead = 16 << 10

const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT" // RFC 9110, section 5.6.7

// answer is the one answer of an HTTP/1.1 origin: 200 with its body.
type answer struct {
	text  []byte // head and body
	head  int    // length of the head in text
	date  int    // where the date stands in text
	stamp int64  // Unix second of the date
}

func newAnswer(size int) answer {
	var a answer
	a.text = append(a.text, "HTTP/1.1 200 OK\r\nDate: "...)
	a.date = len(a.text)
	a.text = append(a.text, time.Unix(0, 0).UTC().Format(dateFormat)...)
	a.text = append(a.text, "\r\nServer: origin\r\nContent-Type: application/json; charset=utf-8\r\n"+
		"Cache-Control: private, max-age=0\r\nETag: \"6f1ed002ab5595859014ebf0951522d9\"\r\n"+
		"Vary: Accept-Encoding\r\nContent-Length: "...)
	a.text = strconv.AppendInt(a.text, int64(size), 10)
	a.text = append(a.text, "\r\n\r\n"...)
	a.head = len(a.text)
	a.text = append(a.text, bytes.Repeat([]byte{'x'}, size)...)
	return a
}

// setDate overwrites the date in its place: an answer half sent goes on with
// the new one, of the same length.
func (a *answer) setDate(now time.Time) {
	if sec := now.Unix(); sec != a.stamp {
		a.stamp = sec
		now.UTC().AppendFormat(a.text[a.date:a.date], dateFormat)
	}
}

// receiveHTTP1 answers GET and HEAD requests and requests with a
// Content-Length body, which it skips. Anything else ends the connection.
func (s *Server) receiveHTTP1(c *conn, data []byte) bool {
	if len(c.in) > 0 {
		c.in = append(c.in, data...)
		data = c.in
	}
	for {
		k := min(c.skip, len(data))
		c.skip -= k
		data = data[k:]
		if len(data) == 0 || c.off {
			break
		}
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 {
			if len(data) > maxHead {
				return false
			}
			break
		}
		head := data[:end+2]
		data = data[end+4:]
		if !s.respond(c, head) {
			return false
		}
	}
	c.in = append(c.in[:0], data...)
	return true
}

// respond answers one request whose head is complete.
func (s *Server) respond(c *conn, head []byte) bool {
	text := s.answer.text
	if bytes.HasPrefix(head, []byte("HEAD ")) {
		text = text[:s.answer.head]
	}
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		// The cheap look at the length and the first letter spares a
		// comparison for most header lines.
		switch {
		case len(line) > 15 && line[0]|0x20 == 'c' && hasName(line, "content-length:"):
			n, err := strconv.Atoi(string(bytes.TrimSpace(line[15:])))
			if err != nil || n < 0 {
				return false
			}
			c.skip = n
		case len(line) > 11 && line[0]|0x20 == 'c' && hasName(line, "connection:"):
			c.off = c.off || bytes.EqualFold(bytes.TrimSpace(line[11:]), []byte("close"))
		case len(line) > 18 && line[0]|0x20 == 't' && hasName(line, "transfer-encoding:"):
			return false
		}
	}
	return s.send(c, text)
}

func hasName(line []byte, name string) bool {
	return len(line) >= len(name) && bytes.EqualFold(line[:len(name)], []byte(name))
}
