package origin

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/outrigger-mesh/outrigger/bench/socket"
)

// TestHTTP2WithNetHTTP asks with another implementation, several requests at
// once and with bodies both ways that need window updates.
func TestHTTP2WithNetHTTP(t *testing.T) {
	for _, size := range []int{0, 128, 3 << 20} {
		addr := startKind(t, HTTP2, size)
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: tr, Timeout: 10 * time.Second}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for range 3 {
					body := strings.NewReader(strings.Repeat("z", i<<18))
					resp, err := client.Post("http://"+addr+"/", "text/plain", body)
					if err != nil {
						t.Error(err)
						return
					}
					n, err := io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if err != nil || n != int64(size) || resp.StatusCode != 200 || resp.ContentLength != n {
						t.Errorf("%s, %d bytes of %d, %v", resp.Status, n, size, err)
					}
				}
			})
		}
		wg.Wait()
		tr.CloseIdleConnections()
	}
}

// bytesCodec carries messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = bytes.Clone(b); return nil }
func (bytesCodec) Name() string                    { return "bytes" }

func dialGRPC(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func TestGRPCWithGRPCGo(t *testing.T) {
	for _, size := range []int{0, 128, 1 << 20} {
		cc := dialGRPC(t, startKind(t, GRPC, size))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for range 5 {
			in, out := []byte("question"), []byte(nil)
			if err := cc.Invoke(ctx, "/shop.v1.Catalogue/GetItem", &in, &out); err != nil || len(out) != size {
				t.Fatalf("%d bytes of %d, %v", len(out), size, err)
			}
		}
	}
}

func TestGRPCEchoWithGRPCGo(t *testing.T) {
	cc := dialGRPC(t, startKind(t, GRPCEcho, 0))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/shop.v1.Catalogue/Watch")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 200_000, 7, 1 << 20} {
		in, out := bytes.Repeat([]byte{'m'}, n), []byte(nil)
		if err := stream.SendMsg(&in); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&out); err != nil || !bytes.Equal(in, out) {
			t.Fatalf("%d bytes came back as %d, %v", n, len(out), err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var out []byte
	if err := stream.RecvMsg(&out); err != io.EOF {
		t.Fatalf("at the end: %v", err)
	}
}

// TestHTTP2Refuses sends what no client may send.
func TestHTTP2Refuses(t *testing.T) {
	addr := startKind(t, HTTP2, 10)
	for name, in := range map[string]string{
		"no preface":        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"long frame":        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x01",
		"interrupted block": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x01\x00\x00\x00\x00\x01\x00\x00\x08\x06\x00\x00\x00\x00\x00........",
	} {
		c := dial(t, addr)
		if _, err := io.WriteString(c, in); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWebSocket sends frames byte by byte and all at once.
func TestWebSocket(t *testing.T) {
	addr := startKind(t, WebSocket, 0)
	frame := func(first byte, payload string) []byte {
		b := []byte{first}
		if len(payload) < 126 {
			b = append(b, 0x80|byte(len(payload)))
		} else {
			b = binary.BigEndian.AppendUint16(append(b, 0xfe), uint16(len(payload)))
		}
		b = append(b, 1, 2, 3, 4)
		for i := range payload {
			b = append(b, payload[i]^byte(1+i%4))
		}
		return b
	}
	long := strings.Repeat("l", 300)
	in := []byte("GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	in = append(in, frame(0x81, "hello")...)
	in = append(in, frame(0x89, "ping")...)
	in = append(in, frame(0x8a, "pong without an answer")...)
	in = append(in, frame(0x82, long)...)
	// The accept key is the example of RFC 6455, section 1.3.
	want := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n" +
		"\x81\x05hello\x8a\x04ping\x82\x7e\x01\x2c" + long
	for _, step := range []int{1, 7, len(in)} {
		c := dial(t, addr)
		for rest := in; len(rest) > 0; {
			n := min(step, len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Fatalf("step %d: %q, %v", step, got, err)
		}
	}
	for _, bad := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n\x81\x05hello", // not masked
		"GET / HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n\x81\xff",
	} {
		c := dial(t, addr)
		if _, err := io.WriteString(c, bad); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") || bytes.HasSuffix(text, []byte("hello")) {
			t.Errorf("%q: %q, %v", bad, text, err)
		}
	}
}

func TestSource(t *testing.T) {
	c := dial(t, startKind(t, Source, 0))
	if _, err := io.WriteString(c, "\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyN(io.Discard, c, 50<<20); err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
}

// TestEverywhere reaches an origin at several loopback addresses.
func TestEverywhere(t *testing.T) {
	s, err := Listen(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Everywhere: true, Kind: HTTP1, Size: 5})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for _, host := range []string{"127.0.0.1", "127.1.0.7", "127.1.39.250"} {
		c := dial(t, fmt.Sprintf("%s:%d", host, s.Addr().Port()))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(text, []byte("\r\n\r\nxxxxx")) {
			t.Errorf("%s: %q, %v", host, text, err)
		}
	}
	if fd, _, err := socket.ListenEverywhere(netip.MustParseAddrPort("192.0.2.1:0")); err == nil {
		t.Errorf("listens for an address outside, descriptor %d", fd)
	}
}
