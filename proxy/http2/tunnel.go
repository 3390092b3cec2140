package http2

import (
	"errors"
	"time"
)

// MayTunnel waits until a client's stream that has sent nothing yet can tell
// whether the peer takes extended CONNECT, which its SETTINGS say, but at most
// for d. It returns nil when it does, ErrNoConnectProtocol when it does not, an
// *Error when the connection has ended, or ErrExpired.
func (s *Stream) MayTunnel(d time.Duration) error {
	c := s.c
	c.mu.Lock()
	for wait := (*time.Timer)(nil); ; {
		switch {
		case c.dead != nil:
			e := *c.dead
			e.Unsent = true
			c.mu.Unlock()
			return &e
		case c.peerSpeaks || c.cfg.Raw:
			c.mu.Unlock()
			return nil
		case c.heardSettings.Load():
			c.mu.Unlock()
			return ErrNoConnectProtocol
		}
		if c.settling == nil {
			c.settling = make(chan struct{})
		}
		settled := c.settling
		c.mu.Unlock()
		if wait == nil {
			wait = time.NewTimer(d)
			defer wait.Stop()
		}
		select {
		case <-settled:
		case <-wait.C:
			return errNoSettings
		}
		c.mu.Lock()
	}
}

var errNoSettings = errors.Join(ErrExpired, errors.New("http2: the peer's SETTINGS have not come"))

// settle wakes those who wait for the peer's SETTINGS.
func (c *conn) settle() {
	c.mu.Lock()
	c.settleLocked()
	c.mu.Unlock()
}

func (c *conn) settleLocked() {
	if c.settling != nil {
		close(c.settling)
		c.settling = nil
	}
}
