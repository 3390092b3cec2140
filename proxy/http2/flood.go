package http2

// Flood is a kind of excess that a peer is stopped for.
type Flood uint8

// The kinds.
const (
	FloodReset        Flood = iota // streams opened and reset (CVE-2023-44487), or made to be reset
	FloodContinuation              // a field section in too many CONTINUATION frames
	FloodSettings                  // SETTINGS
	FloodPing                      // PING
	FloodEmptyData                 // DATA without data
	FloodWindow                    // WINDOW_UPDATE
	FloodPriority                  // PRIORITY and unknown frames
	FloodHeaders                   // a field section that is much too large, compressed or not
	FloodPending                   // answers to control frames that the peer does not read

	Floods // how many kinds there are
)

// String returns the kind's name for counters and logs.
func (f Flood) String() string {
	return [...]string{"rapid_reset", "continuation", "settings", "ping", "empty_data", "window_update", "priority", "headers", "pending", "unknown"}[min(f, Floods)]
}

// flood ends the connection for an excess of some kind.
func (c *conn) flood(k Flood) error {
	err := c.connError(EnhanceYourCalm, "too many frames of a kind: "+k.String())
	if c.cfg.OnFlood != nil {
		c.cfg.OnFlood(k, c.w.RemoteAddr())
	}
	return err
}

// spend takes one from the credit of a kind; an error when there is none left.
func (c *conn) spend(k Flood) error {
	if c.credit[k]--; c.credit[k] >= 0 {
		return nil
	}
	// What other goroutines have noted is looked at only now.
	switch k {
	case FloodReset:
		c.earn(k, int(c.watch.finished.Swap(0)))
	case FloodWindow:
		c.earn(k, int(8*c.watch.sent.Swap(0)))
	}
	ticks := uint32(c.watch.ticks.Load())
	c.earn(k, int(ticks-c.ticked[k]))
	c.ticked[k] = ticks
	if c.credit[k] < 0 {
		return c.flood(k)
	}
	return nil
}

func (c *conn) earn(k Flood, n int) { c.credit[k] = int32(min(int(c.credit[k])+n, c.cfg.FloodFrames)) }

// earned gives credit for a stream's head, which is real work.
func (c *conn) earned() {
	c.earn(FloodWindow, 4)
	c.earn(FloodPriority, 4)
	c.earn(FloodPing, 1)
	if c.frames.Load()&63 == 0 {
		c.earn(FloodSettings, 1)
	}
}
