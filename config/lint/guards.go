package lint

import (
	"fmt"
	"math"
	"slices"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// ejection looks at what outlier detection can do to the instances there are.
func (c *checker) ejection(l *config.Loaded, name string) {
	p := l.Config.Policy(name)
	n, known := c.Instances[name]
	path := config.PolicyPath(name)
	o := p.Outlier
	if o == nil || !known || n == 0 {
		return
	}
	most := int(math.Floor(float64(n) * o.MaxEjectedPercent / 100))
	if most < 1 {
		most = 1 // one may be ejected whatever the share
	}
	if left := n - int(o.KeepEndpoints); left < most {
		most = left
	}
	switch {
	case most <= 0:
		c.say(l, path+".outlier.keep_endpoints", "guard-never-acts", Note, fmt.Sprintf("lower keep_endpoints below %d, or write outlier: off", n),
			"%s never ejects an endpoint of %s: keep_endpoints is %d and there are %d", l.Config.Service.Name, name, o.KeepEndpoints, n)
	case most >= n && p.Balance.PanicPercent == 0:
		c.say(l, path+".outlier.max_ejected_percent", "ejection-empties-pool", Error, "lower max_ejected_percent, raise keep_endpoints, or set balance.panic_percent",
			"%s may eject all %d endpoints of %s, and nothing then uses them: every request would be refused", l.Config.Service.Name, n, name)
	case n-most < (n+1)/2 && p.Balance.PanicPercent == 0:
		c.say(l, path+".outlier.max_ejected_percent", "ejection-empties-pool", Warning, "lower max_ejected_percent or raise keep_endpoints so that those left can carry the load",
			"%s may eject %d of %d endpoints of %s: each that is left would carry %.1f times its load", l.Config.Service.Name, most, n, name, float64(n)/float64(n-most))
	}
	if o.SuccessRateStdev > 0 && int(o.SuccessRateMinimumEndpoints) > n {
		c.say(l, path+".outlier.success_rate_minimum_endpoints", "guard-never-acts", Note, fmt.Sprintf("lower it to %d or less, or go by failure_percent", n),
			"%s never compares success rates at %s: that needs %d endpoints and there are %d", l.Config.Service.Name, name, o.SuccessRateMinimumEndpoints, n)
	}
}

// idle looks for guards that can never act, whatever happens.
func (c *checker) idle(l *config.Loaded, name string) {
	p := l.Config.Policy(name)
	path := config.PolicyPath(name)
	own := l.Config.Service.Name
	if q := p.Limits.Queue; q != nil && p.Timeout > 0 && q.MaxWait > p.Timeout {
		c.say(l, path+".limits.queue.max_wait", "guard-never-acts", Note, fmt.Sprintf("lower it well below the timeout of %s", p.Timeout),
			"%s -> %s: max_wait of the queue is %s, but the request has ended by its timeout of %s", own, name, q.MaxWait, p.Timeout)
	}
	if b := p.Breaker; b != nil {
		if m := p.Limits.MaxRequests; m > 0 && p.Limits.Mode == guard.Enforce && b.ConsecutiveFailures == 0 && p.Timeout > 0 {
			// As many as can end within the window when each takes its whole time.
			if most := float64(m) * (b.Window.Seconds()/p.Timeout.Seconds() + 1); float64(b.MinimumRequests) > most {
				c.say(l, path+".breaker.minimum_requests", "guard-never-acts", Warning, fmt.Sprintf("lower it to %d or less, or set consecutive_failures", max(int(most), 1)),
					"%s -> %s: when every request runs into its timeout of %s, at most %.0f end within the breaker's window of %s, and it wants %d", own, name, p.Timeout, most, b.Window, b.MinimumRequests)
			}
		}
	}
	if h := p.Health; h != nil && p.Outlier == nil && h.Mode == guard.Observe {
		c.say(l, path+".health.mode", "guard-never-acts", Note, "enforce one of them", "%s -> %s: health checks are only observed and outlier detection is off: no endpoint is ever left out", own, name)
	}
}

// capacities compares what the callers of a service may have under way with what
// the service takes.
func (c *checker) capacities() {
	for name, callees := range c.byService {
		instances, known := c.Instances[name]
		takes := int64(0)
		for _, l := range callees {
			takes = max(takes, l.Config.Inbound.Limits.MaxRequests)
		}
		if !known || instances == 0 || takes == 0 {
			continue
		}
		room := takes * int64(instances)
		sum, words := int64(0), []string{}
		callers := c.callersOf(name)
		for _, l := range callers {
			replicas, ok := c.Instances[l.Config.Service.Name]
			most := l.Config.Policy(name).Limits.MaxRequests
			if !ok || most == 0 {
				continue
			}
			sum += most * int64(replicas)
			words = append(words, fmt.Sprintf("%s %d x %d", l.Config.Service.Name, replicas, most))
		}
		if sum <= room {
			continue
		}
		slices.Sort(words)
		for _, l := range callers {
			if l.Config.Policy(name).Limits.MaxRequests > 0 {
				c.say(l, config.PolicyPath(name)+".limits.max_requests", "limits-above-capacity", Warning,
					fmt.Sprintf("lower it, or raise inbound.limits.max_requests of %s at %s if it can take more", name, callees[0].Problem("inbound.limits.max_requests", "").Position),
					"the callers of %s may have %d requests under way (%s), its %d instances take %d each, %d in all", name, sum, joined(words), instances, takes, room)
			}
		}
	}
}

// callersOf are the configurations that call a service, the same every time.
func (c *checker) callersOf(name string) []*config.Loaded {
	var list []*config.Loaded
	for _, l := range c.Configs {
		if slices.Contains(l.Config.Services(), name) {
			list = append(list, l)
		}
	}
	return list
}

func joined(words []string) string {
	s := ""
	for i, w := range words {
		if i > 0 {
			s += ", "
		}
		s += w
	}
	return s
}

// admitted looks for calls that the rules of the service called never let in.
func (c *checker) admitted(e *edge) {
	if e.via != "" || e.l.Config.Identity.TrustDomain == "" || e.l.Config.Policy(e.to).Transport != config.TransportMTLS {
		return
	}
	id, err := mtls.ParseID(e.l.Config.Identity.ExpectedID(e.l.Config.Identity.TrustDomain, "", e.from))
	if err != nil {
		return
	}
	for _, callee := range c.byService[e.to] {
		if callee.Config.Inbound.MTLS == config.MTLSOff {
			continue
		}
		if p, err := authz.Compile(callee.Config.Authorization); err == nil && !p.MayEver(id) && callee.Config.Authorization.Mode == guard.Enforce {
			c.say(callee, "authorization.rules", "never-admitted", Error, fmt.Sprintf("add a rule from %s, or take %s out of the upstreams of %s", id, e.to, e.from),
				"%s calls %s, whose rules let nothing in from %s", e.from, e.to, id)
		}
	}
}
