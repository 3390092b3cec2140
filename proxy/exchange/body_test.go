package exchange_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// pattern gives bodies of which each part looks different.
type pattern struct{ at, end int }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.end {
		return 0, io.EOF
	}
	n := min(len(b), p.end-p.at)
	for i := range n {
		b[i] = byte((p.at+i)*31 + (p.at+i)>>8)
	}
	p.at += n
	return n, nil
}

// same reads r to its end and compares it with the pattern.
func same(r io.Reader, size int) error {
	p, got, want := &pattern{end: size}, make([]byte, 32<<10), make([]byte, 32<<10)
	for read := 0; ; {
		n, err := io.ReadFull(r, got)
		m, _ := io.ReadFull(p, want[:n])
		if m != n || !bytes.Equal(got[:n], want[:m]) {
			return fmt.Errorf("bytes differ behind %d", read)
		}
		if read += n; err == io.EOF || err == io.ErrUnexpectedEOF {
			if read != size {
				return fmt.Errorf("%d bytes, want %d", read, size)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", read, err)
		}
	}
}

// httpOrigin answers by net/http over the connections of an origin: the body
// comes back with the framing that the request's path names.
func httpOrigin(c *originConn) {
	for {
		req, err := http.ReadRequest(c.br)
		if err != nil {
			return
		}
		var size int
		fmt.Sscanf(req.URL.Path, "/%d", &size)
		if err := same(req.Body, size); err != nil {
			c.send("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\nX-Error: " + err.Error() + "\r\n\r\n")
			return
		}
		switch req.URL.RawQuery {
		case "length":
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
			_, _ = io.Copy(c, &pattern{end: size})
		case "chunked":
			c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			writeChunks(c, size)
		default:
			c.send("HTTP/1.1 200 OK\r\n\r\n")
			_, _ = io.Copy(c, &pattern{end: size})
			return
		}
	}
}

// writeChunks writes the pattern in chunks of many sizes.
func writeChunks(w io.Writer, size int) {
	p, buf := &pattern{end: size}, make([]byte, 100_000)
	for i := 1; p.at < size; i = i*3 + 1 {
		n, _ := p.Read(buf[:i%len(buf)+1])
		if _, err := fmt.Fprintf(w, "%x\r\n%s\r\n", n, buf[:n]); err != nil {
			return
		}
	}
	_, _ = io.WriteString(w, "0\r\n\r\n")
}

// TestBodies sends bodies of every framing and size there and back.
func TestBodies(t *testing.T) {
	sizes := []int{0, 1, 7000, 8191, 8192, 8193, 16384, 65535, 65536, 65537, 1 << 20}
	keep := func(s *setup) { s.policy.Retry = retrying(2) }
	run(t, allModes, keep, func(t *testing.T, b *bed) {
		b.start(httpOrigin)
		c := b.dial()
		for _, size := range sizes {
			for _, up := range []string{"length", "chunked"} {
				for _, down := range []string{"length", "chunked", "close"} {
					go func() {
						head := fmt.Sprintf("PUT /%d?%s HTTP/1.1\r\nHost: a\r\n", size, down)
						if up == "length" {
							fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n", head, size)
							_, _ = io.Copy(c.Conn, &pattern{end: size})
						} else {
							fmt.Fprintf(c, "%sTransfer-Encoding: chunked\r\n\r\n", head)
							writeChunks(c.Conn, size)
						}
					}()
					resp, err := http.ReadResponse(c.br, nil)
					if err != nil {
						t.Fatalf("%d bytes, %s up, %s down: %v", size, up, down, err)
					}
					if resp.StatusCode != 200 {
						t.Fatalf("%d bytes, %s up, %s down: %s %s", size, up, down, resp.Status, resp.Header)
					}
					if err := same(resp.Body, size); err != nil {
						t.Fatalf("%d bytes, %s up, %s down: %v", size, up, down, err)
					}
				}
			}
		}
		list := b.records()
		if len(list) != 6*len(sizes) {
			t.Errorf("%d records, want %d", len(list), 6*len(sizes))
		}
		for _, r := range list {
			if r.Reason != "ok" || r.Attempts != 1 {
				t.Errorf("record %+v", r)
			}
		}
	})
}

// TestLongBodyInBoundedMemory moves 64 MB both ways while neither side reads
// faster than the other writes.
func TestLongBodyInBoundedMemory(t *testing.T) {
	const size = 64 << 20
	b := newBed(t, plain, nil)
	b.start(func(c *originConn) {
		if c.head() == "" {
			return
		}
		c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
		buf := make([]byte, 64<<10)
		for left := size; left > 0; {
			n, err := c.br.Read(buf[:min(left, len(buf))])
			if err != nil {
				return
			}
			left -= n
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	c := b.dial()
	_ = c.sock.SetDeadline(time.Now().Add(time.Minute))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	go func() {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
		buf := make([]byte, 64<<10)
		for left := size; left > 0; left -= len(buf) {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
	c.head()
	if n, err := io.CopyN(io.Discard, c.br, size); err != nil {
		t.Fatalf("%d bytes, then %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 && !raceEnabled {
		t.Errorf("%d bytes were allocated for %d", got, size)
	}
	rec := b.wantReasons("ok")
	if rec[0].BytesIn != size || rec[0].BytesOut != size {
		t.Errorf("record counts %d in, %d out", rec[0].BytesIn, rec[0].BytesOut)
	}
}

// TestExpectContinue: the origin decides whether the body is sent.
func TestExpectContinue(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
	run(t, allModes, nil, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) {
			if h := c.head(); !strings.Contains(h, "Expect: 100-continue\r\n") {
				t.Errorf("origin got %q", h)
			}
			c.send("HTTP/1.1 100 Continue\r\n\r\n")
			if got := c.read(5); got != "hello" {
				t.Errorf("origin got body %q", got)
			}
			c.send(okResponse)
			if c.head() == "" {
				t.Error("the connection was not kept")
			}
			c.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
		})
		c := b.dial()
		c.send(head)
		c.expect("HTTP/1.1 100 Continue\r\n\r\n")
		c.send("hello")
		c.expect(okResponse)
		c.send(head)
		c.expect("HTTP/1.1 417 No\r\nContent-Length: 0\r\nconnection: close\r\n\r\n")
		c.Close()
		b.wantReasons("ok", "ok")
	})
}

// TestEarlyResponse: an answer before the body's end reaches the client whole,
// and the connection is not used any more.
func TestEarlyResponse(t *testing.T) {
	const early = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
	for _, stays := range []bool{false, true} {
		t.Run(fmt.Sprint("origin stays ", stays), func(t *testing.T) {
			run(t, allModes, nil, func(t *testing.T, b *bed) {
				o := b.start(func(c *originConn) {
					c.head()
					c.send(early)
					if stays {
						<-c.o.done // and reads nothing
					}
				})
				c := b.dial()
				go func() {
					_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
					_, _ = io.Copy(c, &pattern{end: 100_000_000})
				}()
				c.expect("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nconnection: close\r\n\r\nno")
				if got, _ := c.rest(); got != "" {
					t.Errorf("more bytes: %q", got)
				}
				if n := o.heads.Load(); n != 1 {
					t.Errorf("the origin saw %d requests", n)
				}
				b.wantReasons("ok")
			})
		})
	}
}

// TestBadBodies: what is no body is refused, and the origin never sees its end.
func TestBadBodies(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	for name, test := range map[string]struct{ in, reason string }{
		"size":           {"zz\r\n", "bad_request"},
		"negative":       {"-1\r\n", "bad_request"},
		"overflow":       {"fffffffffffffffff\r\n", "bad_request"},
		"bare LF":        {"1\nx\r\n0\r\n\r\n", "bad_request"},
		"no end":         {"1\r\nxy0\r\n\r\n", "bad_request"},
		"late":           {"11170\r\n" + long + "\r\nzz\r\n", "bad_request"},
		"trailer":        {"0\r\nX Y: z\r\n\r\n", "bad_request"},
		"long extension": {"1;" + strings.Repeat("e", 5000) + "\r\nx\r\n0\r\n\r\n", "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, []mode{plain, mtlsDown}, nil, func(t *testing.T, b *bed) {
				whole := make(chan bool, 1)
				b.start(func(c *originConn) {
					_, _, ok := c.message()
					whole <- ok
				})
				c := b.dial()
				c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + test.in)
				head, _ := c.reply(400, test.reason)
				if !strings.Contains(head, "connection: close\r\n") {
					t.Errorf("no close in %q", head)
				}
				c.closed()
				b.wantReasons(test.reason)
				select {
				case ok := <-whole:
					if ok {
						t.Error("the origin got a whole request")
					}
				default: // it was never called
				}
			})
		})
	}
}
