package relay

import (
	"fmt"
	"io"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/websocket"
)

// BenchmarkEcho compares what it costs to splice a plain WebSocket with following
// its frames: small messages answered one by one, and a stream of large ones.
func BenchmarkEcho(b *testing.B) {
	for name, cfg := range map[string]*websocket.Config{"spliced": nil, "followed": new(websocket.Default())} {
		for _, size := range []int{100, 60_000} {
			b.Run(fmt.Sprint(name, " ", size), func(b *testing.B) {
				r := prepare(b, legs{})
				go func() {
					res := Run(Conn(r.down), Conn(r.up), Options{Now: r.sw.Now, WebSocket: cfg})
					r.result <- res
				}()
				go func() { _, _ = io.Copy(r.server, struct{ io.Reader }{r.server}) }()
				p := append([]byte{0x82, 126, byte(size >> 8), byte(size)}, make([]byte, size)...)
				b.SetBytes(int64(len(p)))
				for b.Loop() {
					if _, err := r.client.Write(p); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(r.client, p); err != nil {
						b.Fatal(err)
					}
				}
				r.down.Expire()
				r.wait(b)
			})
		}
	}
}
