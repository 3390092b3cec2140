package load

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/bench/origin"
)

// TestSessions runs each protocol against the origin that speaks it.
func TestSessions(t *testing.T) {
	tests := []struct {
		protocol Protocol
		kind     origin.Kind
	}{
		{HTTP2, origin.HTTP2},
		{GRPC, origin.GRPC},
		{GRPCStream, origin.GRPCEcho},
		{WebSocket, origin.WebSocket},
		{TCP, origin.Source},
	}
	for _, tt := range tests {
		for _, size := range []int{0, 128, 15_000} {
			t.Run(fmt.Sprintf("%s/%d", tt.protocol, size), func(t *testing.T) {
				addr := startKind(t, tt.kind, 4*size) // the largest needs more than one frame
				res, err := Run(t.Context(), Config{Protocol: tt.protocol, Addr: addr, Connections: 3, Streams: 5, Message: size, Warmup: short, Duration: 2 * short})
				if err != nil {
					t.Fatal(err)
				}
				if res.Errors != 0 || res.Requests == 0 || res.Reconnects != 0 {
					t.Errorf("%d requests, %d reconnects, %d errors: %s", res.Requests, res.Reconnects, res.Errors, res.FirstError)
				}
				if (res.Bytes > 0) != (tt.protocol == TCP) || (res.Latency.Count() == res.Requests) == (tt.protocol == TCP) {
					t.Errorf("%d bytes, %d latencies of %d", res.Bytes, res.Latency.Count(), res.Requests)
				}
			})
		}
	}
}

// startH2C is net/http's server for HTTP/2 without TLS.
func startH2C(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// TestHTTP2AgainstNetHTTP holds the load to another implementation, with
// bodies that need window updates.
func TestHTTP2AgainstNetHTTP(t *testing.T) {
	var first http.Header
	seen := make(chan http.Header, 1)
	addr := startH2C(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case seen <- r.Header:
		default:
		}
		w.Write(make([]byte, 300_000))
	})
	res, err := Run(t.Context(), Config{Protocol: HTTP2, Addr: addr, Connections: 2, Streams: 4, Warmup: short, Duration: 4 * short})
	if err != nil || res.Errors != 0 || res.Requests < 8 {
		t.Fatalf("%+v, %v", res, err)
	}
	if first = <-seen; len(first) != 9 || first.Get("Cookie") == "" { // the tenth is the host
		t.Errorf("%d header fields: %v", len(first), first)
	}
}

func TestHTTP2Failures(t *testing.T) {
	for want, h := range map[string]http.HandlerFunc{
		`status "503"`: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) },
		"reset with":   func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		res, err := Run(t.Context(), Config{Protocol: HTTP2, Addr: startH2C(t, h), Connections: 1, Streams: 2, Duration: short})
		if err != nil || res.Requests != 0 || res.Errors == 0 || !strings.Contains(res.FirstError, want) {
			t.Errorf("%s: %+v, %v", want, res, err)
		}
	}
}

// TestGoAwayIsNoError has the server end each connection after a while.
func TestGoAwayIsNoError(t *testing.T) {
	addr := startH2C(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "ok")
	})
	res, err := Run(t.Context(), Config{Protocol: HTTP2, Addr: addr, Connections: 1, Duration: 2 * short})
	if err != nil || res.Errors != 0 || res.Requests == 0 || res.Reconnects == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
}

// bytesCodec carries messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (bytesCodec) Name() string { return "proto" }

var _ encoding.Codec = bytesCodec{}

// TestGRPCAgainstGRPCGo holds the load to another implementation.
func TestGRPCAgainstGRPCGo(t *testing.T) {
	var fail atomic.Uint32
	s := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if code := codes.Code(fail.Load()); code != codes.OK {
			return status.Error(code, "as told")
		}
		method, _ := grpc.MethodFromServerStream(stream)
		for {
			var m []byte
			err := stream.RecvMsg(&m)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if err := stream.SendMsg(&m); err != nil || method == "/shop.v1.Catalogue/GetItem" {
				return err
			}
		}
	}))
	ln := listen(t)
	served := make(chan error)
	go func() { served <- s.Serve(ln) }()
	defer func() {
		s.Stop()
		<-served
	}()
	addr := netip.MustParseAddrPort(ln.Addr().String())
	for _, protocol := range []Protocol{GRPC, GRPCStream} {
		res, err := Run(t.Context(), Config{Protocol: protocol, Addr: addr, Connections: 2, Streams: 3, Message: 15_000, Warmup: short, Duration: 4 * short})
		if err != nil || res.Errors != 0 || res.Requests < 6 {
			t.Errorf("%s: %+v, %v", protocol, res, err)
		}
	}
	fail.Store(uint32(codes.Unavailable))
	res, err := Run(t.Context(), Config{Protocol: GRPC, Addr: addr, Connections: 1, Message: 1, Duration: short})
	if err != nil || res.Requests != 0 || res.Errors == 0 || !strings.Contains(res.FirstError, `"14"`) && !strings.Contains(res.FirstError, "status") {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestWebSocketRefused gets an answer that is no upgrade, and a wrong key.
func TestWebSocketRefused(t *testing.T) {
	for want, head := range map[string]string{
		"403":     "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
		"right S": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
	} {
		_, addr := startServer(t, false, func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				defer conn.Close()
				io.WriteString(conn, head)
				conn.SetReadDeadline(time.Now().Add(time.Second))
				io.Copy(io.Discard, conn)
			}
		})
		res, err := Run(t.Context(), Config{Protocol: WebSocket, Addr: addr, Connections: 1, Message: 10, Duration: short})
		if err != nil || res.Requests != 0 || !strings.Contains(res.FirstError, want) {
			t.Errorf("%s: %+v, %v", want, res, err)
		}
	}
}

// TestHoldHTTP2 holds idle HTTP/2 connections at the origin and at net/http's
// server, and sees that they are gone when the server says so.
func TestHoldHTTP2(t *testing.T) {
	for name, addr := range map[string]netip.AddrPort{
		"origin":   startKind(t, origin.HTTP2, 5000),
		"net/http": startH2C(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 5000)) }),
	} {
		h, err := Hold(t.Context(), Config{Protocol: HTTP2, Addr: addr, Connections: 20})
		if err != nil {
			t.Fatal(name, err)
		}
		if n := h.Alive(); n != 20 {
			t.Errorf("%s: %d of 20 alive", name, n)
		}
		h.Close()
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	h, err := Hold(t.Context(), Config{Protocol: HTTP2, Addr: netip.MustParseAddrPort(s.Listener.Addr().String()), Connections: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s.Close() // closes them with or without a GOAWAY
	if n := h.Alive(); n != 0 {
		t.Errorf("%d alive after the server has ended", n)
	}
	bad := startH2C(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	if _, err := Hold(t.Context(), Config{Protocol: HTTP2, Addr: bad, Connections: 3}); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("a refused request: %v", err)
	}
	if _, err := Hold(t.Context(), Config{Protocol: TCP, Addr: bad, Connections: 1}); err == nil {
		t.Error("TCP connections were held")
	}
}
