package exchange_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	own "github.com/outrigger-mesh/outrigger/proxy/http2"
)

func meshConfig(f *mtls.Feed) *tls.Config {
	return mtls.ServerConfig(f, mtls.ServerOptions{NextProtos: []string{own.MeshHTTP}})
}

// sidecar is another sidecar, played frame by frame: heads are not compressed.
type sidecar struct{ *framer }

// joined begins the transport between sidecars as the one that dials.
func (b *bed) joined() sidecar {
	b.t.Helper()
	c := b.dial()
	cfg := b.clientConfig()
	cfg.NextProtos = []string{own.MeshHTTP}
	conn := tls.Client(c.sock, cfg)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		b.t.Fatal(err)
	}
	return sidecarOn(conn)
}

func sidecarOn(rw io.ReadWriter) sidecar {
	f := &framer{Framer: http2.NewFramer(rw, rw)}
	_ = f.WriteSettings()
	return sidecar{f}
}

// block sends a HEADERS block as it is.
func (s sidecar) block(id uint32, end bool, block string) {
	first := true
	for more := true; more; {
		part := block[:min(len(block), 16<<10)]
		block = block[len(part):]
		more = len(block) > 0
		if first {
			_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(part), EndStream: end, EndHeaders: !more})
		} else {
			_ = s.WriteContinuation(id, !more, []byte(part))
		}
		first = false
	}
}

// answer waits for what becomes of a stream: the status of the answer, behind
// which is thrown away, or the code of a reset.
func (s sidecar) answer(id uint32) string {
	status := ""
	for {
		switch fr := s.next().(type) {
		case nil:
			return "gone"
		case *http2.HeadersFrame:
			if fr.StreamID != id {
				continue
			}
			if status == "" {
				status = strings.TrimPrefix(string(fr.HeaderBlockFragment()), "HTTP/1.1 ")[:3]
			}
			if fr.StreamEnded() {
				return status
			}
		case *http2.DataFrame:
			if fr.StreamID == id && fr.StreamEnded() {
				return status
			}
		case *http2.RSTStreamFrame:
			switch {
			case fr.StreamID != id:
			case status != "":
				return status
			default:
				return fr.ErrCode.String()
			}
		}
	}
}

// meshBed is a bed that another sidecar calls.
func meshBed(t *testing.T, change func(*setup)) *bed {
	t.Helper()
	return newBed(t, mtlsDown, func(s *setup) {
		s.http2, s.mesh = true, true
		if change != nil {
			change(s)
		}
	})
}

