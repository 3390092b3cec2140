package http2

import (
	"time"
)

// Canceler is told of a stream's end before its time.
type Canceler interface{ Canceled() }

// SetDeadline makes all that waits on the stream fail with ErrExpired after at,
// a time on the sweeper's clock; zero means never. It reports false when the
// stream has expired already.
func (s *Stream) SetDeadline(at time.Duration) bool {
	d := int64(at)
	if at != 0 && d <= 0 {
		d = 1
	}
	s.deadline.Store(d)
	return !s.expires.Load()
}

// Expire makes all that waits on the stream, and all that follows, fail with
// ErrExpired. RST_STREAM is sent when it is closed.
func (s *Stream) Expire() {
	c := s.c
	c.mu.Lock()
	s.expireLocked()
	c.mu.Unlock()
	c.callCanceled()
}

func (s *Stream) expireLocked() {
	if s.expires.Swap(true) {
		return
	}
	if s.err == nil {
		s.err = ErrExpired
		if s.held {
			s.c.noteCanceled(s)
		}
	}
	if s.queued {
		s.c.ready.remove(s)
	}
	s.wakeBoth()
}

// Expired reports whether the stream was ended by its deadline or Expire.
func (s *Stream) Expired() bool { return s.expires.Load() }

// Interrupt makes Peek, also one that waits now, return ErrInterrupted instead
// of waiting, until it is taken back with on unset. It may be called by any
// goroutine that knows the stream to be open.
func (s *Stream) Interrupt(on bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.interrupted = on
	if on && s.reading {
		s.reading = false
		s.readable <- struct{}{}
	}
}

// Notify has w told when the stream ends before its time: by the peer, with the
// connection, by its deadline or Reset. It is called in another goroutine, which
// it must not hold up; at once if the stream has ended so already; perhaps more
// than once. Notify(nil) takes it back, and waits for a call under way.
func (s *Stream) Notify(w Canceler) {
	s.hookMu.Lock()
	s.hook = w
	s.hookMu.Unlock()
	if w != nil && s.Err() != nil {
		s.canceled(s.gen.Load())
	}
}

// canceled tells the owner, if it is still the one of that generation.
func (s *Stream) canceled(gen uint32) {
	s.hookMu.Lock()
	if s.hook != nil && s.gen.Load() == gen {
		s.hook.Canceled()
	}
	s.hookMu.Unlock()
}
