package listener

import "time"

// slots bounds the handshakes at one time; most 0 is unlimited.
type slots struct {
	most int
	free chan struct{}
}

func newSlots(most int) *slots {
	s := &slots{most: most}
	if most > 0 {
		s.free = make(chan struct{}, most)
	}
	return s
}

// take waits for a slot until the deadline or the end.
func (s *slots) take(until time.Time, end <-chan struct{}) bool {
	if s.free == nil {
		return true
	}
	select {
	case s.free <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case s.free <- struct{}{}:
		return true
	case <-t.C:
		return false
	case <-end:
		return false
	}
}

func (s *slots) give() {
	if s.free != nil {
		<-s.free
	}
}
