// Package memory keeps the process within a memory budget: it reads what is in use and says what is to be given up.
//
// The order is that of [Level], from what nobody notices to what callers do. It
// is explained in docs/memory.md.
package memory

import (
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Level says what is given up. Each includes those below.
type Level int32

// The levels, and from which share of the budget in use they hold.
const (
	// Easy: nothing is given up.
	Easy Level = iota
	// Trim, from 75 %: what is only kept for later. Idle connections to endpoints
	// are closed, downstream ones are kept for TrimIdle at most, and free memory
	// is returned to the system.
	Trim
	// Narrow, from 80 %: speed. Bodies are moved in small pieces and not kept for
	// another attempt; HTTP/2 windows do not grow, and are given back as bodies
	// are read.
	Narrow
	// Refuse, from 90 %: who is not here yet. New connections are closed and new
	// HTTP/2 streams refused, both before anything of them was processed.
	Refuse
	// Shed, from 95 %: who holds most for least. New exchanges are answered with
	// 503, idle downstream connections are closed, and exchanges that have not
	// moved a byte for StallTime are ended.
	Shed

	levels = int(Shed) + 1
)

// String returns the level's word.
func (l Level) String() string {
	return [...]string{"easy", "trim", "narrow", "refuse", "shed"}[l]
}

// enter is the share of the budget, in percent, from which on a level holds.
// It is left once hysteresis less is in use.
var enter = [levels]int64{Easy: 0, Trim: 75, Narrow: 80, Refuse: 90, Shed: 95}

const hysteresis = 5

const (
	// TrimIdle is how long an idle downstream connection is kept from Trim on.
	TrimIdle = 5 * time.Second
	// StallTime is how long an exchange may stand still at Shed.
	StallTime = time.Second
)

// Gift is something that was given up.
type Gift int

// What is given up.
const (
	Connections Gift = iota // new ones that were closed
	Streams                 // new HTTP/2 streams that were refused
	Exchanges               // new ones that were answered with 503
	Bodies                  // not kept for another attempt
	IdleConns               // closed, downstream
	Stalled                 // exchanges that were ended

	Gifts // how many kinds there are
)

// String returns the word for metrics.
func (g Gift) String() string {
	return [...]string{"connections", "streams", "exchanges", "bodies", "idle_connections", "stalled_exchanges"}[g]
}

// Options are what a Budget is made from.
type Options struct {
	Bytes int64 // the budget; 0 none
	Log   *slog.Logger
	// Relieve is called when a level other than Easy is entered, and then once a
	// second while it holds. It may be nil.
	Relieve func(Level)
	// Rested counts connections that have gone to rest. Their stacks are returned
	// to the system now and then, with or without a budget. It may be nil.
	Rested func() uint64
}

// Budget says how near the process is to its memory budget. A nil one, like one
// of 0 bytes, is always at Easy.
type Budget struct {
	o     Options
	level atomic.Int32
	used  atomic.Int64
	goal  int64 // the runtime's own limit, as set last

	// pledged is what all that is under way may take. What began so short a time
	// ago that it may not have taken it yet is counted as if it had.
	pledged atomic.Int64
	next    atomic.Int64 // from how much pledged on the next level holds
	mu      sync.Mutex   // held while the level changes
	settled int64        // what was pledged settleTime ago, at least
	past    [settleSteps]int64
	at      int

	entered [levels]atomic.Uint64
	given   [Gifts]atomic.Uint64

	read     func() figures
	collect  func() // frees all that is garbage and returns it to the system
	setGoal  func(int64)
	unload   func() // lets go of the program's own code
	tidied   time.Duration
	unloaded time.Duration
	relieved time.Duration
	told     Level         // to Relieve
	rested   uint64        // of Options.Rested, at the last collection
	seen     uint64        // when it was looked at last
	looked   time.Duration // which was then
	resting  bool          // the last collection was for many of them, and more may follow
}

// New returns a budget, which is at Easy until Run.
func New(o Options) *Budget {
	b := &Budget{
		o: o, read: reader(), collect: debug.FreeOSMemory, setGoal: func(n int64) { debug.SetMemoryLimit(n) },
		unload: unload, tidied: -time.Hour, unloaded: -time.Hour, relieved: -time.Hour, looked: -time.Hour,
	}
	b.foresee()
	return b
}

// Level returns what holds now.
func (b *Budget) Level() Level {
	if b == nil {
		return Easy
	}
	return Level(b.level.Load())
}

// At reports whether l holds now.
func (b *Budget) At(l Level) bool { return b != nil && Level(b.level.Load()) >= l }

// What is pledged for: about as much as each may take before memory is read next.
const (
	PerConnection = 8 << 10
	PerHandshake  = 64 << 10
	PerExchange   = 64 << 10
)

// Pledge notes that something begins which may take n bytes, and Redeem that it
// has ended. Without a budget they do nothing.
func (b *Budget) Pledge(n int64) {
	if b == nil || b.o.Bytes == 0 {
		return
	}
	if b.pledged.Add(n) >= b.next.Load() {
		b.raise()
	}
}

// Redeem takes back a Pledge.
func (b *Budget) Redeem(n int64) {
	if b != nil && b.o.Bytes > 0 {
		b.pledged.Add(-n)
	}
}

// Idle is how long an idle downstream connection is kept for which t is
// configured; 0 for ever.
func (b *Budget) Idle(t time.Duration) time.Duration {
	if b.At(Trim) && (t <= 0 || t > TrimIdle) {
		return TrimIdle
	}
	return t
}

// Gave counts what was given up.
func (b *Budget) Gave(g Gift) { b.GaveMany(g, 1) }

// GaveMany counts n of the kind.
func (b *Budget) GaveMany(g Gift, n int) {
	if b != nil && n > 0 {
		b.given[g].Add(uint64(n))
	}
}

// Given returns how often that was given up.
func (b *Budget) Given(g Gift) uint64 { return b.given[g].Load() }

// Entered returns how often a level was entered from below.
func (b *Budget) Entered(l Level) uint64 { return b.entered[l].Load() }

// Bytes returns the budget; 0 for none.
func (b *Budget) Bytes() int64 { return b.o.Bytes }

// Used returns how much of the budget is in use, as it was read last.
func (b *Budget) Used() int64 { return b.used.Load() }
