package http1

import "bytes"

// ChunkReader decodes the chunked transfer coding (RFC 9112 section 7.1) from any
// split of its bytes. The zero value is ready for use with default limits. It
// allocates only for a trailer section, and keeps that memory for the next body.
type ChunkReader struct {
	lim         Limits
	state       chunkState
	remaining   uint64 // data bytes of the current chunk; the size while it is read
	digits      int    // of the size
	line        int    // bytes of the size line so far
	extensions  int    // bytes of all extensions so far
	trailers    []byte
	trailerLine int  // where the last line in trailers starts
	fields      Head // of the trailers
}

type chunkState uint8

const (
	chunkSize     chunkState = iota
	chunkExtStart            // whitespace before an extension's name
	chunkExtName
	chunkExtGap      // whitespace behind the name
	chunkExtEquals   // whitespace before the value
	chunkExtValue    // a token
	chunkExtQuoted   // inside quotes
	chunkExtEscape   // behind a backslash inside quotes
	chunkExtEnd      // behind the closing quote
	chunkExtValueGap // whitespace behind a value
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailers
	chunkDone
)

// extensionLines is how many times Limits.ChunkLine all extensions of a body may
// take together, so that a body cannot consist of them.
const extensionLines = 16

// Reset makes c ready for a new body. A nil lim means the defaults.
func (c *ChunkReader) Reset(lim *Limits) {
	*c = ChunkReader{trailers: c.trailers[:0], fields: Head{Fields: c.fields.Fields[:0]}}
	if lim != nil {
		c.lim = *lim
	}
}

// Next decodes from b up to and with one run of data. It consumes all of b unless
// it returns data that ends before or the body is done; what is behind
// b[:consumed] must be passed to the next call. data is a part of b, or empty.
// After done or an error only Reset makes sense. Extensions are checked and dropped.
func (c *ChunkReader) Next(b []byte) (consumed int, data []byte, done bool, err error) {
	i := 0
	for i < len(b) {
		switch c.state {
		case chunkData:
			n := len(b) - i
			if uint64(n) >= c.remaining {
				n = int(c.remaining)
				c.state = chunkDataCR
			}
			c.remaining -= uint64(n)
			data, i = b[i:i+n:i+n], i+n
			// Taking the CRLF along spares the caller a call at the end of the buffer.
			if c.state == chunkDataCR && len(b)-i >= 2 && b[i] == '\r' && b[i+1] == '\n' {
				c.state = chunkSize
				i += 2
			}
			return i, data, false, nil
		case chunkDataCR:
			if b[i] != '\r' {
				return 0, nil, false, ErrBadChunkEnd
			}
			c.state = chunkDataLF
			i++
		case chunkDataLF:
			if b[i] != '\n' {
				return 0, nil, false, ErrBadChunkEnd
			}
			c.state = chunkSize
			i++
		case chunkTrailers:
			n, err := c.takeTrailers(b[i:])
			if err != nil {
				return 0, nil, false, err
			}
			i += n
		case chunkDone:
			return i, nil, true, nil
		default:
			if err := c.sizeByte(b[i]); err != nil {
				return 0, nil, false, err
			}
			i++
		}
	}
	return i, nil, c.state == chunkDone, nil
}

// Done reports whether the whole body has been read.
func (c *ChunkReader) Done() bool { return c.state == chunkDone }

// sizeByte takes one byte of a size line:
// 1*HEXDIG *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) CRLF,
// without whitespace between the size and the first semicolon, and with at most
// 16 digits.
func (c *ChunkReader) sizeByte(b byte) error {
	if c.line++; c.line > c.lim.chunkLine() {
		return ErrChunkLineTooLong
	}
	class := classes[b]
	switch c.state {
	case chunkSize:
		switch {
		case class&classHex != 0:
			if c.digits++; c.digits > 16 || c.remaining > 1<<59-1 {
				return ErrBadChunkSize
			}
			c.remaining = c.remaining<<4 | uint64(hexValue(b))
			return nil
		case c.digits == 0:
			return ErrBadChunkSize
		case b == '\r':
			c.state = chunkSizeLF
		case b == ';':
			c.state = chunkExtStart
		case b == '\n':
			return ErrBareLF
		default:
			return ErrBadChunkSize
		}
		return nil
	case chunkSizeLF:
		if b != '\n' {
			return ErrBareCR
		}
		if c.state = chunkData; c.remaining == 0 {
			c.state = chunkTrailers
		}
		c.digits, c.line = 0, 0
		return nil
	}
	if c.extensions++; c.extensions > extensionLines*c.lim.chunkLine() {
		return ErrChunkLineTooLong
	}
	next, ok := c.state.extension(b, class)
	if !ok {
		if b == '\n' {
			return ErrBareLF
		}
		return ErrBadChunkExtension
	}
	c.state = next
	return nil
}

