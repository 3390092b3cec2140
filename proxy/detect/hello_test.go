package detect

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
)

// helloOf returns what crypto/tls sends first.
func helloOf(t testing.TB, name string, protocols ...string) []byte {
	t.Helper()
	return helloFrom(t, &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true})
}

func helloFrom(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, cfg).Handshake()
	}()
	b := make([]byte, MaxHello)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	<-done
	_ = client.Close()
	return b[:n]
}

// split makes records of at most n bytes from those of b.
func split(b []byte, n int) (out []byte) {
	for len(b) > recordHead {
		size := recordHead + int(binary.BigEndian.Uint16(b[3:]))
		for part := range slices.Chunk(b[recordHead:size], n) {
			out = append(out, b[0], b[1], b[2], byte(len(part)>>8), byte(len(part)))
			out = append(out, part...)
		}
		b = b[size:]
	}
	return out
}

func TestHello(t *testing.T) {
	long := strings.Repeat("a", 60)
	tests := []struct {
		name      string
		cfg       *tls.Config
		server    string
		protocols string
	}{
		{"name and protocols", &tls.Config{ServerName: "api.example", NextProtos: []string{"h2", "http/1.1"}}, "api.example", "h2,http/1.1"},
		{"an address has no name", &tls.Config{ServerName: "192.0.2.1"}, "", ""},
		{"TLS 1.2", &tls.Config{ServerName: "old.example", MaxVersion: tls.VersionTLS12}, "old.example", ""},
		{"long name", &tls.Config{ServerName: strings.Repeat(long+".", 4) + "example"}, strings.Repeat(long+".", 4) + "example", ""},
		{"many protocols", &tls.Config{ServerName: "x", NextProtos: []string{long, "b", long, long, "c"}}, "x", long + ",b," + long},
	}
	for _, test := range tests {
		test.cfg.InsecureSkipVerify = true
		whole := helloFrom(t, test.cfg)
		for _, n := range []int{MaxHello, 100, 3, 1} {
			b := split(whole, n)
			for i := range b {
				if got := classified(b[:i]); got != more {
					t.Fatalf("%s, records of %d: %d of %d bytes are %d", test.name, n, i, len(b), got)
				}
			}
			var h Hello
			if got := classified(append(slices.Clone(b), "more"...)); got != TLS {
				t.Errorf("%s, records of %d: %d", test.name, n, got)
			}
			if !ReadHello(b, &h) || string(h.ServerName()) != test.server || string(h.Protocols()) != test.protocols {
				t.Errorf("%s, records of %d: %q and %q", test.name, n, h.ServerName(), h.Protocols())
			}
			if ReadHello(b[:len(b)-1], &h) || len(h.ServerName()) != 0 || ReadHello(nil, &h) {
				t.Errorf("%s: read although it is not whole", test.name)
			}
		}
	}
}

// message makes one record with a ClientHello of these extensions.
func message(extensions ...[]byte) []byte {
	body := slices.Concat([]byte{3, 3}, make([]byte, 32), []byte{0, 0, 2, 0x13, 1, 1, 0})
	ext := slices.Concat(extensions...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(ext)))
	return record(append(body, ext...))
}

func record(body []byte) []byte {
	b := append([]byte{messageHello, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{recordHandshake, 3, 1, byte(len(b) >> 8), byte(len(b))}, b...)
}

func extension(kind int, body string) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(kind))
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

