package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// maxHead bounds the head of an answer in bytes.
const maxHead = 32 << 10

var (
	errLongHead  = errors.New("the answer's head is longer than 32 KiB")
	errNoStatus  = errors.New("the answer does not start with an HTTP/1.1 status line")
	errNoLength  = errors.New("the answer has no Content-Length")
	errTwoHeads  = errors.New("bytes follow the answer that nobody asked for")
	errTruncated = errors.New("the connection ended before the answer was whole")
)

// answer follows one response through the pieces in which it arrives. The
// zero value waits for a head.
type answer struct {
	head   []byte // collected so far, only when it came in pieces
	length int    // bytes of the body
	rest   int    // of them still to come
	inBody bool
	close  bool // the server ends the connection after this answer
}

// feed takes the next piece; done is true when the answer is whole. An answer
// that is not 200 or not framed by Content-Length is an error.
func (a *answer) feed(piece []byte) (done bool, err error) {
	if !a.inBody {
		data := piece
		if len(a.head) > 0 {
			a.head = append(a.head, piece...)
			data = a.head
		}
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 {
			if len(data) > maxHead+3 { // three bytes may be the beginning of its end
				return false, errLongHead
			}
			if len(a.head) == 0 {
				a.head = append(a.head, piece...)
			}
			return false, nil
		}
		if end > maxHead {
			return false, errLongHead
		}
		if err := a.parse(data[:end+2]); err != nil {
			return false, err
		}
		piece = data[end+4:]
		a.inBody = true
	}
	if len(piece) > a.rest {
		return false, errTwoHeads
	}
	a.rest -= len(piece)
	return a.rest == 0, nil
}

// part is how much of the body has come, from 0 to 1.
func (a *answer) part() float64 {
	if a.length == 0 {
		return 0
	}
	return float64(a.length-a.rest) / float64(a.length)
}

// reset makes ready for the next answer on the same connection.
func (a *answer) reset() {
	a.head, a.length, a.rest, a.inBody, a.close = a.head[:0], 0, 0, false, false
}

func (a *answer) parse(head []byte) error {
	line, fields, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return errNoStatus
	}
	if string(line[9:12]) != "200" {
		return fmt.Errorf("status %q", line[9:])
	}
	length := -1
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		// Both names begin with c: the rest is not looked at.
		if len(line) < 11 || line[0]|0x20 != 'c' {
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil || n < 0 {
				return fmt.Errorf("content-length %q", value)
			}
			length = n
		case bytes.EqualFold(name, []byte("connection")):
			a.close = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
	if length < 0 {
		return errNoLength
	}
	a.length, a.rest = length, length
	return nil
}
