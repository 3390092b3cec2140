// Package outlier ejects the endpoints of a cluster that fail more than their peers or their limits, and lets them back through one probe.
package outlier

import (
	"math"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Config is one cluster's outlier policy. Default returns the values that
// apply to an empty policy; the zero Config ejects nothing.
type Config struct {
	// Mode is enforce (default) or observe. Observe decides and counts in the
	// same way and reports what it would have ejected, but changes no state.
	Mode guard.Mode `yaml:"mode" enum:"enforce,observe"`

	// ConsecutiveFailures ejects an endpoint after this many failures in a
	// row. 0 turns the rule off. Default 5 (Envoy consecutive_5xx).
	ConsecutiveFailures uint32 `yaml:"consecutive_failures"`

	// SplitOrigins counts failures seen only by this proxy (connect, reset,
	// timeout) apart from error answers of the endpoint, against
	// ConsecutiveLocalFailures. The rules over the window count both kinds
	// either way. Default false (Envoy split_external_local_origin_errors).
	SplitOrigins bool `yaml:"split_origins"`

	// ConsecutiveLocalFailures ejects an endpoint after this many local
	// failures in a row; used only with SplitOrigins. 0 turns the rule off.
	// Default 5 (Envoy consecutive_local_origin_failure).
	ConsecutiveLocalFailures uint32 `yaml:"consecutive_local_failures"`

	// Window is the time over which the percentage and success-rate rules
	// look back. It moves in tenths. It is also the healthy time that undoes
	// one doubling of the next ejection, and the time after which a probe
	// without a result counts as lost. Default 10s.
	Window time.Duration `yaml:"window"`

	// MinimumRequests is how many results of one endpoint the window must
	// hold before the percentage and success-rate rules judge it. Default 20.
	MinimumRequests uint32 `yaml:"minimum_requests"`

	// FailurePercent ejects an endpoint when at least this share of its
	// results in the window failed. 0 turns the rule off. Default 20.
	FailurePercent float64 `yaml:"failure_percent"`

	// SuccessRateStdev ejects an endpoint whose success rate in the window is
	// below the mean of its cluster minus this many standard deviations.
	// 0 turns the rule off. Default 0; Envoy uses 1.9 (success_rate_stdev_factor 1900).
	SuccessRateStdev float64 `yaml:"success_rate_stdev"`

	// SuccessRateMinimumEndpoints is how many endpoints must have
	// MinimumRequests results before the success-rate rule applies.
	// Default 5 (Envoy success_rate_minimum_hosts).
	SuccessRateMinimumEndpoints uint32 `yaml:"success_rate_minimum_endpoints"`

	// BaseEjection is how long the first ejection lasts; each further one in
	// short order lasts twice as long as the one before. Default 1s.
	BaseEjection time.Duration `yaml:"base_ejection"`

	// MaxEjection caps that growth, before jitter. Default 60s.
	MaxEjection time.Duration `yaml:"max_ejection"`

	// Jitter lengthens each ejection by a uniformly random share of its time
	// between 0 and this, so that endpoints ejected together do not return
	// together. 0 to 1. Default 0.5.
	Jitter float64 `yaml:"jitter"`

	// MaxEjectedPercent is the share of the present endpoints that may be out
	// (ejected or on probation) when another one is to be ejected, rounded
	// down; one is always allowed. Default 30 (Envoy max_ejection_percent is 10).
	MaxEjectedPercent float64 `yaml:"max_ejected_percent"`

	// KeepEndpoints is how many endpoints always stay in: none is ejected
	// that would leave fewer, and when the cluster shrinks, ejected ones are
	// taken back. A cluster of this size or smaller ejects none. Default 2.
	KeepEndpoints uint32 `yaml:"keep_endpoints"`

	// Caution gives endpoints that are worse than their peers, but not so bad
	// that they are ejected, a smaller share of the attempts. off (default): none.
	Caution *Caution `yaml:"caution" off:"true"`
}

// Default returns the policy of a cluster that sets nothing.
func Default() Config {
	return Config{
		ConsecutiveFailures:         5,
		ConsecutiveLocalFailures:    5,
		Window:                      10 * time.Second,
		MinimumRequests:             20,
		FailurePercent:              20,
		SuccessRateMinimumEndpoints: 5,
		BaseEjection:                time.Second,
		MaxEjection:                 time.Minute,
		Jitter:                      0.5,
		MaxEjectedPercent:           30,
		KeepEndpoints:               2,
	}
}

const (
	minWindow = 100 * time.Millisecond
	maxWindow = time.Hour
)

// Validate calls add once for each mistake, with the YAML name of the field.
func (c Config) Validate(add func(field, problem string)) {
	if c.Mode != guard.Enforce && c.Mode != guard.Observe {
		add("mode", guard.NotPartial)
	}
	if c.Window < minWindow || c.Window > maxWindow {
		add("window", "must be between 100ms and 1h")
	}
	if c.MinimumRequests == 0 {
		add("minimum_requests", "must be at least 1")
	}
	if !within(c.FailurePercent, 0, 100) {
		add("failure_percent", "must be between 0 (off) and 100")
	}
	if !within(c.SuccessRateStdev, 0, 100) {
		add("success_rate_stdev", "must be between 0 (off) and 100")
	}
	if c.SuccessRateStdev > 0 && c.SuccessRateMinimumEndpoints < 2 {
		add("success_rate_minimum_endpoints", "must be at least 2, an endpoint is compared with its peers")
	}
	if c.BaseEjection < time.Millisecond || c.BaseEjection > 24*time.Hour {
		add("base_ejection", "must be between 1ms and 24h")
	}
	if c.MaxEjection < c.BaseEjection || c.MaxEjection > 24*time.Hour {
		add("max_ejection", "must be between base_ejection and 24h")
	}
	if !within(c.Jitter, 0, 1) {
		add("jitter", "must be between 0 and 1")
	}
	if !within(c.MaxEjectedPercent, 0, 100) || c.MaxEjectedPercent == 0 {
		add("max_ejected_percent", "must be above 0 and at most 100; to eject none use mode: observe")
	}
}

// within is false for NaN.
func within(x, low, high float64) bool { return x >= low && x <= high }

// settings is a Config made ready for Observe and Sweep. Immutable.
type settings struct {
	Config
	tick time.Duration // one bucket of the window
	gen  uint8         // changes with tick, so that buckets of another length are not read
}

// compile brings values that Validate would refuse into a range in which the
// arithmetic holds.
func compile(c Config, gen uint8) *settings {
	c.Window = min(max(c.Window, minWindow), maxWindow)
	c.MinimumRequests = max(c.MinimumRequests, 1)
	c.BaseEjection = max(c.BaseEjection, time.Millisecond)
	c.MaxEjection = max(c.MaxEjection, c.BaseEjection)
	c.FailurePercent = clamp(c.FailurePercent, 100)
	c.SuccessRateStdev = clamp(c.SuccessRateStdev, 100)
	c.Jitter = clamp(c.Jitter, 1)
	c.MaxEjectedPercent = clamp(c.MaxEjectedPercent, 100)
	return &settings{Config: c, tick: c.Window / buckets, gen: gen}
}

func clamp(x, high float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return min(max(x, 0), high)
}
