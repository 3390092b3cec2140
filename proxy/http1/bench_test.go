package http1

import "testing"

// tenFields is a request as a browser's fetch or an HTTP client sends it.
const tenFields = "GET /api/v1/orders/1234567?expand=items&limit=50 HTTP/1.1\r\n" +
	"Host: orders.shop.internal:8080\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: application/json, text/plain, */*\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Referer: https://shop.example/checkout/summary\r\n" +
	"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n" +
	"X-Request-ID: 7c3c1f7e-7a63-4c43-9a2d-3b9df1e1d0aa\r\n" +
	"Cookie: session=5f4dcc3b5aa765d61d8327deb882cf99; theme=dark\r\n" +
	"Connection: keep-alive\r\n\r\n"

const okResponse = "HTTP/1.1 200 OK\r\n" +
	"Date: Tue, 01 Jul 2025 10:00:00 GMT\r\n" +
	"Content-Type: application/json; charset=utf-8\r\n" +
	"Content-Length: 1024\r\n" +
	"Cache-Control: no-store\r\n" +
	"Server: orders\r\n\r\n"

func BenchmarkRequestParse(b *testing.B) {
	in := []byte(tenFields)
	var r Request
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := r.Parse(in, nil); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkRequestAppendHead(b *testing.B) {
	in := []byte(tenFields)
	var r Request
	if n, err := r.Parse(in, nil); n == 0 || err != nil {
		b.Fatal(n, err)
	}
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		dst = r.AppendHead(dst[:0], in)
	}
}

func BenchmarkResponseParse(b *testing.B) {
	in := []byte(okResponse)
	var r Response
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := r.Parse(in, nil, MethodGet); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkChunkReader(b *testing.B) {
	var in []byte
	for range 16 {
		in = AppendChunk(in, make([]byte, 1024))
	}
	in = AppendLastChunk(in, nil)
	var c ChunkReader
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		c.Reset(nil)
		for rest, done := in, false; !done; {
			n, _, d, err := c.Next(rest)
			if err != nil {
				b.Fatal(err)
			}
			rest, done = rest[n:], d
		}
	}
}
