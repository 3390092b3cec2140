package http1

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// wide takes every head that a fuzzer makes, so that limits do not hide it.
var wide = Limits{HeadBytes: 1 << 20, Fields: 1 << 16, TrailerBytes: 1 << 20}

// headerOf returns the fields as net/http has them.
func headerOf(h *Head, b []byte, but ...FieldID) http.Header {
	m := http.Header{}
	for _, f := range h.Fields {
		if !slices.Contains(but, f.ID) {
			key := textproto.CanonicalMIMEHeaderKey(string(f.Name.Of(b)))
			m[key] = append(m[key], string(f.Value.Of(b)))
		}
	}
	return m
}

// sameHeader compares without the fields that net/http takes out or makes up.
func sameHeader(t *testing.T, h *Head, b []byte, theirs http.Header) {
	t.Helper()
	ours := headerOf(h, b, Host, TransferEncoding, Trailer, Connection)
	theirs = maps.Clone(theirs)
	for _, k := range []string{"Host", "Transfer-Encoding", "Trailer", "Connection"} {
		delete(theirs, k)
	}
	if _, ok := ours["Cache-Control"]; !ok && h.Has(Pragma) {
		delete(theirs, "Cache-Control") // derived from Pragma: no-cache
	}
	if !maps.EqualFunc(ours, theirs, slices.Equal) {
		t.Fatalf("fields %q, net/http %q", ours, theirs)
	}
}

// bodyOf decodes the body behind a head; ok is false if it is not complete and well formed.
func bodyOf(rest []byte, f Framing, length int64) (body []byte, ok bool) {
	switch f {
	case FramingLength:
		if int64(len(rest)) < length {
			return nil, false
		}
		return rest[:length], true
	case FramingChunked:
		body, _, _, err := decodeChunks(rest, func(left int) int { return left })
		return body, err == nil
	case FramingUntilClose:
		return rest, true
	default:
		return nil, true
	}
}

// decodeChunks feeds in to a ChunkReader in pieces of split(bytes left) bytes.
// err is io.ErrUnexpectedEOF if in ends early.
func decodeChunks(in []byte, split func(left int) int) (body, trailers []byte, n int, err error) {
	var c ChunkReader
	c.Reset(&wide)
	for done := false; !done; {
		if n == len(in) {
			return body, nil, n, io.ErrUnexpectedEOF
		}
		piece := in[n : n+split(len(in)-n)]
		for len(piece) > 0 && !done {
			k, data, d, err := c.Next(piece)
			if err != nil {
				return body, nil, n, err
			}
			if k == 0 && !d {
				panic("no progress")
			}
			body = append(body, data...)
			piece, n, done = piece[k:], n+k, d
		}
	}
	return body, bytes.Clone(c.Trailers()), n, nil
}

// What is accepted here, net/http accepts with the same meaning. It is the other
// way round that differs on purpose: net/http takes bare LF, folded lines,
// identical repeated Content-Length, any scheme, userinfo, any version digits and
// more in Host.
//
// One thing net/http alone refuses: a Trailer field that announces a framing field.
func FuzzRequestAgainstNetHTTP(f *testing.F) {
	for _, name := range []string{"requests.txt", "malformed.txt"} {
		for _, in := range corpusInputs(f, name) {
			f.Add(in)
		}
	}
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello, next"))
	f.Add([]byte("CONNECT 0:0 HTTP/1.0\r\n0000:0\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var r Request
		n, err := r.Parse(in, &wide)
		if err != nil || n == 0 {
			return
		}
		br := bufio.NewReaderSize(bytes.NewReader(in[r.MethodSpan.Off:]), 16)
		q, err := http.ReadRequest(br)
		if err != nil {
			if r.Has(Trailer) && strings.Contains(err.Error(), "bad trailer key") {
				return
			}
			t.Fatalf("net/http refuses: %v", err)
		}
		if q.Method != string(r.MethodSpan.Of(in)) || q.RequestURI != string(r.Target.Of(in)) || q.ProtoMinor != int(r.Minor) || q.ProtoMajor != 1 {
			t.Fatalf("net/http has %s %s %s", q.Method, q.RequestURI, q.Proto)
		}
		if q.Host != string(r.Host.Of(in)) {
			t.Fatalf("host %q, net/http %q", r.Host.Of(in), q.Host)
		}
		path, err := url.PathUnescape(string(r.Path.Of(in)))
		if err != nil || r.Form != AuthorityForm && (q.URL.RawQuery != string(r.Query.Of(in)) || q.URL.Path != path) {
			t.Fatalf("path %q query %q, net/http %+v", r.Path.Of(in), r.Query.Of(in), q.URL)
		}
		sameHeader(t, &r.Head, in, q.Header)
		if q.Close == r.KeepAlive {
			t.Fatalf("keep-alive %v, net/http closes %v", r.KeepAlive, q.Close)
		}
		chunked := len(q.TransferEncoding) == 1 && q.TransferEncoding[0] == "chunked"
		if chunked != (r.Framing == FramingChunked) || !chunked && q.ContentLength != r.Length {
			t.Fatalf("%v %d, net/http %v %d", r.Framing, r.Length, q.TransferEncoding, q.ContentLength)
		}
		sameBody(t, in[n:], r.Framing, r.Length, q.Body)
	})
}

