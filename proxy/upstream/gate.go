package upstream

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Gate lets exchanges in as long as there are fewer than its limit, and has
// others wait for their turn where there is a queue. It outlives policies: who
// waits when one is replaced goes on to wait. Its zero value lets everybody in.
type Gate struct {
	limits  *limit.Limits // whose active requests it counts
	cluster *Cluster

	most    atomic.Int64             // that may be in, by all that acts for anybody; 0 unlimited
	would   atomic.Int64             // that might be if what is only observed were enforced; 0 the same
	parts   atomic.Pointer[[2]bound] // what most and would come of; nil unless one acts for a percentage
	waiting atomic.Int64             // in the queue

	adaptive atomic.Pointer[adaptive.Limiter] // nil without one

	spare sync.Pool // waiters not in use

	mu       sync.Mutex // below
	queue    *queue.Queue
	queueing bool
	static   int64      // max_requests
	places   int64      // that the endpoints have together; 0 unlimited
	mode     guard.Mode // of both
}

// Ask is what an exchange says of itself at a gate.
type Ask struct {
	Now      time.Duration
	Deadline time.Duration // of the exchange; 0 none
	Priority queue.Priority
	Caller   uint64          // callers take turns
	Draw     guard.Draw      // says which limits hold for it, where they have percentages
	Gone     <-chan struct{} // says that the caller has gone; nil where that cannot be known
}

// waiter is one exchange in a queue.
type waiter struct {
	queue.Waiter
	woken chan struct{} // capacity 1: it is out of the queue
	timer *time.Timer
}

