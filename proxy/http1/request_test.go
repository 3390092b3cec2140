package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

func mustParse(t *testing.T, in string) (*Request, []byte) {
	t.Helper()
	r, b := new(Request), []byte(in)
	if n, err := r.Parse(b, nil); n != len(b) || err != nil {
		t.Fatalf("%q: %d %v", in, n, err)
	}
	return r, b
}

func TestFieldAccess(t *testing.T) {
	r, b := mustParse(t, "GET / HTTP/1.1\r\nHost: a\r\nCookie: one\r\nX-Thing: 1\r\ncookie: two\r\nx-thing: 2\r\n\r\n")
	if v, ok := r.Get(Cookie); !ok || string(v.Of(b)) != "one" {
		t.Errorf("Get(Cookie) = %q %v", v.Of(b), ok)
	}
	if _, ok := r.Get(Via); ok || r.Has(Via) || r.Count(Via) != 0 {
		t.Error("a Via out of nowhere")
	}
	if !r.Has(Cookie) || r.Count(Cookie) != 2 || r.Count(Host) != 1 {
		t.Errorf("counts %d %d", r.Count(Cookie), r.Count(Host))
	}
	if v, ok := r.Lookup(b, "x-thing"); !ok || string(v.Of(b)) != "1" {
		t.Errorf("Lookup = %q %v", v.Of(b), ok)
	}
	if _, ok := r.Lookup(b, "x-thin"); ok {
		t.Error("Lookup finds a prefix")
	}
	if len(r.Fields) != 5 || r.Fields[3].ID != Cookie || r.Fields[2].ID != Other {
		t.Errorf("fields %v", r.Fields)
	}
	r.Drop(Cookie)
	r.Drop(Via)
	want := "GET / HTTP/1.1\r\nHost: a\r\nX-Thing: 1\r\nx-thing: 2\r\n"
	if got := r.AppendHead(nil, b); string(got) != want {
		t.Errorf("forwarded %q", got)
	}
	for i := range r.Fields {
		r.Fields[i].Drop = true
	}
	if got := r.AppendHead(nil, b); string(got) != "GET / HTTP/1.1\r\n" {
		t.Errorf("with all fields dropped %q", got)
	}
	if c := cap(r.Target.Of(b)); c != r.Target.Len() {
		t.Errorf("appending to a span would write into the buffer: capacity %d", c)
	}
}

// Each dropped line in each position, alone and with its neighbours.
func TestAppendHeadDropsAnySubset(t *testing.T) {
	lines := []string{"Host: a\r\n", "A:1\r\n", "B:  2 \r\n", "C:\r\n", "D: 4\r\n"}
	for set := range 1 << len(lines) {
		r, b := mustParse(t, "PUT /p HTTP/1.1\r\n"+strings.Join(lines, "")+"\r\n")
		want := "PUT /p HTTP/1.1\r\n"
		for i, line := range lines {
			if r.Fields[i].Drop = set>>i&1 != 0; !r.Fields[i].Drop {
				want += line
			}
		}
		if got := r.AppendHead(nil, b); string(got) != want {
			t.Errorf("%05b: %q, want %q", set, got, want)
		}
	}
}

func TestPipelinedRequests(t *testing.T) {
	in := []byte("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\r\nGET /2?q HTTP/1.0\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n")
	var r Request
	var got []string
	for len(in) > 0 {
		n, err := r.Parse(in, nil)
		if n == 0 || err != nil {
			t.Fatal(n, err)
		}
		got = append(got, describeRequest(in[:n]))
		if d := describeRequest(in[:n]); !strings.Contains(d, string(r.AppendHead(nil, in)[:8])) || r.HasHost != strings.Contains(d, "host=") {
			t.Errorf("the reused request differs from a fresh one: %+v, %s", r, d)
		}
		in = in[n:]
	}
	if len(got) != 3 {
		t.Errorf("%d requests: %q", len(got), got)
	}
}

