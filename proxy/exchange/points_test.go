package exchange_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	own "github.com/outrigger-mesh/outrigger/proxy/http2"
)

// party is a connection of a caller or an endpoint that a test plays step by
// step, whatever it speaks: h1, h2 or mesh.
type party struct {
	speaks string
	sock   *net.TCPConn
	rw     io.ReadWriter
	br     *bufio.Reader
	opened chan *turn // of an endpoint; nil for a caller

	mu    sync.Mutex // held while writing, and for turns
	f     *http2.Framer
	enc   *framer
	turns map[uint32]*turn
}

// turn is one side of an exchange.
type turn struct {
	p      *party
	id     uint32
	path   string // of a request
	events chan string
	head   chan string // the head of an answer
}

func newParty(speaks string, sock *net.TCPConn, rw io.ReadWriter, opened chan *turn) *party {
	p := &party{speaks: speaks, sock: sock, rw: rw, br: bufio.NewReader(rw), opened: opened, turns: map[uint32]*turn{}}
	if speaks == "h1" {
		return p
	}
	if opened == nil {
		_, _ = io.WriteString(rw, http2.ClientPreface)
	} else {
		_, _ = p.br.Discard(len(http2.ClientPreface))
	}
	p.enc = newFramer(nil)
	p.f = http2.NewFramer(rw, p.br)
	p.enc.Framer = p.f
	if speaks == "h2" {
		p.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	}
	_ = p.f.WriteSettings()
	return p
}

func (p *party) turn(id uint32, path string) *turn {
	t := &turn{p: p, id: id, path: path, events: make(chan string, 1000), head: make(chan string, 10)}
	p.mu.Lock()
	p.turns[id] = t
	p.mu.Unlock()
	return t
}

// read tells the turns what comes, until the connection ends.
func (p *party) read() {
	if p.speaks == "h1" {
		p.readMessages()
	} else {
		p.readFrames()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.turns {
		t.events <- "gone"
	}
}

func (p *party) readMessages() {
	for {
		var t *turn
		var body io.Reader
		if p.opened != nil {
			r, err := http.ReadRequest(p.br)
			if err != nil {
				return
			}
			t, body = p.turn(1, r.URL.Path), r.Body
			p.opened <- t
		} else {
			r, err := finalResponse(p.br)
			if err != nil {
				return
			}
			t, body = p.turns[1], r.Body
			t.head <- fmt.Sprint(r.StatusCode, " ", r.Header.Get("x-outrigger-reason"))
			t.events <- "head"
		}
		b := make([]byte, 100)
		for {
			n, err := body.Read(b)
			if n > 0 {
				t.events <- "data"
			}
			if err == io.EOF {
				t.events <- "end"
				break
			}
			if err != nil {
				return
			}
		}
	}
}

func (p *party) readFrames() {
	for {
		fr, err := p.f.ReadFrame()
		if err != nil {
			return
		}
		id := fr.Header().StreamID
		p.mu.Lock()
		t := p.turns[id]
		switch fr := fr.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = p.f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !fr.IsAck() {
				_ = p.f.WritePing(true, fr.Data)
			}
		}
		p.mu.Unlock()
		ended := false
		switch fr := fr.(type) {
		case *http2.MetaHeadersFrame:
			ended = fr.StreamEnded()
			reason := ""
			for _, h := range fr.Fields {
				if h.Name == "x-outrigger-reason" {
					reason = h.Value
				}
			}
			t = p.headCame(id, t, fr.PseudoValue("path"), fr.PseudoValue("status")+" "+reason)
		case *http2.HeadersFrame:
			ended = fr.StreamEnded()
			head := string(fr.HeaderBlockFragment())
			_, reason, _ := strings.Cut(head, "x-outrigger-reason: ")
			reason, _, _ = strings.Cut(reason, "\r\n")
			words := strings.Fields(head + " - -")
			t = p.headCame(id, t, words[1], words[1]+" "+reason)
		case *http2.DataFrame:
			ended = fr.StreamEnded()
			if t != nil && len(fr.Data()) > 0 {
				t.events <- "data"
			}
		case *http2.RSTStreamFrame:
			if t != nil {
				t.events <- "reset"
			}
		}
		if ended && t != nil {
			t.events <- "end"
		}
	}
}

