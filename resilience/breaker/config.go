// Package breaker stops requests to a cluster that mostly fails, and lets a few through after a while to see whether it recovered.
package breaker

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Config says when a breaker opens and closes.
type Config struct {
	// Mode says whether an open breaker refuses requests (enforce, the
	// default) or only counts what it would have refused (observe). With a
	// percentage, such as 25%, it refuses for so many of the exchanges.
	Mode guard.Mode `yaml:"mode"`
	// Scope is what one breaker stands before: cluster (default), all that goes
	// there; route, what one route sends there; endpoint, one endpoint, which
	// gets no attempts while its breaker is open as long as others do.
	Scope Scope `yaml:"scope"`
	// Window is how far back results count while the breaker is closed. It
	// rolls in tenths. At least 100ms. Default 10s.
	Window time.Duration `yaml:"window"`
	// MinimumRequests is how many results the window must hold before
	// FailurePercent applies. Default 20 (Hystrix requestVolumeThreshold).
	MinimumRequests uint32 `yaml:"minimum_requests"`
	// FailurePercent opens the breaker when at least this percentage of the
	// window's results are failures. 0 switches the rule off. Default 50
	// (Hystrix errorThresholdPercentage).
	FailurePercent float64 `yaml:"failure_percent"`
	// ConsecutiveFailures opens the breaker after so many failures without a
	// success between them. 0 (default) switches the rule off.
	ConsecutiveFailures uint32 `yaml:"consecutive_failures"`
	// OpenFor is how long the breaker stays open before it lets requests
	// through on trial. Default 5s (Hystrix sleepWindow).
	OpenFor time.Duration `yaml:"open_for"`
	// HalfOpenRequests is how many requests are let through on trial. The
	// breaker closes when all of them have succeeded and opens again at the
	// first failure (gobreaker MaxRequests). Default 1.
	HalfOpenRequests uint32 `yaml:"half_open_requests"`
}

// maxHalfOpen bounds the trials a breaker has to remember.
const maxHalfOpen = 1000

// Default returns the defaults given at each field of Config.
func Default() Config {
	return Config{
		Window:           10 * time.Second,
		MinimumRequests:  20,
		FailurePercent:   50,
		OpenFor:          5 * time.Second,
		HalfOpenRequests: 1,
	}
}

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if !c.Mode.Known() {
		add("mode", guard.Unknown)
	}
	if int(c.Scope) >= len(scopes) {
		add("scope", "is unknown; use cluster, route or endpoint")
	}
	if c.Window < 100*time.Millisecond {
		add("window", "must be at least 100ms, such as 10s")
	}
	if c.MinimumRequests == 0 {
		add("minimum_requests", "must be at least 1")
	}
	if !(c.FailurePercent >= 0 && c.FailurePercent <= 100) { // also refuses NaN
		add("failure_percent", "must be between 0 and 100; 0 switches the rule off")
	}
	if c.FailurePercent == 0 && c.ConsecutiveFailures == 0 {
		add("consecutive_failures", "must be above 0 when failure_percent is 0; leave the breaker out to have none")
	}
	if c.OpenFor <= 0 {
		add("open_for", "must be above 0, such as 5s")
	}
	if c.HalfOpenRequests == 0 || c.HalfOpenRequests > maxHalfOpen {
		add("half_open_requests", "must be between 1 and 1000")
	}
}
