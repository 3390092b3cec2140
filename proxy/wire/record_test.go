package wire

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// Content types and handshake messages of RFC 8446 sections 5.1 and 4.
const (
	typeAlert       = 21
	typeHandshake   = 22
	typeApplication = 23

	messageTicket    = 4
	messageKeyUpdate = 24
)

// recordWriter makes TLS 1.3 records of a peer that follows no custom: any
// size, any padding, any number in a segment.
type recordWriter struct {
	t      *testing.T
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// crafty returns a connection under test whose peer's records are made by the
// writer and go straight to its socket. The peer may still be read from.
func crafty(t *testing.T, m mode) (*Conn, *peer, *recordWriter) {
	t.Helper()
	var log bytes.Buffer
	server, client := configs()
	label := "CLIENT_TRAFFIC_SECRET_0"
	a, b := sockets(t)
	if m == tlsServer {
		client = client.Clone()
		client.KeyLogWriter = &log
	} else {
		server = server.Clone()
		server.KeyLogWriter = &log
		server.SessionTicketsDisabled = true // they would count as records
		label = "SERVER_TRAFFIC_SECRET_0"
	}
	c, p := joinTLS(t, m, nil, a, b, b, server, client)
	state := p.Conn.(*tls.Conn).ConnectionState()
	if state.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("the suite is %s", tls.CipherSuiteName(state.CipherSuite))
	}
	for line := range strings.Lines(log.String()) {
		if f := strings.Fields(line); f[0] == label {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			w := &recordWriter{t: t, secret: secret}
			w.derive()
			return c, p, w
		}
	}
	t.Fatal("no traffic secret was logged")
	return nil, nil, nil
}

// derive makes the keys of the present secret (RFC 8446 section 7.3).
func (w *recordWriter) derive() {
	block, err := aes.NewCipher(w.expand("key", 16))
	if err != nil {
		w.t.Fatal(err)
	}
	if w.aead, err = cipher.NewGCM(block); err != nil {
		w.t.Fatal(err)
	}
	w.iv, w.seq = w.expand("iv", 12), 0
}

func (w *recordWriter) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := []byte{byte(n >> 8), byte(n), byte(len(label))}
	info = append(append(info, label...), 0)
	key, err := hkdf.Expand(sha256.New, w.secret, string(info), n)
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}

func (w *recordWriter) record(typ byte, data string, padding int) []byte {
	inner := append([]byte(data), typ)
	inner = append(inner, make([]byte, padding)...)
	head := []byte{typeApplication, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(inner)+w.aead.Overhead()))
	nonce := bytes.Clone(w.iv)
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], w.seq)
	for i, x := range seq {
		nonce[4+i] ^= x
	}
	w.seq++
	return w.aead.Seal(head, nonce, inner, head)
}

func (w *recordWriter) data(s string) []byte { return w.record(typeApplication, s, 0) }

// keyUpdate announces new keys and changes to them.
func (w *recordWriter) keyUpdate(request byte) []byte {
	r := w.record(typeHandshake, string([]byte{messageKeyUpdate, 0, 0, 1, request}), 0)
	w.secret = w.expand("traffic upd", 32)
	w.derive()
	return r
}

func ticket() string {
	body := append(make([]byte, 8), 1, 7, 0, 4, 't', 'i', 'c', 'k', 0, 0)
	body[2] = 1 // lifetime
	return string(append([]byte{messageTicket, 0, 0, byte(len(body))}, body...))
}

// segment is what arrives at once; after it the reader must have had say in all.
type segment struct {
	bytes []byte
	say   string
}

