package exchange_test

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// TestWaitingForARequest: the time in which a request comes, in pieces, is that of
// the exchange and not of its first attempt.
func TestWaitingForARequest(t *testing.T) {
	const pause = 10 * time.Millisecond
	for name, parts := range map[string][2]string{
		"head": {"POST / HTTP/1.1\r\nHost: shop\r\nContent-Le", "ngth: 4\r\n\r\nbody"},
		"body": {"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbo", "dy"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, []mode{plain}, nil, func(t *testing.T, b *bed) {
				b.to(b.another(func(c *originConn) { c.message(); c.send(unavailable) }))
				c := b.dial()
				c.send(parts[0])
				eventually(t, "the exchange has begun", func() bool { return b.session().Busy() })
				from := b.sweeper.Now()
				eventually(t, "time passes", func() bool { return b.sweeper.Now() >= from+pause })
				c.send(parts[1])
				c.expect(unavailable)
				e := b.kept(outcome.UpstreamError)
				if got := e.Attempts[0].Offset; got < pause {
					t.Errorf("the attempt began after %v, and the request was whole only after %v", got, pause)
				}
			})
		})
	}
}
