package explain

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// Gate is what the admin API shows of a limit on active requests.
func Gate(g *upstream.GateState) admin.GateView {
	v := admin.GateView{Route: g.Route, Most: g.Most, WouldMost: g.Would, Active: g.Active, Rejected: g.Refused}
	if q := g.Queue; q != nil {
		v.Queue = &admin.QueueView{Waiting: g.Waiting, Size: q.Size, OldestMs: millis(g.Delay), MaxWaitMs: millis(q.MaxWait), Standing: g.Standing}
	}
	if a := g.Adaptive; a != nil {
		v.Adaptive = &admin.AdaptiveView{Mode: a.Mode.String(), Limit: a.Limit, BaselineMs: millis(a.Baseline), LatencyMs: millis(a.Latency), Learning: a.Learning}
	}
	return v
}

// Admission is what it shows of admission control.
func Admission(a *upstream.AdmissionState) admin.AdmissionView {
	return admin.AdmissionView{
		Scope: a.Scope.String(), Route: a.Route, Mode: a.Mode.String(), Requests: a.Requests, Accepts: a.Accepts,
		RejectionPercent: a.Rejection * 100, Rejected: a.Rejected, WouldHaveRejected: a.WouldHaveRejected,
	}
}

// Shares are how it shows that attempts are divided.
func Shares(list []balance.TierState) (views []admin.ShareView) {
	for _, t := range list {
		views = append(views, admin.ShareView{Priority: t.Level, Place: t.Far.String(), Available: t.Members, Percent: 100 * t.Share})
	}
	return views
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
