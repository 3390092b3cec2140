package limiter

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// What is read of Redis's protocol (RESP2) are the replies that its commands
// here can have: a line, a number, a string, or an array of numbers.

// Bounds of a reply.
const (
	maxLine   = 1024
	maxString = 4096
	maxArray  = 16
)

// replyError is an error that Redis answers with.
type replyError string

// Error implements error.
func (e replyError) Error() string { return "it answers " + strconv.Quote(string(e)) }

// errReply is the reason for replies that make no sense.
var errReply = errors.New("its answer is not Redis's protocol, or not what was asked for")

// redisReply is a reply: numbers, or else text.
type redisReply struct {
	text    string
	numbers []int64
}

// readReply reads one reply. The error is a replyError for one that Redis
// reports, wraps errReply for what makes no sense, else is that of reading.
func readReply(r *bufio.Reader) (v redisReply, err error) {
	kind, line, err := readLine(r)
	if err != nil {
		return v, err
	}
	switch kind {
	case '+':
		return redisReply{text: line}, nil
	case '-':
		return v, replyError(line)
	case ':':
		n, err := number(line)
		return redisReply{numbers: []int64{n}}, err
	case '$':
		n, err := number(line)
		switch {
		case err != nil:
			return v, err
		case n == -1:
			return v, nil // there is none
		case n < 0 || n > maxString:
			return v, fmt.Errorf("%w: a string of %d bytes", errReply, n)
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return v, err
		}
		if b[n] != '\r' || b[n+1] != '\n' {
			return v, fmt.Errorf("%w: a string without its end", errReply)
		}
		return redisReply{text: string(b[:n])}, nil
	case '*':
		n, err := number(line)
		if err != nil || n < 0 || n > maxArray {
			return v, fmt.Errorf("%w: an array of %q", errReply, line)
		}
		v.numbers = make([]int64, 0, n)
		for range n {
			kind, line, err := readLine(r)
			if err != nil {
				return v, err
			}
			if kind != ':' {
				return v, fmt.Errorf("%w: an array of other things than numbers", errReply)
			}
			one, err := number(line)
			if err != nil {
				return v, err
			}
			v.numbers = append(v.numbers, one)
		}
		return v, nil
	}
	return v, fmt.Errorf("%w: it begins with %q", errReply, kind)
}

// readLine reads the kind of a reply and the rest of its line.
func readLine(r *bufio.Reader) (kind byte, line string, err error) {
	b, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(b) > maxLine:
		return 0, "", fmt.Errorf("%w: a line without end", errReply)
	case err != nil:
		if errors.Is(err, io.EOF) && len(b) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, "", err
	case len(b) < 3 || b[len(b)-2] != '\r':
		return 0, "", fmt.Errorf("%w: the line %q", errReply, b)
	}
	return b[0], string(b[1 : len(b)-2]), nil
}

func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n == math.MinInt64 {
		return 0, fmt.Errorf("%w: the number %q", errReply, s)
	}
	return n, nil
}

// appendCommand appends a command with its arguments.
func appendCommand(b []byte, args ...string) []byte {
	b = append(strconv.AppendInt(append(b, '*'), int64(len(args)), 10), "\r\n"...)
	for _, a := range args {
		b = append(strconv.AppendInt(append(b, '$'), int64(len(a)), 10), "\r\n"...)
		b = append(append(b, a...), "\r\n"...)
	}
	return b
}
