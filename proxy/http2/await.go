package http2

import "time"

// Await waits until there is something to Peek, be it the body's end or an error,
// but no longer than until expired. It reports whether there is. Like Peek it is
// for the one goroutine that reads.
func (s *Stream) Await(expired <-chan time.Time) bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.bodyN == 0 && !s.inEnd && !s.broken() {
		if len(c.pend) > 0 {
			c.kickLocked()
		}
		s.reading = true
		c.mu.Unlock()
		select {
		case <-s.readable:
			c.mu.Lock()
		case <-expired:
			c.mu.Lock()
			if s.reading {
				s.reading = false
				return false
			}
			// Just then it was woken; what woke it comes.
			c.mu.Unlock()
			<-s.readable
			c.mu.Lock()
			return s.bodyN > 0 || s.inEnd || s.broken()
		}
	}
	return true
}