// TestSidecarThatAttacks: a peer with a good certificate sends what no sidecar
// does. It gets an answer that says so, or a reset, on that stream alone, and
// nothing of it gets to the application.
func TestSidecarThatAttacks(t *testing.T) {
	const get, host, end = "1GET /bad HTTP/1.1\r\n", "host: a\r\n", "\r\n"
	const post = "1POST /bad HTTP/1.1\r\n" + host
	for name, test := range map[string]struct {
		block, data string
		open        bool // the stream goes on behind the block and data
		want        string
	}{
		"two heads":                     {get + host + end + "GET /bad HTTP/1.1\r\n" + host + end, "", false, "400"},
		"two heads and a body":          {post + "content-length: 3" + end + end + get[1:] + host + end, "abc", false, "400"},
		"bytes behind the head":         {get + host + end + "x\r\n\r\n", "", false, "400"},
		"empty line before":             {"1\r\n\r\n" + get[1:] + host + end, "", false, "400"},
		"bare LF":                       {get + host + "x: a\ny: b\r\n" + end, "", false, "400"},
		"bare CR":                       {get + host + "x: a\ry: b\r\n" + end, "", false, "400"},
		"NUL":                           {get + host + "x: a\x00\r\n" + end, "", false, "400"},
		"a folded line":                 {get + host + "x: a\r\n b\r\n" + end, "", false, "400"},
		"space before the colon":        {get + host + "x : a\r\n" + end, "", false, "400"},
		"no host":                       {get + end, "", false, "400"},
		"two hosts":                     {get + host + host + end, "", false, "400"},
		"no version":                    {"1GET /bad\r\n" + host + end, "", false, "400"},
		"HTTP/2.0":                      {"1GET /bad HTTP/2.0\r\n" + host + end, "", false, "505"},
		"the preface":                   {"1PRI * HTTP/2.0\r\n\r\n", "SM\r\n\r\n", false, "505"},
		"more than content-length":      {post + "content-length: 3\r\n" + end, "abcde", false, "PROTOCOL_ERROR"},
		"less than content-length":      {post + "content-length: 5\r\n" + end, "abc", false, "PROTOCOL_ERROR"},
		"content-length and no body":    {post + "content-length: 5\r\n" + end, "", false, "PROTOCOL_ERROR"},
		"content-length twice":          {post + "content-length: 3\r\ncontent-length: 3\r\n" + end, "abc", false, "400"},
		"content-length +3":             {post + "content-length: +3\r\n" + end, "abc", false, "400"},
		"both lengths":                  {post + "content-length: 3\r\ntransfer-encoding: chunked\r\n" + end, "abc", false, "400"},
		"chunked twice":                 {post + "transfer-encoding: chunked, chunked\r\n" + end, "abc", false, "400"},
		"another coding":                {post + "transfer-encoding: gzip, chunked\r\n" + end, "abc", false, "501"},
		"chunked by HTTP/1.0":           {"1POST /bad HTTP/1.0\r\n" + host + "transfer-encoding: chunked\r\n" + end, "abc", false, "400"},
		"a body without a length":       {post + end, "abc", false, "400"},
		"CONNECT":                       {"1CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n" + end, "GET /bad HTTP/1.1\r\n" + host + end, true, "400"},
		"an upgrade to h2c":             {get + host + "connection: upgrade\r\nupgrade: h2c\r\n" + end, "", true, "501"},
		"an upgrade to HTTP":            {get + host + "connection: upgrade\r\nupgrade: x, HTTP/1.1\r\n" + end, "", true, "501"},
		"a long head":                   {get + host + "x: " + strings.Repeat("y", own.DefaultHeaderBytes) + "\r\n" + end, "", false, "ENHANCE_YOUR_CALM"},
		"many fields":                   {get + host + strings.Repeat("x: y\r\n", 1000) + end, "", false, "431"},
		"no origin":                     {"", "", false, "PROTOCOL_ERROR"},
		"an unknown origin":             {"9" + get[1:] + host + end, "", false, "PROTOCOL_ERROR"},
		"TCP to an HTTP listener":       {"t", "GET /bad HTTP/1.1\r\nhost: a\r\n\r\n", true, "HTTP_1_1_REQUIRED"},
		"TCP with a head":               {"t" + get[1:] + host + end, "", false, "PROTOCOL_ERROR"},
		"a head without its empty line": {get + host, "", false, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := meshBed(t, nil)
			o := b.start(countingOrigin)
			f := b.joined()
			f.block(1, test.data == "" && !test.open, test.block)
			if test.data != "" {
				_ = f.WriteData(1, !test.open, []byte(test.data))
			}
			if got := f.answer(1); got != test.want {
				t.Errorf("the stream got %s, want %s", got, test.want)
			}
			if n := o.heads.Load(); n != 0 {
				t.Errorf("the application got %d requests", n)
			}
			f.block(3, true, "1GET /good HTTP/1.1\r\nhost: a\r\n\r\n")
			if got := f.answer(3); got != "200" {
				t.Errorf("the next stream got %s", got)
			}
		})
	}
}

// TestTCPListenerTakesNoHeads: what is authorized as a connection carries no
// requests that would be authorized each.
func TestTCPListenerTakesNoHeads(t *testing.T) {
	b := meshBed(t, func(s *setup) { s.tcp = true })
	o := b.start(answering(okResponse))
	f := b.joined()
	f.block(1, true, "1GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	if got := f.answer(1); got != "INTERNAL_ERROR" {
		t.Errorf("the stream got %s", got)
	}
	if n := o.accepted.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// TestClaimsOfPeers: what only this proxy says to the application cannot be said
// by a peer, by whatever way it comes: as a field, as one that Connection names,
// as a trailer.
func TestClaimsOfPeers(t *testing.T) {
	const claims = "X-Forwarded-Client-Cert: URI=spiffe://mesh.test/admin\r\nx-forwarded-client-cert: URI=spiffe://mesh.test/admin\r\n"
	head := "POST / HTTP/1.1\r\nHost: api\r\n" + claims + "Connection: x-forwarded-client-cert, x-forwarded-for\r\nTransfer-Encoding: chunked\r\nTrailer: x-forwarded-client-cert\r\n\r\n"
	trailers := claims + "x-outrigger-deadline: 1\r\nauthorization: Bearer x\r\nhost: b\r\nx-kept: yes\r\n"
	fields := func(lines string) (list []string) {
		for line := range strings.Lines(lines) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			list = append(list, strings.ToLower(name), value)
		}
		return list
	}
	for _, way := range []string{"h1", "h2", "mesh"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, mtlsDown, func(s *setup) { s.http2, s.mesh = true, way == "mesh" })
			if way == "h2" {
				b = newBed(t, plain, func(s *setup) { s.http2 = true })
			}
			seen := make(chan *http.Request, 1)
			b.start(func(c *originConn) {
				r, err := http.ReadRequest(c.br)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				seen <- r
				c.send(okResponse)
			})
			switch way {
			case "h1":
				b.dial().send(head + "1\r\nx\r\n0\r\n" + trailers + "\r\n")
			case "h2":
				f := b.framed()
				f.headers(1, false, append(post, fields(claims)...)...)
				_ = f.WriteData(1, false, []byte("x"))
				f.headers(1, true, fields(trailers)...)
			case "mesh":
				f := b.joined()
				f.block(1, false, "1"+head)
				_ = f.WriteData(1, false, []byte("x"))
				f.block(1, true, trailers)
			}
			var r *http.Request
			select {
			case r = <-seen:
			case <-time.After(patience):
				t.Fatal("the request did not come")
			}
			want := "[By=" + proxyID + ";URI=" + clientID + "]"
			if way == "h2" { // a caller without a certificate
				want = "[]"
			}
			if got := fmt.Sprint(r.Header.Values("x-forwarded-client-cert")); got != want {
				t.Errorf("the application got %s", got)
			}
			for name, values := range r.Trailer { // one that was only announced has none
				if got := name + fmt.Sprint(values); len(values) > 0 && got != "X-Kept[yes]" {
					t.Errorf("the application got the trailer %s", got)
				}
			}
			if r.Trailer.Get("x-kept") != "yes" {
				t.Error("the trailer that may pass is lost")
			}
		})
	}
}

