package http2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// sequence makes frames of every type out of bytes, three for each: mostly such
// as a peer might send at that moment, and some that are wrong in one respect.
type sequence struct {
	raw, client bool // the code under test is a client
	enc         *hpack.Encoder
	coded       bytes.Buffer
	out         bytes.Buffer
	next        uint32 // the number of the next stream that this peer opens
	rest        []byte // of a field section
	restID      uint32

	// What the code under test may send at most.
	window  int64            // of the connection
	initial int64            // the largest SETTINGS_INITIAL_WINDOW_SIZE
	streams map[uint32]int64 // WINDOW_UPDATE of each
}

var sequenceHeads = [][]string{
	{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "h"},
	{":method", "POST", ":scheme", "http", ":path", "/p", ":authority", "h", "content-length", "5"},
	{":method", "POST", ":scheme", "https", ":path", "/p?q", ":authority", "h", "te", "trailers", "cookie", "a=b", "cookie", "c=d"},
	{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/ws", ":authority", "h"},
	{":method", "CONNECT", ":authority", "h:1"},
	{":status", "200", "content-type", "x"},
	{":status", "200", "content-length", "5"},
	{":status", "103", "link", "<x>"},
	{":status", "204"},
	{"x-sum", "1", "grpc-status", "0"},
	{":method", "GET", ":scheme", "http", ":path", "/\r\nx: y", ":authority", "h"},
	{":method", "GET", ":path", "/", "Upper", "x"},
	{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "h", "connection", "x", "transfer-encoding", "chunked"},
	{":status", "101"},
	{"x-long", strings.Repeat("long ", 900)},
	{},
}

var sequenceRaw = []string{
	"1GET / HTTP/1.1\r\nHost: h\r\n\r\n", "1POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
	"2POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n", "t", "1GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n\r\n",
	"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 204 No\r\n\r\n",
	"X-Sum: 1\r\n", "x: a\nb\r\n", "", "9", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "1" + strings.Repeat("long ", 900) + "\r\n\r\n", "1GET",
}

func (q *sequence) block(n int) []byte {
	if q.raw {
		return []byte(sequenceRaw[n%len(sequenceRaw)])
	}
	q.coded.Reset()
	list := sequenceHeads[n%len(sequenceHeads)]
	for i := 0; i < len(list); i += 2 {
		_ = q.enc.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]})
	}
	return bytes.Clone(q.coded.Bytes())
}

