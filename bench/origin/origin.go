// Package origin is the server behind the measured proxies, on one thread: it answers HTTP/1.1, HTTP/2, gRPC, WebSocket and plain TCP so cheaply that a proxy in front is what gets measured.
package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/bench/socket"
)

// Kind is what an origin speaks.
type Kind string

// The kinds of origins.
const (
	HTTP1     Kind = "http1"     // answers of Config.Size bytes
	HTTP2     Kind = "http2"     // the same over cleartext HTTP/2 by prior knowledge
	GRPC      Kind = "grpc"      // the same as a gRPC message, with trailers
	GRPCEcho  Kind = "grpc-echo" // sends every byte of a stream back, then trailers
	WebSocket Kind = "websocket" // sends every message back
	Source    Kind = "source"    // after the client's first byte, bytes without end
)

// Kinds lists them all.
func Kinds() []Kind { return []Kind{HTTP1, HTTP2, GRPC, GRPCEcho, WebSocket, Source} }

// Config says what an origin does.
type Config struct {
	// Addr is a loopback address; port 0 takes a free one.
	Addr netip.AddrPort
	// Everywhere takes connections to all addresses of 127.0.0.0/8 at that
	// port, still on the loopback interface only.
	Everywhere bool
	Kind       Kind
	// Size is the number of bytes in the body of an answer.
	Size int
}

// Server is one origin.
type Server struct {
	addr   netip.AddrPort
	listen int
	kind   Kind
	conns  map[int]*conn
	set    *socket.Epoll
	answer answer // HTTP/1.1
	bulk   []byte // what bodies are made of
	size   int
}

// conn is one connection, whatever it speaks.
type conn struct {
	fd    int
	in    []byte   // what was received and not yet understood
	out   [][]byte // what the socket has not taken yet; the parts are never written to again
	off   bool     // close once out is written
	skip  int      // HTTP/1.1: bytes of a request body still to come
	h2    *h2Conn
	ws    bool // WebSocket: the upgrade is done
	flows bool // Source: bytes without end
}

// Listen opens the server.
func Listen(cfg Config) (*Server, error) {
	open := socket.Listen
	if cfg.Everywhere {
		open = socket.ListenEverywhere
	}
	fd, got, err := open(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	s := &Server{addr: got, listen: fd, kind: cfg.Kind, conns: make(map[int]*conn), size: cfg.Size}
	s.answer = newAnswer(cfg.Size)
	s.bulk = bytes.Repeat([]byte{'x'}, 256<<10)
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
	buf := make([]byte, 256<<10)
	for ctx.Err() == nil {
		events, err := set.Wait(100 * time.Millisecond)
		if err != nil {
			return fmt.Errorf("origin: wait: %w", err)
		}
		s.answer.setDate(time.Now())
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
		c := &conn{fd: fd}
		if s.kind == HTTP2 || s.kind == GRPC || s.kind == GRPCEcho {
			c.h2 = s.newH2()
		}
		s.conns[fd] = c
	}
}

// receive reads once and answers all that is whole. False ends the connection.
func (s *Server) receive(c *conn, buf []byte) bool {
	n, err := socket.Read(c.fd, buf)
	if errors.Is(err, unix.EAGAIN) {
		return true
	}
	if err != nil || n == 0 {
		return false
	}
	data := buf[:n]
	switch {
	case c.h2 != nil:
		return s.receiveH2(c, data)
	case s.kind == WebSocket:
		return s.receiveWebSocket(c, data)
	case s.kind == Source:
		if c.flows {
			return true
		}
		c.flows = true
		return s.flow(c)
	}
	return s.receiveHTTP1(c, data)
}

// send writes b, or keeps what the socket does not take: b must not change
// any more. False ends the connection.
func (s *Server) send(c *conn, b []byte) bool {
	if len(c.out) > 0 {
		c.out = append(c.out, b)
		return true
	}
	n, err := socket.Write(c.fd, b)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		return false
	}
	if n == len(b) {
		return !c.off
	}
	c.out = append(c.out, b[n:])
	return s.set.Watch(c.fd, true) == nil
}

// flush writes what an earlier write left over.
func (s *Server) flush(c *conn) bool {
	for len(c.out) > 0 {
		n, err := socket.Write(c.fd, c.out[0])
		if errors.Is(err, unix.EAGAIN) {
			return true
		}
		if err != nil {
			return false
		}
		if n < len(c.out[0]) {
			c.out[0] = c.out[0][n:]
			return true
		}
		c.out = c.out[1:]
	}
	c.out = nil
	if c.flows {
		return s.flow(c)
	}
	return !c.off && s.set.Watch(c.fd, false) == nil
}

// flow keeps a Source connection full: one part now, the next when the socket
// has room.
func (s *Server) flow(c *conn) bool {
	n, err := socket.Write(c.fd, s.bulk)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		return false
	}
	c.out = append(c.out[:0], s.bulk[n:])
	if n == len(s.bulk) {
		c.out = nil
	}
	return s.set.Watch(c.fd, true) == nil
}