// TestSidecarThatAnswersBadly: an endpoint of the mesh answers with what no
// sidecar sends. The caller gets an error or a response that is visibly cut, and
// the next exchange is not touched.
func TestSidecarThatAnswersBadly(t *testing.T) {
	const ok, end = "HTTP/1.1 200 OK\r\n", "\r\n"
	for name, test := range map[string]struct {
		block, data string
		cut         bool // the response has begun
	}{
		"two heads":                 {ok + "content-length: 0\r\n" + end + ok + end, "", false},
		"interim and final as one":  {"HTTP/1.1 103 Early Hints\r\n" + end + ok + end, "", false},
		"bare LF":                   {ok + "x: a\ny: b\r\n" + end, "x", false},
		"HTTP/1.0":                  {"HTTP/1.0 200 OK\r\n" + end, "x", false},
		"no status":                 {"HTTP/1.1 \r\n" + end, "x", false},
		"a request":                 {"GET / HTTP/1.1\r\nhost: a\r\n" + end, "x", false},
		"both lengths":              {ok + "content-length: 1\r\ntransfer-encoding: chunked\r\n" + end, "x", false},
		"an upgrade nobody asked":   {"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n" + end, "x", false},
		"more than content-length":  {ok + "content-length: 3\r\n" + end, "abcde", true},
		"less than content-length":  {ok + "content-length: 5\r\n" + end, "abc", true},
		"a head without its end":    {ok, "x", false},
		"a long head":               {ok + "x: " + strings.Repeat("y", own.DefaultHeaderBytes) + "\r\n" + end, "", false},
		"many interim heads":        {strings.Repeat("HTTP/1.1 103 Early Hints\r\n"+end+"|", 50) + ok + end, "x", true},
		"DATA before the head":      {"", "x", false},
		"malformed trailers behind": {ok + "transfer-encoding: chunked\r\n" + end + "|no colon\r\n", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, mtlsUp, func(s *setup) { s.policy.Mesh = true })
			var bad sync.Once
			b.to(b.anotherBy(meshConfig(b.origin), func(c *originConn) {
				_ = c.read(len(http2.ClientPreface))
				f := sidecarOn(struct {
					io.Reader
					io.Writer
				}{c.br, c.Conn})
				for fr := f.next(); fr != nil; fr = f.next() {
					h, isHead := fr.(*http2.HeadersFrame)
					if !isHead {
						continue
					}
					id, now := h.StreamID, false
					bad.Do(func() { now = true })
					if !now {
						f.block(id, true, "HTTP/1.1 204 No Content\r\n\r\n")
						continue
					}
					blocks := strings.Split(test.block, "|")
					for i, block := range blocks {
						if block != "" {
							f.block(id, test.data == "" && i == len(blocks)-1, block)
						}
					}
					if test.data != "" {
						_ = f.WriteData(id, true, []byte(test.data))
					}
				}
			}))
			c := b.dial()
			if test.cut {
				c.send("GET /bad HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")
				if res, err := finalResponse(c.br); err == nil {
					if body, err := io.ReadAll(res.Body); err == nil && res.StatusCode != 502 {
						t.Errorf("got %s with %q as a whole answer", res.Status, body)
					}
				}
				c = b.dial()
			} else {
				c.get("/bad")
				c.reply(502, "upstream_protocol")
			}
			c.get("/good")
			if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 204 ") {
				t.Errorf("the next exchange got %q", head)
			}
			b.wantReasons("ok", "upstream_protocol")
		})
	}
}

