package detect

import (
	"strings"
	"testing"
)

const more = Kind(255) // not told yet

func classified(b []byte) Kind {
	k, m := Classify(b)
	if m {
		return more
	}
	return k
}

// A case is what a client sends, what that is, and after how many of its bytes
// that is known.
var cases = []struct {
	name, sent string
	kind       Kind
	known      int
}{
	{"request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1, 16},
	{"HTTP/1.0", "POST /x HTTP/1.0\r\n\r\n", HTTP1, 18},
	{"any method", "frobnicate * HTTP/1.1\r\n", HTTP1, 23},
	{"bare line feed", "GET / HTTP/1.1\nHost: a\n\n", HTTP1, 15},
	{"absolute form", "GET http://a/b?c HTTP/1.1\r\n", HTTP1, 27},
	{"empty line first", "\r\nGET / HTTP/1.1\r\n", HTTP1, 18},
	{"a version to be refused", "GET / HTTP/3.9\r\n", HTTP1, 16},
	{"bytes above ASCII", "GET /\xc3\xa9 HTTP/1.1\r\n", HTTP1, 18},
	{"preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04", HTTP2, 24},
	{"not quite the preface", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", HTTP1, 20},
	{"long line", "GET /" + strings.Repeat("a", 2000), HTTP1, MaxLine},
	{"long line of another method", "PROPFIND /" + strings.Repeat("a", 2000), Opaque, MaxLine},
	{"long method", strings.Repeat("G", 40), Opaque, maxMethod + 1},
	{"HTTP/0.9", "GET /\r\n", Opaque, 6},
	{"two empty lines", "\r\n\r\nGET / HTTP/1.1\r\n", Opaque, 3},
	{"space first", " GET / HTTP/1.1\r\n", Opaque, 1},
	{"line feed first", "\nGET / HTTP/1.1\r\n", Opaque, 1},
	{"bare carriage return", "\rGET", Opaque, 2},
	{"two spaces", "GET  / HTTP/1.1\r\n", Opaque, 5},
	{"tab", "GET\t/ HTTP/1.1\r\n", Opaque, 4},
	{"no version", "GET / x\r\n", Opaque, 7},
	{"space in the target", "GET /a b HTTP/1.1\r\n", Opaque, 8},
	{"other words behind", "GET / HTTP/1.1 x\r\n", Opaque, 15},
	{"Redis", "*1\r\n$4\r\nPING\r\n", Opaque, 3},
	{"Redis inline", "PING\r\n", Opaque, 5},
	{"Redis inline with a key", "SET a b\r\n", Opaque, 7},
	{"memcached", "get /key\r\n", Opaque, 9},
	{"PostgreSQL asks for TLS", "\x00\x00\x00\x08\x04\xd2\x16\x2f", Opaque, 1},
	{"PostgreSQL", "\x00\x00\x00\x25\x00\x03\x00\x00user", Opaque, 1},
	{"SMTP", "EHLO a.example\r\n", Opaque, 15},
	{"RTSP", "DESCRIBE rtsp://a/b RTSP/1.0\r\n", Opaque, 21},
	{"SSH", "SSH-2.0-client\r\n", Opaque, 15},
	{"MongoDB", "\x3a\x00\x00\x00", Opaque, 1},
	{"Kafka", "\x00\x00\x00\x1f", Opaque, 1},
	{"TLS alert", "\x15\x03\x01\x00\x02\x02\x28", Opaque, 1},
	{"other than TLS behind 22", "\x16abc", Opaque, 2},
	{"TLS 2.0", "\x16\x03\x05", Opaque, 3},
	{"empty record", "\x16\x03\x01\x00\x00", Opaque, 5},
	{"overlong record", "\x16\x03\x01\x40\x01", Opaque, 5},
	{"ServerHello", "\x16\x03\x03\x00\x50\x02\x00\x00\x4c", Opaque, 6},
	{"overlong hello", "\x16\x03\x01\x40\x00\x01\x00\x40\x00", Opaque, 9},
}

func TestClassify(t *testing.T) {
	for _, c := range cases {
		if k := classified(nil); k != more {
			t.Errorf("nothing is %v", k)
		}
		for n := 1; n <= len(c.sent); n++ {
			want := c.kind
			if n < c.known {
				want = more
			}
			if got := classified([]byte(c.sent[:n])); got != want {
				t.Errorf("%s: %q is %d, want %d", c.name, tail(c.sent[:n]), got, want)
			}
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-40):] }

func TestServerKind(t *testing.T) {
	for sent, want := range map[string]Kind{
		"":                                 Opaque,
		"220 mail.example ESMTP\r\n":       Opaque,
		"SSH-2.0-OpenSSH_9.9\r\n":          Opaque,
		"\x4a\x00\x00\x00\x0a11.8.6\x00":   Opaque, // MariaDB
		"HTTP/1.1 408 Request Timeout\r\n": HTTP1,
		"HTTP/1":                           Opaque,
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64": HTTP2,
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00":                         HTTP2,
		"\x00\x00\x00\x04\x01\x00\x00\x00\x00":                         Opaque, // an acknowledgement
		"\x00\x00\x00\x04\x00\x00\x00\x00":                             Opaque,
	} {
		if got := ServerKind([]byte(sent)); got != want {
			t.Errorf("%q is %v, want %v", sent, got, want)
		}
	}
}

func TestKindWords(t *testing.T) {
	for k, want := range map[Kind]string{Opaque: "tcp", HTTP1: "http1", HTTP2: "http2", TLS: "tls"} {
		if k.String() != want || k.HTTP() != strings.HasPrefix(want, "http") {
			t.Errorf("%s: HTTP %v", k, k.HTTP())
		}
	}
}

func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	inputs := [][]byte{split(helloOf(t, "api.example", "h2", "http/1.1"), 7)}
	for _, c := range cases {
		inputs = append(inputs, []byte(c.sent))
	}
	var h Hello
	m := NewMemory[string](10, 100)
	m.Learn("a", Lesson{}, 0)
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range inputs {
			Classify(b)
			ReadHello(b, &h)
		}
		m.Learn("a", Lesson{}, 1)
		m.Lookup("a", 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