func TestHelloBad(t *testing.T) {
	plain := slices.Concat([]byte{3, 3}, make([]byte, 32))
	for name, c := range map[string]struct {
		sent []byte
		want Kind
	}{
		"no extensions":              {record(slices.Concat(plain, []byte{0, 0, 2, 0x13, 1, 1, 0})), TLS},
		"none in their list":         {message(), TLS},
		"unknown extension":          {message(extension(0xfafa, "abc")), TLS},
		"unknown kind of name":       {message(extension(0, "\x00\x08\x07\x00\x01x\x00\x00\x01a")), TLS},
		"nothing":                    {record(nil), Opaque},
		"no suites":                  {record(slices.Concat(plain, []byte{0, 0, 0, 1, 0})), Opaque},
		"half a suite":               {record(slices.Concat(plain, []byte{0, 0, 1, 0x13, 1, 0})), Opaque},
		"no compression":             {record(slices.Concat(plain, []byte{0, 0, 2, 0x13, 1, 0})), Opaque},
		"long session":               {record(slices.Concat(plain, []byte{33}, make([]byte, 33), []byte{0, 2, 0x13, 1, 1, 0})), Opaque},
		"session beyond the end":     {record(append(plain, 32)), Opaque},
		"extensions too short":       {record(slices.Concat(plain, []byte{0, 0, 2, 0x13, 1, 1, 0, 0, 9})), Opaque},
		"bytes behind":               {record(slices.Concat(plain, []byte{0, 0, 2, 0x13, 1, 1, 0, 0, 0, 7})), Opaque},
		"extension beyond the end":   {message(extension(5, "ab")[:5]), Opaque},
		"two names":                  {message(extension(0, "\x00\x08\x00\x00\x01a\x00\x00\x01b")), Opaque},
		"names twice":                {message(extension(0, "\x00\x04\x00\x00\x01a"), extension(0, "\x00\x04\x00\x00\x01a")), Opaque},
		"empty name":                 {message(extension(0, "\x00\x03\x00\x00\x00")), Opaque},
		"empty list of names":        {message(extension(0, "\x00\x00")), Opaque},
		"name beyond its list":       {message(extension(0, "\x00\x04\x00\x00\x02a"), extension(5, "b")), Opaque},
		"name too long":              {message(extension(0, "\x01\x03\x00\x01\x00"+strings.Repeat("a", 256))), Opaque},
		"list of names too long":     {message(extension(0, "\x00\x05\x00\x00\x01a")), Opaque},
		"protocols twice":            {message(extension(16, "\x00\x02\x01a"), extension(16, "\x00\x02\x01a")), Opaque},
		"empty protocol":             {message(extension(16, "\x00\x01\x00")), Opaque},
		"empty list of protocols":    {message(extension(16, "\x00\x00")), Opaque},
		"no list of protocols":       {message(extension(16, "")), Opaque},
		"protocol beyond its list":   {message(extension(16, "\x00\x02\x02a")), Opaque},
		"another message in between": {slices.Concat([]byte{22, 3, 1, 0, 2, 1, 0}, []byte{23, 3, 3, 0, 1}), Opaque},
	} {
		if got := classified(c.sent); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// Of a hello that would be whole behind the bound nothing is awaited.
func TestHelloIsBounded(t *testing.T) {
	b := split(message(extension(0xfafa, strings.Repeat("a", 8000))), 1)
	if len(b) < MaxHello {
		t.Fatalf("only %d bytes", len(b))
	}
	if got := classified(b[:MaxHello-1]); got != more {
		t.Errorf("before the bound: %d", got)
	}
	if got := classified(b[:MaxHello]); got != Opaque {
		t.Errorf("at the bound: %d", got)
	}
	if got := classified(b); got != Opaque {
		t.Errorf("behind it: %d", got)
	}
}

// model is Classify, slow and plain.
func model(b []byte) Kind {
	if len(b) == 0 {
		return more
	}
	if b[0] == recordHandshake {
		return modelHello(b)
	}
	if strings.HasPrefix(preface, string(b)) && len(b) < len(preface) {
		return more
	}
	if bytes.HasPrefix(b, []byte(preface)) {
		return HTTP2
	}
	if string(b) == "\r" {
		return more
	}
	line := string(b)
	off := 0
	if strings.HasPrefix(line, "\r\n") {
		line, off = line[2:], 2
	}
	method, rest, ok := strings.Cut(line, " ")
	const tokens = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	token := func(s string) bool { return strings.TrimLeft(s, tokens) == "" }
	if !token(method) || len(method) > maxMethod || ok && method == "" {
		return Opaque
	}
	if !ok {
		return more
	}
	visible := 0
	for visible < len(rest) && rest[visible] > ' ' && rest[visible] != 0x7f {
		visible++
	}
	if at := off + len(method) + 1 + visible; at >= MaxLine {
		if slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}, method) {
			return HTTP1
		}
		return Opaque
	}
	if visible == len(rest) {
		return more
	}
	if visible == 0 || rest[visible] != ' ' {
		return Opaque
	}
	v := rest[visible+1:]
	for _, form := range []string{"HTTP/0.0\r\n", "HTTP/0.0\n"} {
		n := min(len(v), len(form))
		same := true
		for i := range n {
			digit := v[i] >= '0' && v[i] <= '9'
			same = same && (v[i] == form[i] || form[i] == '0' && digit)
		}
		if same && n == len(form) {
			return HTTP1
		}
		if same {
			return more
		}
	}
	return Opaque
}

// modelHello puts the message together before it reads it.
func modelHello(b []byte) Kind {
	full := len(b) >= MaxHello
	b = b[:min(len(b), MaxHello)]
	var msg []byte
	for {
		if len(msg) >= 1 && msg[0] != messageHello {
			return Opaque
		}
		if len(msg) >= 4 {
			n := int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3])
			if n > MaxHello-9 {
				return Opaque
			}
			if len(msg) >= 4+n {
				if (&reader{b: msg[4 : 4+n]}).hello() {
					return TLS
				}
				return Opaque
			}
		}
		if len(b) > 0 && b[0] != 22 || len(b) > 1 && b[1] != 3 || len(b) > 2 && b[2] > 4 {
			return Opaque
		}
		if len(b) < 5 {
			break
		}
		n := int(binary.BigEndian.Uint16(b[3:]))
		if n == 0 || n > 1<<14 {
			return Opaque
		}
		n = min(n, len(b)-5)
		msg = append(msg, b[5:5+n]...)
		b = b[5+n:]
	}
	if full {
		return Opaque
	}
	return more
}

