package memory

import (
	"context"
	"math"
	"slices"
	"time"
)

const (
	// readEvery is how often memory is read where there is a budget: in that time
	// a peer on a fast network sends some megabytes.
	readEvery = 25 * time.Millisecond
	// tidyEvery bounds how often a collection is made to learn what is in use and
	// to return what is free to the system. One takes some 20 ms of CPU time.
	tidyEvery = 500 * time.Millisecond
	// restLook is how often the count of resting connections is looked at,
	// restEnough how many of them are worth a collection, and restEvery bounds how
	// often one is made for their sake.
	restLook   = 500 * time.Millisecond
	restEvery  = time.Second
	restEnough = 500
)

// Run watches until ctx ends.
func (b *Budget) Run(ctx context.Context) error {
	every := restLook
	if b.o.Bytes > 0 {
		every = readEvery
	}
	began := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.step(time.Since(began))
		}
	}
}

// step looks at the figures at now.
func (b *Budget) step(now time.Duration) {
	b.tidyRested(now)
	if b.o.Bytes <= 0 {
		return
	}
	f := b.read()
	b.pace(f)
	if b.untidy(f, now) {
		b.tidied = now
		b.collect()
		f = b.read()
	}
	if b.share(f.inUse()) >= enter[Trim]-hysteresis && now-b.unloaded >= unloadEvery {
		b.unloaded = now
		b.unload()
		f = b.read()
	}
	used := f.inUse()
	b.used.Store(used)
	b.mu.Lock()
	b.settle()
	old := b.Level()
	l := b.after(old, used+b.unsettled())
	if l != old {
		b.change(old, l)
	}
	b.foresee()
	b.mu.Unlock()
	if l > Easy && (l > b.told || now-b.relieved >= time.Second) {
		b.relieved = now
		if b.o.Relieve != nil {
			b.o.Relieve(l)
		}
	}
	b.told = l
}

// untidy reports whether a collection is due: what looks like use may be
// garbage, and what looks like garbage use.
func (b *Budget) untidy(f figures, now time.Duration) bool {
	since := now - b.tidied
	switch {
	case since < tidyEvery:
		return false
	case b.share(f.resident-f.free) >= enter[Trim] && f.stale(), b.share(f.resident) >= enter[Trim] && f.loose() > b.o.Bytes/16:
		return true
	}
	return b.Level() > Easy && since >= 4*tidyEvery
}

// settleSteps is for how many readings what is pledged counts beside what is in
// use.
const settleSteps = 10

// settle notes what is pledged now, and what has been for settleSteps readings.
func (b *Budget) settle() {
	p := b.pledged.Load()
	b.past[b.at] = p
	b.at = (b.at + 1) % settleSteps
	b.settled = slices.Min(b.past[:])
}

func (b *Budget) unsettled() int64 { return max(0, b.pledged.Load()-b.settled) }

// foresee works out at what pledge the next level begins.
func (b *Budget) foresee() {
	next := int64(math.MaxInt64)
	if l := b.Level(); l < Shed {
		next = b.o.Bytes*enter[l+1]/100 - b.used.Load() + b.settled
	}
	b.next.Store(next)
}

// raise enters the level that what is pledged asks for.
func (b *Budget) raise() {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.Level()
	if l := b.after(old, b.used.Load()+b.unsettled()); l > old {
		b.change(old, l)
		b.foresee()
	}
}

func (b *Budget) share(n int64) int64 { return n * 100 / b.o.Bytes }

// after is the level after old with so much in use. It rises at once and falls
// one at a time.
func (b *Budget) after(old Level, used int64) Level {
	p := b.share(used)
	l := Shed
	for l > old && p < enter[l] {
		l--
	}
	if l == old && old > Easy && p < enter[old]-hysteresis {
		l--
	}
	return l
}

// change is called with b.mu held.
func (b *Budget) change(old, l Level) {
	b.level.Store(int32(l))
	for k := old + 1; k <= l; k++ {
		b.entered[k].Add(1)
	}
	if b.o.Log == nil {
		return
	}
	log := b.o.Log.Info
	if l > old {
		log = b.o.Log.Warn
	}
	log("memory level", "event", "memory_level", "level", l.String(), "before", old.String(), "used", b.used.Load(), "pledged", b.unsettled(), "budget", b.o.Bytes)
}

// paceShare is the share of the budget, in percent, at which the collector works
// as hard as it takes: below the level at which callers pay.
const paceShare = 82

// pace gives the collector its goal. What the process has besides what the
// runtime counts, such as the program itself, is taken off.
func (b *Budget) pace(f figures) {
	goal := max(b.o.Bytes*paceShare/100-(f.resident-f.runtime), b.o.Bytes/4)
	if d := goal - b.goal; d > 1<<20 || d < -1<<20 {
		b.goal = goal
		b.setGoal(goal)
	}
}

// tidyRested returns what connections have given up that have gone to rest: stacks,
// and memory that was kept for the next. Once no more follow, which is seen only later,
// it does so again.
func (b *Budget) tidyRested(now time.Duration) {
	if b.o.Rested == nil || now-b.looked < restLook {
		return
	}
	n := b.o.Rested()
	still := n == b.seen
	b.looked, b.seen = now, n
	switch {
	case now-b.tidied < restEvery:
		return
	case n-b.rested >= restEnough:
		b.resting = true
	case b.resting && still:
		b.resting = false
	default:
		return
	}
	b.rested, b.tidied = n, now
	b.collect()
}
