// Package orca turns the load that endpoints report with their responses (ORCA) into weights for balancing.
package orca

import (
	"fmt"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Config says what is made of the load that endpoints report, as in gRPC's
// client-side weighted round robin (gRFC A58). An endpoint's weight is its
// requests per second divided by its utilization, the application's own measure
// where there is one, else that of the CPU.
type Config struct {
	// Mode is enforce (default) or observe: weights are computed and shown, but
	// those of the catalog hold.
	Mode guard.Mode `yaml:"mode"`
	// BlackoutPeriod is how long an endpoint must have reported before its reports
	// count, as the first ones say little. Default 10s (gRFC A58).
	BlackoutPeriod time.Duration `yaml:"blackout_period"`
	// WeightExpirationPeriod is how long a report counts; an endpoint without one
	// has the mean weight of the others. Default 3m (gRFC A58).
	WeightExpirationPeriod time.Duration `yaml:"weight_expiration_period"`
	// WeightUpdatePeriod is how often new weights take effect, in whole fifths of
	// a second. Default 1s (gRFC A58).
	WeightUpdatePeriod time.Duration `yaml:"weight_update_period"`
	// ErrorUtilizationPenalty is how much utilization it adds when all requests
	// fail (eps / rps). 0: errors do not count. Default 1 (gRFC A58).
	ErrorUtilizationPenalty float64 `yaml:"error_utilization_penalty"`
	// MaxWeightPercent is the most weight, in percent of the median of all that
	// report, that an endpoint can claim, each in relation to its weight in the
	// catalog. It bounds what a wrong report can do. Default 400.
	MaxWeightPercent float64 `yaml:"max_weight_percent"`
	// MinWeightPercent is likewise the least weight that an endpoint keeps, so
	// that it is heard of again. Default 10.
	MinWeightPercent float64 `yaml:"min_weight_percent"`
	// Forward leaves the reports in the responses. Default false: who called this
	// proxy does not see them.
	Forward bool `yaml:"forward"`
}

// Default returns the values of an empty section.
func Default() Config {
	return Config{
		BlackoutPeriod:          10 * time.Second,
		WeightExpirationPeriod:  3 * time.Minute,
		WeightUpdatePeriod:      time.Second,
		ErrorUtilizationPenalty: 1,
		MaxWeightPercent:        400,
		MinWeightPercent:        10,
	}
}

// String says in a few words what c is.
func (c *Config) String() string {
	if c == nil {
		return "off"
	}
	s := fmt.Sprintf("weighted by reported load every %v", c.WeightUpdatePeriod)
	if c.Mode == guard.Observe {
		s += " (observe)"
	}
	return s
}

const (
	leastUpdate = 200 * time.Millisecond
	longest     = time.Hour
)

// Validate calls add once for each mistake, with the YAML name of the field.
func (c Config) Validate(add func(field, problem string)) {
	if c.Mode != guard.Enforce && c.Mode != guard.Observe {
		add("mode", "unknown; use enforce or observe")
	}
	if c.BlackoutPeriod < 0 || c.BlackoutPeriod > longest {
		add("blackout_period", "must be between 0 and 1h")
	}
	if c.WeightUpdatePeriod < leastUpdate || c.WeightUpdatePeriod > longest {
		add("weight_update_period", "must be between 200ms and 1h")
	}
	switch {
	case c.WeightExpirationPeriod < time.Second || c.WeightExpirationPeriod > 24*longest:
		add("weight_expiration_period", "must be between 1s and 24h")
	case c.WeightExpirationPeriod < c.WeightUpdatePeriod:
		add("weight_expiration_period", "is shorter than weight_update_period, so reports could expire unheard")
	}
	if !within(c.ErrorUtilizationPenalty, 0, 100) {
		add("error_utilization_penalty", "must be between 0 (errors do not count) and 100")
	}
	if !within(c.MaxWeightPercent, 100, 1000) {
		add("max_weight_percent", "must be between 100 (nobody above the median) and 1000")
	}
	if !within(c.MinWeightPercent, 1, 100) {
		add("min_weight_percent", "must be between 1 and 100; an endpoint without requests could not report any more")
	}
}

// within also refuses NaN.
func within(v, least, most float64) bool { return v >= least && v <= most }
