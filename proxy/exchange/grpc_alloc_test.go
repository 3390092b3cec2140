package exchange_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// template is frames of one stream, whose number is written over in place.
type template []byte

// framesOf makes a template: heads of name and value without indexing, so that
// they are the same each time, and data.
func framesOf(write func(f *framer)) template {
	var b bytes.Buffer
	f := &framer{Framer: http2.NewFramer(&b, nil)}
	f.enc = hpack.NewEncoder(&f.head)
	f.enc.SetMaxDynamicTableSize(0)
	write(f)
	return b.Bytes()
}

func (t template) number(id uint32) []byte {
	for b := []byte(t); len(b) > 0; {
		binary.BigEndian.PutUint32(b[5:], id)
		b = b[9+(int(b[0])<<16|int(b[1])<<8|int(b[2])):]
	}
	return t
}

// frameReader reads frames without allocating.
type frameReader struct {
	c    net.Conn
	buf  [64 << 10]byte
	r, w int
}

// ended returns the next stream whose peer has ended it.
func (r *frameReader) ended() (uint32, error) {
	for {
		for r.w-r.r < 9 || r.w-r.r < 9+r.length() {
			r.w = copy(r.buf[:], r.buf[r.r:r.w])
			r.r = 0
			n, err := r.c.Read(r.buf[r.w:])
			if err != nil {
				return 0, err
			}
			r.w += n
		}
		h := r.buf[r.r : r.r+9]
		r.r += 9 + r.length()
		if kind := http2.FrameType(h[3]); (kind == http2.FrameData || kind == http2.FrameHeaders) && h[4]&1 != 0 {
			return binary.BigEndian.Uint32(h[5:]), nil
		}
	}
}

func (r *frameReader) length() int {
	b := r.buf[r.r:]
	return int(b[0])<<16 | int(b[1])<<8 | int(b[2])
}

// greet sends what a peer begins with.
func greet(c net.Conn) {
	f := http2.NewFramer(c, nil)
	_ = f.WriteSettings()
	_ = f.WriteSettingsAck()
	_ = f.WriteWindowUpdate(0, 1<<30)
}

// TestNoAllocationGRPC: a steady unary call allocates nothing between plaintext
// legs, with retries, deadline, method metrics and the access log on.
func TestNoAllocationGRPC(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	if got := grpcMallocs(t, nil); got > 0.05 {
		t.Errorf("%.3f allocations a call", got)
	}
}

// grpcMallocs is mallocs for unary calls.
func grpcMallocs(t *testing.T, prepare func(*bed)) float64 {
	b := newBed(t, plain, func(s *setup) {
		s.http2, s.policy.HTTP2 = true, true
		s.policy.Retry = retrying(3)
		s.policy.Retry.GRPCStatuses = []retry.GRPCStatus{retry.GRPCUnavailable}
		s.policy.Timeout = 15e9
	})
	b.start(steadyService)
	if prepare != nil {
		prepare(b)
	}
	c := b.dial()
	_, _ = io.WriteString(c.Conn, http2.ClientPreface)
	greet(c.Conn)
	request := framesOf(func(f *framer) {
		f.headers(1, false, append(append([]string{}, post[:6]...), ":path", "/package.Service/Method",
			"content-type", "application/grpc", "te", "trailers", "grpc-timeout", "9S")...)
		_ = f.WriteData(1, true, []byte(message))
	})
	in := &frameReader{c: c.Conn}
	id := uint32(1)
	calls := func(n int) {
		for range n {
			if _, err := c.Conn.Write(request.number(id)); err != nil {
				t.Fatal(err)
			}
			if got, err := in.ended(); err != nil || got != id {
				t.Fatalf("stream %d ended, want %d: %v", got, id, err)
			}
			id += 2
		}
	}
	calls(200)
	const n = 2000
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector empties pools
	least := uint64(math.MaxUint64)
	for range 3 { // tickers of the process allocate now and then
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		calls(n)
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	return float64(least) / n
}

// steadyService answers each call, without allocating.
func steadyService(c *originConn) {
	_ = c.read(len(http2.ClientPreface))
	greet(c.Conn)
	answer := framesOf(func(f *framer) {
		f.headers(1, false, ":status", "200", "content-type", "application/grpc")
		_ = f.WriteData(1, false, []byte(message))
		f.headers(1, true, "grpc-status", "0")
	})
	in := &frameReader{c: c.Conn}
	in.w = copy(in.buf[:], must(c.br.Peek(c.br.Buffered())))
	for {
		id, err := in.ended()
		if err != nil {
			return
		}
		if _, err := c.Conn.Write(answer.number(id)); err != nil {
			return
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
