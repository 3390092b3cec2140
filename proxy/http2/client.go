package http2

import "github.com/outrigger-mesh/outrigger/proxy/wire"

// Client is a connection on which streams are opened to the peer.
type Client struct{ c *conn }

// NewClient returns the client of a dialled connection, plain (prior knowledge) or
// past its TLS handshake.
func NewClient(w *wire.Conn, cfg *Config) *Client {
	c := newConn(w, cfg, true)
	if c.cfg.Scheme == "" {
		own := *c.cfg
		if own.Scheme = "http"; w.TLS() != nil {
			own.Scheme = "https"
		}
		c.cfg = &own
	}
	return &Client{c}
}

// Run serves the connection until it ends. It does not close it. Streams may be
// opened before, but nothing is sent. It returns nil after Drain, CloseIdle, Close
// or an idle timeout, and when the peer closed between frames; else an *Error.
func (c *Client) Run() error { return c.c.run() }

// Open reserves a stream, to be sent with WriteRequest and given back with Close.
// It returns ErrTooManyStreams, ErrGoingAway or ErrClosed.
func (c *Client) Open() (*Stream, error) {
	k := c.c
	k.mu.Lock()
	if err := k.mayOpen(); err != nil {
		k.mu.Unlock()
		return nil, err
	}
	k.open++
	k.mu.Unlock()
	return k.newStream(), nil
}

func (c *conn) mayOpen() error {
	switch {
	case c.err != nil:
		return c.err
	case uint64(c.open) >= uint64(c.peerLimit):
		return ErrTooManyStreams
	}
	return nil
}

// CanOpen reports whether Open would succeed now.
func (c *Client) CanOpen() bool {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	return c.c.mayOpen() == nil
}

// Active returns how many streams are open and not closed by their owner.
func (c *Client) Active() int {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	return c.c.open
}

// Limit returns how many streams the peer allows at once; 100 until it has said.
func (c *Client) Limit() int {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	return int(min(c.c.peerLimit, 1<<30))
}

// Greeted reports whether the peer's SETTINGS have come, so that Limit is what it
// allows.
func (c *Client) Greeted() bool { return c.c.heardSettings.Load() }

// Saturated reports whether streams have data that they may send while the writer
// is at work on others', so that a further connection may help. Any long body
// makes it so for moments: what counts is how often.
func (c *Client) Saturated() bool {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	return c.c.flushing && c.c.ready.front != nil && c.c.sendLeft > 0
}

// ExtendedConnect reports whether the peer takes extended CONNECT. It is false
// until its SETTINGS have come.
func (c *Client) ExtendedConnect() bool {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	return c.c.peerSpeaks || c.c.cfg.Raw
}

// Err returns why no stream may be opened anymore: ErrGoingAway, ErrClosed or nil.
func (c *Client) Err() error {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	return c.c.err
}

// Drain lets no more streams be opened. Run returns when the last has ended.
func (c *Client) Drain() { c.c.startDrain() }

// CloseIdle ends the connection if no stream is open, and reports whether.
func (c *Client) CloseIdle() bool { return c.c.closeIdle() }

// Close ends the connection with all of its streams.
func (c *Client) Close() { c.c.closeNow() }