func sameBody(t *testing.T, rest []byte, f Framing, length int64, theirs io.Reader) {
	t.Helper()
	body, ok := bodyOf(rest, f, length)
	if !ok {
		return
	}
	got, err := io.ReadAll(theirs)
	if err != nil {
		if strings.Contains(err.Error(), "too much overhead") || strings.Contains(err.Error(), "line too long") || strings.Contains(err.Error(), "trailer") {
			return // net/http's own bounds
		}
		t.Fatalf("net/http refuses the body: %v", err)
	}
	if !bytes.Equal(got, body) {
		t.Fatalf("body %q, net/http %q", body, got)
	}
}

func FuzzResponseAgainstNetHTTP(f *testing.F) {
	for _, name := range []string{"responses.txt", "responses_head.txt"} {
		for _, in := range corpusInputs(f, name) {
			f.Add(in, name == "responses_head.txt")
		}
	}
	f.Add([]byte("HTTP/1.0 100 \r\n0:\x1f\r\n0:\r\n\r\n"), true)
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		m := MethodGet
		if head {
			m = MethodHead
		}
		var r Response
		n, err := r.Parse(in, &wide, m)
		if err != nil || n == 0 {
			return
		}
		p, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), &http.Request{Method: m.String()})
		if err != nil {
			if r.Has(Trailer) && strings.Contains(err.Error(), "bad trailer key") {
				return
			}
			t.Fatalf("net/http refuses: %v", err)
		}
		if p.StatusCode != r.Status || p.ProtoMinor != int(r.Minor) || p.ProtoMajor != 1 {
			t.Fatalf("%d 1.%d, net/http has %d %s", r.Status, r.Minor, p.StatusCode, p.Proto)
		}
		if reason := strings.TrimSpace(strings.TrimPrefix(p.Status, p.Status[:3])); reason != strings.TrimSpace(string(r.Reason.Of(in))) {
			t.Fatalf("reason %q, net/http %q", r.Reason.Of(in), reason)
		}
		theirs := maps.Clone(p.Header)
		if h, ok := r.Get(Host); ok && theirs["Host"] == nil {
			t.Fatalf("net/http has no Host %q", h.Of(in))
		}
		sameHeader(t, &r.Head, in, theirs)
		switch r.Framing {
		case FramingChunked:
			if len(p.TransferEncoding) != 1 {
				t.Fatalf("chunked, net/http %v %d", p.TransferEncoding, p.ContentLength)
			}
		case FramingLength:
			if p.ContentLength != r.Length {
				t.Fatalf("length %d, net/http %d", r.Length, p.ContentLength)
			}
		case FramingUntilClose:
			if p.ContentLength != -1 || len(p.TransferEncoding) != 0 {
				t.Fatalf("until close, net/http %v %d", p.TransferEncoding, p.ContentLength)
			}
		case FramingNone:
		}
		sameBody(t, in[n:], r.Framing, r.Length, p.Body)
	})
}

func FuzzChunkReader(f *testing.F) {
	for _, in := range corpusInputs(f, "chunks.txt") {
		f.Add(in, uint64(1))
		f.Add(in, uint64(0x0102030405060708))
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		body, trailers, n, err := decodeChunks(in, func(left int) int { return left })
		body2, trailers2, n2, err2 := decodeChunks(in, func(left int) int {
			seed = seed*6364136223846793005 + 1442695040888963407
			return min(left, 1+int(seed>>60))
		})
		if err != err2 || !bytes.Equal(body, body2) || !bytes.Equal(trailers, trailers2) || err == nil && n != n2 {
			t.Fatalf("whole: %q %q %d %v\nsplit: %q %q %d %v", body, trailers, n, err, body2, trailers2, n2, err2)
		}
		if err != nil {
			return
		}
		got, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in)))
		if err != nil && !strings.Contains(err.Error(), "too much overhead") && !strings.Contains(err.Error(), "line too long") {
			t.Fatalf("httputil refuses: %v", err)
		}
		if err == nil && !bytes.Equal(got, body) {
			t.Fatalf("body %q, httputil %q", body, got)
		}
		again := AppendLastChunk(AppendChunk(nil, body), trailers)
		body3, trailers3, n3, err := decodeChunks(again, func(left int) int { return left })
		if err != nil || n3 != len(again) || !bytes.Equal(body3, body) || !bytes.Equal(trailers3, trailers) {
			t.Fatalf("encoded again as %q: %q %q %v", again, body3, trailers3, err)
		}
	})
}