type reader struct{ b []byte }

var errShort = errors.New("short")

func (r *reader) vector(lenBytes int) []byte {
	n := 0
	for range lenBytes {
		n = n<<8 | int(r.bytes(1)[0])
	}
	return r.bytes(n)
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		panic(errShort)
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) hello() (ok bool) {
	defer func() {
		if p := recover(); p != nil && p != errShort {
			panic(p)
		} else if p != nil {
			ok = false
		}
	}()
	r.bytes(34)
	if len(r.vector(1)) > 32 {
		return false
	}
	if n := len(r.vector(2)); n == 0 || n%2 != 0 {
		return false
	}
	if len(r.vector(1)) == 0 {
		return false
	}
	if len(r.b) == 0 {
		return true
	}
	list := &reader{r.vector(2)}
	if len(r.b) != 0 {
		return false
	}
	seen := map[int]bool{}
	for len(list.b) > 0 {
		kind := int(binary.BigEndian.Uint16(list.bytes(2)))
		e := &reader{list.vector(2)}
		if kind != 0 && kind != 16 {
			continue
		}
		if seen[kind] {
			return false
		}
		seen[kind] = true
		in := &reader{e.vector(2)}
		if len(e.b) != 0 || len(in.b) == 0 {
			return false
		}
		hosts := 0
		for len(in.b) > 0 {
			if kind == 16 {
				if len(in.vector(1)) == 0 {
					return false
				}
				continue
			}
			host := in.bytes(1)[0] == 0
			name := in.vector(2)
			if !host {
				continue
			}
			if hosts++; hosts > 1 || len(name) == 0 || len(name) > 255 {
				return false
			}
		}
	}
	return true
}

func FuzzClassify(f *testing.F) {
	for _, c := range cases {
		f.Add([]byte(c.sent))
	}
	h := helloOf(f, "api.example", "h2", "http/1.1")
	f.Add(h)
	f.Add(split(h, 5))
	f.Add(message(extension(0, "\x00\x04\x00\x00\x01a"), extension(16, "\x00\x02\x01a")))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := classified(b)
		if want := model(b); got != want {
			t.Fatalf("%d, the model says %d", got, want)
		}
		// What is told is told for good: of any part of it more is awaited or
		// the same is said.
		step := max(1, len(b)/200)
		for i := 0; i < len(b); i += step {
			if k := classified(b[:i]); k != more && k != got {
				t.Fatalf("%d after %d bytes, then %d", k, i, got)
			}
		}
		var h Hello
		if ReadHello(b, &h) != (got == TLS) || got != TLS && len(h.ServerName())+len(h.Protocols()) > 0 {
			t.Fatalf("a hello was read, or not, from what is %d", got)
		}
	})
}

// What crypto/tls understands of a hello is understood here in the same way.
func FuzzHello(f *testing.F) {
	f.Add([]byte("api.example"), "h2", byte(1))
	f.Add([]byte("a"), "", byte(200))
	f.Add([]byte{}, "http/1.1", byte(0))
	f.Fuzz(func(t *testing.T, name []byte, protocol string, size byte) {
		var list [][]byte
		if len(name) > 0 {
			n := binary.BigEndian.AppendUint16([]byte{0}, uint16(len(name)))
			n = append(n, name...)
			list = append(list, extension(0, string(binary.BigEndian.AppendUint16(nil, uint16(len(n))))+string(n)))
		}
		if protocol != "" {
			p := append([]byte{byte(len(protocol))}, protocol...)
			list = append(list, extension(16, string(binary.BigEndian.AppendUint16(nil, uint16(len(p))))+string(p)))
		}
		if len(name)+len(protocol) > 10_000 {
			t.Skip()
		}
		b := split(message(list...), int(size)+1)
		var theirs *tls.ClientHelloInfo
		client, server := net.Pipe()
		go func() {
			_, _ = client.Write(b)
			_ = client.Close()
		}()
		stop := errors.New("seen")
		_ = tls.Server(server, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			theirs = h
			return nil, stop
		}}).Handshake()
		_ = server.Close()
		if theirs == nil {
			return
		}
		var h Hello
		if !ReadHello(b, &h) {
			if len(name) > maxName || len(b) > MaxHello {
				return
			}
			t.Fatal("crypto/tls reads it")
		}
		if string(h.ServerName()) != theirs.ServerName {
			t.Errorf("name %q, crypto/tls %q", h.ServerName(), theirs.ServerName)
		}
		if got := string(h.Protocols()); got != strings.Join(theirs.SupportedProtos, ",") && len(protocol) <= maxProtocols {
			t.Errorf("protocols %q, crypto/tls %q", got, theirs.SupportedProtos)
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	hello := split(helloOf(b, "api.example", "h2"), 1+rand.IntN(300))
	for name, in := range map[string][]byte{"request": []byte("GET /some/path HTTP/1.1\r\n"), "hello": hello} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Classify(in)
			}
		})
	}
}
