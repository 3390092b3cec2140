package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/report"
)

// TestPlansFit holds the two forms to the time that they may take.
func TestPlansFit(t *testing.T) {
	for _, tt := range []struct {
		args  []string
		under time.Duration
	}{
		{nil, 30 * time.Minute},
		{[]string{"-quick"}, 270 * time.Second},
	} {
		o, err := parseOptions(tt.args, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		var subjects []subject
		for _, s := range allSubjects(o, t.Logf) {
			if len(o.subjects) == 0 || strings.Contains(strings.Join(o.subjects, ",")+",", s.name()+",") {
				subjects = append(subjects, s)
			}
		}
		var sum time.Duration
		plans := o.plans(subjects)
		for _, p := range plans {
			if p.time <= 0 {
				t.Errorf("%v: %+v", tt.args, p)
			}
			sum += p.time
		}
		if sum > tt.under || sum < tt.under/2 || len(plans) != len(o.scenarios) {
			t.Errorf("%v: %v for %d scenarios, want at most %v", tt.args, sum, len(plans), tt.under)
		}
		if text := describePlans(plans); !strings.HasPrefix(text, "about "+sum.Round(time.Second).String()) || !strings.Contains(text, report.MeshHop) {
			t.Errorf("%s", text)
		}
	}
}

// TestPlanFollowsTheSlices holds that what is measured is what is planned for.
func TestPlanFollowsTheSlices(t *testing.T) {
	o := &options{slices: 2, seconds: 1, scenarios: []string{report.WebSocket}}
	got := o.plans([]subject{&reverseProxy{}, &outrigger{}})
	// Two subjects: start, half a slice to settle; warm-up and half a slice not measured; two slices with a warm-up each.
	want := startTime + 2*(startTime+500*time.Millisecond) + 2*(200+500+2*1200)*time.Millisecond
	if len(got) != 1 || got[0].time != want {
		t.Errorf("got %+v, want %v", got, want)
	}
}
