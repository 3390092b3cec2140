package load

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/bench/h2"
)

// clientWindow is how much the server may send on a stream at once: as large
// as browsers and gRPC clients have it, so that it never limits.
const clientWindow = 1 << 20

// h2Session is one HTTP/2 connection with a number of streams that are each
// replaced by the next when they are answered.
type h2Session struct {
	load     *sessions
	frames   h2.Reader
	enc      *h2.Encoder
	dec      *h2.Decoder
	message  []byte // gRPC: what follows the header block, a message with its prefix
	streams  []h2Exchange
	next     uint32
	send     int // the server's connection window
	initial  int // its window for a new stream
	received int // bytes since the connection's window was opened last
	block    []byte
	headers  uint32 // the stream whose header block goes on, 0 when none does
	ends     bool
	draining bool // GOAWAY was received
	out      []byte
}

// h2Exchange is one stream.
type h2Exchange struct {
	id       uint32
	start    time.Duration
	send     int  // the server's window
	unsent   int  // bytes of the message that wait for a window
	got      int  // bytes of the answer's body, or of the message coming back
	received int  // bytes since the stream's window was opened last
	ok       bool // the answer began with status 200
	active   bool
}

func newH2(l *sessions) *h2Session {
	s := &h2Session{load: l, dec: h2.NewDecoder(), streams: make([]h2Exchange, max(1, l.cfg.Streams)), next: 1, send: h2.DefaultWindow, initial: h2.DefaultWindow}
	s.enc = h2.NewEncoder(l.requestFields())
	if l.cfg.Protocol != HTTP2 {
		n := l.cfg.Message
		s.message = append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, strings.Repeat("x", n)...)
	}
	return s
}

// requestFields are those of DefaultRequest, or of a gRPC call.
func (l *sessions) requestFields() []hpack.HeaderField {
	var list []hpack.HeaderField
	add := func(pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
		}
	}
	if l.cfg.Protocol != HTTP2 {
		path := "/shop.v1.Catalogue/GetItem"
		if l.cfg.Protocol == GRPCStream {
			path = "/shop.v1.Catalogue/Watch"
		}
		add(":method", "POST", ":scheme", "http", ":path", path, ":authority", "shop.example.com",
			"content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "te", "trailers",
			"authorization", "Bearer 0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I.bJTlxWbu9XkYNvM2sE7GmQ")
		return list
	}
	lines := strings.Split(strings.TrimSpace(DefaultRequest), "\r\n")
	add(":method", "GET", ":scheme", "http", ":path", strings.Fields(lines[0])[1])
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		if name = strings.ToLower(name); name == "host" {
			name = ":authority"
		}
		add(name, value)
	}
	return list
}

func (s *h2Session) open(out []byte) ([]byte, error) {
	out = append(out, h2.Preface...)
	out = h2.AppendSettings(out, h2.Setting{ID: h2.SettingPush, Value: 0}, h2.Setting{ID: h2.SettingInitialWindow, Value: clientWindow})
	out = h2.AppendWindowUpdate(out, 0, h2.MaxWindow/2-h2.DefaultWindow)
	s.out = out
	for i := range s.streams {
		s.start(&s.streams[i])
	}
	return s.out, nil
}

// start begins the next exchange in the place of one that is over.
func (s *h2Session) start(x *h2Exchange) {
	if s.draining || s.load.ending || s.next > 1<<30 {
		return
	}
	*x = h2Exchange{id: s.next, start: s.load.readAt, send: s.initial, unsent: len(s.message), active: true}
	s.next += 2
	flags := byte(h2.FlagEndHeaders)
	if len(s.message) == 0 {
		flags |= h2.FlagEndStream
	}
	s.out = h2.AppendFrame(s.out, h2.TypeHeaders, flags, x.id, s.enc.Block(0))
	s.write(x)
}

// write sends what the windows allow of an exchange's message.
func (s *h2Session) write(x *h2Exchange) {
	for x.unsent > 0 {
		n := min(x.unsent, x.send, s.send, h2.MaxFrame)
		if n <= 0 {
			return
		}
		var flags byte
		if n == x.unsent && s.load.cfg.Protocol == GRPC {
			flags = h2.FlagEndStream
		}
		at := len(s.message) - x.unsent
		s.out = h2.AppendFrame(s.out, h2.TypeData, flags, x.id, s.message[at:at+n])
		x.unsent -= n
		x.send -= n
		s.send -= n
	}
}

func (s *h2Session) feed(in, out []byte) ([]byte, error) {
	s.out = out
	err := s.frames.Feed(in, s.frame)
	return s.out, err
}

func (s *h2Session) exchange(id uint32) *h2Exchange {
	for i := range s.streams {
		if x := &s.streams[i]; x.id == id && x.active {
			return x
		}
	}
	return nil
}