func TestResetGivesUpAMessage(t *testing.T) {
	var r Request
	if n, err := r.Parse([]byte("POST /long HTTP/1.1\r\nHost: a\r\nX: "), nil); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	r.Reset()
	in := []byte("GET / HTTP/1.1\r\nHost: b\r\n\r\n")
	if n, err := r.Parse(in, nil); n != len(in) || err != nil || r.Method != MethodGet || len(r.Fields) != 1 {
		t.Errorf("%d %v %+v", n, err, r)
	}
	var p Response
	if n, err := p.Parse([]byte("HTTP/1.1 200 OK\r\nX"), nil, MethodGet); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	p.Reset()
	in = []byte("HTTP/1.1 404 Gone\r\n\r\n")
	if n, err := p.Parse(in, nil, MethodGet); n != len(in) || err != nil || p.Status != 404 || len(p.Fields) != 0 {
		t.Errorf("%d %v %+v", n, err, p)
	}
}

// One byte at a time, in a buffer that moves with each.
func TestByteByByte(t *testing.T) {
	var r Request
	for i := range tenFields {
		n, err := r.Parse([]byte(tenFields[:i+1]), nil)
		if err != nil || n != 0 && i+1 < len(tenFields) {
			t.Fatalf("after %d bytes: %d %v", i+1, n, err)
		}
		if n == len(tenFields) && len(r.Fields) != 10 {
			t.Errorf("%d fields", len(r.Fields))
		}
	}
	var p Response
	for i := range okResponse {
		n, err := p.Parse([]byte(okResponse[:i+1]), nil, MethodGet)
		if err != nil || (n != 0) != (i+1 == len(okResponse)) {
			t.Fatalf("after %d bytes: %d %v", i+1, n, err)
		}
	}
}

// A slow peer cannot make the parser look at the same bytes again and again: an
// incomplete line is not parsed until it ends.
func TestSlowHeadIsNotParsedAgain(t *testing.T) {
	head := "GET / HTTP/1.1\r\nHost: a\r\nX: "
	in := []byte(head + strings.Repeat("\tv", 20000))
	var r Request
	for i := len(head); i <= len(in); i++ {
		if n, err := r.Parse(in[:i], nil); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if int(r.scan) != i || int(r.pos) != len(head)-3 || len(r.Fields) != 1 {
			t.Fatalf("after %d bytes: scanned %d, line at %d, %d fields", i, r.scan, r.pos, len(r.Fields))
		}
	}
}