// extension returns the state after byte b of an extension.
func (s chunkState) extension(b, class uint8) (chunkState, bool) {
	token, space := class&classToken != 0, isSpace(b)
	switch s {
	case chunkExtStart:
		if token {
			return chunkExtName, true
		}
		return s, space
	case chunkExtName:
		if token {
			return s, true
		}
	case chunkExtEquals:
		switch {
		case token:
			return chunkExtValue, true
		case b == '"':
			return chunkExtQuoted, true
		}
		return s, space
	case chunkExtValue:
		if token {
			return s, true
		}
	case chunkExtQuoted:
		switch b {
		case '"':
			return chunkExtEnd, true
		case '\\':
			return chunkExtEscape, true
		}
		return s, b >= 0x20 && b != 0x7f || b == '\t'
	case chunkExtEscape:
		return chunkExtQuoted, b >= 0x20 && b != 0x7f || b == '\t'
	}
	// Behind a name or a value.
	named := s == chunkExtName || s == chunkExtGap
	gap := s == chunkExtGap || s == chunkExtValueGap
	switch {
	case b == ';':
		return chunkExtStart, true
	case b == '=' && named:
		return chunkExtEquals, true
	case b == '\r' && !gap:
		return chunkSizeLF, true
	case space && named:
		return chunkExtGap, true
	case space:
		return chunkExtValueGap, true
	}
	return s, false
}

// takeTrailers keeps the trailer section up to the empty line, then checks it.
func (c *ChunkReader) takeTrailers(b []byte) (int, error) {
	n := 0
	for n < len(b) && c.state != chunkDone {
		k := bytes.IndexByte(b[n:], '\n') + 1
		if k == 0 {
			k = len(b) - n
		}
		if len(c.trailers)+k > c.lim.trailerBytes()+len("\r\n") {
			return 0, ErrTrailerTooLong
		}
		c.trailers = append(c.trailers, b[n:n+k]...)
		n += k
		t := c.trailers
		switch size := len(t) - c.trailerLine; {
		case t[len(t)-1] != '\n': // the rest of the line is still to come
		case size == 1 || t[len(t)-2] != '\r':
			return 0, ErrBareLF
		case size == 2:
			c.state = chunkDone
			return n, c.filterTrailers()
		default:
			c.trailerLine = len(t)
		}
	}
	return n, nil
}

// filterTrailers checks the field lines and keeps those that may be forwarded.
func (c *ChunkReader) filterTrailers() error {
	if len(c.trailers) == 2 {
		c.trailers = c.trailers[:0]
		return nil
	}
	n, err := c.fields.parseFields(c.trailers, 0, c.lim.fields(), 0)
	if err != nil {
		return err
	}
	if n != len(c.trailers) {
		return ErrBareLF
	}
	for i := range c.fields.Fields {
		f := &c.fields.Fields[i]
		f.Drop = !mayTrail(f.ID, f.Name.Of(c.trailers))
	}
	// Filtering in place: what is appended never overtakes what is read.
	c.trailers = c.fields.appendFields(c.trailers[:0], c.trailers, 0)
	return nil
}

// MayTrail says whether a field of that name is forwarded as a trailer: none that
// frames, routes, authenticates or modifies a message, that says how to treat its
// content or that concerns one connection (RFC 9110 section 6.5.1), nor one that
// only proxies should set. Of the names with a FieldID those of gRPC and the
// request id are left. name is a token.
func MayTrail(name []byte) bool { return mayTrail(lookupField(name), name) }

func mayTrail(id FieldID, name []byte) bool {
	switch id {
	case GRPCStatus, GRPCMessage, XRequestID:
		return true
	case Other:
		return !protected(name) && !hasPrefixFold(name, "if-") && !hasPrefixFold(name, "proxy-")
	default:
		return false
	}
}

// Trailers returns the trailers to forward: whole field lines, each with its
// CRLF, byte for byte and in order. Valid after done, until the next Reset.
func (c *ChunkReader) Trailers() []byte {
	if c.state != chunkDone {
		return nil
	}
	return c.trailers
}

func hexValue(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return b | 0x20 - 'a' + 10
}
