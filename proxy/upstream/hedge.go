package upstream

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// applyBudget makes the budget that retries and hedges share, of what is
// configured for retries, else of the defaults.
func (c *Cluster) applyBudget(old, p *Policy) {
	cfg, on := hedge.BudgetOf(p.Retry, p.Hedge)
	if !on {
		c.budget.Store(nil)
		return
	}
	if old != nil {
		if had, was := hedge.BudgetOf(old.Retry, old.Hedge); was && had.BudgetPercent == cfg.BudgetPercent && had.BudgetMinPerSecond == cfg.BudgetMinPerSecond {
			return
		}
	}
	c.budget.Store(retry.NewBudget(cfg))
}

// Strain fills in what says whether the cluster can bear another attempt beside
// those of an exchange, which are in tried.
func (c *Cluster) Strain(q *hedge.Question, tried *Tried) {
	q.Waiting = c.Limits.Pending.Value() + c.Gate.Waiting()
	if s := c.set.Load(); s != nil {
		q.Ejected, q.Panicking = s.ejected, s.panicking
	}
	if s := tried.set; s != nil { // perhaps of a part of the cluster
		q.Others, q.Panicking = s.picker.Len()-tried.n, q.Panicking || s.panicking
	}
}

// Cut counts the end of an attempt at e that was given up without an answer after
// so long, since another one had answered or nobody waited any more. It says
// nothing about e but that it would have taken longer.
func (c *Cluster) Cut(e *Endpoint, now, soFar time.Duration) {
	e.Load.Cut(now, soFar)
	e.metrics.Attempt(telemetry.Result(outlier.Ignored))
	if d := c.detectorNow(); d != nil && d.Observe(&e.Outlier, now, outlier.Ignored, 0) {
		c.sweep(now)
	}
}

// Join counts a goroutine that Registry.Run waits for, until Leave. It is for
// those that may outlive the exchange that has started them.
func (c *Cluster) Join() { c.registry.running.Add(1) }

// Leave takes a Join back.
func (c *Cluster) Leave() { c.registry.running.Done() }

// Rival returns what an attempt beside that of t begins with: the same endpoints
// are to be avoided, by leave of its own.
func (t *Tried) Rival() Tried {
	n := *t
	n.leave, n.broken, n.source = leave{}, false, noSource
	return n
}

// Take makes what the last pick of o looked at that of t.
func (t *Tried) Take(o *Tried) {
	t.set, t.seen, t.held, t.source = o.set, o.seen, o.held, o.source
}

// Inherit is Take with the leave that o has of a breaker, which t owes the result
// for from then on. What t had leave for has been settled.
func (t *Tried) Inherit(o *Tried) {
	t.Take(o)
	t.leave, o.leave = o.leave, leave{}
}

// Has reports whether e has been remembered.
func (t *Tried) Has(e *Endpoint) bool {
	for _, l := range t.loads[:t.n] {
		if l == &e.Load {
			return true
		}
	}
	return false
}

// Latencies is what hedging has learnt, where the policy hedges.
func (c *Cluster) Latencies() *hedge.Latencies {
	if l := c.learnt.Load(); l != nil {
		return l
	}
	c.learnt.CompareAndSwap(nil, new(hedge.Latencies))
	return c.learnt.Load()
}

// KeepLatencies returns the latencies of the routes in want, by their names. One
// that the plan before had is what it was; others are forgotten.
func (c *Cluster) KeepLatencies(want []string) []*hedge.Latency {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[string]*hedge.Latency, len(want))
	list := make([]*hedge.Latency, len(want))
	for i, name := range want {
		l := next[name]
		if l == nil {
			l = c.latencies[name]
		}
		if l == nil {
			l = new(hedge.Latency)
		}
		next[name], list[i] = l, l
	}
	c.latencies = next
	return list
}
