package http2

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// peer is a far end that a test plays frame by frame.
type peer struct {
	net.Conn
	t   testing.TB
	enc *hpack.Encoder
	buf bytes.Buffer
	dec *hpack.Decoder
}

// got is a frame that a peer received.
type got struct {
	kind, flags uint8
	id          uint32
	payload     []byte
}

func (g got) word() uint32 { return binary.BigEndian.Uint32(g.payload) }

func newPeer(t testing.TB, c net.Conn) *peer {
	p := &peer{Conn: c, t: t, dec: hpack.NewDecoder(tableSize, nil)}
	p.enc = hpack.NewEncoder(&p.buf)
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return p
}

// asClient connects to a server under test and greets it.
func asClient(t testing.TB, v *serving, settings ...uint32) *peer {
	t.Helper()
	c, err := net.Dial("tcp", v.addr)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, c)
	if _, err := c.Write([]byte(preface)); err != nil {
		t.Fatal(err)
	}
	p.settings(settings...)
	return p
}

// asServer returns a client under test, whose settings have been read and
// answered, and the server that the test plays. errs gets what Run returns.
func asServer(t testing.TB, cfg *Config, settings ...uint32) (*Client, *peer, <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	sock, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.New(sock.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	k := NewClient(c, cfg)
	errs, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		errs <- k.Run()
		_ = c.Close()
	}()
	t.Cleanup(func() {
		k.Close()
		far.Close()
		<-done
	})
	p := newPeer(t, far)
	b := make([]byte, len(preface))
	if _, err := io.ReadFull(far, b); err != nil || string(b) != preface {
		t.Fatalf("preface %q, %v", b, err)
	}
	p.settings(settings...)
	p.expect(frameSettings, 0) // the client's own
	p.send(frameSettings, flagAck, 0, nil)
	p.expect(frameSettings, 0) // its answer
	return k, p, errs
}

func (p *peer) send(kind, flags uint8, id uint32, payload []byte) {
	p.t.Helper()
	if _, err := p.Write(append(appendFrameHead(nil, len(payload), kind, flags, id), payload...)); err != nil {
		p.t.Fatal(err)
	}
}

// trySend is send, for a connection that may have been ended.
func (p *peer) trySend(kind, flags uint8, id uint32, payload []byte) error {
	_, err := p.Write(append(appendFrameHead(nil, len(payload), kind, flags, id), payload...))
	return err
}

func (p *peer) sendWord(kind uint8, id, word uint32) {
	p.t.Helper()
	p.send(kind, 0, id, binary.BigEndian.AppendUint32(nil, word))
}

func (p *peer) settings(pairs ...uint32) {
	p.t.Helper()
	var b []byte
	for i := 0; i+1 < len(pairs); i += 2 {
		b = appendSetting(b, uint16(pairs[i]), pairs[i+1])
	}
	p.send(frameSettings, 0, 0, b)
}

// block encodes "name: value" fields.
func (p *peer) block(list ...string) []byte {
	p.buf.Reset()
	for _, f := range list {
		name, value, _ := strings.Cut(f[1:], ": ")
		_ = p.enc.WriteField(hpack.HeaderField{Name: f[:1] + name, Value: value})
	}
	return p.buf.Bytes()
}

func (p *peer) headers(id uint32, end bool, list ...string) {
	p.t.Helper()
	flags := uint8(flagEndHeaders)
	if end {
		flags |= flagEndStream
	}
	p.send(frameHeaders, flags, id, p.block(list...))
}

// get opens a stream with a GET.
func (p *peer) get(id uint32) {
	p.t.Helper()
	p.headers(id, true, ":method: GET", ":scheme: http", ":path: /", ":authority: h")
}

// post opens a stream whose body is to follow.
func (p *peer) post(id uint32) {
	p.t.Helper()
	p.headers(id, false, ":method: POST", ":scheme: http", ":path: /", ":authority: h")
}

func (p *peer) next() (g got, err error) {
	var h [frameHead]byte
	if _, err := io.ReadFull(p, h[:]); err != nil {
		return g, err
	}
	g = got{kind: h[3], flags: h[4], id: binary.BigEndian.Uint32(h[5:])}
	g.payload = make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
	_, err = io.ReadFull(p, g.payload)
	return g, err
}

// expect returns the next frame of that kind on that stream, and passes over
// others, but for an unexpected end.
func (p *peer) expect(kind uint8, id uint32) got {
	p.t.Helper()
	for {
		g, err := p.next()
		if err != nil {
			p.t.Fatalf("waiting for frame type %d on stream %d: %v", kind, id, err)
		}
		if g.kind == kind && g.id == id {
			return g
		}
		if g.kind == frameGoAway && Code(binary.BigEndian.Uint32(g.payload[4:])) != NoError {
			p.t.Fatalf("waiting for frame type %d on stream %d: GOAWAY %s %q", kind, id, Code(binary.BigEndian.Uint32(g.payload[4:])), g.payload[8:])
		}
	}
}

// expectGoAway reads up to a GOAWAY and returns its last stream and code.
func (p *peer) expectGoAway() (last uint32, code Code) {
	p.t.Helper()
	for {
		g, err := p.next()
		if err != nil {
			p.t.Fatalf("waiting for GOAWAY: %v", err)
		}
		if g.kind == frameGoAway {
			return g.word(), Code(binary.BigEndian.Uint32(g.payload[4:]))
		}
	}
}

// expectEnd reads up to the end of the connection.
func (p *peer) expectEnd() {
	p.t.Helper()
	for {
		if _, err := p.next(); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				p.t.Fatal("the connection does not end")
			}
			return
		}
	}
}

// sync returns when the other side has taken all that was sent before. It passes
// over what comes meanwhile.
func (p *peer) sync() {
	p.t.Helper()
	p.send(framePing, 0, 0, []byte("a probe."))
	for {
		if g := p.expect(framePing, 0); g.flags&flagAck != 0 && string(g.payload) == "a probe." {
			return
		}
	}
}

// body reads DATA of a stream until n bytes have come or the stream ends.
func (p *peer) body(id uint32, n int) (size int, end bool) {
	p.t.Helper()
	for size < n {
		g := p.expect(frameData, id)
		size += len(g.payload)
		if g.flags&flagEndStream != 0 {
			return size, true
		}
	}
	return size, false
}
