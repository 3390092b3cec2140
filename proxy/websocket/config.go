package websocket

import "time"

// Config limits WebSockets. Where a limit strikes, both sides get a close frame
// with status 1001 (going away), and some seconds to answer it.
type Config struct {
	// How long a WebSocket may go without a byte in either direction, pings included. 0: no limit.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// How long a WebSocket may last, give or take a tenth, so that those opened together do not end together. 0: no limit.
	MaxLifetime time.Duration `yaml:"max_lifetime"`
}

// Default returns the defaults: an hour without a byte, as Envoy's TCP proxy and
// the usual tunnel timeout of HAProxy have it, and any lifetime.
func Default() Config { return Config{IdleTimeout: time.Hour} }

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if c.IdleTimeout < 0 {
		add("idle_timeout", "must not be negative; 0 means no limit")
	}
	if c.MaxLifetime < 0 {
		add("max_lifetime", "must not be negative; 0 means no limit")
	}
}