// finalResponse reads a response behind interim ones.
func finalResponse(r *bufio.Reader) (*http.Response, error) { return finalResponseTo(nil, r) }

func finalResponseTo(req *http.Request, r *bufio.Reader) (*http.Response, error) {
	for {
		res, err := http.ReadResponse(r, req)
		if err != nil || res.StatusCode >= 200 {
			return res, err
		}
	}
}

// TestSidecarOpensTooMany: the streams beyond the limit are refused, so that they
// can go elsewhere, and all are given back when the connection ends.
func TestSidecarOpensTooMany(t *testing.T) {
	const limit = 1000
	b := meshBed(t, nil)
	b.start(countingOrigin)
	f := b.joined()
	for i := range uint32(limit + 5) { // next writes as well: one after the other
		f.block(1+2*i, false, "1POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n")
	}
	for i := range uint32(5) {
		id := 2*limit + 1 + 2*i
		r, ok := f.next().(*http2.RSTStreamFrame)
		if !ok || r.StreamID != id || r.ErrCode != http2.ErrCodeRefusedStream {
			t.Errorf("stream %d got %v", id, r)
		}
	}
	_ = f.WriteData(1, true, []byte("hello"))
	if got := f.answer(1); got != "200" {
		t.Errorf("the first stream got %s", got)
	}
	f.block(2*limit+11, true, "1GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	if got := f.answer(2*limit + 11); got != "200" {
		t.Errorf("a stream behind them got %s", got)
	}
}

// TestSidecarReadsNothing: an answer that is not taken ends by the idle time, and
// costs the other streams of the connection nothing.
func TestSidecarReadsNothing(t *testing.T) {
	b := meshBed(t, func(s *setup) { s.policy.StreamIdle = time.Second })
	b.start(func(c *originConn) {
		for {
			head, _, ok := c.message()
			switch {
			case !ok:
				return
			case strings.HasPrefix(head, "GET /long "):
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
				_, _ = c.Write(bytes.Repeat([]byte("x"), 1000000))
			default:
				c.send(okResponse)
			}
		}
	})
	f := b.joined()
	f.block(1, true, "1GET /long HTTP/1.1\r\nhost: a\r\n\r\n") // its window is 65535
	for got := 0; got < 65535-16384; {
		if d, ok := f.next().(*http2.DataFrame); ok {
			got += len(d.Data())
			_ = f.WriteWindowUpdate(0, uint32(max(len(d.Data()), 1)))
		}
	}
	f.block(3, true, "2GET /short HTTP/1.1\r\nhost: a\r\n\r\n")
	if got := f.answer(3); got != "200" {
		t.Errorf("the other stream got %s", got)
	}
	if got := f.answer(1); got != "INTERNAL_ERROR" {
		t.Errorf("the stream got %s", got)
	}
	b.wantReasons("ok", "stream_idle")
}

// TestRulesHoldForEachStream: rules that change hold for the next stream on a
// connection that is there already, and not for the exchange under way.
func TestRulesHoldForEachStream(t *testing.T) {
	allow, err := authz.Compile(authz.Config{Rules: []authz.Rule{{Name: "clients", Action: authz.Allow, From: []string{clientID}}}})
	if err != nil {
		t.Fatal(err)
	}
	deny, err := authz.Compile(authz.Config{Rules: []authz.Rule{{Name: "others", Action: authz.Allow, From: []string{originID}}}})
	if err != nil {
		t.Fatal(err)
	}
	b := meshBed(t, func(s *setup) { s.route.Authz = allow })
	came, answer := make(chan bool, 1), make(chan bool)
	b.start(func(c *originConn) {
		if c.head() == "" {
			return
		}
		came <- true
		select {
		case <-answer:
		case <-c.o.done:
		}
		c.send(okResponse)
	})
	f := b.joined()
	f.block(1, true, "1GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	<-came
	changed := *b.plan.Load()
	changed.Route.Authz = deny
	b.plan.Store(&changed)
	f.block(3, true, "2GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	if got := f.answer(3); got != "403" {
		t.Errorf("the next stream got %s", got)
	}
	close(answer)
	if got := f.answer(1); got != "200" {
		t.Errorf("the stream under way got %s", got)
	}
	b.wantReasons("denied", "ok")
}
