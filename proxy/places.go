package proxy

import (
	"maps"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// placeView fills in where an endpoint is and what the catalog says of it.
func placeView(e *upstream.EndpointState, v *admin.EndpointView) {
	if c := e.Caution; c != nil {
		v.Caution = &admin.CautionView{
			Mode: c.Mode.String(), SharePercent: 100 * c.Share, FailedPercent: 100 * c.Failed, LatencyMs: c.Latency.Seconds() * 1000,
		}
	}
	v.Draining, v.Region, v.Zone, v.Priority = e.Spec.Draining, e.Spec.Region, e.Spec.Zone, e.Spec.Priority
	if e.Spec.Labels != "" {
		v.Metadata = maps.Collect(e.Spec.Labels.All())
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

func shareViews(list []balance.TierState) (views []admin.ShareView) {
	for _, t := range list {
		views = append(views, admin.ShareView{Priority: t.Level, Place: t.Far.String(), Available: t.Members, Percent: 100 * t.Share})
	}
	return views
}
