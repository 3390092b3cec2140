package upstream

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/orca"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// reported is what an endpoint has said of its load, and what it comes to.
type reported struct {
	orca.Backend
	factor atomic.Uint64 // bits of a float64; 0 is 1
}

// Factor is what the weight in the catalog is multiplied by, 1 for the mean.
func (r *reported) Factor() float64 {
	if b := r.factor.Load(); b != 0 {
		return math.Float64frombits(b)
	}
	return 1
}

// Reported takes in the load that e has reported in a response, as the value of
// orca.Field, or of orca.FieldBin. cfg is the policy's.
func (c *Cluster) Reported(e *Endpoint, cfg *orca.Config, now time.Duration, value []byte, bin bool) {
	parse := orca.Parse
	if bin {
		parse = orca.ParseBin
	}
	switch r, ok := parse(value); {
	case !ok:
		c.metrics.LoadReport(telemetry.LoadMalformed)
	case !e.reported.Observe(cfg, now, &r):
		c.metrics.LoadReport(telemetry.LoadIncomplete)
	default:
		c.metrics.LoadReport(telemetry.LoadTaken)
	}
}

// heed forgets e's weight by its reports where nobody asks for it. c.mu is held.
func (e *Endpoint) heed(p *Policy) {
	if p.Balance.ORCA == nil {
		e.reported.factor.Store(0)
	}
}

// weightUnit is a weight of 1 where weights are made of reports.
const weightUnit = 1 << 10

// weight is what e counts among the others. c.mu is held.
func (e *Endpoint) weight(p *Policy, s *EndpointSpec) uint32 {
	cfg := p.Balance.ORCA
	if cfg == nil {
		return s.Weight
	}
	w := float64(s.Weight) * weightUnit
	if cfg.Mode == guard.Enforce {
		w *= e.reported.Factor()
	}
	return uint32(min(max(w, 1), math.MaxUint32))
}

// leastChange is by how much a weight has to change for a new picker.
const leastChange = 0.01

// weigh makes weights of what the endpoints have reported, when it is time to.
func (c *Cluster) weigh(p *Policy, now time.Duration) {
	cfg := p.Balance.ORCA
	if cfg == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Half a tick more or less must not put it off to the next one.
	if now-c.weighed < cfg.WeightUpdatePeriod-TickInterval/2 {
		return
	}
	c.weighed = now
	all := make([]orca.Weighed, 0, len(c.endpoints))
	who := make([]*Endpoint, 0, len(c.endpoints))
	for _, e := range c.endpoints {
		if s := e.spec.Load(); s.Draining == "" {
			all = append(all, orca.Weighed{Backend: &e.reported.Backend, Weight: s.Weight})
			who = append(who, e)
		}
	}
	cfg.Weigh(now, all)
	changed := false
	for i, e := range who {
		if all[i].State == orca.Expired {
			c.metrics.LoadReport(telemetry.LoadExpired)
		}
		was := e.reported.Factor()
		changed = changed || math.Abs(all[i].Factor-was) > leastChange*was
	}
	if !changed {
		return
	}
	for i, e := range who {
		e.reported.factor.Store(math.Float64bits(all[i].Factor))
	}
	if cfg.Mode == guard.Enforce {
		c.rebuild(now)
	}
}

// ReportState is what an endpoint's reports come to.
type ReportState struct {
	Mode   guard.Mode
	State  orca.State
	Factor float64       // of its weight in the catalog; 1 is the mean
	Age    time.Duration // of the last report; negative without one
}

func (c *Cluster) reportState(e *Endpoint, now time.Duration) *ReportState {
	cfg := c.policy.Load().Balance.ORCA
	if cfg == nil {
		return nil
	}
	_, state := e.reported.Weight(cfg, now)
	return &ReportState{Mode: cfg.Mode, State: state, Factor: e.reported.Factor(), Age: e.reported.Age(now)}
}
