package http2

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

const sampleKey, sampleAccept = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

// detached returns a connection without a socket: what it would write stays in
// pend.
func detached(client bool) *conn {
	c := newConn(nil, &Config{ExtendedConnect: true, Scheme: "https"}, client)
	c.pend = c.pend[:0]
	c.flushing = true // by nobody
	c.peerSpeaks = true
	c.greeted, c.settled = true, true
	return c
}

// feed gives frames to a connection as if they had been read.
func (c *conn) feed(b []byte) error {
	for len(b) >= frameHead {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		f := frame{kind: b[3], flags: b[4], id: uint32(b[5])<<24 | uint32(b[6])<<16 | uint32(b[7])<<8 | uint32(b[8]), payload: b[frameHead : frameHead+n]}
		b = b[frameHead+n:]
		if err := c.onFrame(&f); err != nil {
			return err
		}
	}
	return nil
}

// blocks splits a script into its blocks of lines.
func blocks(t *testing.T, name string) (list [][]string) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(b), "\n\n") {
		var lines []string
		for l := range strings.SplitSeq(strings.TrimSuffix(block, "\n"), "\n") {
			if !strings.HasPrefix(l, "#") {
				lines = append(lines, l)
			}
		}
		if len(lines) > 0 && lines[0] != "" {
			list = append(list, lines)
		}
	}
	return list
}

// arrow splits a block at its arrow.
func arrow(t *testing.T, lines []string) (in, out []string, refused string) {
	t.Helper()
	for i, l := range lines {
		if r, ok := strings.CutPrefix(l, "-> refused "); ok {
			return lines[:i], nil, r
		}
		if l == "->" {
			return lines[:i], lines[i+1:], ""
		}
	}
	t.Fatalf("no arrow in %q", lines)
	return nil, nil, ""
}

var escapes = strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00", `\s`, " ")

// sectionOf is what the first word of a block of sections.txt says of a section of s.
func sectionOf(word string, s *Stream) sectionKind {
	switch word {
	case "request":
		return sectionRequest
	case "trailers":
		return sectionTrailers
	case "answer-to-connect":
		s.connect = true
	case "answer-to-websocket":
		s.connect = true
		s.Protocol, s.key = []byte("websocket"), []byte(sampleKey)
	}
	return sectionResponse
}

func TestReceivedHeads(t *testing.T) {
	for _, lines := range blocks(t, "sections.txt") {
		in, out, refused := arrow(t, lines)
		words := strings.Fields(in[0])
		c := detached(words[0] != "request")
		s := c.newStream()
		kind := sectionOf(words[0], s)
		end := slices.Contains(words, "end")
		c.in.begin(kind, s)
		for _, l := range in[1:] {
			name, value, _ := strings.Cut(l[1:], ": ")
			c.in.field([]byte(l[:1]+name), []byte(escapes.Replace(value)))
		}
		c.in.end(end)
		if c.in.malformed != refused {
			t.Errorf("%s: refused %q, want %q", strings.Join(in, "|"), c.in.malformed, refused)
			continue
		}
		if refused != "" {
			continue
		}
		want := strings.Join(out, "\r\n") + "\r\n"
		if kind != sectionTrailers {
			want += "\r\n"
		}
		if got := string(c.in.out); got != want {
			t.Errorf("%s: got\n%q, want\n%q", strings.Join(in, "|"), got, want)
		}
		// Whatever is not refused is a head to http1 as well.
		switch kind {
		case sectionRequest:
			var r http1.Request
			if n, err := r.Parse(c.in.out, nil); err != nil || n != len(c.in.out) {
				t.Errorf("%q: %v", c.in.out, err)
			}
		case sectionResponse:
			var r http1.Response
			if n, err := r.Parse(c.in.out, nil, http1.MethodGet); err != nil || n != len(c.in.out) {
				t.Errorf("%q: %v", c.in.out, err)
			}
		}
	}
}

// written decodes the field sections that a connection has pending.
func written(t testing.TB, c *conn) (list []fields) {
	t.Helper()
	d := hpack.NewDecoder(tableSize, nil)
	for b := c.pend; len(b) > 0; {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if b[3] == frameHeaders {
			f, err := d.DecodeFull(b[frameHead : frameHead+n])
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, f)
		}
		b = b[frameHead+n:]
	}
	return list
}

