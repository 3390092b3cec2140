package upstream

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// logged is what the outcome log was told last of a cluster.
type logged struct {
	known     bool
	set       uint64 // a hash of the endpoints
	panicking bool
}

// logSet tells the outcome log of the set that all makes, if it is another than
// before apart from ejections. c.mu is held.
func (c *Cluster) logSet(all []balance.Candidate, panicking bool, now time.Duration) {
	log := c.registry.Outcomes
	if !log.On() {
		c.logged = logged{}
		return
	}
	h := uint64(len(all))
	for i := range all {
		h = (h ^ all[i].Key ^ uint64(all[i].Weight)<<1) * 0x9e3779b97f4a7c15
		if all[i].Healthy && c.endpoints[i].draining() == 0 {
			h++
		}
		h ^= h >> 29
	}
	if !c.logged.known || c.logged.set != h {
		log.Event(c.endpointsEvent(now))
	}
	if c.logged.panicking != panicking {
		e := c.event(outcomes.Panic, now)
		if panicking {
			e.To = 1
		}
		log.Event(e)
	}
	c.logged = logged{true, h, panicking}
}

func (c *Cluster) event(k outcomes.Kind, now time.Duration) outcomes.Event {
	return outcomes.Event{Kind: k, At: now, Cluster: c.name, Inbound: c.direction == telemetry.Inbound}
}

// endpointsEvent says which endpoints there are and how they stand. c.mu is held.
func (c *Cluster) endpointsEvent(now time.Duration) outcomes.Event {
	e := c.event(outcomes.Endpoints, now)
	p := c.policy.Load()
	e.List = make([]outcomes.Endpoint, len(c.endpoints))
	for i, ep := range c.endpoints {
		s := ep.spec.Load()
		l := &e.List[i]
		l.Address, l.Weight, l.Usable = ep.address, s.Weight, s.Healthy && s.Draining == "" && ep.check.fit(p.Health)
		if p.Outlier != nil {
			ev := ep.Outlier.Evidence(now)
			l.State, l.Until = ev.State, max(ev.Until, 0)
		}
	}
	return e
}

// logJudged tells the outcome log of a decision of a sweep that was given random.
func (c *Cluster) logJudged(ev outlier.Event, random uint64) {
	log := c.registry.Outcomes
	if !log.On() {
		return
	}
	e := c.event(outcomes.Judged, ev.At)
	for _, ep := range c.endpoints {
		if &ep.Outlier == ev.Endpoint {
			e.Endpoint = ep.address
		}
	}
	e.Verdict, e.Cause, e.Until, e.Random = ev.Kind, ev.Cause, ev.Until, random
	log.Event(e)
}

// logBreaker tells the outcome log that the breaker has changed.
func (c *Cluster) logBreaker(from, to breaker.State) {
	log := c.registry.Outcomes
	if !log.On() {
		return
	}
	e := c.event(outcomes.Breaker, c.registry.sweeper.Now())
	e.From, e.To = from, to
	log.Event(e)
}

// Outcomes gives add the events that say how all clusters stand, as an outcome
// log begins with them.
func (r *Registry) OutcomeState(add func(outcomes.Event)) {
	now := r.sweeper.Now()
	for _, c := range r.all() {
		c.mu.Lock()
		e := c.endpointsEvent(now)
		panicking := false
		if s := c.set.Load(); s != nil {
			panicking = s.panicking
		}
		c.mu.Unlock()
		add(e)
		if panicking {
			e := c.event(outcomes.Panic, now)
			e.To = 1
			add(e)
		}
		if b := c.Breaker(); b != nil {
			if s := b.State(now); s != breaker.Closed {
				e := c.event(outcomes.Breaker, now)
				e.To = s
				add(e)
			}
		}
	}
}
