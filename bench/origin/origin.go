// Package origin is a minimal HTTP/1.1 server on one thread: it answers every request with the same bytes, so cheaply that a proxy in front is what gets measured.
package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/bench/socket"
)

// maxHead bounds a request head in bytes; a longer one ends its connection.
const maxHead = 16 << 10

// Server answers GET and HEAD requests and requests with a Content-Length
// body, which it skips. Anything else ends the connection.
type Server struct {
	addr   netip.AddrPort
	listen int
	answer []byte // head and body
	head   int    // length of the head in answer
	date   int    // where the date stands in answer
	stamp  int64  // Unix second of the date
	conns  map[int]*conn
	set    *socket.Epoll
}

type conn struct {
	fd   int
	in   []byte // what was received and not yet understood
	skip int    // bytes of a request body still to come
	out  []byte // what the socket has not taken yet
	off  bool   // close once out is written
}

const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT" // RFC 9110, section 5.6.7

// Listen opens the server on a loopback address; port 0 takes a free one.
// Every answer is 200 with a body of size bytes.
func Listen(addr netip.AddrPort, size int) (*Server, error) {
	fd, got, err := socket.Listen(addr)
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	s := &Server{addr: got, listen: fd, conns: make(map[int]*conn)}
	s.answer = append(s.answer, "HTTP/1.1 200 OK\r\nDate: "...)
	s.date = len(s.answer)
	s.answer = append(s.answer, time.Unix(0, 0).UTC().Format(dateFormat)...)
	s.answer = append(s.answer, "\r\nServer: origin\r\nContent-Type: application/json; charset=utf-8\r\n"+
		"Cache-Control: private, max-age=0\r\nETag: \"6f1ed002ab5595859014ebf0951522d9\"\r\n"+
		"Vary: Accept-Encoding\r\nContent-Length: "...)
	s.answer = strconv.AppendInt(s.answer, int64(size), 10)
	s.answer = append(s.answer, "\r\n\r\n"...)
	s.head = len(s.answer)
	s.answer = append(s.answer, bytes.Repeat([]byte{'x'}, size)...)
	return s, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Run serves until the context ends, which it notices within 100 ms, then
// closes everything. It blocks one operating-system thread.
func (s *Server) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer unix.Close(s.listen)
	set, err := socket.NewEpoll()
	if err != nil {
		return err
	}
	s.set = set
	defer set.Close()
	defer func() {
		for fd := range s.conns {
			unix.Close(fd)
		}
	}()
	if err := set.Add(s.listen); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		events, err := set.Wait(100 * time.Millisecond)
		if err != nil {
			return fmt.Errorf("origin: wait: %w", err)
		}
		s.setDate(time.Now())
		for _, ev := range events {
			if int(ev.Fd) == s.listen {
				s.accept()
				continue
			}
			c := s.conns[int(ev.Fd)]
			if c == nil {
				continue
			}
			var ok bool
			if ev.Events&unix.EPOLLOUT != 0 {
				ok = s.flush(c)
			} else {
				ok = s.receive(c, buf)
			}
			if !ok {
				delete(s.conns, c.fd)
				unix.Close(c.fd)
			}
		}
	}
	return nil
}

func (s *Server) setDate(now time.Time) {
	if sec := now.Unix(); sec != s.stamp {
		s.stamp = sec
		now.UTC().AppendFormat(s.answer[s.date:s.date], dateFormat)
	}
}

func (s *Server) accept() {
	for {
		fd, err := socket.Accept(s.listen)
		if err != nil {
			if fd >= 0 {
				unix.Close(fd)
			}
			return // nobody waits, or no descriptor is free: the next wait tells again
		}
		if s.set.Add(fd) != nil {
			unix.Close(fd)
			continue
		}
		s.conns[fd] = &conn{fd: fd}
	}
}

// receive reads once and answers all whole requests. False ends the connection.
func (s *Server) receive(c *conn, buf []byte) bool {
	n, err := socket.Read(c.fd, buf)
	if errors.Is(err, unix.EAGAIN) {
		return true
	}
	if err != nil || n == 0 {
		return false
	}
	data := buf[:n]
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
	answer := s.answer
	switch {
	case bytes.HasPrefix(head, []byte("GET ")):
	case bytes.HasPrefix(head, []byte("HEAD ")):
		answer = answer[:s.head]
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
	if len(c.out) > 0 {
		c.out = append(c.out, answer...)
		return true
	}
	n, err := socket.Write(c.fd, answer)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		return false
	}
	if n == len(answer) {
		return !c.off
	}
	c.out = append(c.out, answer[n:]...)
	return s.set.Watch(c.fd, true) == nil
}

func hasName(line []byte, name string) bool {
	return len(line) >= len(name) && bytes.EqualFold(line[:len(name)], []byte(name))
}

// flush writes what an earlier write left over.
func (s *Server) flush(c *conn) bool {
	n, err := socket.Write(c.fd, c.out)
	if err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	c.out = c.out[:copy(c.out, c.out[n:])]
	if len(c.out) > 0 {
		return true
	}
	return !c.off && s.set.Watch(c.fd, false) == nil
}
