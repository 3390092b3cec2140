package http2

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// The head of a request and of a response such as services exchange.
const (
	benchRequest = "GET /api/items/1234?expand=owner HTTP/1.1\r\nhost: api.example.internal\r\nuser-agent: bench/1.0\r\naccept: application/json\r\n" +
		"accept-encoding: gzip\r\nx-request-id: 0123456789abcdef0123456789abcdef\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n" +
		"x-forwarded-for: 10.1.2.3\r\nx-forwarded-proto: http\r\nauthorization: Bearer abcdefghijklmnopqrstuvwxyz\r\n\r\n"
	benchResponse = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1024\r\nserver: bench\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\ncache-control: no-store\r\n\r\n"
)

var benchBody = strings.Repeat("x", 1024)

// benchHandler returns a handler that answers with the response above.
func benchHandler() func(*Stream) {
	head, body := []byte(benchResponse), []byte(benchBody)
	return func(s *Stream) { _ = s.WriteResponse(head, body, End) }
}

func exchangeOnce(k *Client, head []byte, buf []byte) error {
	s, err := k.Open()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.WriteRequest(head, nil, End); err != nil {
		return err
	}
	if err := s.ReadHead(); err != nil {
		return err
	}
	for {
		if _, err := s.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// spread runs f b.N times on conns times streams goroutines.
func spread(b *testing.B, conns, streams int, f func(conn int) error) {
	var all sync.WaitGroup
	workers := conns * streams
	b.ResetTimer()
	for i := range workers {
		n := b.N / workers
		if i < b.N%workers {
			n++
		}
		all.Go(func() {
			for range n {
				if err := f(i % conns); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
}

func BenchmarkUnary(b *testing.B) {
	serverTLS, clientTLS := tlsConfigs()
	for _, shape := range []struct {
		name           string
		conns, streams int
		server, client *tls.Config
	}{
		{"1x1", 1, 1, nil, nil},
		{"8x8", 8, 8, nil, nil},
		{"1x64", 1, 64, nil, nil},
		{"tls-1x1", 1, 1, serverTLS, clientTLS},
		{"tls-1x64", 1, 64, serverTLS, clientTLS},
	} {
		b.Run(shape.name+"/here", func(b *testing.B) {
			v := serve(b, shape.server, nil, benchHandler())
			var ks []*Client
			for range shape.conns {
				ks = append(ks, dial(b, v.addr, shape.client, nil))
			}
			b.ReportAllocs()
			head := []byte(benchRequest)
			spread(b, shape.conns, shape.streams, func(i int) error {
				var buf [2048]byte
				return exchangeOnce(ks[i], head, buf[:])
			})
		})
		b.Run(shape.name+"/standard", func(b *testing.B) {
			addr := standardServer(b, shape.server, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				h := w.Header()
				h["Content-Type"], h["Server"], h["Cache-Control"] = []string{"application/json"}, []string{"bench"}, []string{"no-store"}
				_, _ = io.WriteString(w, benchBody)
			}))
			scheme := "http://"
			if shape.server != nil {
				scheme = "https://"
			}
			var ks []*http.Client
			for range shape.conns {
				ks = append(ks, standardClient(b, shape.client))
			}
			b.ReportAllocs()
			spread(b, shape.conns, shape.streams, func(i int) error {
				req, err := http.NewRequest("GET", scheme+addr+"/api/items/1234?expand=owner", nil)
				if err != nil {
					return err
				}
				for _, f := range []string{"User-Agent", "Accept", "Accept-Encoding", "X-Request-Id", "Traceparent", "X-Forwarded-For", "X-Forwarded-Proto", "Authorization"} {
					req.Header[f] = []string{"0123456789abcdef0123456789abcdef"}
				}
				res, err := ks[i].Do(req)
				if err != nil {
					return err
				}
				defer res.Body.Close()
				_, err = io.Copy(io.Discard, res.Body)
				return err
			})
		})
	}
}

// BenchmarkBody moves a long body, from client to server and back.
func BenchmarkBody(b *testing.B) {
	serverTLS, clientTLS := tlsConfigs()
	for name, cfg := range map[string][2]*tls.Config{"plain": {}, "tls": {serverTLS, clientTLS}} {
		b.Run(name, func(b *testing.B) {
			v := serve(b, cfg[0], nil, func(s *Stream) {
				if s.WriteResponse([]byte("HTTP/1.1 200 \r\n\r\n"), nil, More) == nil {
					_ = pass(s, s)
				}
			})
			k := dial(b, v.addr, cfg[1], nil)
			body := make([]byte, 1<<20)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				s, err := k.Open()
				if err != nil {
					b.Fatal(err)
				}
				if err := s.WriteRequest([]byte("POST / HTTP/1.1\r\nhost: h\r\n\r\n"), nil, More); err != nil {
					b.Fatal(err)
				}
				sent := make(chan error, 1)
				go func() { sent <- s.Write(body, End) }()
				if err := s.ReadHead(); err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, reader{s})
				if err != nil || n != int64(len(body)) {
					b.Fatal(n, err)
				}
				if err := <-sent; err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}
