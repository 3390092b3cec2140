package http1

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestChunkReaderAnySplit(t *testing.T) {
	in := []byte("5;a=\"q;\\\"\"\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX-Sum: 1\r\nHost: x\r\nY: 2\r\n\r\n")
	for size := 1; size <= len(in); size++ {
		body, trailers, n, err := decodeChunks(in, func(left int) int { return min(size, left) })
		if err != nil || n != len(in) || string(body) != "hello0123456789abcdef" || string(trailers) != "X-Sum: 1\r\nY: 2\r\n" {
			t.Errorf("in pieces of %d: %q %q %d %v", size, body, trailers, n, err)
		}
	}
}

// The data is handed out in place, and what comes after the body stays.
func TestChunkReaderInPlace(t *testing.T) {
	b := []byte("3\r\nabc\r\n0\r\n\r\nGET ")
	var c ChunkReader
	n, data, done, err := c.Next(b)
	if n != 8 || done || err != nil || string(data) != "abc" || &data[0] != &b[3] || cap(data) != 3 {
		t.Fatalf("%d %q %v %v", n, data, done, err)
	}
	k, data, done, err := c.Next(b[n:])
	if k != 5 || !done || err != nil || len(data) != 0 || !c.Done() || c.Trailers() == nil && string(b[n+k:]) != "GET " {
		t.Fatalf("%d %q %v %v", k, data, done, err)
	}
	if k, data, done, err = c.Next(b[n+k:]); k != 0 || len(data) != 0 || !done || err != nil {
		t.Fatalf("after the end: %d %q %v %v", k, data, done, err)
	}
	c.Reset(nil)
	if n, _, done, err := c.Next(nil); n != 0 || done || err != nil {
		t.Fatalf("nothing: %d %v %v", n, done, err)
	}
}

func TestChunkReaderTrailersNotBeforeTheEnd(t *testing.T) {
	var c ChunkReader
	if n, _, done, err := c.Next([]byte("0\r\nX: 1\r\n")); n != 9 || done || err != nil || c.Trailers() != nil || c.Done() {
		t.Fatalf("%d %v %v %q", n, done, err, c.Trailers())
	}
	if _, _, done, err := c.Next([]byte("\r\n")); !done || err != nil || string(c.Trailers()) != "X: 1\r\n" {
		t.Fatalf("%v %v %q", done, err, c.Trailers())
	}
	c.Reset(nil)
	if c.Trailers() != nil {
		t.Errorf("trailers of the last body: %q", c.Trailers())
	}
}

func TestChunkLimits(t *testing.T) {
	ext := func(n int) string { return "1;" + strings.Repeat("x", n-len("1;\r\n")) + "\r\n" }
	section := func(n int) string { return "X: " + strings.Repeat("v", n-len("X: \r\n")) + "\r\n" }
	for name, tt := range map[string]struct {
		in  string
		lim Limits
		err error
	}{
		"line":                 {ext(64) + "x\r\n0\r\n\r\n", Limits{ChunkLine: 64}, nil},
		"line one longer":      {ext(65) + "x\r\n0\r\n\r\n", Limits{ChunkLine: 64}, ErrChunkLineTooLong},
		"default line":         {ext(DefaultChunkLine) + "x\r\n0\r\n\r\n", Limits{}, nil},
		"default line longer":  {ext(DefaultChunkLine+1) + "x\r\n0\r\n\r\n", Limits{}, ErrChunkLineTooLong},
		"all extensions":       {strings.Repeat(ext(64)+"x\r\n", 16) + "0\r\n\r\n", Limits{ChunkLine: 64}, nil},
		"too many extensions":  {strings.Repeat(ext(64)+"x\r\n", 17) + "0\r\n\r\n", Limits{ChunkLine: 64}, ErrChunkLineTooLong},
		"many plain chunks":    {strings.Repeat("1\r\nx\r\n", 5000) + "0\r\n\r\n", Limits{ChunkLine: 64}, nil},
		"trailers":             {"0\r\n" + section(50) + "\r\n", Limits{TrailerBytes: 50}, nil},
		"trailers longer":      {"0\r\n" + section(51) + "\r\n", Limits{TrailerBytes: 50}, ErrTrailerTooLong},
		"endless trailer line": {"0\r\nX: " + strings.Repeat("v", 100), Limits{TrailerBytes: 50}, ErrTrailerTooLong},
		"default trailers":     {"0\r\n" + section(DefaultTrailerBytes) + "\r\n", Limits{}, nil},
		"default longer":       {"0\r\n" + section(DefaultTrailerBytes+1) + "\r\n", Limits{}, ErrTrailerTooLong},
		"trailer fields":       {"0\r\nA:\r\nB:\r\n\r\n", Limits{Fields: 2}, nil},
		"one more":             {"0\r\nA:\r\nB:\r\nC:\r\n\r\n", Limits{Fields: 2}, ErrTooManyFields},
	} {
		for _, size := range []int{1, len(tt.in)} {
			var c ChunkReader
			c.Reset(&tt.lim)
			var err error
			for rest := []byte(tt.in); len(rest) > 0 && err == nil; {
				piece := rest[:min(size, len(rest))]
				var n int
				n, _, _, err = c.Next(piece)
				rest = rest[n:]
			}
			if err != tt.err || err == nil && !c.Done() {
				t.Errorf("%s, in pieces of %d: %v, done %v; want %v", name, size, err, c.Done(), tt.err)
			}
		}
	}
}

// After a refused body the reader serves the next one as if nothing had been.
func TestChunkReaderResetAfterError(t *testing.T) {
	var c ChunkReader
	for _, bad := range []string{"5;x=\"", "5\r\nhel", "zz", "0\r\nX: 1\r\n", "0\r\nX Y: 1\r\n\r\n", "1\r\nxy"} {
		rest := []byte(bad)
		for len(rest) > 0 {
			n, _, _, err := c.Next(rest)
			if err != nil {
				break
			}
			rest = rest[n:]
		}
		c.Reset(nil)
		n, data, _, err := c.Next([]byte("2\r\nok\r\n"))
		if n != 7 || err != nil || string(data) != "ok" {
			t.Errorf("after %q: %d %q %v", bad, n, data, err)
		}
		if _, _, done, err := c.Next([]byte("0\r\nY: 2\r\n\r\n")); !done || err != nil || string(c.Trailers()) != "Y: 2\r\n" {
			t.Errorf("after %q: %v %v %q", bad, done, err, c.Trailers())
		}
		c.Reset(nil)
	}
}

func TestAppend(t *testing.T) {
	for _, n := range []uint64{0, 1, 9, 10, 15, 16, 255, 256, 1 << 20, math.MaxInt64, math.MaxUint64} {
		if got, want := string(AppendHex([]byte("x"), n)), "x"+strconv.FormatUint(n, 16); got != want {
			t.Errorf("AppendHex %q, want %q", got, want)
		}
	}
	for _, n := range []int64{0, 7, -7, 123456789, math.MaxInt64, math.MinInt64} {
		if got, want := string(AppendInt([]byte("x"), n)), "x"+strconv.FormatInt(n, 10); got != want {
			t.Errorf("AppendInt %q, want %q", got, want)
		}
	}
	var b []byte
	b = AppendChunk(b, nil)
	b = AppendChunk(b, bytes.Repeat([]byte("x"), 17))
	b = append(append(AppendChunkHeader(b, 2), "ab"...), "\r\n"...)
	b = AppendLastChunk(b, []byte("T: 1\r\n"))
	if want := "11\r\n" + strings.Repeat("x", 17) + "\r\n2\r\nab\r\n0\r\nT: 1\r\n\r\n"; string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
}
