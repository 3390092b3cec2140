package exchange

import (
	"errors"
	"io"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// source is a body on its way in, decoded: of the request from downstream, or
// of the response from upstream.
type source interface {
	// Peek waits for a part of the body, to be taken with Discard; io.EOF at
	// the end.
	Peek() ([]byte, error)
	Discard(n int)
	// Trailers are field lines, once Peek has returned io.EOF.
	Trailers() []byte
}

// sink is a body on its way out.
type sink interface {
	// put sends a part.
	put(p []byte) error
	// end sends the end, with trailers where the protocol has them.
	end(trailers []byte) error
}

// errTruncated is the end of a connection before that of the body.
var errTruncated = io.ErrUnexpectedEOF

// bodyIn decodes a body from an HTTP/1.1 connection.
type bodyIn struct {
	c       *wire.Conn
	framing http1.Framing
	left    int64 // of FramingLength
	chunks  *http1.ChunkReader
	used    int // bytes of the buffer behind the part that Peek returned, its framing included
	part    int
}

func newBodyIn(c *wire.Conn, framing http1.Framing, length int64, chunks *http1.ChunkReader, lim *http1.Limits) *bodyIn {
	if framing == http1.FramingChunked {
		chunks.Reset(lim)
	} else {
		chunks = nil // it may still have another message's trailers
	}
	return &bodyIn{c: c, framing: framing, left: length, chunks: chunks}
}

// Peek implements source.
func (in *bodyIn) Peek() ([]byte, error) {
	for {
		if in.framing == http1.FramingNone || in.framing == http1.FramingLength && in.left == 0 {
			return nil, io.EOF
		}
		b := in.c.Buffered()
		if len(b) == 0 {
			in.c.Widen()
			if err := in.c.Fill(); err != nil {
				if !errors.Is(err, io.EOF) {
					return nil, err
				}
				if in.framing == http1.FramingUntilClose {
					return nil, io.EOF
				}
				return nil, errTruncated
			}
			b = in.c.Buffered()
		}
		switch in.framing {
		case http1.FramingChunked:
			n, data, done, err := in.chunks.Next(b)
			if err != nil {
				return nil, err
			}
			if len(data) == 0 {
				in.c.Consume(n)
				if done {
					in.framing = http1.FramingNone
				}
				continue
			}
			in.used, in.part = n, len(data)
			return data, nil
		case http1.FramingLength:
			b = b[:min(int64(len(b)), in.left)]
		}
		in.used, in.part = len(b), len(b)
		return b, nil
	}
}

// Discard implements source. A part is taken whole.
func (in *bodyIn) Discard(n int) {
	if in.framing == http1.FramingLength {
		in.left -= int64(n)
	}
	in.c.Consume(in.used)
}

// Trailers implements source.
func (in *bodyIn) Trailers() []byte {
	if in.chunks == nil {
		return nil
	}
	return in.chunks.Trailers()
}

// bodyOut codes a body for an HTTP/1.1 connection.
type bodyOut struct {
	c       *wire.Conn
	chunked bool
}

func (o bodyOut) put(p []byte) error {
	if !o.chunked {
		_, err := o.c.Write(p)
		return err
	}
	b := wire.GetLarge()
	defer wire.Put(b)
	for len(p) > 0 {
		n := min(len(p), len(b)-chunkOverhead)
		if _, err := o.c.Write(http1.AppendChunk(b[:0], p[:n])); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (o bodyOut) end(trailers []byte) error {
	if !o.chunked {
		return nil
	}
	b := wire.GetLarge()
	defer wire.Put(b)
	_, err := o.c.Write(http1.AppendLastChunk(b[:0], trailers))
	return err
}

// streamOut sends a body on an HTTP/2 stream.
type streamOut struct{ s *http2.Stream }

func (o streamOut) put(p []byte) error { return o.s.Write(p, 0) }

func (o streamOut) end(trailers []byte) error {
	if len(trailers) > 0 {
		return o.s.WriteTrailers(trailers)
	}
	return o.s.Write(nil, http2.End)
}

// pump moves a body until its end. moved is called with the length of each part
// after it has been passed on. in tells which side an error came from.
func pump(from source, to sink, moved func(n int)) (in bool, err error) {
	for {
		p, err := from.Peek()
		if err == io.EOF {
			return false, to.end(from.Trailers())
		}
		if err != nil {
			return true, err
		}
		n := len(p)
		if err := to.put(p); err != nil {
			return false, err
		}
		from.Discard(n)
		moved(n)
	}
}

// downstream is where a request came from and its response goes.
type downstream interface {
	// respond sends the response head, an HTTP/1.1 head, and the part of the
	// body behind it; with last nothing follows.
	respond(b []byte, head int, last bool) error
	setDeadline(at time.Duration)
	expired() bool
	// lastWords lets a reply be written although the deadline has passed.
	lastWords(d time.Duration)
}

func (s *Session) respond(b []byte, _ int, _ bool) error {
	_, err := s.conn.Write(b)
	return err
}

func (s *Session) setDeadline(at time.Duration) { s.conn.SetDeadline(at) }
func (s *Session) expired() bool                { return s.conn.Expired() }
func (s *Session) lastWords(d time.Duration)    { s.conn.SetExact(time.Now().Add(d)) }

// streamDown is the downstream of an exchange on an HTTP/2 stream.
type streamDown struct{ s *http2.Stream }

func (d streamDown) respond(b []byte, head int, last bool) error {
	f := http2.Flags(0)
	if last {
		f = http2.End
	}
	return d.s.WriteResponse(b[:head], b[head:], f)
}

func (d streamDown) setDeadline(at time.Duration) { d.s.SetDeadline(at) }
func (d streamDown) expired() bool                { return d.s.Expired() }
func (d streamDown) lastWords(time.Duration)      {}
