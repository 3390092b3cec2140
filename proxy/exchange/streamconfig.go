package exchange

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

// streamConfig is how a listener's HTTP/2 connections behave.
func (s *Server) streamConfig(l *plan.Listener, mesh bool) *http2.Config {
	last := &s.streamConfigs[0]
	if mesh {
		last = &s.streamConfigs[1]
	}
	h := &l.HTTP
	k := streamConfigKey{h.IdleTimeout, h.MaxAge, h.AgeGrace, h.Limits.HeadBytes, h.Limits.Fields}
	if f := last.Load(); f != nil && f.key == k {
		return f.config
	}
	cfg := *s.HTTP2
	cfg.IdleTimeout, cfg.MaxAge, cfg.AgeGrace = k.idle, k.age, k.grace
	cfg.HeaderBytes, cfg.Fields = k.head, k.fields
	if mesh {
		cfg.Raw, cfg.Streams = true, meshStreams
	}
	cfg.Rests = s.Resting != nil
	f := &sharedStreamConfig{k, cfg.Filled()}
	last.Store(f)
	return f.config
}

// sharedStreamConfig is what the connections have that came last, so that those
// that come next, mostly of the same listener, share it.
type sharedStreamConfig struct {
	key    streamConfigKey
	config *http2.Config
}

// streamConfigKey is what a listener says of it.
type streamConfigKey struct {
	idle, age, grace time.Duration
	head, fields     int
}