func (s *h2Session) frame(f *h2.Frame) error {
	if s.headers != 0 && (f.Type != h2.TypeContinuation || f.Stream != s.headers) {
		return errors.New("http/2: a header block is interrupted")
	}
	switch f.Type {
	case h2.TypeData:
		return s.data(f)
	case h2.TypeHeaders:
		content, err := f.Content()
		if err != nil {
			return err
		}
		if f.Has(h2.FlagEndHeaders) {
			return s.head(f.Stream, content, f.Has(h2.FlagEndStream))
		}
		s.headers, s.ends, s.block = f.Stream, f.Has(h2.FlagEndStream), append(s.block[:0], content...)
	case h2.TypeContinuation:
		if s.block = append(s.block, f.Payload...); len(s.block) > maxHead {
			return errLongHead
		}
		if f.Has(h2.FlagEndHeaders) {
			id := s.headers
			s.headers = 0
			return s.head(id, s.block, s.ends)
		}
	case h2.TypeRST:
		code, err := f.Uint32()
		if err != nil {
			return err
		}
		if x := s.exchange(f.Stream); x != nil {
			x.active = false
			s.load.res.fail(fmt.Errorf("http/2: a stream is reset with code %d", code))
			s.start(x)
		}
	case h2.TypeSettings:
		return s.settings(f)
	case h2.TypePing:
		if !f.Has(h2.FlagAck) {
			s.out = h2.AppendFrame(s.out, h2.TypePing, h2.FlagAck, 0, f.Payload)
		}
	case h2.TypeGoAway:
		last, err := f.Uint32()
		if err != nil {
			return err
		}
		s.draining = true
		for i := range s.streams {
			if x := &s.streams[i]; x.id > last {
				x.active = false // it was not processed: no error (RFC 9113, section 6.8)
			}
		}
	case h2.TypeWindowUpdate:
		n, err := f.Uint32()
		if err != nil {
			return err
		}
		if f.Stream != 0 {
			if x := s.exchange(f.Stream); x != nil {
				x.send += int(n)
				s.write(x)
			}
			return nil
		}
		s.send += int(n)
		s.writeAll()
	}
	return nil
}

func (s *h2Session) writeAll() {
	for i := range s.streams {
		if x := &s.streams[i]; x.active {
			s.write(x)
		}
	}
}

func (s *h2Session) settings(f *h2.Frame) error {
	if f.Has(h2.FlagAck) {
		return nil
	}
	few := false
	err := f.Settings(func(set h2.Setting) {
		switch set.ID {
		case h2.SettingTableSize:
			s.enc.SetTableSize(min(set.Value, 4096))
		case h2.SettingMaxStreams:
			few = int(set.Value) < len(s.streams)
		case h2.SettingInitialWindow:
			for i := range s.streams {
				s.streams[i].send += int(set.Value) - s.initial
			}
			s.initial = int(set.Value)
		}
	})
	if few {
		return fmt.Errorf("http/2: the server takes fewer than %d streams", len(s.streams))
	}
	s.out = h2.AppendFrame(s.out, h2.TypeSettings, h2.FlagAck, 0, nil)
	s.writeAll()
	return err
}

// head takes a header block: of an answer, or of its trailers.
func (s *h2Session) head(id uint32, block []byte, ends bool) error {
	st, err := s.dec.Status(block) // in any case: it may change the table
	if err != nil {
		return fmt.Errorf("http/2: header block: %w", err)
	}
	x := s.exchange(id)
	if x == nil {
		return nil
	}
	switch {
	case len(st.HTTP) == 3 && st.HTTP[0] == '1' && !ends:
		return nil // an interim answer
	case st.HTTP == "200":
		x.ok = true
	case st.HTTP != "" || !x.ok:
		return s.failed(x, "status "+strconv.Quote(st.HTTP), ends)
	}
	if !ends {
		return nil
	}
	if s.load.cfg.Protocol != HTTP2 && (st.GRPC != "0" || s.load.cfg.Protocol == GRPCStream) {
		return s.failed(x, "the call ends with grpc-status "+strconv.Quote(st.GRPC), true)
	}
	if s.load.cfg.Protocol == GRPC && x.got < 5 {
		return s.failed(x, "the call ends well without a message", true)
	}
	s.done(x)
	return nil
}

// failed counts an answer that is not the right one. If more of it follows,
// the connection is given up.
func (s *h2Session) failed(x *h2Exchange, why string, ends bool) error {
	if !ends {
		return errors.New(why)
	}
	s.load.res.fail(errors.New(why))
	x.active = false
	s.start(x)
	return nil
}

func (s *h2Session) done(x *h2Exchange) {
	s.load.answered(x.start)
	x.active = false
	s.start(x)
}

func (s *h2Session) data(f *h2.Frame) error {
	s.received += len(f.Payload)
	if s.received >= h2.MaxWindow/4 {
		s.out = h2.AppendWindowUpdate(s.out, 0, uint32(s.received))
		s.received = 0
	}
	x := s.exchange(f.Stream)
	if x == nil {
		return nil
	}
	content, err := f.Content()
	if err != nil {
		return err
	}
	x.got += len(content)
	ends := f.Has(h2.FlagEndStream)
	if !ends {
		if x.received += len(f.Payload); x.received >= clientWindow/2 {
			s.out = h2.AppendWindowUpdate(s.out, x.id, uint32(x.received))
			x.received = 0
		}
	}
	switch {
	case ends && s.load.cfg.Protocol != HTTP2:
		return s.failed(x, "the call ends without trailers", true)
	case ends:
		s.done(x)
	case s.load.cfg.Protocol == GRPCStream && x.got >= len(s.message):
		if x.got > len(s.message) {
			return errEcho
		}
		s.load.answered(x.start)
		x.got = 0
		if s.load.ending || s.draining {
			x.active = false // the call is left as it is: the connection is closed next
			return nil
		}
		x.start, x.unsent = s.load.readAt, len(s.message)
		s.write(x)
	}
	return nil
}

func (s *h2Session) busy() int {
	n := 0
	for i := range s.streams {
		if s.streams[i].active {
			n++
		}
	}
	return n
}

func (s *h2Session) over() bool {
	return (s.draining || s.next > 1<<30) && s.busy() == 0
}
