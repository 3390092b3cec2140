package explain

import (
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// goTo describes each place that the route leads to. Where it is one, what would
// happen there decides about the whole.
func (e *explainer) goTo(route *plan.Route) {
	if len(route.Split) == 0 {
		d, r := e.destination(route, 100)
		if r != outcome.OK {
			e.end(r, "")
		}
		if r == outcome.FaultInjected {
			e.view.Detail, e.view.Status = d.Faults[0].Name+", "+d.Faults[0].Does, e.aborts(route)
		}
		e.view.Destinations = append(e.view.Destinations, d)
		return
	}
	below := uint32(0)
	for _, s := range route.Split {
		d, _ := e.destination(s.Route, float64(s.Below-below)*100/plan.Parts)
		e.view.Destinations = append(e.view.Destinations, d)
		below = s.Below
	}
}

// destination describes one place, and why nobody there would be asked now.
func (e *explainer) destination(route *plan.Route, percent float64) (admin.DestinationView, outcome.Reason) {
	c := route.Cluster
	pol := route.Policy
	if pol == nil {
		pol = c.Policy()
	}
	st := c.State(e.Now)
	part, within := within(route.Subset, &st)
	d := admin.DestinationView{
		Cluster: c.Name(), Percent: percent, Transport: "plaintext", Identities: st.Spec.Identities,
		Balance: st.Balance.Summary() + part, Endpoints: []admin.EndpointView{}, Usable: st.Available, Panicking: st.Panicking, Active: st.Requests,
	}
	if e.only.IsValid() {
		d.Balance = "the one that was dialled"
	}
	if st.Spec.TLS != nil {
		d.Transport = "mTLS"
	}
	for _, v := range e.Endpoints {
		if e.only.IsValid() && v.Address != e.only.String() {
			continue
		}
		if v.Cluster == c.Name() && c.Direction() == e.l.Direction && !v.Absent && within(&v) {
			d.Endpoints = append(d.Endpoints, v)
		}
	}
	d.Failover = Failover(st.Failover)
	broken := st.BreakerFor(route.Breaker)
	if broken != nil {
		breakers(&d, broken, &st)
	}
	if c.Budget() != nil && e.Live {
		d.Budget = &st.Budget
	}
	e.guards(&d, route, &st)
	r := e.standsInTheWay(&st, &d, broken)
	if r == outcome.OK && e.aborts(route) != 0 {
		r = outcome.FaultInjected
	}
	if r != outcome.OK {
		d.Reason = r.String()
	}
	e.worst(&d, route, pol)
	d.Settings = e.inForce(route)
	return d, r
}

// standsInTheWay is why no endpoint would be asked at this moment.
func (e *explainer) standsInTheWay(st *upstream.ClusterState, d *admin.DestinationView, b *upstream.BreakerState) outcome.Reason {
	switch {
	case refuses(d.Gates):
		return outcome.LimitRequests
	case b != nil && b.State == breaker.Open && b.Mode == guard.Enforce && b.Until > e.Now:
		return outcome.BreakerOpen
	case st.Available == 0 && !inUse(st.Failover):
		return outcome.NoEndpoints
	}
	return outcome.OK
}

// worst says how many attempts there are at most, and how long they take.
func (e *explainer) worst(d *admin.DestinationView, route *plan.Route, pol *upstream.Policy) {
	tcp := e.l.Protocol == plan.TCP
	grpc := !tcp && plan.IsGRPC(&e.req, e.raw)
	d.Attempts, d.Processed = 1, 1
	if p := pol.Retry; p != nil && p.Mode != guard.Observe {
		d.Attempts = max(p.Attempts, 1)
		if !tcp && (e.req.Method.Idempotent() || p.NonIdempotent || len(p.Statuses) > 0 || grpc && len(p.GRPCStatuses) > 0) {
			d.Processed = d.Attempts
		}
		if d.CallerRepeats = !tcp && p.Attempts > 1 && p.Layer == retry.Outermost && e.Hops.CallerRepeats(&e.req, e.raw, e.l.Direction, !e.id.IsZero(), e.Now); d.CallerRepeats {
			d.Processed = 1
		}
	}
	// Hedges run beside the attempts: they take no time of their own.
	most := d.Attempts
	if d.Hedge = e.hedged(route, pol, grpc); d.Hedge != nil && pol.Hedge.Mode != guard.Observe {
		d.Attempts += d.Hedge.Extra
		d.Processed += d.Hedge.Extra
	}
	queued := longestWait(d.Gates)
	before := ""
	if queued > 0 {
		before = "max_wait in the queue, "
	}
	shortest := func(t time.Duration, by string) {
		if v := float64(t) / float64(time.Millisecond); t > 0 && (d.WorstMs == 0 || v < d.WorstMs) {
			d.WorstMs, d.WorstBy = v, by
		}
	}
	if tcp {
		shortest(queued+e.attempts(pol, most, 0), before+"connect_timeout for each attempt, and the waits between them")
		return
	}
	shortest(pol.Timeout, "timeout")
	if t, ok := exchange.CallerDeadline(&e.req, e.raw); ok {
		shortest(t, "the caller's x-outrigger-deadline")
	}
	if t, ok := exchange.GRPCTimeout(&e.req, e.raw); ok && grpc {
		shortest(t, "the caller's grpc-timeout")
	}
	if p := pol.Retry; p != nil && p.PerTryTimeout > 0 {
		shortest(queued+e.attempts(pol, most, p.PerTryTimeout), before+"per_try_timeout for each attempt, and the waits between them")
	}
	if pol.StreamIdle > 0 {
		shortest(queued+e.attempts(pol, most, pol.StreamIdle), before+"stream_idle_timeout for each attempt, and the waits between them")
	}
}

// attempts is how long n attempts take at most of which each may take so long
// behind its connection.
func (e *explainer) attempts(pol *upstream.Policy, n int, each time.Duration) time.Duration {
	total := time.Duration(n) * (pol.ConnectTimeout + each)
	for i := 1; i < n; i++ {
		total += pol.Retry.MostWait(i)
	}
	return total
}

// told are the settings that are told always; others where they are no defaults.
func told() []string {
	return []string{
		"timeout", "stream_idle_timeout", "connect_timeout", "retry.attempts", "retry.per_try_timeout", "retry.on",
		"outlier.consecutive_failures", "breaker.failure_percent",
	}
}

// inForce are the settings that decide, each with its origin.
func (e *explainer) inForce(route *plan.Route) []admin.SettingView {
	base := "inbound"
	if e.l.Direction == telemetry.Outbound {
		base = config.PolicyPath(route.Cluster.Name())
	}
	list := []admin.SettingView{}
	add := func(key string, always bool) {
		s, ok := e.settings.Deciding(key, route.Path, base)
		v := admin.SettingView(s)
		if ok && (always || s.Origin != "default") && !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	for _, key := range told() {
		add(key, true)
	}
	var rest []string
	for path := range e.settings {
		for _, from := range []string{base + ".", route.Path + "."} {
			if key, ok := strings.CutPrefix(path, from); ok && from != "." && policyKey(key) {
				rest = append(rest, key)
			}
		}
	}
	slices.Sort(rest)
	for _, key := range slices.Compact(rest) {
		add(key, false)
	}
	return list
}

// policyKey reports whether a key of an inbound section or a route is about how
// endpoints are called, as all keys of a policy are.
func policyKey(key string) bool {
	section, _, _ := strings.Cut(key, ".")
	section, _, _ = strings.Cut(section, "[")
	return !slices.Contains([]string{"match", "to", "split", "name", "routes", "listen", "mtls", "protocol", "unmatched", "respond", "rewrite", "rate_limits"}, section)
}
