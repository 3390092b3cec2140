package config

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// RouteHedge changes the hedge section of a policy for the requests of a route.
// What is not given stays as it is in the policy.
type RouteHedge struct {
	// enforce, or observe: whether other attempts are started, or only counted.
	Mode *guard.Mode `yaml:"mode"`
	// The share of recent answers that were faster than a request which is hedged, such as p95.
	Percentile *hedge.Percentile `yaml:"percentile"`
	// A fixed time in place of the percentile.
	Delay *time.Duration `yaml:"delay"`
	// How many attempts a request may have before no other is started beside them.
	MaxAttempts *int `yaml:"max_attempts"`
	// Whether requests are hedged whose method is not idempotent, gRPC calls among them.
	NonIdempotent *bool `yaml:"non_idempotent"`
	// The gRPC statuses that do not end the wait for other attempts, in place of the policy's list. Empty: that list.
	NonFatalStatuses []retry.GRPCStatus `yaml:"non_fatal_statuses"`

	none bool // written as off
}

func (r *RouteHedge) setOff()     { r.none = true }
func (r *RouteHedge) isOff() bool { return r.none }

// Apply returns the policy's section with the route's changes; nil is off.
func (r *RouteHedge) Apply(p *hedge.Config) *hedge.Config {
	switch {
	case r == nil:
		return p
	case r.none:
		return nil
	}
	c := hedge.Default()
	if p != nil {
		c = *p
	}
	if r.Mode != nil {
		c.Mode = *r.Mode
	}
	if r.Percentile != nil {
		c.Percentile, c.Delay = *r.Percentile, 0
	}
	if r.Delay != nil {
		c.Delay = *r.Delay
	}
	if r.MaxAttempts != nil {
		c.MaxAttempts = *r.MaxAttempts
	}
	if r.NonIdempotent != nil {
		c.NonIdempotent = *r.NonIdempotent
	}
	if len(r.NonFatalStatuses) > 0 {
		c.NonFatalStatuses = r.NonFatalStatuses
	}
	return &c
}

// services are the destinations of r, upstream being that of its listener.
func (r *Route) services(upstream string) []string {
	if r.To != "" {
		upstream = r.To
	}
	if len(r.Split) == 0 {
		return []string{upstream}
	}
	list := make([]string, len(r.Split))
	for i := range r.Split {
		list[i] = r.Split[i].Service
	}
	return list
}

// hedge refuses hedging that can never come about.
func (v *validator) hedge(path, name string, p *Policy) {
	h := p.Hedge
	if h == nil {
		return
	}
	if name != AnyService && v.ServiceProtocol(name).opaque() {
		v.say(path+".hedge", "cannot be: with %s tcp is spoken, of which no answer is known; write hedge: off", name)
	}
	if r := p.Retry; r != nil && r.BudgetPercent == 0 && r.BudgetMinPerSecond == 0 {
		v.say(path+".hedge", "takes from the budget of retry, which is always empty; raise retry.budget_percent or retry.budget_min_per_second, or write hedge: off")
	}
	v.hedgeTimes(path+".hedge", h, p.Timeout)
}

func (v *validator) hedgeTimes(path string, h *hedge.Config, timeout time.Duration) {
	if timeout <= 0 {
		return
	}
	if h.Delay >= timeout {
		v.say(path+".delay", "is %s, and the whole exchange may take no longer (timeout: %s), so nothing is ever hedged", formatDuration(h.Delay), formatDuration(timeout))
	} else if h.MinDelay >= timeout {
		v.say(path+".min_delay", "is %s, and the whole exchange may take no longer (timeout: %s), so nothing is ever hedged", formatDuration(h.MinDelay), formatDuration(timeout))
	}
}

// routeHedge checks that what a route changes in its policies' hedge makes sense
// there.
func (v *validator) routeHedge(path, upstream string, r *Route) {
	if r.Hedge == nil || r.Hedge.none {
		return
	}
	for _, name := range r.services(upstream) {
		p := v.Policy(name)
		timeout := p.Timeout
		if r.Timeout != nil {
			timeout = *r.Timeout
		}
		if p.Retry == nil && p.Hedge == nil {
			v.say(path+".hedge", "has no budget to take from: policies.%s.retry and hedge are off; write retry: {attempts: 1} there", name)
			continue
		}
		said := map[string]bool{} // of the policy, which is checked by itself
		if p.Hedge != nil {
			p.Hedge.Validate(func(field, problem string) { said[field+problem] = true })
		}
		c := r.Hedge.Apply(p.Hedge)
		v.hedgeTimes(path+".hedge", c, timeout)
		c.Validate(func(field, problem string) {
			if !said[field+problem] {
				v.say(path+".hedge."+field, "%s", problem)
			}
		})
	}
}
