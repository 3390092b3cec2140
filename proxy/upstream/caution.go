package upstream

import (
	"log/slog"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// caution is the policy's, nil without one.
func (p *Policy) caution() *outlier.Caution {
	if p.Outlier == nil {
		return nil
	}
	return p.Outlier.Caution
}

// watch makes e's attempts count for a caution, or takes back what one has done.
// c.mu is held.
func (e *Endpoint) watch(p *Policy) {
	on := p.caution() != nil
	e.Load.Measure(on)
	if !on {
		e.Load.SetShare(1)
		e.suspect = nil
	}
}

// suspected is what caution has seen of e. c.mu is held.
func (e *Endpoint) suspected() *outlier.Suspect {
	if e.suspect == nil {
		e.suspect = new(outlier.Suspect)
	}
	return e.suspect
}

// judge lets caution decide about the shares of the endpoints that take traffic.
// What the attempts have shown has been rolled up. c.mu is held.
func (c *Cluster) judge(p *Policy, now time.Duration) {
	cfg := p.caution()
	if cfg == nil {
		return
	}
	seen := make([]outlier.Seen, 0, len(c.endpoints))
	before := make([]float64, 0, len(c.endpoints))
	who := make([]*Endpoint, 0, len(c.endpoints))
	for _, e := range c.endpoints {
		s := e.spec.Load()
		if s.Draining != "" || e.Outlier.State() != outlier.Healthy {
			continue
		}
		ended, failed, took := e.Load.Rolled()
		seen = append(seen, outlier.Seen{Suspect: e.suspected(), Weight: e.weight(p, s), Ended: ended, Failed: failed, Took: took})
		share, _ := e.suspect.Share()
		who, before = append(who, e), append(before, share)
	}
	dt := now - c.judged
	c.judged = now
	cfg.Judge(now, dt, seen)
	for i, e := range who {
		share, _ := e.suspect.Share()
		if cfg.Mode == guard.Enforce {
			e.Load.SetShare(share)
		} else {
			e.Load.SetShare(1)
		}
		if (share < 1) != (before[i] < 1) {
			c.suspicion(e, cfg, share)
		}
	}
}

// suspicion tells that an endpoint has come under suspicion, or is free of it.
func (c *Cluster) suspicion(e *Endpoint, cfg *outlier.Caution, share float64) {
	failed, latency := e.suspect.Evidence()
	text, event := "endpoint gets less traffic: it is worse than its peers", "caution"
	if share == 1 {
		text, event = "endpoint is under no suspicion any more", "caution_over"
	} else if cfg.Mode == guard.Observe {
		c.metrics.WouldHave(telemetry.WouldCaution)
	}
	attrs := []any{"event", event, "cluster", c.name, "endpoint", e.address, "share", share, "failed", failed, "latency", latency.String()}
	if cfg.Mode == guard.Observe {
		attrs = append(attrs, "mode", cfg.Mode.String())
	}
	c.registry.log.Log(c.registry.ctx, slog.LevelInfo, text, attrs...)
}

// CautionState is what is suspected of an endpoint.
type CautionState struct {
	Mode    guard.Mode
	Share   float64 // that it keeps, or in observe mode would keep
	Since   time.Duration
	Failed  float64
	Latency time.Duration
}

func (c *Cluster) cautionState(e *Endpoint) *CautionState {
	cfg := c.policy.Load().caution()
	if cfg == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &CautionState{Mode: cfg.Mode}
	st.Share, st.Since = e.suspected().Share()
	st.Failed, st.Latency = e.suspected().Evidence()
	return st
}