func TestSentHeads(t *testing.T) {
	for _, lines := range blocks(t, "heads.txt") {
		in, out, refused := arrow(t, lines)
		head := []byte(strings.Join(in[1:], "\r\n") + "\r\n\r\n")
		c := detached(in[0] == "request")
		s := c.newStream()
		var err error
		if in[0] == "request" {
			err = s.WriteRequest(head, nil, End)
		} else {
			s.id = 1
			c.streams[1] = s
			if in[0] == "answer-to-websocket" {
				s.Protocol, s.key, s.connect = []byte("websocket"), []byte(sampleKey), true
			}
			err = s.WriteResponse(head, nil, 0)
		}
		if refused != "" {
			if err == nil || err.Error() != refused {
				t.Errorf("%s: %v, want %s", strings.Join(in, "|"), err, refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", strings.Join(in, "|"), err)
			continue
		}
		w := written(t, c)
		if want := strings.Join(out, "\n") + "\n"; len(w) != 1 || w[0].String() != want {
			t.Errorf("%s: got\n%s, want\n%s", strings.Join(in, "|"), w, want)
		}
	}
}

func TestUpgradeNeedsAPeerThatTakesIt(t *testing.T) {
	c := detached(true)
	c.peerSpeaks = false
	err := c.newStream().WriteRequest([]byte("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"), nil, 0)
	if err != ErrNoConnectProtocol || !Unsent(err) || len(c.pend) > 0 {
		t.Errorf("%v, %d bytes", err, len(c.pend))
	}
}

// A head of more than one frame comes out whole.
func TestLongHeads(t *testing.T) {
	k, v := detached(true), detached(false)
	head := "GET / HTTP/1.1\r\nhost: h\r\n"
	for i := range 9 {
		head += fmt.Sprintf("x-long-%d: %s\r\n", i, strings.Repeat("v", 6000))
	}
	if err := k.newStream().WriteRequest([]byte(head+"\r\n"), nil, End); err != nil {
		t.Fatal(err)
	}
	if err := v.feed(k.pend); err != nil {
		t.Fatal(err)
	}
	if len(v.fresh) != 1 || string(v.fresh[0].Head) != head+"\r\n" || !v.fresh[0].Ended {
		t.Errorf("%d streams", len(v.fresh))
	}
}

func TestHeadsBeyondTheLimits(t *testing.T) {
	for name, head := range map[string]string{
		"bytes":  "x: " + strings.Repeat("v", DefaultHeaderBytes) + "\r\n",
		"fields": strings.Repeat("x: y\r\n", DefaultFields+10),
	} {
		k, v := detached(true), detached(false)
		if err := k.newStream().WriteRequest([]byte("GET / HTTP/1.1\r\nhost: h\r\n"+head+"\r\n"), nil, End); err != nil {
			t.Fatal(err)
		}
		if err := v.feed(k.pend); err != nil {
			t.Fatal(err)
		}
		w := written(t, v)
		if len(v.fresh) != 0 || len(w) != 1 || w[0].String() != ":status: 431\n" {
			t.Errorf("%s: %d streams, %v", name, len(v.fresh), w)
		}
		// The next request is none the worse.
		k.pend = k.pend[:0]
		if err := k.newStream().WriteRequest([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"), nil, End); err != nil {
			t.Fatal(err)
		}
		if err := v.feed(k.pend); err != nil || len(v.fresh) != 1 {
			t.Errorf("%s: %v, %d streams", name, err, len(v.fresh))
		}
	}
}

// meaning is what a request or response says, as net/http understands it.
func meaning(h http.Header, first ...string) string {
	var b strings.Builder
	fmt.Fprintln(&b, first)
	for _, k := range slices.Sorted(maps.Keys(h)) {
		switch k {
		case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Te", "Upgrade", "Http2-Settings", "Trailer":
			continue
		case "Cookie":
			// Where the last of several is empty, the space before it means nothing.
			fmt.Fprintln(&b, k, strings.TrimSpace(strings.Join(h[k], "; ")))
		default:
			fmt.Fprintln(&b, k, h[k])
		}
	}
	return b.String()
}

// FuzzTranslate sends a request that http1 takes through HTTP/2: net/http must
// understand what arrives as it did what was sent.
func FuzzTranslate(f *testing.F) {
	for _, s := range []string{
		"GET /a?b=c HTTP/1.1\r\nHost: www.example.com\r\nAccept: */*\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: te, x-b\r\nX-B: 1\r\n\r\n",
		"GET http://a.example/x HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nCookie:\r\nCookie:\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
		"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost:\r\nX-Empty:\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: " + sampleKey + "\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		var r http1.Request
		n, err := r.Parse(head, nil)
		if err != nil || n == 0 {
			return
		}
		head = head[:n]
		// What a proxy would forward.
		sent := r.AppendHead(nil, head)
		if r.Framing == http1.FramingChunked {
			sent = append(sent, "transfer-encoding: chunked\r\n"...)
		}
		if !r.HasHost {
			sent = append(sent, "host: h\r\n"...)
		}
		sent = append(sent, "\r\n"...)
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(sent)))
		if err != nil {
			return
		}
		k, v := detached(true), detached(false)
		fl := Flags(0)
		if r.Framing == http1.FramingNone || r.Framing == http1.FramingLength && r.Length == 0 {
			fl = End
		}
		if err := k.newStream().WriteRequest(sent, nil, fl); err != nil {
			t.Fatalf("%q is not sent: %v", sent, err)
		}
		if err := v.feed(k.pend); err != nil {
			t.Fatalf("%q: %v", sent, err)
		}
		if len(v.fresh) != 1 {
			t.Fatalf("%q is refused: %s", sent, v.in.malformed)
		}
		got, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(v.fresh[0].Head)))
		if err != nil {
			t.Fatalf("%q became %q: %v", sent, v.fresh[0].Head, err)
		}
		a, b := meaning(want.Header, want.Method, want.RequestURI, want.Host), meaning(got.Header, got.Method, got.RequestURI, got.Host)
		if a != b {
			t.Fatalf("%q became %q:\n%s\nwas\n%s", sent, v.fresh[0].Head, b, a)
		}
		if want.ContentLength > 0 && got.ContentLength != want.ContentLength {
			t.Fatalf("%q: content-length %d", sent, got.ContentLength)
		}
	})
}

