package proxy

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/orca"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// TestReportedView: what endpoints report is shown as it stands, with an age only
// where there is a report.
func TestReportedView(t *testing.T) {
	e := upstream.EndpointState{Reported: &upstream.ReportState{State: orca.Counted, Factor: 1.5, Age: 2 * time.Second}}
	var v admin.EndpointView
	placeView(&e, &v)
	if r := v.Reported; r == nil || r.State != "counted" || r.Mode != "enforce" || r.WeightPercent != 150 || r.AgeMs == nil || *r.AgeMs != 2000 {
		t.Errorf("%+v", r)
	}
	e.Reported = &upstream.ReportState{Factor: 1, Age: -1}
	placeView(&e, &v)
	if r := v.Reported; r.State != "silent" || r.AgeMs != nil {
		t.Errorf("%+v", r)
	}
}
