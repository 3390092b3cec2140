package exchange_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framer is a raw HTTP/2 peer.
type framer struct {
	*http2.Framer
	conn net.Conn
	enc  *hpack.Encoder
	head bytes.Buffer
}

func newFramer(c net.Conn) *framer {
	f := &framer{Framer: http2.NewFramer(c, c), conn: c}
	f.enc = hpack.NewEncoder(&f.head)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return f
}

// headers sends a head of names and values.
func (f *framer) headers(id uint32, end bool, fields ...string) {
	f.head.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.head.Bytes(), EndStream: end, EndHeaders: true})
}

// next returns the next frame that is not about the connection's settings,
// windows or liveness; nil at the connection's end.
func (f *framer) next() http2.Frame {
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return nil
		}
		switch fr := fr.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !fr.IsAck() {
				_ = f.WritePing(true, fr.Data)
			}
		case *http2.WindowUpdateFrame:
		default:
			return fr
		}
	}
}

// framed begins HTTP/2 as a client.
func (b *bed) framed() *framer {
	c := b.dial()
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := newFramer(c)
	_ = f.WriteSettings()
	return f
}

var post = []string{":method", "POST", ":scheme", "http", ":authority", "api", ":path", "/"}

// TestEarlyResponseReset: the sender of a body gets an early answer whole, and
// only then, and later, a reset without an error.
func TestEarlyResponseReset(t *testing.T) {
	for _, test := range []struct {
		name, status, reason string
		endpoint             bool
	}{{"endpoint", "413", "ok", true}, {"local reply", "503", "no_endpoints", false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plain, func(s *setup) { s.http2 = true })
			if test.endpoint {
				b.start(func(c *originConn) {
					c.head()
					c.send("HTTP/1.1 413 Too Long\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo long")
				})
			}
			f := b.framed()
			f.headers(1, false, post...)
			_ = f.WriteData(1, false, make([]byte, 1000))
			h, ok := f.next().(*http2.MetaHeadersFrame)
			if !ok || h.PseudoValue("status") != test.status {
				t.Fatalf("no head with status %s: %v", test.status, h)
			}
			for {
				d, ok := f.next().(*http2.DataFrame)
				if !ok {
					t.Fatal("the response did not end")
				}
				if d.StreamEnded() {
					break
				}
			}
			_ = f.WriteData(1, false, make([]byte, 1000)) // still taken
			if r, ok := f.next().(*http2.RSTStreamFrame); !ok || r.ErrCode != http2.ErrCodeNo {
				t.Fatalf("got %v, want a reset without an error", r)
			}
			b.wantReasons(test.reason)
		})
	}
}

// TestAnsweredUnread: an answer that comes whole before the endpoint has taken
// the body, and is followed by a reset, reaches the caller.
func TestAnsweredUnread(t *testing.T) {
	for name, end := range map[string]func(*framer){
		"body":     func(f *framer) { _ = f.WriteData(3, true, make([]byte, 1000)) },
		"trailers": func(f *framer) { _ = f.WriteData(3, false, make([]byte, 1000)); f.headers(3, true, "a", "b") },
		"stream":   func(f *framer) { _ = f.WriteData(3, false, make([]byte, 1000)) },
	} {
		for _, code := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeCancel} {
			t.Run(name+" "+code.String(), func(t *testing.T) {
				t.Parallel()
				b := newBed(t, plain, func(s *setup) { s.http2, s.policy.HTTP2 = true, true })
				b.start(func(c *originConn) {
					_ = c.read(len(http2.ClientPreface))
					f := newFramer(c.Conn)
					f.Framer = http2.NewFramer(c.Conn, c.br)
					f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
					_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
					for fr := f.next(); fr != nil; fr = f.next() {
						switch fr := fr.(type) {
						case *http2.MetaHeadersFrame:
							if fr.StreamEnded() {
								f.headers(fr.StreamID, true, ":status", "204")
							}
						case *http2.DataFrame:
							f.headers(fr.StreamID, true, ":status", "413")
							_ = f.WriteRSTStream(fr.StreamID, code)
						}
					}
				})
				f := b.framed()
				f.headers(1, true, post...) // by its answer the window is known
				if h, ok := f.next().(*http2.MetaHeadersFrame); !ok || h.PseudoValue("status") != "204" {
					t.Fatalf("got %v, want 204", h)
				}
				f.headers(3, false, post...)
				end(f)
				h, ok := f.next().(*http2.MetaHeadersFrame)
				if !ok || h.PseudoValue("status") != "413" {
					t.Errorf("got %v, want 413", h)
				}
				_ = f.WriteRSTStream(3, http2.ErrCodeCancel) // where the body has no end
				b.wantReasons("ok", "ok")
			})
		}
	}
}

