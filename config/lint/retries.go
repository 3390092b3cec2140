package lint

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// What is worth a finding: more attempts at the end of a chain than this for one
// request, and more load in a lasting failure than this.
const (
	manyAttempts = 9
	muchLoad     = 1.5
	deepest      = 16 // services in a chain
)

// attempts looks at whether all attempts of an edge can be made.
func (c *checker) attempts(e *edge) {
	if e.tries() <= 1 || e.tcp {
		return
	}
	each := e.retry.PerTryTimeout
	if e.timeout == 0 || each == 0 {
		return
	}
	fit := int(e.timeout / each)
	if e.timeout%each > 0 {
		fit++
	}
	if fit < e.tries() {
		c.say(e.l, e.at("timeout"), "attempts-do-not-fit", Warning, fmt.Sprintf("raise the timeout to %s or more, or lower attempts to %d", time.Duration(e.tries())*each, max(fit, 1)),
			"%s allows %d attempts of %s each, of which %s in all leave time for %d", e.name(), e.tries(), each, e.timeout, fit)
	}
}

// repeats looks for requests that are made twice although they must not be.
func (c *checker) repeats(e *edge) {
	if e.tries() <= 1 || e.tcp || e.via != "" && slices.ContainsFunc(e.l.Config.Outbound.Upstreams, func(u config.Upstream) bool { return u.Service == e.to }) {
		return // said of the upstream: a route changes neither
	}
	if e.retry.NonIdempotent {
		c.say(e.l, e.at("retry.non_idempotent"), "repeats-non-idempotent", Warning, "turn it off, or limit it to a route whose methods may be repeated",
			"%s tries POST and other methods again that an endpoint may have processed: it may do the work twice", e.name())
	}
	if list := e.retry.GRPCStatuses; len(list) > 0 && e.l.Config.ServiceProtocol(e.to) == config.ProtocolGRPC {
		c.say(e.l, e.at("retry.grpc_statuses"), "repeats-non-idempotent", Note, "move it to routes of methods that may be repeated",
			"%s tries every method again that ends with %v, whatever it does", e.name(), list)
	}
}

// late looks for hedges that no attempt waits for.
func (c *checker) late(e *edge) {
	h := e.hedge
	if h == nil || e.tcp {
		return
	}
	if p := e.retry; p != nil && p.PerTryTimeout > 0 && p.Mode == guard.Enforce && max(h.Delay, h.MinDelay) >= p.PerTryTimeout {
		key := "hedge.delay"
		if h.MinDelay > h.Delay {
			key = "hedge.min_delay"
		}
		c.say(e.l, e.at(key), "guard-never-acts", Note, fmt.Sprintf("lower it well below the per_try_timeout of %s", p.PerTryTimeout),
			"%s never hedges: an attempt has ended after %s, and the other would begin after %s", e.name(), p.PerTryTimeout, max(h.Delay, h.MinDelay))
	}
	if n, known := c.Instances[e.to]; known && n == 1 {
		c.say(e.l, e.at("hedge"), "guard-never-acts", Note, "write hedge: off, or have more instances", "%s never hedges: %s has 1 instance, and a hedge goes to another", e.name(), e.to)
	}
}

// inverted looks for callers that give up before those they call can have made
// their own attempts.
func (c *checker) inverted(e *edge) {
	if e.timeout == 0 || e.tcp {
		return
	}
	for _, callee := range c.byService[e.to] {
		next := edgesOf(callee)
		for i := range next {
			n := &next[i]
			if n.tcp {
				continue
			}
			switch t, bounded := n.longest(); {
			case !bounded && n.tries() > 1:
				c.say(e.l, e.at("timeout"), "timeout-inverted", Note, fmt.Sprintf("give %s a timeout below %s in %s", n.name(), e.timeout, callee.File),
					"%s ends after %s, but %s may take any time: its work goes on for nobody unless the application passes the deadline on", e.name(), e.timeout, n.name())
			case t > e.timeout:
				c.say(e.l, e.at("timeout"), "timeout-inverted", Warning, fmt.Sprintf("raise it above %s, or lower that of %s at %s", t, n.name(), callee.Problem(n.at("timeout"), "").Position),
					"%s ends after %s, before %s, which may take %s with %d attempts, has given up", e.name(), e.timeout, n.name(), t, n.tries())
			}
		}
	}
}

// amplified follows every chain of calls from l and multiplies the attempts.
func (c *checker) amplified(l *config.Loaded) {
	told := map[string]bool{}
	edges := edgesOf(l)
	for i := range edges {
		c.chain([]*edge{&edges[i]}, told)
	}
}

// chain looks at the calls so far and at those that may follow.
func (c *checker) chain(way []*edge, told map[string]bool) {
	last := way[len(way)-1]
	if last.tcp || len(way) > deepest || slices.ContainsFunc(way[:len(way)-1], func(e *edge) bool { return e.from == last.to }) {
		return
	}
	words, factors := []string{way[0].from}, []string{}
	for _, e := range way {
		words = append(words, e.to)
		factors = append(factors, fmt.Sprint(e.tries()))
	}
	chain := strings.Join(words, " -> ")
	attempts, load := multiplied(way, false)
	kept, keptLoad := multiplied(way, true)
	if len(way) > 1 && !told[chain] && (attempts >= manyAttempts || load > muchLoad) {
		told[chain] = true
		s, more := Note, ""
		if keptLoad > muchLoad {
			s = Warning
		}
		remedy := "try again at one layer only, next to the caller or next to the failure: retry: off, or fewer attempts, at the others"
		if kept < attempts {
			more = fmt.Sprintf("; with retry.layer: outermost it is %d and %.2f times, where each application passes x-outrigger-retries on to those that it calls", kept, keptLoad)
			if kept < manyAttempts && keptLoad <= muchLoad {
				remedy = fmt.Sprintf("see to it that %s passes x-outrigger-retries on (docs/guards.md), or try again at one layer only: retry: off at the others", strings.Join(words[1:len(words)-1], " and "))
			}
		}
		c.say(way[0].l, way[0].at("retry.attempts"), "retry-amplification", s, remedy,
			"%s: one request may become %s = %d at %s, and a failure of %s that lasts raises its load %.2f times by the budgets%s", chain, strings.Join(factors, " x "), attempts, last.to, last.to, load, more)
	}
	for _, l := range c.byService[last.to] {
		next := edgesOf(l)
		for i := range next {
			c.chain(append(slices.Clone(way), &next[i]), told)
		}
	}
}

// multiplied is what the attempts along a way come to at its end, and how many
// times the load in a failure that lasts, which budgets bound. With outermost
// those are left out that are not made where a sidecar before repeats the request
// and each application passes on that it does.
func multiplied(way []*edge, outermost bool) (attempts int, load float64) {
	attempts, load = 1, 1
	above := false
	for _, e := range way {
		n := e.tries()
		repeats := n > 1
		if outermost && above && repeats && e.retry.Layer == retry.Outermost {
			repeats = false
		}
		if repeats {
			attempts *= n
			load *= 1 + min(e.retry.BudgetPercent/100, float64(n-1))
		}
		above = (above || n > 1) && e.mtls
	}
	return attempts, load
}
