// Package queue decides who waits for a place, who gets the next one and who has waited too long: priorities, fairness among callers, a bound on the delay.
package queue

import (
	"fmt"
	"time"
)

// Config says how requests wait for a place. A queue is for short peaks: one
// that stands adds to every answer the time in it and carries no more.
type Config struct {
	// Size is how many may wait, 1 to 4096; more are refused, or take the place of others: of a lower priority, and of
	// the caller who has the most waiting. Default 128.
	Size int `yaml:"size"`
	// Order is who of a caller's requests goes first: fifo (the oldest), lifo (the newest), or adaptive (default): fifo,
	// and lifo while the queue stands, so that some are answered in time instead of all too late (Facebook, "Fail at Scale").
	Order Order `yaml:"order"`
	// MaxWait is how long one may wait. Default 1s.
	MaxWait time.Duration `yaml:"max_wait"`
	// Target is the delay that is borne. While the queue stands, because nobody in it had waited less than this for a
	// whole interval, those are turned away who have waited longer (after CoDel, RFC 8289). 0: only max_wait counts.
	// Default 5ms.
	Target time.Duration `yaml:"target"`
	// Interval is for how long the delay must stay above target before the queue counts as standing. At least 10ms. Default 100ms.
	Interval time.Duration `yaml:"interval"`
	// LeastSharePercent is what each priority is guaranteed of the places that become free while it waits, and of the
	// queue, however much of a higher one there is. 0 to 25; 0: nothing. Default 5.
	LeastSharePercent float64 `yaml:"least_share_percent"`
}

// MaxSize is the largest Size.
const MaxSize = 4096

// Default returns the defaults given at each field of Config.
func Default() Config {
	return Config{
		Size: 128, Order: Adaptive, MaxWait: time.Second, Target: 5 * time.Millisecond, Interval: 100 * time.Millisecond, LeastSharePercent: 5,
	}
}

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if c.Size < 1 || c.Size > MaxSize {
		add("size", fmt.Sprintf("is %d; write a number from 1 to %d, or queue: off", c.Size, MaxSize))
	}
	if c.Order > LIFO {
		add("order", "is unknown; use fifo, lifo or adaptive")
	}
	if c.MaxWait < time.Millisecond {
		add("max_wait", "must be at least 1ms, such as 1s; to refuse at once write queue: off")
	}
	switch {
	case c.Target < 0:
		add("target", "must not be negative; 0 switches it off")
	case c.Target > 0 && c.Target >= c.MaxWait:
		add("target", fmt.Sprintf("is %s and never acts: nobody waits longer than max_wait (%s); make it shorter, or 0", c.Target, c.MaxWait))
	case c.Order == Adaptive && c.Target == 0:
		add("target", "is 0, by which order: adaptive cannot tell that the queue stands; write order: fifo or lifo")
	}
	if c.Interval < 10*time.Millisecond {
		add("interval", "must be at least 10ms, such as 100ms")
	}
	if !(c.LeastSharePercent >= 0 && c.LeastSharePercent <= 25) {
		add("least_share_percent", "must be from 0 to 25, so that all priorities together can have theirs")
	}
}

// Order is which of those that wait goes first.
type Order uint8

// The orders.
const (
	Adaptive Order = iota
	FIFO
	LIFO
)

var orders = [...]string{"adaptive", "fifo", "lifo"}

// String returns the word of the configuration.
func (o Order) String() string {
	if int(o) < len(orders) {
		return orders[o]
	}
	return fmt.Sprintf("order(%d)", uint8(o))
}

// MarshalText implements encoding.TextMarshaler.
func (o Order) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text means adaptive.
func (o *Order) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*o = Adaptive
		return nil
	}
	for i, name := range orders {
		if string(b) == name {
			*o = Order(i)
			return nil
		}
	}
	return fmt.Errorf("unknown order %q; use fifo, lifo or adaptive", b)
}

// Priority is whose turn comes first. The zero value is Normal.
type Priority int8

// The priorities, the highest first.
const (
	Critical Priority = 2 - iota
	High
	Normal
	Low
)

// Priorities is how many there are.
const Priorities = 4

var priorities = [Priorities]string{"critical", "high", "normal", "low"}

// Rank is the place of p among the priorities: 0 is the highest.
func (p Priority) Rank() int { return min(max(int(Critical-p), 0), Priorities-1) }

// Ranked returns the priority of a rank.
func Ranked(rank int) Priority { return Critical - Priority(rank) }

// String returns the word of the configuration.
func (p Priority) String() string { return priorities[p.Rank()] }

// MarshalText implements encoding.TextMarshaler.
func (p Priority) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text means normal.
func (p *Priority) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*p = Normal
		return nil
	}
	for i, name := range priorities {
		if string(b) == name {
			*p = Ranked(i)
			return nil
		}
	}
	return fmt.Errorf("unknown priority %q; use critical, high, normal or low", b)
}

// Result is what became of one that asked for a place.
type Result uint8

// The results. The first is the only one with a place.
const (
	Entered   Result = iota
	Full             // there was no room to wait
	Displaced        // it waited, and had to make room for another
	Delayed          // it had waited longer than target while the queue stood
	WaitedOut        // it had waited for max_wait
	TooLate          // its own deadline passed
	Gone             // its caller went away
	Stopped          // the proxy stopped
)

// Results is how many there are.
const Results = 8

var results = [Results]string{"entered", "full", "displaced", "delayed", "waited_out", "too_late", "gone", "stopped"}

// String returns the word used in metrics and records.
func (r Result) String() string {
	if r < Results {
		return results[r]
	}
	return fmt.Sprintf("result(%d)", uint8(r))
}
