package proxy

import (
	"maps"

	"github.com/outrigger-mesh/outrigger/proxy/explain"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// placeView fills in where an endpoint is and what the catalog says of it.
func placeView(e *upstream.EndpointState, v *admin.EndpointView) {
	if c := e.Caution; c != nil {
		v.Caution = &admin.CautionView{
			Mode: c.Mode.String(), SharePercent: 100 * c.Share, FailedPercent: 100 * c.Failed, LatencyMs: c.Latency.Seconds() * 1000,
		}
	}
	if r := e.Reported; r != nil {
		v.Reported = &admin.ReportedView{Mode: r.Mode.String(), State: r.State.String(), WeightPercent: 100 * r.Factor}
		if r.Age >= 0 {
			age := r.Age.Milliseconds()
			v.Reported.AgeMs = &age
		}
	}
	v.Draining, v.Region, v.Zone, v.Priority = e.Spec.Draining, e.Spec.Region, e.Spec.Zone, e.Spec.Priority
	if e.Spec.Labels != "" {
		v.Metadata = maps.Collect(e.Spec.Labels.All())
	}
}

// gateViews fills in the limits on active requests, and what became of those who
// had to wait for one. What stands as the cluster's limit is the one in force.
func gateViews(c *upstream.ClusterState, v *admin.ClusterView) {
	for i := range c.Gates {
		g := explain.Gate(&c.Gates[i])
		if g.Route == "" && g.Most > 0 {
			v.Limits.Requests.Max = g.Most
		}
		v.Gates = append(v.Gates, g)
	}
	for _, results := range c.Turns.Results {
		for r, n := range results {
			if n > 0 {
				if v.QueueResults == nil {
					v.QueueResults = map[string]uint64{}
				}
				v.QueueResults[telemetry.QueueResult(r).String()] += n
			}
		}
	}
}

func subsetViews(list []upstream.SubsetState) (views []admin.SubsetView) {
	for i := range list {
		s := &list[i]
		v := admin.SubsetView{
			Name: s.Name, Match: maps.Collect(s.Match.All()), Fallback: "none", Endpoints: s.Endpoints, Available: s.Usable,
			Panic: s.Panicking, FallsBack: s.Fallback, Fallbacks: s.Fallbacks, Refused: s.Refused,
		}
		if s.Any {
			v.Fallback = "any"
		}
		views = append(views, v)
	}
	return views
}