func (p *party) headCame(id uint32, t *turn, path, answer string) *turn {
	if t == nil {
		t = p.turn(id, path)
		p.opened <- t
	} else if p.opened == nil {
		t.head <- answer
		t.events <- "head"
	}
	return t
}

// Steps of either side.

func (t *turn) request(method, path string, end bool) {
	framing := "Transfer-Encoding: chunked\r\n"
	if end {
		framing = ""
	}
	t.start(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: a\r\n%s\r\n", method, path, framing), "1", end, ":method", method, ":scheme", "http", ":authority", "a", ":path", path)
}

func (t *turn) answer(status int, end bool) {
	framing := "Transfer-Encoding: chunked\r\n"
	if end {
		framing = ""
	}
	t.start(fmt.Sprintf("HTTP/1.1 %d X\r\n%s\r\n", status, framing), "", end, ":status", fmt.Sprint(status))
}

func (t *turn) start(head, origin string, end bool, fields ...string) {
	p := t.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.speaks {
	case "h1":
		_, _ = io.WriteString(p.rw, head)
	case "h2":
		p.enc.headers(t.id, end, fields...)
	case "mesh":
		_ = p.f.WriteHeaders(http2.HeadersFrameParam{StreamID: t.id, BlockFragment: []byte(origin + head), EndStream: end, EndHeaders: true})
	}
}

func (t *turn) data() {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	if t.p.speaks == "h1" {
		_, _ = io.WriteString(t.p.rw, "4\r\npart\r\n")
		return
	}
	_ = t.p.f.WriteData(t.id, false, []byte("part"))
}

func (t *turn) end() {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	if t.p.speaks == "h1" {
		_, _ = io.WriteString(t.p.rw, "0\r\nx-last: 1\r\n\r\n")
		return
	}
	_ = t.p.f.WriteData(t.id, true, nil)
}

// reset ends the stream alone, or the connection.
func (t *turn) reset(conn bool) {
	if conn || t.p.speaks == "h1" {
		_ = t.p.sock.SetLinger(0)
		_ = t.p.sock.Close()
		return
	}
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	_ = t.p.f.WriteRSTStream(t.id, http2.ErrCodeInternal)
}

// wait returns once one of the events has come, and passes over others.
func (t *turn) wait(tb testing.TB, events ...string) {
	tb.Helper()
	for {
		select {
		case e := <-t.events:
			if slices.Contains(events, e) {
				return
			}
			if e == "gone" {
				tb.Fatalf("the connection ended; want %v", events)
			}
		case <-time.After(patience):
			tb.Fatalf("none of %v came", events)
		}
	}
}

// Points of an exchange at which a side goes away.
var points = []string{"behind the head", "in the body", "before the response", "in the response", "before the end"}

// reach carries an exchange up to a point.
func reach(t *testing.T, point int, d *turn, opened <-chan *turn) (o *turn) {
	t.Helper()
	d.request("POST", "/", false)
	select {
	case o = <-opened:
	case <-time.After(patience):
		t.Fatal("the request did not come")
	}
	if point >= 1 {
		d.data()
		o.wait(t, "data")
	}
	if point >= 2 {
		d.end()
		o.wait(t, "end")
	}
	if point >= 3 {
		o.answer(200, false)
		d.wait(t, "head")
	}
	if point >= 4 {
		o.data()
		d.wait(t, "data")
	}
	return o
}

// TestResetsAtEveryPoint: caller or endpoint goes away at any point of an
// exchange, with its stream or with its connection. The other side learns of it,
// the record says who it was, nothing is left, and the exchange beside it on the
// same connections is not touched.
func TestResetsAtEveryPoint(t *testing.T) {
	for _, speak := range [][2]string{{"h1", "h1"}, {"h1", "h2"}, {"h1", "mesh"}, {"h2", "h1"}, {"h2", "h2"}, {"h2", "mesh"}, {"mesh", "h1"}, {"mesh", "h2"}} {
		for point, name := range points {
			for _, who := range []string{"caller", "endpoint"} {
				for _, conn := range []bool{false, true} {
					goes := speak[0]
					if who == "endpoint" {
						goes = speak[1]
					}
					if goes == "h1" && !conn {
						continue // has no streams
					}
					t.Run(fmt.Sprintf("%s to %s/%s/%s/connection %v", speak[0], speak[1], name, who, conn), func(t *testing.T) {
						t.Parallel()
						resetAt(t, speak[0], speak[1], point, who == "caller", conn)
					})
				}
			}
		}
	}
}

func resetAt(t *testing.T, down, up string, point int, caller, conn bool) {
	m := plain
	switch {
	case down == "mesh":
		m = mtlsDown
	case up == "mesh":
		m = mtlsUp
	}
	b := newBed(t, m, func(s *setup) {
		s.http2, s.mesh = true, down == "mesh"
		s.policy.HTTP2, s.policy.Mesh = up == "h2", up == "mesh"
	})
	var cfg *tls.Config
	if up == "mesh" {
		cfg = meshConfig(b.origin)
	}
	opened := make(chan *turn, 10)
	b.to(b.anotherBy(cfg, func(c *originConn) { newParty(up, c.sock, c.Conn, opened).read() }))
	call := func() *party {
		c := b.dial()
		if down == "mesh" {
			cfg := b.clientConfig()
			cfg.NextProtos = []string{own.MeshHTTP}
			c.Conn = tls.Client(c.sock, cfg)
		}
		p := newParty(down, c.sock, c.Conn, nil)
		return p
	}
	var reading sync.WaitGroup
	start := func(p *party) { reading.Go(p.read) }

	// The exchange beside it, where the connections that it shares stay.
	near := call()
	beside := near.turn(1, "")
	start(near)
	var far *turn
	if alone := caller && conn && down != "h1" || !caller && conn && up != "h1"; !alone {
		beside.request("GET", "/beside", true)
		select {
		case far = <-opened:
		case <-time.After(patience):
			t.Fatal("the request beside it did not come")
		}
	}
	p := near
	if down == "h1" {
		p = call()
	}
	d := p.turn(map[bool]uint32{true: 1, false: 3}[down == "h1"], "")
	if p != near {
		start(p)
	}
	b.onStop(reading.Wait) // behind what closes the connections
	o := reach(t, point, d, opened)
	reason := "downstream_gone"
	if caller {
		d.reset(conn)
		if down == "h1" && point == 2 {
			o.answer(200, false) // it is not read from before there is an answer
		}
		told := false
		eventually(t, "the endpoint is told", func() bool {
			select {
			case e := <-o.events:
				told = told || e == "reset" || e == "gone"
			default:
				if point >= 3 || down == "h1" && point == 2 {
					o.data() // or by a failed write
				}
			}
			return told
		})
	} else {
		reason = "upstream_reset"
		o.reset(conn)
		if point < 3 {
			select {
			case head := <-d.head:
				if head != "503 upstream_reset" {
					t.Errorf("the caller got %s", head)
				}
			case <-time.After(patience):
				t.Error("the caller got no answer")
			}
		} else {
			d.wait(t, "reset", "gone")
		}
	}
	if far == nil {
		b.wantReasons(reason)
		return
	}
	far.answer(204, true)
	select {
	case head := <-beside.head:
		if head != "204 " {
			t.Errorf("the caller beside it got %s", head)
		}
	case <-time.After(patience):
		t.Error("the caller beside it got no answer")
	}
	b.wantReasons(reason, "ok")
}