func FuzzRequestSplits(f *testing.F) {
	for _, name := range []string{"requests.txt", "malformed.txt"} {
		for _, in := range corpusInputs(f, name) {
			f.Add(in, uint64(1), uint16(0))
			f.Add(in, uint64(99), uint16(40))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, limit uint16) {
		lim := Limits{HeadBytes: int(limit), Fields: 8}
		var whole, split Request
		n, err := whole.Parse(in, &lim)
		n2, err2 := 0, error(nil)
		for end := 0; end < len(in) && n2 == 0 && err2 == nil; {
			seed = seed*6364136223846793005 + 1442695040888963407
			end = min(len(in), end+1+int(seed>>61))
			n2, err2 = split.Parse(bytes.Clone(in[:end]), &lim)
		}
		if err != nil && n2 == 0 && err2 == nil {
			// An error in the last line may be seen at its end only.
			line := in[bytes.LastIndexByte(in, '\n')+1:]
			if len(line) == 0 {
				t.Fatalf("refused whole (%v), incomplete in pieces", err)
			}
			return
		}
		if err2 != err || n2 != n {
			t.Fatalf("whole %d %v, in pieces %d %v", n, err, n2, err2)
		}
		if n == 0 {
			return
		}
		if a, b := whole.AppendHead(nil, in), split.AppendHead(nil, in); !bytes.Equal(a, b) || !slices.Equal(whole.Fields, split.Fields) {
			t.Fatalf("whole %q %v\nsplit %q %v", a, whole.Fields, b, split.Fields)
		}
		if !sameRequest(&whole, &split) {
			t.Fatalf("whole %+v\nsplit %+v", whole, split)
		}
	})
}

func sameRequest(a, b *Request) bool {
	return a.Method == b.Method && a.MethodSpan == b.MethodSpan && a.Target == b.Target && a.Form == b.Form &&
		a.Path == b.Path && a.Query == b.Query && a.Authority == b.Authority && a.Host == b.Host && a.HasHost == b.HasHost &&
		a.Minor == b.Minor && a.Framing == b.Framing && a.Length == b.Length && a.KeepAlive == b.KeepAlive &&
		a.ExpectContinue == b.ExpectContinue && a.TrailersTE == b.TrailersTE && a.Upgrade == b.Upgrade && a.UpgradeProto == b.UpgradeProto
}

// endToEnd lists the fields that are forwarded.
func endToEnd(h *Head, b []byte) (s []string) {
	for _, f := range h.Fields {
		if !f.Drop && f.ID != Host {
			s = append(s, string(f.Name.Of(b))+": "+string(f.Value.Of(b)))
		}
	}
	return s
}

func FuzzForwardRoundTrip(f *testing.F) {
	for _, in := range corpusInputs(f, "requests.txt") {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var r, r2 Request
		n, err := r.Parse(in, &wide)
		if err != nil || n == 0 {
			return
		}
		head := r.AppendHead([]byte("before"), in)
		if !bytes.HasPrefix(head, []byte("before")) {
			t.Fatalf("destination overwritten: %q", head)
		}
		head = head[len("before"):]
		out := bytes.Clone(head)
		if !r.HasHost {
			out = append(out, "Host: x\r\n"...)
		}
		if r.Framing == FramingChunked {
			out = append(out, "Transfer-Encoding: chunked\r\n"...)
		}
		out = append(out, "\r\n"...)
		n2, err := r2.Parse(out, &Limits{HeadBytes: 1 << 21, Fields: 1 << 17})
		if err != nil || n2 != len(out) {
			t.Fatalf("%q parses as %d %v", out, n2, err)
		}
		if r2.Form == AbsoluteForm || r2.Minor != 1 || !bytes.Equal(r2.MethodSpan.Of(out), r.MethodSpan.Of(in)) || r2.Framing != r.Framing || r2.Length != r.Length {
			t.Fatalf("%q has another meaning", out)
		}
		if p, p2 := string(r.Path.Of(in)), string(r2.Path.Of(out)); p != p2 && (p != "" || p2 != "/" && p2 != "*") || !bytes.Equal(r.Query.Of(in), r2.Query.Of(out)) {
			t.Fatalf("%q has another target", out)
		}
		if r.HasHost && !bytes.Equal(r.Host.Of(in), r2.Host.Of(out)) {
			t.Fatalf("%q has another host", out)
		}
		if a, b := endToEnd(&r.Head, in), endToEnd(&r2.Head, out); !slices.Equal(a, b) {
			t.Fatalf("fields %q became %q", a, b)
		}
		for _, f := range r2.Fields {
			if f.Drop && f.ID != TransferEncoding {
				t.Fatalf("%q still has a field of one connection: %q", out, f.Name.Of(out))
			}
		}
		if again := r2.AppendHead(nil, out); r.HasHost && !bytes.Equal(again, head) {
			t.Fatalf("forwarded again as %q", again)
		}
	})
}
