package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Client does with a cluster what a proxy does: it is offered exchanges, and
// guards, picks, tries, judges and tries again by the machines of its policy.
type Client struct {
	// Stats is what has happened so far. Before the first exchange it may be set to
	// that of other clients, to count together.
	Stats *Stats

	engine *Engine
	id     ActorID
	policy Policy
	world  World
	caller Caller
	random Random

	throttle *throttle
	guards   []Guard
	gate     *gate
	try      TryGuard // nil without one
	hedger   Hedger   // nil without one
	script   Script   // nil without one
	reviewed bool     // the turns of reviews are scheduled
	breaker  *breaker.Breaker
	budget   *retry.Budget
	detector *outlier.Detector
	limits   limit.Limits
	mode     guard.Mode // of outlier detection; Observe without it
	partial  bool       // some guard acts for a percentage of the exchanges

	endpoints []*endpoint // by number
	states    []*outlier.Endpoint
	all       []balance.Candidate
	picker    *balance.Picker
	panicking bool
	seen      []outlier.Seen // by caution, at judged
	judging   []*endpoint    // those in seen
	judged    time.Duration
	out       int // endpoints that were out at the last sweep

	exchanges pool[Exchange]
	tries     pool[try]
}

// endpoint is what a client remembers about an endpoint.
type endpoint struct {
	Endpoint
	load    balance.Load
	state   outlier.Endpoint
	suspect outlier.Suspect
	breaker *breaker.Breaker // nil unless each endpoint has its own
	since   time.Duration
	key     uint64
	number  int
}

// Events that a client schedules for itself. The kind is in the upper bits of
// an event's argument, a Ref's generation and index share the lower ones.
const (
	fireSweep uint64 = iota // review ejections
	fireTry                 // an attempt ends as was known, or its time is over
	fireRetry               // the pause before another attempt is over
	fireHedge               // time for an attempt beside the first
	fireLate                // the deadline of an exchange that waits at a guard
	fireBits  = 3
)

// NewClient returns a client without endpoints. caller may be nil.
func NewClient(e *Engine, p Policy, w World, caller Caller) *Client {
	if p.Balance.IsZero() {
		p.Balance = balance.Default()
	}
	c := &Client{Stats: &Stats{}, engine: e, policy: p, world: w, caller: caller, random: e.Fork(), mode: guard.Observe}
	c.id = e.Add(c)
	c.partial = p.partial()
	c.gate = newGate(c)
	c.throttle = &throttle{}
	c.throttle.configure(p.Admission, e) // there is one route
	c.guards = append(c.guards, c.gate, c.throttle)
	c.breaker = c.newBreaker(&p, false)
	if cfg, on := hedge.BudgetOf(p.Retry, p.Hedge); on {
		c.budget = retry.NewBudget(cfg)
	}
	if p.Hedge != nil {
		c.hedger = &hedger{c: c, cfg: p.Hedge}
	}
	if p.Outlier != nil {
		c.detector, c.mode = outlier.New(*p.Outlier), p.Outlier.Mode
		c.reviewed = true
		e.At(e.now+sweepInterval, c.id, fireSweep)
	}
	return c
}

// newBreaker is the breaker of an endpoint, or of the whole: there is one route.
// It is nil where the policy has none of that kind.
func (c *Client) newBreaker(p *Policy, endpoint bool) *breaker.Breaker {
	if p.Breaker == nil || (p.Breaker.Scope == breaker.ScopeEndpoint) != endpoint {
		return nil
	}
	return breaker.New("", *p.Breaker, c.breakerChanged)
}

// Policy returns the policy of the client. It must not be changed.
func (c *Client) Policy() *Policy { return &c.policy }

// Guard adds a guard behind those of the policy: the limit on active requests
// and admission control. There can be 8 in all.
func (c *Client) Guard(g Guard) {
	if len(c.guards) == maxGuards {
		panic("replay: more than 8 guards")
	}
	c.guards = append(c.guards, g)
}

// GuardTries adds the guard of every attempt, behind the breaker.
func (c *Client) GuardTries(g TryGuard) { c.try = g }

// Hedge lets attempts be started beside others, in place of what the policy says.
func (c *Client) Hedge(h Hedger) { c.hedger = h }

