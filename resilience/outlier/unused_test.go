package outlier

import (
	"testing"
	"time"
)

// Nothing is decided about endpoints that were never used, whatever the rules, so a
// Sweep of them may be left out.
func TestSweepOfUnusedEndpointsDecidesNothing(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"default":  func(*Config) {},
		"failures": func(c *Config) { c.FailurePercent, c.MinimumRequests = 1, 1 },
		"success":  func(c *Config) { c.SuccessRateStdev, c.MinimumRequests, c.SuccessRateMinimumEndpoints = 0.1, 1, 1 },
		"keep all": func(c *Config) { c.KeepEndpoints = 10 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Default()
			change(&cfg)
			d := New(cfg)
			all := []*Endpoint{{}, {}, {}}
			for now := time.Duration(0); now < time.Hour; now += cfg.Window / 3 {
				if events := d.Sweep(now, uint64(now), all); len(events) > 0 || d.Out() != 0 {
					t.Fatalf("at %v: %v, %d out", now, events, d.Out())
				}
			}
			for i, e := range all {
				if e.Used() || e.State() != Healthy || len(e.Evidence(time.Hour).Recent) != 0 {
					t.Errorf("endpoint %d: used %v, %v", i, e.Used(), e.State())
				}
			}
			d.Observe(all[0], time.Hour, Success, 200)
			if !all[0].Used() || all[1].Used() {
				t.Error("the one that was used is not the one that was used")
			}
		})
	}
}