// FuzzTranslateResponse does the same with responses.
func FuzzTranslateResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nX: y\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
		"HTTP/1.0 200\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		var r http1.Response
		n, err := r.Parse(head, nil, http1.MethodGet)
		if err != nil || n == 0 || r.Status == 101 {
			return
		}
		head = head[:n]
		sent := append(r.AppendHead(nil, head), "\r\n"...)
		want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(sent)), nil)
		if err != nil {
			return
		}
		k, v := detached(true), detached(false)
		s := k.newStream()
		if err := s.WriteRequest([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"), nil, End); err != nil {
			t.Fatal(err)
		}
		if err := v.feed(k.pend); err != nil {
			t.Fatal(err)
		}
		fl := Flags(0)
		if r.Framing == http1.FramingNone && !r.Interim || r.Framing == http1.FramingLength && r.Length == 0 {
			fl = End
		}
		if err := v.fresh[0].WriteResponse(sent, nil, fl); err != nil {
			t.Fatalf("%q is not sent: %v", sent, err)
		}
		if err := k.feed(v.pend); err != nil {
			t.Fatal(err)
		}
		if err := s.ReadHead(); err != nil {
			t.Fatalf("%q: %v", sent, err)
		}
		if s.Ended != (fl == End) {
			t.Fatalf("%q: ended %v", sent, s.Ended)
		}
		got, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(s.Head)), nil)
		if err != nil {
			t.Fatalf("%q became %q: %v", sent, s.Head, err)
		}
		a, b := meaning(want.Header, fmt.Sprint(want.StatusCode)), meaning(got.Header, fmt.Sprint(got.StatusCode))
		if a != b {
			t.Fatalf("%q became %q:\n%s\nwas\n%s", sent, s.Head, b, a)
		}
	})
}

// FuzzHeaders makes a head of any fields. Whatever is not refused is an HTTP/1.1
// head with as many lines as there were fields, no more.
func FuzzHeaders(f *testing.F) {
	f.Add([]byte(":method\x00GET\x00:scheme\x00http\x00:path\x00/\x00:authority\x00h\x00a\x00b"), false)
	f.Add([]byte(":method\x00CONNECT\x00:authority\x00h:1\x00a\x00b"), true)
	f.Add([]byte(":method\x00CONNECT\x00:protocol\x00websocket\x00:scheme\x00http\x00:path\x00/\x00:authority\x00h"), true)
	f.Add([]byte(":method\x00GET\x00:scheme\x00http\x00:path\x00/\r\nx: y\x00cookie\x00b\x00cookie\x00c"), false)
	f.Fuzz(func(t *testing.T, data []byte, end bool) {
		c := detached(false)
		c.in.begin(sectionRequest, nil)
		parts := bytes.Split(data, []byte{0})
		for i := 0; i+1 < len(parts); i += 2 {
			c.in.field(parts[i], parts[i+1])
		}
		c.in.end(end)
		if c.in.malformed != "" || c.in.tooLarge {
			return
		}
		out := c.in.out
		const own = 5 // request line, host, connection, upgrade and key, or transfer-encoding; the empty line
		if n := bytes.Count(out, []byte("\n")); n > len(parts)/2+own || n != bytes.Count(out, []byte("\r\n")) {
			t.Fatalf("%q became %q", data, out)
		}
		if !bytes.HasSuffix(out, []byte("\r\n\r\n")) || bytes.Index(out, []byte("\r\n\r\n")) != len(out)-4 {
			t.Fatalf("%q became %q", data, out)
		}
		// http1 is stricter about hosts, targets and numbers, but never sees more
		// than one head.
		var r http1.Request
		if n, err := r.Parse(out, nil); err == nil && n != len(out) {
			t.Fatalf("%q became %q, of which %d are the head", data, out, n)
		}
	})
}
