// Package http2 is HTTP/2 on a connection, as server and as client: frames, header compression, flow control, streams and coalesced writes.
//
// It follows RFC 9113 (HTTP/2), RFC 7541 (HPACK) and RFC 8441 (extended
// CONNECT). Heads cross its border in the form of HTTP/1.1: a [Stream] gives the
// head that it received as the bytes of an HTTP/1.1 head, which package http1
// parses, and takes a head to send in the same form. The rules of translation
// are with [Stream.Head] and [Stream.WriteRequest].
//
// One goroutine reads a connection, the one that calls [Server.Serve] or
// [Client.Run]; another writes what all streams have left in one pending
// buffer, so that one write, and one TLS record, carries frames of many
// streams. Neither outlives the call.
package http2

import (
	"math"
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/memory"
)

// Defaults of Config.
const (
	DefaultStreams      = 250
	DefaultWindow       = 256 << 10
	DefaultMaxWindow    = 1 << 20
	DefaultConnWindow   = 1 << 20
	DefaultConnBuffer   = 16 << 20
	DefaultHeaderBytes  = 60 << 10
	DefaultFields       = 100
	DefaultPendingBytes = 56 << 10
	DefaultWriteTimeout = 30 * time.Second
	DefaultPingTimeout  = 15 * time.Second
	DefaultFloodFrames  = 1000
)

// Config is how connections behave. It is read, not changed, by any number of
// them. A member that is zero means its default; durations are rounded up to
// the sweeper's interval.
type Config struct {
	// Streams is how many streams the peer may have open at once; default 250.
	// Further ones are refused with REFUSED_STREAM. Requests of streams that
	// were reset but are still being handled count up to twice as many.
	Streams int
	// Window is a stream's receive window in bytes at first; default 256 KiB. A
	// stream that uses it four times over gets twice as much, up to MaxWindow
	// (default 1 MiB).
	Window, MaxWindow int
	// ConnWindow is the connection's receive window; default 1 MiB. It is given
	// back as data arrives, not as it is read, so that a stream that nobody
	// reads does not hold up the others, until ConnBuffer bytes (default 16 MiB)
	// wait to be read.
	ConnWindow, ConnBuffer int
	// HeaderBytes and Fields bound a field section as http1.Limits does a head:
	// default 61440 bytes of names and values with 32 more for each field
	// (RFC 9113 section 6.5.2), and 100 fields.
	HeaderBytes, Fields int
	// PendingBytes is how much may wait to be written before streams that send
	// wait too; default 56 KiB, which makes one pooled buffer.
	PendingBytes int

	// IdleTimeout ends a connection that had no stream for so long; 0 never.
	IdleTimeout time.Duration
	// MaxAge drains a connection that has been open for so long, 10 % more or
	// less; 0 never. AgeGrace ends it with its streams so long after that; 0 never.
	MaxAge, AgeGrace time.Duration
	// PingAfter sends a PING when nothing came from the peer for so long while
	// there are streams (or, with PingIdle, at any time); 0 never. A connection
	// whose PING is not answered in PingTimeout (default 15 s) is ended.
	PingAfter, PingTimeout time.Duration
	PingIdle               bool
	// WriteTimeout ends a connection whose peer takes nothing for so long while
	// something is to be written, or leaves SETTINGS unacknowledged; default 30 s.
	WriteTimeout time.Duration

	// Rests has Serve return wire.ErrResting when a server's connection had no
	// stream for a while. It must be called again once something comes.
	Rests bool

	// ExtendedConnect lets peers of a server open WebSockets (RFC 8441).
	ExtendedConnect bool
	// Raw is the transport between two sidecars; see MeshHTTP.
	Raw bool
	// Scheme is what a client sends as :scheme; default https over TLS, else http.
	Scheme string
	// FloodFrames is how many frames of a kind that asks for work and brings
	// nothing (resets, SETTINGS, PING, empty DATA ...) a peer may send in advance
	// of real ones; default 1000. Each unit of real work earns some back.
	FloodFrames int

	// OnFlood is called when a bound of that kind strikes a peer, from the
	// goroutine that reads; the connection is being ended already.
	OnFlood func(kind Flood, peer netip.AddrPort)
	// OnIdle is called when the last stream of a client's connection has ended.
	OnIdle func()
	// OnEnd is called once, when a client's connection takes no more streams.
	OnEnd func(error)

	// Memory says when windows must not grow and streams must be refused; nil
	// never.
	Memory *memory.Budget

	// Sweeper watches deadlines and times. Without one there are none.
	Sweeper *Sweeper

	filled bool
}

// Flags say what follows a write.
type Flags uint8

// The flags.
const (
	End  Flags = 1 << iota // nothing follows: the stream's sending side ends
	More                   // the caller writes again at once: do not flush for this
)

func or[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Filled returns a Config with its defaults filled in, which any number of
// connections share; one that is so already is returned itself. nil is all defaults.
func (c *Config) Filled() *Config {
	if c != nil && c.filled {
		return c
	}
	var f Config
	if c != nil {
		f = *c
	}
	f.filled = true
	f.Streams = or(f.Streams, DefaultStreams)
	f.Window = min(or(f.Window, DefaultWindow), maxWindow)
	f.MaxWindow = min(max(or(f.MaxWindow, DefaultMaxWindow), f.Window), maxWindow)
	f.ConnWindow = min(max(or(f.ConnWindow, DefaultConnWindow), initialWindow), maxWindow)
	f.ConnBuffer = or(f.ConnBuffer, DefaultConnBuffer)
	f.HeaderBytes = or(f.HeaderBytes, DefaultHeaderBytes)
	f.Fields = or(f.Fields, DefaultFields)
	f.PendingBytes = or(f.PendingBytes, DefaultPendingBytes)
	f.WriteTimeout = or(f.WriteTimeout, DefaultWriteTimeout)
	f.PingTimeout = or(f.PingTimeout, DefaultPingTimeout)
	f.FloodFrames = min(or(f.FloodFrames, DefaultFloodFrames), math.MaxInt32)
	return &f
}