// TestUnsentIsTriedAgain: what an endpoint says it has not processed is sent
// again, whatever the method, without a retry policy.
func TestUnsentIsTriedAgain(t *testing.T) {
	for name, refuse := range map[string]func(*framer, uint32){
		"refused": func(f *framer, id uint32) { _ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
		"goaway":  func(f *framer, id uint32) { _ = f.WriteGoAway(0, http2.ErrCodeNo, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plain, func(s *setup) { s.http2, s.policy.HTTP2 = true, true })
			o := b.start(func(c *originConn) {
				_ = c.read(len(http2.ClientPreface))
				f := newFramer(c.Conn)
				f.Framer = http2.NewFramer(c.Conn, c.br)
				f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				_ = f.WriteSettings()
				for fr := f.next(); fr != nil; fr = f.next() {
					h, ok := fr.(*http2.MetaHeadersFrame)
					switch {
					case !ok:
					case c.o.heads.Add(1) == 1:
						refuse(f, h.StreamID)
					default:
						f.headers(h.StreamID, true, ":status", "204")
					}
				}
			})
			f := b.framed()
			f.headers(1, true, post...)
			h, ok := f.next().(*http2.MetaHeadersFrame)
			if !ok || h.PseudoValue("status") != "204" || o.heads.Load() != 2 {
				t.Errorf("got %v after %d requests", h, o.heads.Load())
			}
			b.wantReasons("ok")
		})
	}
}

// TestStreamDrain: a session that is drained carries the streams that it has to
// their end, says so in two steps and then ends.
func TestStreamDrain(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { s.http2 = true })
	answer := make(chan bool)
	o := b.start(func(c *originConn) {
		if c.head() == "" {
			return
		}
		select {
		case <-answer:
			c.send(okResponse)
		case <-c.o.done:
		}
	})
	f := b.framed()
	f.headers(1, true, post...)
	eventually(t, "the request", func() bool { return o.heads.Load() == 1 })
	b.mu.Lock()
	s := b.sessions[0]
	b.mu.Unlock()
	s.Drain()
	s.Drain()
	for _, last := range []uint32{1<<31 - 1, 1} {
		if g, ok := f.next().(*http2.GoAwayFrame); !ok || g.LastStreamID != last || g.ErrCode != http2.ErrCodeNo {
			t.Fatalf("got %v, want GOAWAY up to %d", g, last)
		}
	}
	if !s.Busy() {
		t.Error("not busy with a stream")
	}
	close(answer)
	if h, ok := f.next().(*http2.MetaHeadersFrame); !ok || h.PseudoValue("status") != "200" {
		t.Fatalf("got %v", h)
	}
	body := ""
	for ended := false; !ended; {
		d, ok := f.next().(*http2.DataFrame)
		if !ok {
			t.Fatalf("the response did not end: %q", body)
		}
		body += string(d.Data())
		ended = d.StreamEnded()
	}
	if body != "ok" {
		t.Errorf("got %q", body)
	}
	if fr := f.next(); fr != nil {
		t.Errorf("got %v, want the end", fr)
	}
	b.wantReasons("ok")
}

// TestRemovedEndpointDrains: the connection to an endpoint that is gone carries
// its stream to the end and is closed.
func TestRemovedEndpointDrains(t *testing.T) {
	answer, began := make(chan bool), make(chan bool, 1)
	p := newPair(t, legs{true, true}, nil, func(w http.ResponseWriter, r *http.Request) {
		began <- true
		select {
		case <-answer:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "done")
	}, nil)
	got := make(chan string, 1)
	go func() {
		res, err := p.ask(t, "GET", "/", nil)
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		got <- string(b)
	}()
	<-began
	p.cluster.SetLocal(nil)
	close(answer)
	if s := <-got; s != "done" {
		t.Errorf("got %q", s)
	}
	eventually(t, "the end of the connection", func() bool { return p.cluster.Limits.Connections.Value() == 0 })
}
