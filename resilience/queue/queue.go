package queue

import (
	"math"
	"time"
)

// Waiter is one that waits. Its fields are set before Push; it belongs to the
// queue until it comes out of it.
type Waiter struct {
	Priority Priority
	Caller   uint64 // whose it is: callers take turns
	Wake     func() // for whoever waits; the queue does not call it

	result       Result
	rank         int
	since        time.Duration
	flow         *flow   // nil outside of a queue
	next, prev   *Waiter // in the flow; next is newer
	newer, older *Waiter // in the queue
}

// Result is why w came out of the queue.
func (w *Waiter) Result() Result { return w.result }

// Since is when w came.
func (w *Waiter) Since() time.Duration { return w.since }

// Queue is a bounded queue of waiters. It is not safe for concurrent use. Times
// are on any clock that does not go back; where it seems to, it stands still.
type Queue struct {
	cfg     Config
	reserve int     // what each priority is guaranteed of Size
	share   float64 // what each is guaranteed of the places

	length         int
	oldest, newest *Waiter
	classes        [Priorities]class
	spare          *flow // not in use, by next
	last           time.Duration

	standing bool
	ends     time.Duration // of the present interval
	least    time.Duration // how long the oldest had waited at least in it
	shed     bool          // somebody was turned away for the delay in it
}

// class are the waiters of one priority.
type class struct {
	n      int
	flows  map[uint64]*flow
	turn   *flow   // whose turn is next, in a ring
	credit float64 // of a place that it is owed
}

// flow are a caller's waiters in a class.
type flow struct {
	caller         uint64
	n              int
	newest, oldest *Waiter
	next, prev     *flow
}

// New returns an empty queue.
func New(cfg Config) *Queue {
	q := &Queue{least: math.MaxInt64}
	for i := range q.classes {
		q.classes[i].flows = map[uint64]*flow{}
	}
	q.SetConfig(cfg)
	return q
}

// SetConfig changes how the queue works. Those who wait stay, also where they
// are more than Size.
func (q *Queue) SetConfig(cfg Config) {
	q.cfg = cfg
	q.share = cfg.LeastSharePercent / 100
	q.reserve = int(float64(cfg.Size) * q.share)
	if q.share > 0 {
		q.reserve = max(q.reserve, 1)
	}
	if cfg.Target <= 0 {
		q.standing = false
	}
}

// Config returns how the queue works.
func (q *Queue) Config() Config { return q.cfg }

// Len returns how many wait.
func (q *Queue) Len() int { return q.length }

// Delay is how long the one has waited who came first; 0 where nobody waits.
func (q *Queue) Delay(now time.Duration) time.Duration {
	if q.oldest == nil {
		return 0
	}
	return max(now-q.oldest.since, 0)
}

// LenOf returns how many of a priority wait.
func (q *Queue) LenOf(p Priority) int { return q.classes[p.Rank()].n }

// Callers returns how many callers have somebody waiting, those with several
// priorities once for each.
func (q *Queue) Callers() int {
	n := 0
	for i := range q.classes {
		n += len(q.classes[i].flows)
	}
	return n
}

// Standing reports whether the queue stands: for a whole interval nobody in it
// had waited less than Target.
func (q *Queue) Standing() bool { return q.standing }

// Push lets w wait. Where there is no room it is refused, or displaces another,
// who comes back.
func (q *Queue) Push(now time.Duration, w *Waiter) (ok bool, displaced *Waiter) {
	now = q.observe(now)
	w.since, w.rank = now, w.Priority.Rank()
	if q.length >= q.cfg.Size {
		if displaced = q.victim(w); displaced == nil {
			w.result = Full
			return false, nil
		}
		q.take(displaced, Displaced)
	}
	q.link(w)
	return true, displaced
}

