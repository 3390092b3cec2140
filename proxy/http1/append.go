package http1

import "strconv"

// AppendInt appends n in decimal.
func AppendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// AppendHex appends n in lower-case hexadecimal without leading zeros.
func AppendHex(dst []byte, n uint64) []byte {
	const digits = "0123456789abcdef"
	var buf [16]byte
	i := len(buf)
	for {
		i--
		buf[i] = digits[n&15]
		n >>= 4
		if n == 0 {
			return append(dst, buf[i:]...)
		}
	}
}

// AppendChunkHeader appends the size line of a chunk of n bytes, n > 0. The
// caller writes the data and a CRLF after it.
func AppendChunkHeader(dst []byte, n int) []byte {
	return append(AppendHex(dst, uint64(n)), "\r\n"...)
}

// AppendChunk appends data as one whole chunk. Empty data appends nothing, for an
// empty chunk would end the body.
func AppendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = AppendChunkHeader(dst, len(data))
	dst = append(dst, data...)
	return append(dst, "\r\n"...)
}

// AppendLastChunk appends the end of a chunked body: the last chunk, trailers
// (whole field lines as ChunkReader.Trailers returns them, or nil) and the empty line.
func AppendLastChunk(dst, trailers []byte) []byte {
	dst = append(dst, "0\r\n"...)
	dst = append(dst, trailers...)
	return append(dst, "\r\n"...)
}
