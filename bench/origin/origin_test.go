package origin

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

func start(t *testing.T, size int) string {
	t.Helper()
	return startKind(t, HTTP1, size)
}

func startKind(t *testing.T, kind Kind, size int) string {
	t.Helper()
	s, err := Listen(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Kind: kind, Size: size})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// TestAnswers sends scripts of requests, byte by byte and all at once, and
// reads the answers with net/http's parser.
func TestAnswers(t *testing.T) {
	addr := start(t, 1024)
	tests := []struct {
		name, in string
		methods  []string // of the answers expected
		closed   bool     // the origin ends the connection after them
	}{
		{"one", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", []string{"GET"}, false},
		{"head", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", []string{"HEAD", "GET"}, false},
		{"pipelined", strings.Repeat("GET /x HTTP/1.1\r\nHost: a\r\n\r\n", 5), []string{"GET", "GET", "GET", "GET", "GET"}, false},
		{"body", "POST / HTTP/1.1\r\nCONTENT-LENGTH: 5\r\n\r\nGET /GET / HTTP/1.1\r\n\r\n", []string{"POST", "GET"}, false},
		{"close", "GET / HTTP/1.1\r\nConnection: Close\r\n\r\nGET / HTTP/1.1\r\n\r\n", []string{"GET"}, true},
		{"bad length", "POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", nil, true},
		{"chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", nil, true},
		{"endless head", "GET / HTTP/1.1\r\nX: " + strings.Repeat("y", 2*maxHead), nil, true},
	}
	for _, tt := range tests {
		for _, step := range []int{1, len(tt.in)} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, step), func(t *testing.T) {
				c := dial(t, addr)
				for in := []byte(tt.in); len(in) > 0; {
					n := min(step, len(in))
					if _, err := c.Write(in[:n]); err != nil {
						break // the origin may have closed already
					}
					in = in[n:]
				}
				r := bufio.NewReader(c)
				for i, method := range tt.methods {
					resp, err := http.ReadResponse(r, &http.Request{Method: method})
					if err != nil {
						t.Fatalf("answer %d: %v", i, err)
					}
					body, err := io.ReadAll(resp.Body)
					want := 1024
					if method == "HEAD" {
						want = 0
					}
					if err != nil || resp.StatusCode != 200 || len(body) != want {
						t.Fatalf("answer %d: status %d, %d bytes, %v", i, resp.StatusCode, len(body), err)
					}
					if date, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(date).Abs() > time.Minute {
						t.Fatalf("date %q: %v", resp.Header.Get("Date"), err)
					}
				}
				if tt.closed {
					if _, err := r.ReadByte(); err == nil {
						t.Fatal("the connection goes on")
					}
				}
			})
		}
	}
}

// TestLargeAnswersToASlowReader makes the socket refuse part of the answers.
func TestLargeAnswersToASlowReader(t *testing.T) {
	const size, count = 1 << 20, 20
	c := dial(t, start(t, size))
	sent := make(chan error)
	go func() {
		_, err := c.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), count))
		sent <- err
	}()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for i := range count {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
			t.Fatalf("answer %d: %d bytes, %v", i, n, err)
		}
	}
}

func TestListenRefusesOtherAddresses(t *testing.T) {
	for _, everywhere := range []bool{false, true} {
		if _, err := Listen(Config{Addr: netip.MustParseAddrPort("0.0.0.0:0"), Everywhere: everywhere}); err == nil {
			t.Fatal("listens on every interface")
		}
	}
}