// Pop gives the next place to somebody; nil when nobody waits. Call Shed before,
// or it may go to one that has waited too long.
func (q *Queue) Pop(now time.Duration) *Waiter {
	q.observe(now)
	c := q.choose()
	if c == nil {
		return nil
	}
	f := c.turn
	c.turn = f.next
	w := f.oldest
	if q.newestFirst() {
		w = f.newest
	}
	q.take(w, Entered)
	return w
}

// Shed turns somebody away who has waited too long, the oldest first; nil when
// there is none. Call it until then.
func (q *Queue) Shed(now time.Duration) *Waiter {
	now = q.observe(now)
	w := q.oldest
	if w == nil {
		return nil
	}
	switch waited := now - w.since; {
	case waited >= q.cfg.MaxWait:
		q.take(w, WaitedOut)
	case q.standing && waited > q.cfg.Target:
		q.shed = true
		q.take(w, Delayed)
	default:
		return nil
	}
	return w
}

// Remove takes w out for a reason of its own. It reports false when w does not
// wait any more.
func (q *Queue) Remove(w *Waiter, why Result) bool {
	if w.flow == nil {
		return false
	}
	q.take(w, why)
	return true
}

func (q *Queue) newestFirst() bool {
	return q.cfg.Order == LIFO || q.cfg.Order == Adaptive && q.standing
}

// observe notes how long the oldest has waited, and judges an interval that has
// ended. It returns now, or when something happened last if that is later.
func (q *Queue) observe(now time.Duration) time.Duration {
	now = max(now, q.last)
	q.last = now
	wait := time.Duration(0)
	if q.oldest != nil {
		wait = now - q.oldest.since
	}
	q.least = min(q.least, wait)
	if now < q.ends || q.cfg.Target <= 0 {
		return now
	}
	// While some are turned away the others have waited less than that: it is
	// by them that one sees that the queue still stands.
	q.standing = q.least > q.cfg.Target || q.shed && now < q.ends+q.cfg.Interval
	q.shed, q.least, q.ends = false, wait, now+q.cfg.Interval
	return now
}

// choose returns the class that gets the next place: the highest one that waits,
// unless a lower one has not had its share; nil when nobody waits.
func (q *Queue) choose() *class {
	var top, owed *class
	for i := range q.classes {
		c := &q.classes[i]
		switch {
		case c.n == 0:
			c.credit = 0
			continue
		case top == nil:
			top, c.credit = c, 0
			continue
		}
		c.credit = min(c.credit+q.share, 2)
		if owed == nil && c.credit >= 1 {
			owed = c
		}
	}
	if owed != nil {
		owed.credit--
		return owed
	}
	return top
}

// victim returns who makes room for w; nil when nobody does.
func (q *Queue) victim(w *Waiter) *Waiter {
	own := &q.classes[w.rank]
	least := w.rank + 1 // whose classes must make room
	if own.n < q.reserve {
		least = 0
	}
	for r := Priorities - 1; r >= least; r-- {
		if c := &q.classes[r]; c != own && c.n > q.reserve {
			return q.leastUseful(c.longest())
		}
	}
	l, n := own.longest(), 0
	f := own.flows[w.Caller]
	if f != nil {
		n = f.n
	}
	switch {
	case l == nil:
		return nil
	case l.n > n+1: // else the two would only change places
		return q.leastUseful(l)
	case !q.newestFirst():
		return nil
	case f != nil:
		return f.oldest
	case q.oldest.rank == w.rank:
		return q.oldest
	}
	return nil
}

// leastUseful is who of a caller's waiters would get a place last.
func (q *Queue) leastUseful(f *flow) *Waiter {
	if q.newestFirst() {
		return f.oldest
	}
	return f.newest
}

// longest returns the flow with the most waiters, the next in turn among equals.
func (c *class) longest() *flow {
	best := c.turn
	if best == nil {
		return nil
	}
	for f := best.next; f != c.turn; f = f.next {
		if f.n > best.n {
			best = f
		}
	}
	return best
}
