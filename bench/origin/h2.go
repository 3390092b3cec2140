package origin

import (
	"errors"
	"slices"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/bench/h2"
)

// Numbers of the header lists that an HTTP/2 origin sends.
const (
	headList = iota
	trailerList
)

// windowPart is how many bytes may arrive before the window is opened again.
const windowPart = 1 << 20

// h2Conn is the state of one HTTP/2 connection. Request headers are not
// decoded: every request gets the same answer.
type h2Conn struct {
	preface  int // bytes of the client's preface still to come
	frames   h2.Reader
	enc      *h2.Encoder
	out      []byte // frames made while reading
	send     int    // the client's connection window
	initial  int    // the window of a new stream
	received int    // bytes since the connection's window was opened last
	streams  []*h2Stream
	free     []*h2Stream
	headers  uint32 // the stream whose header block goes on, 0 when none does
	ends     bool   // that block ends the request
}

// h2Stream is a request that is not yet answered whole.
type h2Stream struct {
	id       uint32
	send     int // the client's window
	received int // bytes since the stream's window was opened last
	started  bool
	over     bool // the request is complete
	body     int  // bytes of the body still to send: of bulk, or of echo
	echo     []byte
}

func (s *Server) newH2() *h2Conn {
	list := []hpack.HeaderField{
		{Name: ":status", Value: "200"},
		{Name: "server", Value: "origin"},
		{Name: "content-type", Value: "application/json; charset=utf-8"},
		{Name: "cache-control", Value: "private, max-age=0"},
		{Name: "etag", Value: `"6f1ed002ab5595859014ebf0951522d9"`},
		{Name: "vary", Value: "Accept-Encoding"},
		{Name: "content-length", Value: strconv.Itoa(s.size)},
	}
	if s.kind != HTTP2 {
		list = []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}}
	}
	c := &h2Conn{preface: len(h2.Preface), send: h2.DefaultWindow, initial: h2.DefaultWindow}
	c.enc = h2.NewEncoder(list, []hpack.HeaderField{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message", Value: ""}})
	c.out = h2.AppendSettings(c.out, h2.Setting{ID: h2.SettingMaxStreams, Value: 1000}, h2.Setting{ID: h2.SettingInitialWindow, Value: 2 * windowPart})
	c.out = h2.AppendWindowUpdate(c.out, 0, 8*windowPart)
	return c
}

var errConnection = errors.New("origin: the client breaks the protocol")

func (s *Server) receiveH2(c *conn, data []byte) bool {
	h := c.h2
	k := min(h.preface, len(data))
	at := len(h2.Preface) - h.preface
	if string(data[:k]) != h2.Preface[at:at+k] {
		return false
	}
	h.preface -= k
	if h.preface > 0 {
		return true
	}
	if err := h.frames.Feed(data[k:], func(f *h2.Frame) error { return s.frame(h, f) }); err != nil {
		return false
	}
	if len(h.out) == 0 {
		return true
	}
	pending := len(c.out) > 0
	ok := s.send(c, h.out)
	if pending || len(c.out) > 0 { // the socket refused a part, which still points into the buffer
		h.out = nil
	}
	h.out = h.out[:0]
	return ok
}

func (s *Server) frame(h *h2Conn, f *h2.Frame) error {
	if h.headers != 0 && (f.Type != h2.TypeContinuation || f.Stream != h.headers) {
		return errConnection
	}
	switch f.Type {
	case h2.TypeHeaders:
		h.headers, h.ends = f.Stream, f.Has(h2.FlagEndStream)
		if f.Has(h2.FlagEndHeaders) {
			return s.request(h)
		}
	case h2.TypeContinuation:
		if f.Has(h2.FlagEndHeaders) {
			return s.request(h)
		}
	case h2.TypeData:
		return s.data(h, f)
	case h2.TypeSettings:
		if f.Has(h2.FlagAck) {
			return nil
		}
		err := f.Settings(func(set h2.Setting) {
			switch set.ID {
			case h2.SettingTableSize:
				h.enc.SetTableSize(min(set.Value, 4096))
			case h2.SettingInitialWindow:
				for _, st := range h.streams {
					st.send += int(set.Value) - h.initial
				}
				h.initial = int(set.Value)
			}
		})
		h.out = h2.AppendFrame(h.out, h2.TypeSettings, h2.FlagAck, 0, nil)
		s.pump(h)
		return err
	case h2.TypePing:
		if !f.Has(h2.FlagAck) {
			h.out = h2.AppendFrame(h.out, h2.TypePing, h2.FlagAck, 0, f.Payload)
		}
	case h2.TypeWindowUpdate:
		n, err := f.Uint32()
		if err != nil {
			return err
		}
		if f.Stream == 0 {
			h.send += int(n)
		} else if st := h.stream(f.Stream); st != nil {
			st.send += int(n)
		}
		s.pump(h)
	case h2.TypeRST:
		if st := h.stream(f.Stream); st != nil {
			h.end(st)
		}
	}
	return nil
}

func (h *h2Conn) stream(id uint32) *h2Stream {
	for _, st := range h.streams {
		if st.id == id {
			return st
		}
	}
	return nil
}

func (h *h2Conn) end(st *h2Stream) {
	i := slices.Index(h.streams, st)
	last := len(h.streams) - 1
	h.streams[i] = h.streams[last]
	h.streams = h.streams[:last]
	*st = h2Stream{echo: st.echo[:0]}
	h.free = append(h.free, st)
}

// request is called when a header block is complete.
func (s *Server) request(h *h2Conn) error {
	id, ends := h.headers, h.ends
	h.headers = 0
	st := h.stream(id)
	if st == nil {
		if n := len(h.free); n > 0 {
			st, h.free = h.free[n-1], h.free[:n-1]
		} else {
			st = new(h2Stream)
		}
		st.id, st.send = id, h.initial
		h.streams = append(h.streams, st)
	}
	if s.kind == GRPCEcho && !st.started {
		st.started = true
		h.out = appendBlock(h.out, h.enc.Block(headList), 0, id)
	}
	if ends {
		s.complete(h, st)
	}
	return nil
}

func (s *Server) data(h *h2Conn, f *h2.Frame) error {
	h.received += len(f.Payload)
	if h.received >= windowPart {
		h.out = h2.AppendWindowUpdate(h.out, 0, uint32(h.received))
		h.received = 0
	}
	st := h.stream(f.Stream)
	if st == nil {
		return nil // reset a moment ago
	}
	if s.kind == GRPCEcho {
		content, err := f.Content()
		if err != nil {
			return err
		}
		st.echo = append(st.echo, content...)
		st.body = len(st.echo)
	}
	if f.Has(h2.FlagEndStream) {
		s.complete(h, st)
		return nil
	}
	st.received += len(f.Payload)
	if st.received >= windowPart {
		h.out = h2.AppendWindowUpdate(h.out, st.id, uint32(st.received))
		st.received = 0
	}
	s.write(h, st)
	return nil
}

// complete answers a request that is whole.
func (s *Server) complete(h *h2Conn, st *h2Stream) {
	st.over = true
	switch s.kind {
	case HTTP2:
		st.body = s.size
	case GRPC:
		st.body = 5 + s.size
	}
	if !st.started {
		st.started = true
		h.out = appendBlock(h.out, h.enc.Block(headList), 0, st.id)
	}
	s.write(h, st)
}

// pump goes on with every stream after a window has grown.
func (s *Server) pump(h *h2Conn) {
	for i := len(h.streams) - 1; i >= 0; i-- { // write may remove the one it is given
		if st := h.streams[i]; st.started {
			s.write(h, st)
		}
	}
}

// write sends as much of a stream's body as its windows allow, and its end.
func (s *Server) write(h *h2Conn, st *h2Stream) {
	for st.body > 0 {
		n := min(st.body, st.send, h.send, h2.MaxFrame)
		if n <= 0 || s.kind == GRPC && st.body > s.size && n < 5 { // a message's prefix is sent whole
			return
		}
		var flags byte
		if st.over && s.kind == HTTP2 && n == st.body {
			flags = h2.FlagEndStream
		}
		h.out = h2.AppendHead(h.out, n, h2.TypeData, flags, st.id)
		switch {
		case s.kind == GRPCEcho:
			h.out = append(h.out, st.echo[:n]...)
			st.echo = st.echo[:copy(st.echo, st.echo[n:])]
		case s.kind == GRPC && st.body > s.size: // the message's prefix: its length, uncompressed
			h.out = append(h.out, 0, byte(s.size>>24), byte(s.size>>16), byte(s.size>>8), byte(s.size))
			h.out = append(h.out, s.bulk[:n-5]...)
		default:
			h.out = append(h.out, s.bulk[:n]...)
		}
		st.body -= n
		st.send -= n
		h.send -= n
		if flags != 0 {
			h.end(st)
			return
		}
	}
	if !st.over {
		return
	}
	if s.kind == HTTP2 { // an empty body
		h.out = h2.AppendFrame(h.out, h2.TypeData, h2.FlagEndStream, st.id, nil)
	} else {
		h.out = appendBlock(h.out, h.enc.Block(trailerList), h2.FlagEndStream, st.id)
	}
	h.end(st)
}

func appendBlock(b, block []byte, flags byte, stream uint32) []byte {
	return h2.AppendFrame(b, h2.TypeHeaders, flags|h2.FlagEndHeaders, stream, block)
}
