package wire

import "net"

// Canceler is told that a connection has expired.
type Canceler interface{ Canceled() }

// Notify has w told when the connection expires, at once if it has already: of
// two connections that belong together one may have nothing left to read and so
// notice nothing itself. It is called by whoever ended the connection, which it
// must not hold up. After Notify(nil) a call that was under way may still come.
func (c *Conn) Notify(w Canceler) {
	if w == nil {
		c.hook.Store(nil)
		return
	}
	c.hook.Store(&w)
	if c.Expired() {
		w.Canceled()
	}
}

// Abort makes Close reset the connection, without a close_notify, so that its
// peer does not take what has come for all. It must be called by the goroutine
// that reads.
func (c *Conn) Abort() {
	c.aborted = true
	c.ResetOnClose()
}

// ResetOnClose makes Close reset the connection. A Unix socket knows no reset: its
// peer sees the end, or ECONNRESET where something that it sent was not read.
func (c *Conn) ResetOnClose() {
	if t, ok := c.sock.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
}