func newWaiter() *waiter {
	w := &waiter{woken: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	w.Wake = func() { w.woken <- struct{}{} }
	return w
}

// bind makes g count in limits, for c.
func (g *Gate) bind(c *Cluster, limits *limit.Limits) { g.cluster, g.limits = c, limits }

// configure makes cfg, and ad where that is not nil, what the gate goes by.
func (g *Gate) configure(cfg *limit.Config, ad *adaptive.Config, now time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch a := g.adaptive.Load(); {
	case ad == nil:
		g.adaptive.Store(nil)
	case a == nil:
		g.adaptive.Store(adaptive.New(*ad))
	default:
		a.SetConfig(*ad)
	}
	g.static, g.mode = cfg.MaxRequests, cfg.Mode
	if g.queueing = cfg.Queue != nil; g.queueing {
		if g.queue == nil {
			g.queue = queue.New(*cfg.Queue)
		} else {
			g.queue.SetConfig(*cfg.Queue)
		}
	}
	g.settle(now)
}

// hold makes n what the endpoints together have room for; 0 is no limit.
func (g *Gate) hold(n int64, now time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.places != n {
		g.places = n
		g.settle(now)
	}
}

// settle works out the limit and lets in whom it leaves room for. g.mu is held.
func (g *Gate) settle(now time.Duration) {
	parts := [2]bound{{fewer(max(g.static, 0), max(g.places, 0)), g.mode}}
	if a := g.adaptive.Load(); a != nil {
		parts[1] = bound{a.Limit(), a.Mode()}
	}
	most, would := bounds(&parts, guard.Strictest)
	g.most.Store(most)
	g.would.Store(would)
	if parts[0].mode.Partial() || parts[1].mode.Partial() {
		g.parts.Store(&parts)
	} else {
		g.parts.Store(nil)
	}
	g.dispatch(now)
}

// fewer returns the smaller of two limits of which each is 0 if there is none.
func fewer(a, b int64) int64 {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// took tells the adaptive limit, if there is one, how an attempt went: one that
// was answered well, or in vain waited for. Others say nothing of how long work
// takes; so do connections that are not HTTP, which have no status.
func (g *Gate) took(now, rtt time.Duration, reason outcome.Reason, status int) {
	a := g.adaptive.Load()
	switch {
	case a == nil:
		return
	case reason == outcome.OK && status != 0, reason == outcome.RequestTimeout, reason == outcome.TryTimeout:
	default:
		return
	}
	if a.Observe(now, rtt, g.limits.Requests.Value()) {
		g.mu.Lock()
		g.settle(now)
		g.mu.Unlock()
	}
}

// Most returns how many exchanges may be in now; 0 means unlimited.
func (g *Gate) Most() int64 { return g.most.Load() }

// Waiting returns how many wait for their turn.
func (g *Gate) Waiting() int64 { return g.waiting.Load() }

// Queueing reports whether there is a queue.
func (g *Gate) Queueing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queueing
}

// TryEnter lets the exchange of d in if there is room and nobody waits. It then
// owes one Leave.
func (g *Gate) TryEnter(d guard.Draw) bool {
	most, would := g.bounds(d)
	// Whom no limit holds for has nothing to wait for behind others.
	if most > 0 && g.waiting.Load() > 0 || !g.limits.Requests.Acquire(most) {
		return false
	}
	if would > 0 && g.limits.Requests.Value() > would {
		g.limits.WouldRefuse(limit.Requests)
		g.cluster.metrics.WouldHave(telemetry.WouldLimit)
	}
	return true
}

// Enter is what follows a TryEnter in vain: the exchange waits for its turn if
// it may. After queue.Entered it owes one Leave; any other result is why it has
// no place. waited is how long it has waited.
func (g *Gate) Enter(a *Ask) (why queue.Result, waited time.Duration) {
	why, waited, queued := g.enter(a)
	if queued {
		g.cluster.metrics.Queued(telemetry.Priority(a.Priority.Rank()), telemetry.QueueResult(why), waited)
	}
	if why != queue.Entered {
		g.limits.Refuse(limit.Requests)
		g.cluster.metrics.Limited(telemetry.LimitRequests)
	}
	return why, waited
}

func (g *Gate) enter(a *Ask) (why queue.Result, waited time.Duration, queued bool) {
	g.mu.Lock()
	if !g.queueing {
		defer g.mu.Unlock()
		if most, _ := g.bounds(a.Draw); g.limits.Requests.Acquire(most) {
			return queue.Entered, 0, false // somebody has left meanwhile
		}
		return queue.Full, 0, false
	}
	wait, late := g.queue.Config().MaxWait, queue.WaitedOut
	if left := a.Deadline - a.Now; a.Deadline > 0 && left < wait {
		wait, late = left, queue.TooLate
	}
	if wait <= 0 {
		g.mu.Unlock()
		return late, 0, true
	}
	w, _ := g.spare.Get().(*waiter)
	if w == nil {
		w = newWaiter()
	}
	w.Priority, w.Caller = a.Priority, a.Caller
	// Before the last look at the gauge: whoever leaves after it sees that
	// somebody waits.
	g.waiting.Add(1)
	g.shed(a.Now)
	ok, displaced := g.queue.Push(a.Now, &w.Waiter)
	if !ok {
		g.waiting.Add(-1)
	}
	if displaced != nil {
		g.out(displaced)
	}
	g.dispatch(a.Now)
	g.mu.Unlock()
	if !ok {
		g.spare.Put(w)
		return queue.Full, 0, true
	}
	why = g.await(a, w, wait, late)
	g.spare.Put(w)
	return why, max(g.cluster.registry.sweeper.Now()-a.Now, 0), true
}

// await waits until w is out of the queue.
func (g *Gate) await(a *Ask, w *waiter, wait time.Duration, late queue.Result) queue.Result {
	select {
	case <-w.woken: // there was room after all
		return w.Result()
	default:
	}
	w.timer.Reset(wait)
	defer w.timer.Stop()
	var why queue.Result
	select {
	case <-w.woken:
		return w.Result()
	case <-w.timer.C:
		why = late
	case <-a.Gone:
		why = queue.Gone
	case <-g.cluster.registry.ctx.Done():
		why = queue.Stopped
	}
	g.mu.Lock()
	removed := g.queue.Remove(&w.Waiter, why)
	if removed {
		g.waiting.Add(-1)
	}
	g.mu.Unlock()
	if !removed { // somebody was faster
		<-w.woken
	}
	return w.Result()
}

// Leave gives back what TryEnter or Enter gave.
func (g *Gate) Leave(now time.Duration) {
	g.limits.Requests.Release()
	if g.waiting.Load() > 0 {
		g.mu.Lock()
		g.dispatch(now)
		g.mu.Unlock()
	}
}

// dispatch turns away who has waited too long and lets in whom there is room
// for. g.mu is held.
func (g *Gate) dispatch(now time.Duration) {
	if g.queue == nil {
		return
	}
	g.shed(now)
	for g.queue.Len() > 0 && g.limits.Requests.Acquire(g.most.Load()) {
		g.out(g.queue.Pop(now))
	}
}

func (g *Gate) shed(now time.Duration) {
	for w := g.queue.Shed(now); w != nil; w = g.queue.Shed(now) {
		g.out(w)
	}
}

// out tells one that it is out of the queue.
func (g *Gate) out(w *queue.Waiter) {
	g.waiting.Add(-1)
	w.Wake()
}

// adapted is what the adaptive limit knows; ok is false without one.
func (g *Gate) adapted() (s telemetry.AdaptiveState, ok bool) {
	a := g.adaptive.Load()
	if a == nil {
		return s, false
	}
	n := a.Snapshot()
	return telemetry.AdaptiveState{Limit: float64(n.Limit), Baseline: n.Baseline, Latency: n.Latency}, true
}