var recordScripts = map[string]func(m mode, w *recordWriter) []segment{
	"one record": func(_ mode, w *recordWriter) []segment {
		return []segment{{w.data("abc"), "abc"}}
	},
	"two records at once, then silence": func(_ mode, w *recordWriter) []segment {
		return []segment{{join2(w.data("abc"), w.data("def")), "abcdef"}}
	},
	"many records at once": func(_ mode, w *recordWriter) []segment {
		var b []byte
		for range 1000 {
			b = append(b, w.data("0123456789")...)
		}
		return []segment{{b, strings.Repeat("0123456789", 1000)}}
	},
	"a record split at each place": func(_ mode, w *recordWriter) (list []segment) {
		size := recordHead + len("abc") + 1 + w.aead.Overhead()
		for k := 1; k < size; k++ {
			r := w.data("abc")
			list = append(list, segment{r[:k], ""}, segment{r[k:], "abc"})
		}
		return list
	},
	"byte by byte": func(_ mode, w *recordWriter) (list []segment) {
		for _, b := range w.data("abc") {
			list = append(list, segment{[]byte{b}, ""})
		}
		list[len(list)-1].say = "abc"
		return list
	},
	"a record and a half": func(_ mode, w *recordWriter) []segment {
		r, s := w.data("abc"), w.data("defghi")
		return []segment{{join2(r, s[:4]), "abc"}, {s[4:20], ""}, {s[20:], "defghi"}}
	},
	"empty records": func(_ mode, w *recordWriter) []segment {
		return []segment{
			{w.data(""), ""},
			{join2(w.data(""), w.data("abc")), "abc"},
			{join2(w.data("def"), w.data("")), "def"},
			{w.data(""), ""},
			{w.data("ghi"), "ghi"},
		}
	},
	"padding": func(_ mode, w *recordWriter) []segment {
		return []segment{{w.record(typeApplication, "abc", 9000), "abc"}, {w.record(typeApplication, "", 100), ""}, {w.data("def"), "def"}}
	},
	"the largest records": func(_ mode, w *recordWriter) []segment {
		s := strings.Repeat("x", 16<<10)
		return []segment{{join2(w.data(s), w.data(s)), s + s}, {w.data("end"), "end"}}
	},
	"a segment as large as the buffer": func(_ mode, w *recordWriter) []segment {
		s := strings.Repeat("y", Small-recordHead-1-16)
		r := w.data(s)
		if len(r) != Small {
			panic(len(r))
		}
		return []segment{{r, s}, {w.data("end"), "end"}}
	},
	"key update": func(_ mode, w *recordWriter) []segment {
		return []segment{{w.data("abc"), "abc"}, {w.keyUpdate(0), ""}, {w.data("def"), "def"}, {join2(w.keyUpdate(0), w.data("ghi")), "ghi"}}
	},
	"key update that asks for one": func(_ mode, w *recordWriter) []segment {
		return []segment{{w.keyUpdate(1), ""}, {w.data("abc"), "abc"}, {join2(w.keyUpdate(1), w.data("def")), "def"}}
	},
	"tickets": func(m mode, w *recordWriter) []segment {
		if m == tlsServer {
			return []segment{{w.data("abc"), "abc"}} // only servers send them
		}
		t := ticket()
		return []segment{
			{w.record(typeHandshake, t, 0), ""},
			{join2(w.record(typeHandshake, t+t, 0), w.data("abc")), "abc"},
			{w.record(typeHandshake, t[:5], 0), ""},
			{join2(w.record(typeHandshake, t[5:], 0), w.data("def")), "def"},
		}
	},
}

func join2(a, b []byte) []byte { return append(bytes.Clone(a), b...) }

func TestRecords(t *testing.T) {
	readers := map[string]func(c *Conn, got chan<- string) error{
		"await": func(c *Conn, got chan<- string) error {
			return c.Await(func() bool {
				got <- string(c.Buffered())
				c.Consume(len(c.Buffered()))
				return true
			})
		},
		"fill": func(c *Conn, got chan<- string) error {
			for {
				if err := c.Fill(); err != nil {
					return err
				}
				got <- string(c.Buffered())
				c.Consume(len(c.Buffered()))
			}
		},
		"read of few bytes": func(c *Conn, got chan<- string) error {
			b := make([]byte, 2)
			for {
				n, err := c.Read(b)
				if err != nil {
					return err
				}
				got <- string(b[:n])
			}
		},
		"await with little room": func(c *Conn, got chan<- string) error {
			// The buffer is nearly full at each read, so that crypto/tls keeps
			// the rest of a record.
			c.Room(Large)
			c.w, c.r = Small-3, Small-4
			return c.Await(func() bool {
				if n := len(c.Buffered()); n > 1 {
					got <- string(c.Buffered()[1:])
					c.r, c.w = Small-4, Small-3
				}
				return true
			})
		},
	}
	for script, segments := range recordScripts {
		for reader, read := range readers {
			for _, m := range []mode{tlsServer, tlsClient} {
				t.Run(fmt.Sprint(script, ",", reader, ",", m), func(t *testing.T) {
					c, p, w := crafty(t, m)
					got := make(chan string, 100_000)
					done := async(func() error { return read(c, got) })
					for i, s := range segments(m, w) {
						if _, err := p.sock.Write(s.bytes); err != nil {
							t.Fatal(err)
						}
						have := ""
						for len(have) < len(s.say) {
							select {
							case x := <-got:
								have += x
							case err := <-done:
								t.Fatalf("segment %d: %v", i, err)
							case <-time.After(patience):
								t.Fatalf("segment %d: stalled at %d of %d bytes", i, len(have), len(s.say))
							}
						}
						if have != s.say {
							t.Fatalf("segment %d: got %.40q, want %.40q", i, have, s.say)
						}
						eventually(t, func() bool { return unread(c) == 0 })
					}
					c.Expire()
					want(t, done, ErrExpired)
					if reader != "await with little room" {
						holdsNothing(t, c)
					}
					if len(got) > 0 {
						t.Errorf("unexpected: %q", <-got)
					}
				})
			}
		}
	}
}

