package http2

import "github.com/outrigger-mesh/outrigger/proxy/wire"

// Server is a connection on which the peer opens streams.
type Server struct{ c *conn }

// NewServer returns the server of an accepted connection, plain (prior knowledge)
// or past its TLS handshake. handle is called once for each request, in a
// goroutine of the server's; when it returns, the stream is closed: reset, if the
// response was not complete. Deadlines are the sweeper's: w should have none.
func NewServer(w *wire.Conn, cfg *Config, handle func(*Stream)) *Server {
	c := newConn(w, cfg, false)
	c.handle = handle
	return &Server{c}
}

// Serve serves the connection until it ends and all handlers have returned. It
// does not close it. The preface may be in the connection's buffer already. It
// returns nil after Drain, CloseIdle, Close or an idle timeout, and when the peer
// closed between frames; else an *Error, or ErrPreface.
func (s *Server) Serve() error { return s.c.run() }

// Drain has the peer open no more streams, in two phases (RFC 9113 section 6.8):
// those under way when it learns of it are still served. Serve returns when the
// last has ended.
func (s *Server) Drain() { s.c.startDrain() }

// CloseIdle ends the connection if there is no stream, and reports whether.
func (s *Server) CloseIdle() bool { return s.c.closeIdle() }

// Close ends the connection with all of its streams.
func (s *Server) Close() { s.c.closeNow() }

// Active returns how many handlers have not returned.
func (s *Server) Active() int {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.running
}

// EndStalled ends the streams that have not moved since the call before, though
// a deadline says that they should, and returns how many.
func (s *Server) EndStalled() (n int) {
	c := s.c
	c.mu.Lock()
	for _, st := range c.streams {
		d := st.deadline.Load()
		if d > 0 && d == st.stood && (st.bodyN > 0 || st.sending) {
			st.expireLocked()
			n++
		}
		st.stood = d
	}
	c.mu.Unlock()
	c.callCanceled()
	return n
}

// Busy reports whether a handler has not returned.
func (s *Server) Busy() bool { return s.Active() > 0 }

// Streams returns how many streams were opened.
func (s *Server) Streams() uint64 {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.opened
}

// worker is a goroutine that handles streams, one after the other. Its stack is
// as large as the last one needed.
type worker struct{ job chan *Stream }

// warmWorkers is how many workers wait for streams, until the connection has
// been idle for restTime.
const warmWorkers = 32

// dispatch gives a stream to the worker that rested last, or to a new one.
func (c *conn) dispatch(s *Stream) {
	c.mu.Lock()
	var k *worker
	if n := len(c.idle); n > 0 {
		k = c.idle[n-1]
		c.idle = c.idle[:n-1]
	}
	c.mu.Unlock()
	if k == nil {
		k = &worker{make(chan *Stream, 1)}
		c.handled.Add(1)
		go c.work(k)
	}
	k.job <- s
}

// dismissLocked lets the workers go that wait.
func (c *conn) dismissLocked() {
	if c.desk == nil {
		return
	}
	for i, k := range c.idle {
		k.job <- nil
		c.idle[i] = nil
	}
	c.idle = c.idle[:0]
}

func (c *conn) work(k *worker) {
	defer c.handled.Done()
	for s := <-k.job; s != nil; s = <-k.job {
		c.handle(s)
		s.release(InternalError)
		c.mu.Lock()
		if c.quit || c.desk == nil || len(c.idle) >= warmWorkers {
			c.mu.Unlock()
			return
		}
		c.idle = append(c.idle, k)
		c.mu.Unlock()
	}
}
