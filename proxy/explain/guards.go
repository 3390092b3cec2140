package explain

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// guards fills in what stands between the request and an endpoint beside its
// breaker: whose turn it has, who holds it back, which faults it may meet.
func (e *explainer) guards(d *admin.DestinationView, route *plan.Route, st *upstream.ClusterState) {
	d.Shares = Shares(st.Tiers)
	tcp := e.l.Protocol == plan.TCP
	if g := route.Gate; g != nil && !tcp {
		s := g.State(e.Now)
		s.Route = route.Name
		d.Gates = append(d.Gates, Gate(&s))
	}
	if s := route.Cluster.Gate.State(e.Now); s.Bounds() {
		d.Gates = append(d.Gates, Gate(&s))
	}
	if len(d.Gates) > 0 {
		if tcp {
			d.Priority = route.PriorityOfConn(e.id).String()
		} else {
			d.Priority = route.PriorityOf(e.id, &e.req, e.raw).String()
		}
	}
	for i := range d.Gates {
		if g := &d.Gates[i]; shut(g) && g.Queue != nil {
			d.WaitMs += g.Queue.MaxWaitMs
		}
	}
	throttle, of := route.Cluster.Throttle(), ""
	if route.Throttle != nil {
		throttle, of = route.Throttle, route.Throttle.Route
	}
	if throttle != nil {
		v := Admission(&upstream.AdmissionState{Snapshot: throttle.Snapshot(e.Now), Route: of})
		d.Admission = &v
	}
	d.Faults = e.faults(route)
}

// aborts is the status with which a fault that all attempts meet answers in the
// endpoint's place; 0 where chance decides, or nothing does.
func (e *explainer) aborts(route *plan.Route) int {
	for _, f := range e.Faults {
		if e.meets(f, route) {
			if c := &f.Config; c.Percent >= 100 && c.Delay == "" && f.Endpoint == "" {
				return c.Abort
			}
			return 0
		}
	}
	return 0
}

// meets reports whether an attempt at some endpoint of the route may meet f.
func (e *explainer) meets(f *plan.Fault, route *plan.Route) bool {
	tcp := e.l.Protocol == plan.TCP
	caller := ""
	if !e.id.IsZero() {
		caller = e.id.String()
	}
	switch {
	case f.Cluster != route.Cluster.Name() || f.Direction != e.l.Direction || !f.Concerns(route.Name, f.Endpoint, caller):
		return false
	case tcp && f.OnlyHTTP, !tcp && !f.Meets(&e.req, e.raw):
		return false
	case f.Config.AbortGRPC != "":
		return !tcp && plan.IsGRPC(&e.req, e.raw)
	}
	return !tcp || f.Config.Abort == 0
}

// faults are those that an attempt may meet. Behind one that all of them meet
// there are no others.
func (e *explainer) faults(route *plan.Route) (list []admin.FaultMatch) {
	for _, f := range e.Faults {
		if !e.meets(f, route) {
			continue
		}
		list = append(list, admin.FaultMatch{Name: f.Name, Does: f.Config.Words(), Percent: f.Config.Percent, Endpoint: f.Endpoint})
		if f.Config.Percent >= 100 && f.Endpoint == "" {
			break
		}
	}
	return list
}

// hedged says how the request would be hedged; nil where it is not.
func (e *explainer) hedged(route *plan.Route, pol *upstream.Policy, grpc bool) *admin.HedgeMatch {
	h := pol.Hedge
	if h == nil || e.l.Protocol == plan.TCP || e.req.Upgrade || !h.Hedges(e.req.Method.Idempotent(), 1) {
		return nil
	}
	l := route.Cluster.Latencies()
	var method *hedge.Latency
	if grpc {
		method = l.Method(balance.KeyOf(e.req.Path.Of(e.raw)))
	}
	v := &admin.HedgeMatch{Mode: h.Mode.String(), Extra: h.MaxAttempts - 1}
	if d, ok := h.Wait(e.Now, method, route.Latency, &l.All); ok {
		v.DelayMs = millis(d)
	}
	return v
}

// shut reports whether who comes now is not let in at once.
func shut(g *admin.GateView) bool {
	return g.Most > 0 && g.Active >= g.Most || g.Queue != nil && g.Queue.Waiting > 0
}

// refuses reports whether one of the gates refuses who comes now.
func refuses(gates []admin.GateView) bool {
	for i := range gates {
		if g := &gates[i]; g.Queue == nil && shut(g) {
			return true
		}
	}
	return false
}

// longestWait is how long a request may wait at all gates together.
func longestWait(gates []admin.GateView) time.Duration {
	total := 0.0
	for i := range gates {
		if g := &gates[i]; g.Queue != nil && g.Most > 0 {
			total += g.Queue.MaxWaitMs
		}
	}
	return time.Duration(total * float64(time.Millisecond))
}

// breakers says whose breaker b is, of those in st.
func breakers(d *admin.DestinationView, b *upstream.BreakerState, st *upstream.ClusterState) {
	d.Breaker = b.State.String()
	switch b.Scope {
	case breaker.ScopeRoute:
		d.BreakerOf = "of the route " + b.Of
	case breaker.ScopeEndpoint:
		d.Breakers = len(st.Breakers)
		for i := range st.Breakers {
			if st.Breakers[i].State == breaker.Open {
				d.BreakersOpen++
			}
		}
	}
}
