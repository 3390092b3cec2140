package config

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
)

// limits refuses what can never act: a queue in which nobody ever waits, and a
// limit that follows times which are not measured. path is that of the section
// around them; anonymous is why callers have no identity, if so.
func (v *validator) limits(path string, l *limit.Config, a *adaptive.Config, rules []PriorityRule, proto Protocol, anonymous string) {
	v.priorities(path+".priorities", rules, l.Queue == nil && !v.routeQueues(), proto, anonymous)
	if l.Queue != nil && l.MaxRequests == 0 && l.MaxRequestsPerEndpoint == 0 && a == nil {
		v.say(path+".limits.queue", "is never used: max_requests is 0 and adaptive is off, so nobody has to wait; give the number that may be active")
	}
	if a != nil && l.Queue != nil && l.MaxRequests+l.MaxRequestsPerEndpoint > 0 && a.Mode != l.Mode && l.Mode != guard.Observe && a.Mode != guard.Observe {
		v.say(path+".adaptive.mode", "is %s and that of limits is %s: who waits in one queue must wait for the same; give both the same mode, observe one of them, or leave queue out", a.Mode, l.Mode)
	}
	if a != nil && proto.opaque() {
		v.say(path+".adaptive", "cannot measure anything: tcp is spoken, which has no answers; use limits.max_requests")
	}
}

// routeQueues reports whether any route has a queue of its own.
func (v *validator) routeQueues() bool {
	has := func(list []Route) bool {
		return slices.ContainsFunc(list, func(r Route) bool { return r.Limits != nil && r.Limits.Queue != nil })
	}
	return has(v.Inbound.Routes) || slices.ContainsFunc(v.Outbound.Upstreams, func(u Upstream) bool { return has(u.Routes) })
}