// After a requested key update the peer must be able to read with the new keys.
func TestAnswerToAKeyUpdate(t *testing.T) {
	for _, m := range []mode{tlsServer, tlsClient} {
		t.Run(m.String(), func(t *testing.T) {
			c, p, w := crafty(t, m)
			served := async(func() error { return c.Await(echo(c)) })
			for i := range 5 {
				if _, err := p.sock.Write(join2(w.keyUpdate(1), w.data("0123456789abcdef"))); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, message)
				if _, err := io.ReadFull(p, b); err != nil || string(b) != "0123456789abcdef" {
					t.Fatalf("round %d: got %q, %v", i, b, err)
				}
			}
			c.Expire()
			want(t, served, ErrExpired)
		})
	}
}

func TestRecordsThatAreNone(t *testing.T) {
	for name, bad := range map[string]func(w *recordWriter) []byte{
		"garbage":         func(*recordWriter) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") },
		"no content":      func(*recordWriter) []byte { return []byte{typeApplication, 3, 3, 0, 0} },
		"too long":        func(*recordWriter) []byte { return []byte{typeApplication, 3, 3, 0xff, 0xff} },
		"broken":          func(w *recordWriter) []byte { r := w.data("abc"); r[9] ^= 1; return r },
		"repeated":        func(w *recordWriter) []byte { r := w.data(""); return join2(r, r) },
		"fatal alert":     func(w *recordWriter) []byte { return w.record(typeAlert, "\x02\x28", 0) },
		"only empty ones": func(w *recordWriter) []byte { return bytes.Join(empties(w, 100), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			c, p, w := crafty(t, tlsServer)
			done := async(func() error { return c.Await(func() bool { return true }) })
			if _, err := p.sock.Write(bad(w)); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				if err == nil || isEnd(err) || err == ErrExpired {
					t.Errorf("got %v, want a refusal", err)
				}
			case <-time.After(patience):
				t.Fatal("still waiting")
			}
		})
	}
}

func empties(w *recordWriter, n int) (list [][]byte) {
	for range n {
		list = append(list, w.data(""))
	}
	return list
}

// What an earlier read has left in the feed must not be taken for all there is:
// bytes that came between that read and the wait have no readiness signal any
// more.
func TestAwaitReadsTheSocketBehindTheFeed(t *testing.T) {
	for _, m := range []mode{tlsServer, tlsClient} {
		t.Run(m.String(), func(t *testing.T) {
			c, p, w := crafty(t, m)
			if _, err := p.sock.Write(join2(w.data("one"), w.data("two"))); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool { return unread(c) > 0 })
			c.Room(Small)
			if err := c.Fill(); err != nil || string(c.Buffered()) != "one" {
				t.Fatalf("%q, %v", c.Buffered(), err)
			}
			c.Consume(len("one"))
			if c.feed.empty() {
				t.Fatal("the second record is not in the feed")
			}
			if _, err := p.sock.Write(w.data("three")); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool { return unread(c) > 0 })
			// The runtime must have collected the signal before the wait begins.
			time.Sleep(20 * time.Millisecond)
			var got []byte
			done := async(func() error {
				return c.Await(func() bool {
					got = append(got, c.Buffered()...)
					c.Consume(len(c.Buffered()))
					return string(got) != "twothree"
				})
			})
			want(t, done, nil)
		})
	}
}
