package http2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

var rawConfig = &Config{Raw: true}

// openRaw opens a stream on which a request of that origin may be written.
func openRaw(t testing.TB, k *Client, o Origin) *Stream {
	t.Helper()
	s, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	s.Origin = o
	return s
}

func TestRawHeadsPassAsTheyAre(t *testing.T) {
	const head = "POST /a?b HTTP/1.1\r\nHost: Example.COM\r\nX-Mixed-Case: One\r\nx-empty:\r\nTransfer-Encoding: chunked\r\n\r\n"
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	const answer = "HTTP/1.1 299 Its Own Words\r\nX-Mixed-Case: Two\r\n\r\n"
	v := serve(t, nil, rawConfig, func(s *Stream) {
		body, err := io.ReadAll(s)
		if string(s.Head) != head || s.Origin != FromHTTP1 || s.Ended || !s.Raw() || string(body) != "hello" || err != nil {
			t.Errorf("head %q of origin %c, body %q, %v", s.Head, s.Origin, body, err)
		}
		if got := string(s.Trailers()); got != "X-Sum: 1\r\n" {
			t.Errorf("trailers %q", got)
		}
		err = errors.Join(s.WriteResponse([]byte(hints), nil, 0), s.WriteResponse([]byte(answer), []byte("body"), 0), s.WriteTrailers([]byte("X-Got: 2\r\n")))
		if err != nil {
			t.Error(err)
		}
	})
	k := dial(t, v.addr, nil, rawConfig)
	s := openRaw(t, k, FromHTTP1)
	defer s.Close()
	// Content-Length, Host and the like may not be trailers.
	if err := errors.Join(s.WriteRequest([]byte(head), []byte("hello"), 0), s.WriteTrailers([]byte("X-Sum: 1\r\nContent-Length: 9\r\nTE: x\r\n"))); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{hints, answer} {
		if err := s.ReadHead(); err != nil || string(s.Head) != want {
			t.Fatalf("head %q, %v", s.Head, err)
		}
	}
	body, err := io.ReadAll(s)
	if string(body) != "body" || err != nil || string(s.Trailers()) != "X-Got: 2\r\n" {
		t.Errorf("body %q, %v, trailers %q", body, err, s.Trailers())
	}
}

func TestRawLongHead(t *testing.T) {
	head := "GET / HTTP/1.1\r\nhost: h\r\nx: " + strings.Repeat("y", 50_000) + "\r\n\r\n"
	v := serve(t, nil, rawConfig, func(s *Stream) {
		if string(s.Head) != head {
			t.Errorf("a head of %d bytes came as %d", len(head), len(s.Head))
		}
		_ = s.WriteResponse([]byte("HTTP/1.1 204 No Content\r\n\r\n"), nil, End)
	})
	s := openRaw(t, dial(t, v.addr, nil, rawConfig), FromHTTP2)
	defer s.Close()
	if err := s.WriteRequest([]byte(head), nil, End); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadHead(); err != nil || !s.Ended {
		t.Errorf("%v, ended %v", err, s.Ended)
	}
}