func TestHeadLimits(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: a\r\nX: 12345\r\n\r\n"
	const status = "HTTP/1.1 200 OK\r\nX: 12345\r\n\r\n"
	for name, tt := range map[string]struct {
		in  string
		lim *Limits
		err error
	}{
		"exactly":             {head, &Limits{HeadBytes: len(head)}, nil},
		"one less":            {head, &Limits{HeadBytes: len(head) - 1}, ErrHeadTooLong},
		"body does not count": {head + strings.Repeat("b", 100), &Limits{HeadBytes: len(head)}, nil},
		"in the request line": {"GET /" + strings.Repeat("x", 100), &Limits{HeadBytes: 50}, ErrHeadTooLong},
		"in the method":       {strings.Repeat("G", 100), &Limits{HeadBytes: 50}, ErrHeadTooLong},
		"default":             {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", DefaultHeadBytes), nil, ErrHeadTooLong},
		"default, fits":       {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", DefaultHeadBytes-32) + "\r\n\r\n", nil, nil},
		"fields":              {head, &Limits{Fields: 2}, nil},
		"one field more":      {head, &Limits{Fields: 1}, ErrTooManyFields},
		"default fields":      {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X:\r\n", 99) + "\r\n", nil, nil},
		"one more":            {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X:\r\n", 100) + "\r\n", nil, ErrTooManyFields},
		"options":             {"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("x,", 32) + "\r\n\r\n", nil, nil},
		"one option more":     {"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("x,", 33) + "\r\n\r\n", nil, ErrTooManyOptions},
	} {
		t.Run(name, func(t *testing.T) {
			var r Request
			n, err := r.Parse([]byte(tt.in), tt.lim)
			if !errors.Is(err, tt.err) || err == nil && n == 0 {
				t.Errorf("%d %v, want %v", n, err, tt.err)
			}
			if err != nil && Status(err) != 431 {
				t.Errorf("status %d", Status(err))
			}
		})
	}
	for size, want := range map[int]error{len(status): nil, len(status) - 1: ErrHeadTooLong} {
		var p Response
		if _, err := p.Parse([]byte(status), &Limits{HeadBytes: size}, MethodGet); err != want {
			t.Errorf("response, limit %d: %v", size, err)
		}
	}
	var p Response
	if _, err := p.Parse([]byte("HTTP/1.1 200 OK\r\nA:\r\nB:\r\n\r\n"), &Limits{Fields: 1}, MethodGet); err != ErrTooManyFields {
		t.Errorf("response fields: %v", err)
	}
}

// A head of exactly the limit that arrives in two pieces, and one byte more.
func TestHeadLimitAcrossReads(t *testing.T) {
	var r Request
	in := []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	for cut := range in {
		r.Reset()
		lim := Limits{HeadBytes: len(in)}
		if n, err := r.Parse(in[:cut], &lim); n != 0 || err != nil {
			t.Fatalf("first %d: %d %v", cut, n, err)
		}
		if n, err := r.Parse(in, &lim); n != len(in) || err != nil {
			t.Fatalf("cut at %d: %d %v", cut, n, err)
		}
		r.Reset()
		lim.HeadBytes--
		if cut < lim.HeadBytes {
			if n, err := r.Parse(in[:cut], &lim); n != 0 || err != nil {
				t.Fatalf("first %d: %d %v", cut, n, err)
			}
		}
		if n, err := r.Parse(in, &lim); n != 0 || err != ErrHeadTooLong {
			t.Fatalf("cut at %d, too long: %d %v", cut, n, err)
		}
	}
}

func TestMethods(t *testing.T) {
	idempotent := map[Method]bool{MethodGet: true, MethodHead: true, MethodPut: true, MethodDelete: true, MethodOptions: true, MethodTrace: true}
	for m := MethodOther; m <= MethodPatch; m++ {
		if m != MethodOther && parseMethod([]byte(m.String())) != m {
			t.Errorf("%v is not recognized", m)
		}
		if m.Idempotent() != idempotent[m] {
			t.Errorf("%v idempotent: %v", m, m.Idempotent())
		}
	}
	for _, s := range []string{"get", "Get", "GETS", "PROPFIND", "other", ""} {
		if m := parseMethod([]byte(s)); m != MethodOther {
			t.Errorf("%q is taken for %v", s, m)
		}
	}
}

func TestIPv6(t *testing.T) {
	for s, want := range map[string]bool{
		"::": true, "::1": true, "1::": true, "1:2:3:4:5:6:7:8": true, "1::8": true, "1:2:3:4:5:6:7::": true,
		"::2:3:4:5:6:7:8": true, "FFFF:ffff::": true, "::1.2.3.4": true, "1:2:3:4:5:6:1.2.3.4": true, "64:ff9b::192.0.2.33": true,
		"": false, ":": false, ":::": false, "1": false, "1:": false, ":1": false, "1:2:3:4:5:6:7": false, "1:2:3:4:5:6:7:8:9": false,
		"1:2:3:4:5:6:7:8::": false, "1::2::3": false, "12345::": false, "g::": false, "1.2.3.4": false, "::1.2.3": false,
		"::1.2.3.256": false, "::1.2.3.04": false, "::1.2.3.4:5": false, "1:2:3:4:5:6:7:1.2.3.4": false, "1::2:": false,
		"::1.2.3.4.5": false, "::1..3.4": false, "::%1": false, "1:2:3:4:5:6:7:8:": false,
	} {
		if got := validIPv6([]byte(s)); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// The same as netip says, but for zones.
func TestIPv6LikeNetip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	const parts = "::::0123afF.19"
	valid := 0
	for range 50000 {
		b := make([]byte, 2+rnd.IntN(12))
		for i := range b {
			b[i] = parts[rnd.IntN(len(parts))]
		}
		a, err := netip.ParseAddr(string(b))
		want := err == nil && a.Is6()
		if got := validIPv6(b); got != want {
			t.Fatalf("%q: %v, netip %v", b, got, err)
		}
		if want {
			valid++
		}
	}
	if valid < 100 {
		t.Errorf("only %d valid addresses tried", valid)
	}
}

func TestErrors(t *testing.T) {
	if Reason(nil) != "" || Reason(ErrObsFold) != "folded field line" || Reason(fmt.Errorf("reading: %w", ErrBareCR)) != "CR without LF" || Reason(io.EOF) != "malformed message" {
		t.Error("reasons")
	}
	if Status(ErrHeadTooLong) != 431 || Status(ErrBadVersion) != 505 || Status(ErrUnknownTransferCoding) != 501 || Status(fmt.Errorf("x: %w", ErrTooManyFields)) != 431 || Status(io.EOF) != 400 {
		t.Error("statuses")
	}
	if ErrBadHost.Error() != "http1: malformed Host" {
		t.Error(ErrBadHost)
	}
}

func TestFramingString(t *testing.T) {
	for f, want := range map[Framing]string{FramingNone: "none", FramingLength: "length", FramingChunked: "chunked", FramingUntilClose: "until_close"} {
		if f.String() != want {
			t.Errorf("%d is %q", f, f)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var r Request
	var p Response
	var c ChunkReader
	in, res := []byte(tenFields), []byte(okResponse)
	dst := make([]byte, 0, 4096)
	chunks := AppendLastChunk(AppendChunk(AppendChunk(nil, in), res), []byte("X-Sum: 1\r\n"))
	absolute := []byte("GET http://b/x HTTP/1.0\r\nHost: a\r\nConnection: x-a, close\r\nX-A: 1\r\nTE: trailers\r\n\r\n")
	bad := []byte("GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n")
	exchange := func() {
		for _, b := range [][]byte{in, absolute} {
			if n, err := r.Parse(b[:len(b)/2], nil); n != 0 || err != nil {
				t.Fatal(n, err)
			}
			if n, err := r.Parse(b, nil); n != len(b) || err != nil {
				t.Fatal(n, err)
			}
			r.Drop(Cookie)
			_, _ = r.Lookup(b, "x-a")
			dst = r.AppendHead(dst[:0], b)
		}
		if _, err := r.Parse(bad, nil); Reason(err) == "" || Status(err) != 400 {
			t.Fatal(err)
		}
		r.Reset()
		if n, err := p.Parse(res, nil, MethodGet); n != len(res) || err != nil {
			t.Fatal(n, err)
		}
		dst = p.AppendHead(dst[:0], res)
		c.Reset(nil)
		for rest := chunks; !c.Done(); {
			n, data, _, err := c.Next(rest)
			if err != nil {
				t.Fatal(err)
			}
			dst = AppendChunk(dst, data)
			rest = rest[n:]
		}
		dst = AppendLastChunk(dst, c.Trailers())
		dst = AppendInt(dst, 1234567)
	}
	exchange()
	if n := testing.AllocsPerRun(200, exchange); n != 0 {
		t.Errorf("%v allocations an exchange", n)
	}
	if !bytes.Contains(dst, []byte("X-Sum: 1\r\n\r\n1234567")) {
		t.Errorf("%q", dst)
	}
}
