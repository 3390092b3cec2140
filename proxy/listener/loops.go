package listener

import (
	"log/slog"
	"time"
)

// loops says now and then that connections come back to the proxy itself. It is
// used by the goroutine that accepts.
type loops struct{ last time.Time }

// loopsEvery is how often it is said.
const loopsEvery = 10 * time.Second

func (s *loops) say(log *slog.Logger, name string, a arrived) {
	now := time.Now()
	if now.Sub(s.last) < loopsEvery {
		return
	}
	s.last = now
	log.Warn("a connection was redirected here that was going to this proxy itself; it was reset; the proxy's user must be exempt from the rules, and mode is tproxy only where they do not redirect", "event", "loop", "listener", name, "peer", a.peer.String(), "destination", a.dst.String())
}