// A TCP stream has no heads: either side may speak first, and each ends its own
// direction.
func TestRawTCP(t *testing.T) {
	for _, serverFirst := range []bool{false, true} {
		t.Run(fmt.Sprint("server first ", serverFirst), func(t *testing.T) {
			v := serve(t, nil, rawConfig, func(s *Stream) {
				if s.Origin != FromTCP || len(s.Head) != 0 {
					t.Errorf("origin %c, head %q", s.Origin, s.Head)
				}
				if serverFirst {
					_ = s.Write([]byte("220 hello\r\n"), 0)
				}
				if b, err := io.ReadAll(s); string(b) != "QUIT" || err != nil {
					t.Errorf("%q, %v", b, err)
				}
				_ = s.Write([]byte("bye"), End)
			})
			s := openRaw(t, dial(t, v.addr, nil, rawConfig), FromTCP)
			defer s.Close()
			if err := s.WriteRequest(nil, nil, 0); err != nil {
				t.Fatal(err)
			}
			want := "bye"
			if serverFirst {
				b := make([]byte, 11)
				if _, err := io.ReadFull(s, b); err != nil || string(b) != "220 hello\r\n" {
					t.Fatalf("%q, %v", b, err)
				}
			}
			if err := s.Write([]byte("QUIT"), End); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(s); string(b) != want || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// What is behind a head must be what the head says, whichever comes first: the
// look at the head or the body.
func TestRawExpect(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\n"
	for _, x := range []struct {
		body string
		ok   bool
	}{{"four", true}, {"fou", false}, {"fours", false}, {"", false}} {
		for _, late := range []bool{false, true} {
			var once sync.Once
			result := make(chan error, 1)
			v := serve(t, nil, rawConfig, func(s *Stream) {
				var err error
				if late { // all of it is here
					for n, end := s.Readable(); n < len(x.body) || !end; n, end = s.Readable() {
						if s.Err() != nil {
							break
						}
					}
				}
				if err = s.Expect(4); err == nil {
					_, err = io.ReadAll(s)
				}
				once.Do(func() { result <- err })
				_ = s.WriteResponse([]byte("HTTP/1.1 204 No Content\r\n\r\n"), nil, End)
			})
			s := openRaw(t, dial(t, v.addr, nil, rawConfig), FromHTTP1)
			if err := s.WriteRequest([]byte(head), []byte(x.body), End); err != nil {
				t.Fatal(err)
			}
			err := <-result
			e, isError := errors.AsType[*Error](err)
			if x.ok != (err == nil) || !x.ok && (!isError || e.Code != ProtocolError) {
				t.Errorf("body %q, late %v: %v", x.body, late, err)
			}
			s.Close()
		}
	}
}

// What no sidecar sends ends the stream, not the connection.
func TestRawMalformed(t *testing.T) {
	v := serve(t, nil, rawConfig, func(s *Stream) {
		_, _ = io.Copy(io.Discard, s)
		_ = s.WriteResponse([]byte("HTTP/1.1 204 No Content\r\n\r\n"), nil, End)
	})
	p := asClient(t, v)
	id := uint32(1)
	for name, block := range map[string]string{
		"nothing":           "",
		"an unknown origin": "9GET / HTTP/1.1\r\n\r\n",
		"no head":           "1",
		"TCP with a head":   "tGET / HTTP/1.1\r\n\r\n",
		"too long":          "1" + strings.Repeat("x", DefaultHeaderBytes),
	} {
		rest := []byte(block)
		kind, flags := uint8(frameHeaders), uint8(flagEndStream)
		for len(rest) > maxFrame {
			p.send(kind, flags, id, rest[:maxFrame])
			rest, kind, flags = rest[maxFrame:], frameContinuation, 0
		}
		p.send(kind, flags|flagEndHeaders, id, rest)
		if g := p.expect(frameReset, id); Code(g.word()) != ProtocolError && Code(g.word()) != EnhanceYourCalm {
			t.Errorf("%s: reset with %v", name, Code(g.word()))
		}
		id += 2
	}
	// Trailers are looked at as well.
	p.send(frameHeaders, flagEndHeaders, id, []byte("1POST / HTTP/1.1\r\n\r\n"))
	p.send(frameHeaders, flagEndHeaders|flagEndStream, id, []byte("no colon\r\n"))
	if g := p.expect(frameReset, id); Code(g.word()) != ProtocolError {
		t.Errorf("trailers: reset with %v", Code(g.word()))
	}
	id += 2
	p.send(frameHeaders, flagEndHeaders|flagEndStream, id, []byte("1GET / HTTP/1.1\r\n\r\n"))
	if g := p.expect(frameHeaders, id); string(g.payload) != "HTTP/1.1 204 No Content\r\n\r\n" {
		t.Errorf("afterwards: %q", g.payload)
	}
}

func TestRawRefusesToSend(t *testing.T) {
	k, p, _ := asServer(t, rawConfig)
	for name, send := range map[string]func(s *Stream) error{
		"no origin": func(s *Stream) error { return s.WriteRequest([]byte("GET / HTTP/1.1\r\n\r\n"), nil, End) },
		"TCP with a head": func(s *Stream) error {
			s.Origin = FromTCP
			return s.WriteRequest([]byte("GET / HTTP/1.1\r\n\r\n"), nil, End)
		},
		"half a head": func(s *Stream) error {
			s.Origin = FromHTTP1
			return s.WriteRequest([]byte("GET / HTTP/1.1\r\n"), nil, End)
		},
	} {
		s, err := k.Open()
		if err != nil {
			t.Fatal(err)
		}
		if err := send(s); err != ErrBadHead {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
	// An answer that is none.
	for _, answer := range []string{"", "HTTP/1.1 2", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 099 No\r\n\r\n"} {
		s := openRaw(t, k, FromHTTP1)
		if err := s.WriteRequest([]byte("GET / HTTP/1.1\r\n\r\n"), nil, End); err != nil {
			t.Fatal(err)
		}
		p.expect(frameHeaders, s.ID())
		p.send(frameHeaders, flagEndHeaders|flagEndStream, s.ID(), []byte(answer))
		if err := s.ReadHead(); err == nil {
			t.Errorf("%q was taken for %q", answer, s.Head)
		}
		s.Close()
	}
}

// FuzzRaw gives both sides any blocks. Whatever comes out as a head must have
// come in as one.
func FuzzRaw(f *testing.F) {
	f.Add([]byte("1GET / HTTP/1.1\r\nHost: h\r\n\r\n"), []byte("X: y\r\n"))
	f.Add([]byte("t"), []byte(""))
	f.Add([]byte("2POST / HTTP/1.1\r\n\r\n"), []byte("bad\r\n"))
	f.Fuzz(func(t *testing.T, block, trailers []byte) {
		if len(block) > maxFrame || len(trailers) > maxFrame {
			return
		}
		w, far := pair(t)
		defer far.Close()
		v := NewServer(w, &Config{Raw: true, FloodFrames: 50}, func(s *Stream) {
			if string(s.Head) != string(block[1:]) || byte(s.Origin) != block[0] {
				t.Errorf("head %q of %q", s.Head, block)
			}
			_, _ = io.Copy(io.Discard, s)
			for line := range strings.Lines(string(s.Trailers())) {
				if !strings.HasSuffix(line, "\r\n") || !strings.Contains(string(trailers), line[:len(line)-2]) {
					t.Errorf("trailer %q of %q", line, trailers)
				}
			}
		})
		var b []byte
		b = append(b, preface...)
		b = appendFrameHead(b, 0, frameSettings, 0, 0)
		b = append(b, rawFrame(frameHeaders, flagEndHeaders, 1, string(block))...)
		b = append(b, rawFrame(frameData, 0, 1, "data")...)
		b = append(b, rawFrame(frameHeaders, flagEndHeaders|flagEndStream, 1, string(trailers))...)
		b = binary.BigEndian.AppendUint64(appendFrameHead(b, 8, framePing, 0, 0), 1)
		go func() {
			_, _ = far.Write(b)
			_ = far.CloseWrite()
			_, _ = io.Copy(io.Discard, far)
		}()
		_ = v.Serve()
		_ = w.Close()
		afterwards(t, v.c)
	})
}