// SetEndpoints makes list the client's endpoints; their numbers are the places
// in it. What is known about those that stay, by name, is kept. Attempts under
// way at others end as they would.
func (c *Client) SetEndpoints(list []Endpoint) {
	now := c.engine.now
	since := time.Duration(-1)
	if len(c.endpoints) > 0 {
		since = now // slow start is for those who join
	}
	old := make(map[string]*endpoint, len(c.endpoints))
	for _, e := range c.endpoints {
		old[e.Name] = e
	}
	c.endpoints = make([]*endpoint, len(list))
	c.states = make([]*outlier.Endpoint, len(list))
	for i := range list {
		e := old[list[i].Name]
		if e == nil {
			e = &endpoint{since: since, key: balance.KeyOf(list[i].Name)}
			e.load.Init(c.policy.Balance)
			e.load.Measure(c.caution() != nil)
			e.breaker = c.newBreaker(&c.policy, true)
		}
		delete(old, e.Name)
		e.Endpoint, e.number = list[i], i
		c.endpoints[i], c.states[i] = e, &e.state
	}
	for _, e := range old {
		if e.breaker != nil && e.breaker.State(now) != breaker.Closed {
			c.Stats.now.Open--
		}
	}
	c.rebuild()
}

// SetHealthy says what discovery says of an endpoint from now on.
func (c *Client) SetHealthy(number int, healthy bool) {
	if c.endpoints[number].Healthy != healthy {
		c.endpoints[number].Healthy = healthy
		c.rebuild()
	}
}

// rebuild makes a new picker, as upstream.Cluster does.
func (c *Client) rebuild() {
	c.all = c.all[:0]
	for i, e := range c.endpoints {
		c.all = append(c.all, balance.Candidate{
			Member:  balance.Member{Load: &e.load, Weight: max(e.Weight, 1), Since: e.since, Key: e.key, Index: i},
			Healthy: e.Healthy,
			Ejected: c.detector != nil && e.state.State() == outlier.Ejected,
		})
	}
	use, panicking := balance.Choose(c.policy.Balance, c.all)
	if panicking && !c.panicking {
		c.Stats.count().Panics++
	}
	c.panicking = panicking
	c.picker = balance.NewPicker(c.policy.Balance, use)
}

// sweep lets outlier detection act.
func (c *Client) sweep(now time.Duration) {
	events := c.detector.Sweep(now, c.word(now), c.states)
	for i := range events {
		switch ev := &events[i]; ev.Kind {
		case outlier.KindEjected:
			c.Stats.count().Ejections++
			c.Stats.Causes[ev.Cause]++
		case outlier.KindWouldEject:
			c.Stats.count().WouldEject++
		case outlier.KindReadmitted:
			c.Stats.count().Readmissions++
		}
	}
	c.Stats.now.Out += int64(c.detector.Out() - c.out)
	c.out = c.detector.Out()
	if len(events) > 0 {
		c.rebuild()
	}
}

func (c *Client) breakerChanged(from, to breaker.State) {
	if to == breaker.Open {
		c.Stats.count().BreakerOpened++
	}
	switch {
	case from == breaker.Closed:
		c.Stats.now.Open++
	case to == breaker.Closed:
		c.Stats.now.Open--
	}
}

// Fire implements Actor.
func (c *Client) Fire(now time.Duration, arg uint64) {
	c.Stats.advance(now)
	kind, ref := arg&(1<<fireBits-1), Ref(arg>>fireBits)
	switch kind {
	case fireSweep:
		if len(c.states) > 0 && c.detector != nil {
			if c.script == nil || c.script.Turns() {
				c.sweep(now)
			}
			if cfg := c.caution(); cfg != nil {
				c.judge(cfg, now)
			}
		}
		c.engine.At(now+sweepInterval, c.id, fireSweep)
	case fireTry:
		if t := c.tries.get(ref); t != nil {
			c.due(now, t)
		}
	case fireRetry:
		if x := c.exchanges.get(ref); x != nil {
			c.attempt(now, x, false)
		}
	case fireHedge:
		if t := c.tries.get(ref); t != nil {
			c.hedge(now, t.x)
		}
	case fireLate:
		if x := c.exchanges.get(ref); x != nil && x.waiting {
			c.end(now, x, outcome.RequestTimeout, 0)
		}
	}
}

func (c *Client) at(when time.Duration, kind uint64, ref Ref) {
	c.engine.At(when, c.id, uint64(ref)<<fireBits|kind)
}