func word(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// add makes one frame. Of a the lowest bits choose the content, the highest bit
// any flags at all; of b the lowest three bits choose the stream and all of the
// others together a wrong length.
func (q *sequence) add(op, a, b byte) {
	kind := op % 11
	var id uint32
	switch which := b & 7; {
	case kind == frameSettings, kind == framePing, kind == frameGoAway, kind == frameWindowUpdate && which == 0:
	case kind == frameContinuation && q.restID != 0:
		id = q.restID
	case kind == frameHeaders && which < 4 && !q.client:
		id = q.next
		q.next += 2
	case which == 6:
		id = 2
	case which == 7:
		id = q.next + 2*uint32(a)
	case q.client:
		id = 1 + 2*uint32(which%3)
	default:
		id = q.next - 2*min(uint32(which), q.next/2)
	}
	if b == 0xf0 {
		id = 0
	}
	var flags uint8
	var p []byte
	n := int(a & 0x3f)
	switch kind {
	case frameData:
		p = make([]byte, []int{0, 5, 1, 100, 3000, 16384, 2, 5}[n&7])
		flags = uint8(n>>3&1) * flagEndStream
		if n>>4 == 3 {
			flags |= flagPadded
			p = append([]byte{byte(n)}, p[:min(len(p), 200)]...)
		}
	case frameHeaders:
		p = q.block(n)
		flags = flagEndHeaders | uint8(n>>4&1)*flagEndStream
		if n>>4 == 3 && len(p) > 1 {
			flags &^= flagEndHeaders
			q.rest, q.restID = p[1:], id
			p = p[:1]
		} else if n>>4 == 2 {
			flags |= flagPriority
			p = append([]byte{0x80, 0, 0, byte(n), 1}, p...)
		}
	case framePriority:
		p = []byte{0, 0, 0, byte(n), 9}
	case frameReset:
		p = word(uint32(n % 15))
	case frameSettings:
		if flags = uint8(n & 1); flags == 0 {
			values := []uint32{0, 1, 100, 65535, 16384, 1 << 30, 1<<31 - 1, 1 << 31}
			k, v := uint16(n>>1%9), values[(op/11+b>>3)&7]
			p = appendSetting(nil, k, v)
			if k == settingInitialWindow && v < 1<<31 {
				q.initial = max(q.initial, int64(v))
			}
		}
	case framePushPromise:
		p = append(word(2), q.block(0)...)
		flags = flagEndHeaders
	case framePing:
		p = make([]byte, 8)
		flags = uint8(n & 1)
		if n&2 != 0 {
			binary.BigEndian.PutUint64(p, drainPing)
		}
	case frameGoAway:
		p = append(word([]uint32{0, 1, 3, 1<<31 - 1}[n&3]), word(uint32(n>>2))...)
	case frameWindowUpdate:
		v := []uint32{1, 1000, 65535, 0, 1<<31 - 1, 1 << 20, 7, 1 << 31}[n&7]
		p = word(v)
		if v &= 1<<31 - 1; id == 0 {
			q.window += int64(v)
		} else {
			q.streams[id] += int64(v)
		}
	case frameContinuation:
		p = q.rest[:min(len(q.rest), 1+n*100)]
		q.rest = q.rest[len(p):]
		if len(q.rest) == 0 {
			flags, q.restID = flagEndHeaders, 0
		}
	}
	if a&0x80 != 0 && op&0x80 != 0 {
		flags = a
	}
	if b>>3 == 0x1f && kind != frameSettings && kind != frameWindowUpdate {
		p = slices.Concat(p, []byte{0})
	} else if b>>3 == 0x1e && len(p) > 0 && kind != frameSettings && kind != frameWindowUpdate {
		p = p[:len(p)-1]
	}
	q.out.Write(appendFrameHead(nil, len(p), kind, flags, id))
	q.out.Write(p)
}

// check looks at what the code under test has sent: frames that the standard
// implementation reads, nothing on a stream whose sending side has ended, and no
// more DATA than was allowed.
func (q *sequence) check(t *testing.T, sent []byte) {
	f := http2.NewFramer(io.Discard, bytes.NewReader(sent))
	f.AllowIllegalReads = q.raw // a block may be empty of fields
	dec := hpack.NewDecoder(tableSize, nil)
	var block []byte
	ended := map[uint32]bool{}
	data := map[uint32]int64{}
	total := int64(0)
	for {
		fr, err := f.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return // the socket may be closed within a frame
		}
		if err != nil {
			t.Fatalf("a frame that was sent: %v", err)
		}
		h := fr.Header()
		switch fr := fr.(type) {
		case *http2.HeadersFrame:
			if ended[h.StreamID] {
				t.Fatalf("HEADERS on stream %d behind its end", h.StreamID)
			}
			ended[h.StreamID] = fr.StreamEnded()
			block = append(block[:0], fr.HeaderBlockFragment()...)
			if fr.HeadersEnded() {
				q.decodes(t, dec, block)
			}
		case *http2.ContinuationFrame:
			block = append(block, fr.HeaderBlockFragment()...)
			if fr.HeadersEnded() {
				q.decodes(t, dec, block)
			}
		case *http2.DataFrame:
			if ended[h.StreamID] {
				t.Fatalf("DATA on stream %d behind its end", h.StreamID)
			}
			ended[h.StreamID] = fr.StreamEnded()
			data[h.StreamID] += int64(h.Length)
			total += int64(h.Length)
			if most := q.initial + q.streams[h.StreamID]; data[h.StreamID] > most || total > q.window {
				t.Fatalf("%d bytes on stream %d, of %d; %d on the connection, of %d", data[h.StreamID], h.StreamID, most, total, q.window)
			}
		case *http2.RSTStreamFrame:
			ended[h.StreamID] = true
		}
	}
}

func (q *sequence) decodes(t *testing.T, dec *hpack.Decoder, block []byte) {
	if q.raw {
		return
	}
	if _, err := dec.DecodeFull(block); err != nil {
		t.Fatalf("a field section that was sent: %v", err)
	}
}

