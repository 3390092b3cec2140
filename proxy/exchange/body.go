package exchange

import (
	"io"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// bodySource is a request's body on its way in.
type bodySource interface {
	source
	// Last reports whether the part of n bytes that Peek returned is known to be
	// the last. Then Trailers are there already.
	Last(n int) bool
}

// bodyFrom is the request's body, decoded.
func (x *exchange) bodyFrom() bodySource {
	if x.st != nil {
		return streamIn{x.st}
	}
	in := &requestIn{c: x.s.conn, left: x.req.Length}
	if x.req.Framing == http1.FramingChunked {
		x.in.Reset(&x.l.HTTP.Limits)
		in.chunks = &x.in
	}
	return in
}

// streamIn is the body of a request that came by HTTP/2.
type streamIn struct{ *http2.Stream }

// Last implements bodySource.
func (in streamIn) Last(n int) bool {
	have, whole := in.Readable()
	return whole && have == n
}

// requestIn is the body of a request that came by HTTP/1.1. Chunks that are there
// together are given together.
type requestIn struct {
	c      *wire.Conn
	left   int64 // without chunks
	chunks *http1.ChunkReader
	used   int    // bytes of the connection's buffer behind the part that Peek returned
	done   bool   // of chunks: the last one is among them
	out    []byte // pooled: the data of chunks
}

func (in *requestIn) free() {
	if in.out != nil {
		wire.Put(in.out)
	}
}

// Peek implements source.
func (in *requestIn) Peek() ([]byte, error) {
	for {
		if in.done || in.chunks == nil && in.left == 0 {
			return nil, io.EOF
		}
		b := in.c.Buffered()
		if len(b) == 0 {
			in.c.Widen()
			if err := in.c.Fill(); err != nil {
				if err == io.EOF {
					err = errTruncated
				}
				return nil, err
			}
			b = in.c.Buffered()
		}
		if in.chunks == nil {
			in.used = int(min(int64(len(b)), in.left))
			return b[:in.used], nil
		}
		if in.out == nil {
			in.out = wire.GetLarge()
		}
		used, data, _, done, err := recode(in.chunks, codable(b, in.out), in.out[:0], false)
		if err != nil {
			return nil, err
		}
		in.used, in.done = used, done
		if len(data) > 0 {
			return data, nil
		}
		in.c.Consume(used)
	}
}

// Discard implements source. A part is taken whole.
func (in *requestIn) Discard(n int) {
	in.left -= int64(n)
	in.c.Consume(in.used)
}

// Last implements bodySource.
func (in *requestIn) Last(n int) bool {
	return in.done || in.chunks == nil && int64(n) == in.left
}

// Trailers implements source.
func (in *requestIn) Trailers() []byte {
	if in.chunks == nil {
		return nil
	}
	return in.chunks.Trailers()
}
