package telemetry

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// maxChanges is how many changes may wait for a sink that blocks; of later ones
// the last counts.
const maxChanges = 16

// off is the share of a log that takes nothing.
const off = math.MaxUint64 // the bits of no number

func (l *AccessLog) setShare(path string, leaveOut float64) {
	if path == offPath {
		l.share.Store(off)
	} else {
		l.share.Store(math.Float64bits(1 - leaveOut))
	}
}

// Takes reports whether an exchange gets a record. Of those that are sampled,
// which are the successful ones, a share does.
func (l *AccessLog) Takes(sampled bool) bool {
	if l == nil {
		return false
	}
	bits := l.share.Load()
	if bits == off {
		return false
	}
	if !sampled {
		return true
	}
	share := math.Float64frombits(bits)
	return share >= 1 || rand.Float64() < share
}

// AccessChange is a change of an AccessLog that has been prepared. It ends with
// Commit or Abandon.
type AccessChange struct {
	l        *AccessLog
	leaveOut float64
	path     string
	next     *outlet // nil where the path stays
}

// Prepare opens where records shall go, so that nothing can fail any more, and
// changes nothing. The parameters are those of AccessLogConfig.
func (l *AccessLog) Prepare(path string, leaveOut float64) (*AccessChange, error) {
	c := &AccessChange{l: l, leaveOut: leaveOut, path: path}
	l.mu.Lock()
	same := l.wanted == path
	l.mu.Unlock()
	if same {
		return c, nil
	}
	var err error
	if c.next, err = open(path); err != nil {
		return nil, err
	}
	return c, nil
}

// Abandon closes what Prepare has opened.
func (c *AccessChange) Abandon() { _ = c.next.close() } // nothing was written

// Commit makes the change: records that are taken from now on go there, those
// before to where they went. It does not wait for either.
func (c *AccessChange) Commit() {
	l := c.l
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		c.Abandon()
		return
	}
	l.setShare(c.path, c.leaveOut)
	if c.next != nil {
		c.next.at, l.wanted = len(l.front), c.path
		if last := len(l.next) - 1; last+1 == maxChanges {
			c.next.at = l.next[last].at
			_ = l.next[last].close() // nothing was written
			l.next[last] = c.next
		} else {
			l.next = append(l.next, c.next)
		}
	}
	l.mu.Unlock()
	select {
	case l.full <- struct{}{}:
	default:
	}
}

// turn makes next the outlet.
func (l *AccessLog) turn(next *outlet) error {
	l.fileMu.Lock()
	old := l.outlet
	l.outlet, l.torn = *next, false
	l.fileMu.Unlock()
	if err := old.close(); err != nil {
		return fmt.Errorf("access log: cannot close the file: %w", err)
	}
	return nil
}
