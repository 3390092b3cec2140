package upstream

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// frame makes an HTTP/2 frame of stream 0.
func frame(kind, flags byte, payload []byte) []byte {
	b := []byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, 0}
	return append(b, payload...)
}

// streamServer plays the server of HTTP/2 by prior knowledge for any number of
// streams. It greets with wide windows; deaf, it reads nothing behind the client's
// own greeting.
func (b *bed) streamServer(streams uint32, deaf bool) netip.AddrPort {
	b.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	setting := func(id uint16, v uint32) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, id), v)
	}
	hello := slices.Concat(
		frame(4, 0, slices.Concat(setting(3, streams), setting(4, 1<<31-1))),
		frame(8, 0, binary.BigEndian.AppendUint32(nil, 1<<30)),
		frame(4, 1, nil),
	)
	var wg sync.WaitGroup
	end := make(chan struct{})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = c.Write(hello)
				if deaf {
					_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
					<-end
					return
				}
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	b.t.Cleanup(func() {
		_ = ln.Close()
		close(end)
		wg.Wait()
	})
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// serving runs the registry until the test ends.
func (b *bed) serving(c *Cluster) {
	b.t.Cleanup(func() {
		c.closeIdle()
		b.r.running.Wait()
	})
}

func (e *Endpoint) shared() int {
	e.mux.mu.Lock()
	defer e.mux.mu.Unlock()
	return len(e.mux.conns)
}

// fill sends until the newest connection's writer is behind.
func (e *Endpoint) fill(send func()) {
	e.mux.mu.Lock()
	c := e.mux.conns[len(e.mux.conns)-1]
	e.mux.mu.Unlock()
	for stop := time.Now().Add(20 * time.Second); !c.client.Saturated() && time.Now().Before(stop); runtime.Gosched() {
		if c.client.Active() < 4 {
			send()
		}
	}
}

// A connection that carries its streams is the only one, however many they are;
// one whose writer stays behind gets company, but no more than the bound.
func TestFurtherConnectionWhenBehind(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		b := newBed(t)
		c := b.r.Acquire(spec(func(s *Spec) { s.Policy.HTTP2 = true }), telemetry.Outbound)
		defer b.r.Release(c)
		c.SetLocal(at(b.streamServer(1000, deaf)))
		b.serving(c)
		e := c.endpoints[0]
		body := make([]byte, 16<<20)
		var all sync.WaitGroup
		at := b.sw.Now()
		send := func() {
			leg, oe := e.Get(Want{Now: at})
			if oe != nil {
				t.Fatal(oe)
			}
			all.Go(func() {
				defer leg.Stream.Close()
				if deaf {
					_ = leg.Stream.WriteRequest([]byte("POST / HTTP/1.1\r\nhost: h\r\n\r\n"), body, http2.End)
				} else {
					_ = leg.Stream.WriteRequest([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"), nil, http2.End)
				}
			})
		}
		want := 1
		if deaf {
			want = mostMux
		}
		send()
		// A writer that is behind may catch up before it is looked at: the kernel
		// takes more, while the test waits for a processor.
		for round := 0; round < mostMux+2 || e.shared() < want && round < 200; round++ {
			if deaf {
				e.fill(send)
			}
			send() // sees that all writers are behind
			if n := e.shared(); n > want {
				t.Fatalf("deaf %v: %d connections; want at most %d", deaf, n, want)
			}
			at += behindFor
			send() // and that they are still
		}
		if n := e.shared(); n != want {
			t.Errorf("deaf %v: %d connections; want %d", deaf, n, want)
		}
		c.closeIdle()
		all.Wait()
	}
}

// Where streams run out another connection is made at once.
func TestFurtherConnectionWhenFull(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.HTTP2 = true }), telemetry.Outbound)
	defer b.r.Release(c)
	c.SetLocal(at(b.streamServer(3, false)))
	b.serving(c)
	e := c.endpoints[0]
	var legs []Leg
	for range 10 {
		leg, oe := e.Get(Want{Now: b.sw.Now()})
		if oe != nil {
			t.Fatal(oe)
		}
		legs = append(legs, leg)
	}
	if n := e.shared(); n != 4 {
		t.Errorf("%d connections for 10 streams of at most 3", n)
	}
	for _, l := range legs {
		l.Stream.Close()
	}
}
