package mtls

import (
	"bytes"
	"io"
	"net"
	"sync"
)

// bufferedPipe is a connection within memory whose writes never wait, so that
// both sides may speak at once; it works in a synctest bubble.
func bufferedPipe() (client, server net.Conn) {
	a, b := newStream(), newStream()
	// The embedded pipes give addresses and deadlines that mean nothing here.
	ca, cb := net.Pipe()
	return &pipeEnd{Conn: ca, in: a, out: b}, &pipeEnd{Conn: cb, in: b, out: a}
}

type pipeEnd struct {
	net.Conn
	in, out *stream
}

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.out.write(b) }
func (p *pipeEnd) Close() error {
	p.in.close()
	p.out.close()
	return p.Conn.Close()
}

type stream struct {
	mu     sync.Mutex
	wake   *sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newStream() *stream {
	s := &stream{}
	s.wake = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.buf.Len() == 0 {
		if s.closed {
			return 0, io.EOF
		}
		s.wake.Wait()
	}
	return s.buf.Read(b)
}

func (s *stream) write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	s.wake.Broadcast()
	return s.buf.Write(b)
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wake.Broadcast()
}