// FuzzSequence has a peer send frames of every type in any order, as client and
// as server, in HTTP/2 and in the transport between sidecars, in pieces of any
// size. Everything must come to an end, with nothing left, and what is answered
// must be HTTP/2.
func FuzzSequence(f *testing.F) {
	for mode := range byte(4) {
		f.Add(mode, byte(0), []byte{1, 0, 0, 0, 1, 5, 8, 1, 0, 6, 0, 0, 3, 8, 5})          // a request, data, windows, PING, a reset
		f.Add(mode, byte(1), []byte{1, 0x32, 0, 9, 3, 0, 9, 3, 0, 0, 9, 5, 1, 0x19, 5})    // CONTINUATION, trailers
		f.Add(mode, byte(7), []byte{4, 8, 0, 4, 8, 0x18, 1, 5, 5, 1, 5, 3, 0, 13, 5})      // windows that change, answers
		f.Add(mode, byte(0), []byte{1, 2, 0, 0, 1, 0xf5, 2, 3, 1, 5, 0, 0, 10, 0, 1})      // a wrong length, PRIORITY, a push, unknown
		f.Add(mode, byte(3), []byte{1, 1, 0, 1, 1, 1, 7, 1, 0, 1, 1, 2, 6, 3, 0, 6, 2, 0}) // GOAWAY among requests
		f.Add(mode, byte(0), []byte{1, 7, 5, 1, 7, 5, 1, 6, 5, 0, 9, 5, 0, 9, 5, 3, 0, 5}) // interim answers, more than the length
		f.Add(mode, byte(0), []byte{8, 4, 0, 8, 4, 0, 8, 4, 1, 8, 3, 1})                   // windows that overflow
	}
	f.Fuzz(func(t *testing.T, mode, piece byte, data []byte) {
		q := &sequence{raw: mode&1 != 0, client: mode&2 != 0, next: 1, window: 65535, initial: 65535, streams: map[uint32]int64{}}
		q.enc = hpack.NewEncoder(&q.coded)
		if !q.client {
			q.out.WriteString(preface)
		}
		q.out.Write(rawFrame(frameSettings, 0, 0, ""))
		for i := 0; i+2 < min(len(data), 600); i += 3 {
			q.add(data[i], data[i+1], data[i+2])
		}
		c, far := pair(t)
		defer far.Close()
		cfg := &Config{Raw: q.raw, ExtendedConnect: !q.raw, FloodFrames: 50, HeaderBytes: 4000, Window: 10_000, Streams: 20}
		var under *conn
		var serve func() error
		var all sync.WaitGroup
		if q.client {
			k := NewClient(c, cfg)
			under, serve = k.c, k.Run
			for range 3 {
				all.Go(func() { ask(k) })
			}
		} else {
			s := NewServer(c, cfg, answerAny)
			under, serve = s.c, s.Serve
		}
		all.Go(func() {
			_ = serve()
			_ = c.Close()
		})
		all.Go(func() {
			b := q.out.Bytes()
			for n := max(int(piece), 1) * max(int(piece), 1) * 4; len(b) > 0; b = b[min(n, len(b)):] {
				if _, err := far.Write(b[:min(n, len(b))]); err != nil {
					return
				}
			}
			_ = far.CloseWrite()
		})
		var sent bytes.Buffer
		_, _ = io.Copy(&sent, far)
		done := make(chan bool)
		go func() { all.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(patience):
			panic("it hangs")
		}
		afterwards(t, under)
		out := sent.Bytes()
		if q.client {
			out = bytes.TrimPrefix(out, []byte(preface))
		}
		q.check(t, out)
	})
}

// ask carries an exchange to whatever end it has.
func ask(k *Client) {
	s, err := k.Open()
	if err != nil {
		return
	}
	defer s.Close()
	s.Origin = FromHTTP1
	if s.WriteRequest([]byte("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"), []byte("some"), 0) != nil || s.Write(make([]byte, 70_000), End) != nil {
		return
	}
	for s.ReadHead() == nil {
		if s.Head[9] != '1' {
			_, _ = io.Copy(io.Discard, reader{s})
			return
		}
	}
}

// answerAny answers a request of either kind, and a TCP stream, with what comes.
func answerAny(s *Stream) {
	if s.Origin == FromTCP {
		_, _ = io.Copy(streamWriter{s}, reader{s})
		_ = s.Write(nil, End)
		return
	}
	echo(s)
}

type streamWriter struct{ *Stream }

func (w streamWriter) Write(p []byte) (int, error) {
	if err := w.Stream.Write(p, 0); err != nil {
		return 0, err
	}
	return len(p), nil
}
