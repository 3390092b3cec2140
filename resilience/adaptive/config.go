// Package adaptive finds how many requests a destination can work on at a time, from how long they take.
package adaptive

import (
	"fmt"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Config says how the limit follows what requests take. It compares what they
// take now with a baseline, what they take where nobody waits for another: while
// the two are alike the limit rises, and it falls as they part.
type Config struct {
	// Mode says whether the limit is enforced (enforce, the default) or only
	// shown, with a count of what it would have refused (observe). With a
	// percentage, such as 25%, it is enforced for so many of the exchanges.
	Mode guard.Mode `yaml:"mode"`
	// MinLimit is the lowest limit, at least 1. Default 3.
	MinLimit int64 `yaml:"min_limit"`
	// MaxLimit is the highest limit, at most 100000. Default 1000.
	MaxLimit int64 `yaml:"max_limit"`
	// Percentile is which of the times in an interval stands for all, 10 to 99. The median (50, default) does not
	// mind a few requests that take long by nature.
	Percentile float64 `yaml:"percentile"`
	// TolerancePercent is by how much requests may take longer than the baseline before the limit falls, 1 to 500.
	// Default 10. More for services whose times vary much by themselves.
	TolerancePercent float64 `yaml:"tolerance_percent"`
	// Allowance is how many requests may wait in the destination for the others there: room to find out whether it
	// can bear more. 0 (default): the square root of the limit.
	Allowance float64 `yaml:"allowance"`
	// Interval is how often the limit is judged, where at least 20 requests have ended. At least 10ms. Default 100ms.
	Interval time.Duration `yaml:"interval"`
	// Relearn is after how long without a lull the baseline is learnt anew: the limit is lowered by a quarter, at most
	// a half, for the time of a few requests, so that nobody waits in the destination. More often at first and after a
	// change. At least 1s. Default 15s.
	Relearn time.Duration `yaml:"relearn"`
}

// Default returns the defaults given at each field of Config.
func Default() Config {
	return Config{
		MinLimit: 3, MaxLimit: 1000, Percentile: 50, TolerancePercent: 10, Interval: 100 * time.Millisecond, Relearn: 15 * time.Second,
	}
}

// highest is the largest MaxLimit.
const highest = 100_000

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if !c.Mode.Known() {
		add("mode", guard.Unknown)
	}
	switch {
	case c.MinLimit < 1:
		add("min_limit", fmt.Sprintf("is %d; at least one request must be possible", c.MinLimit))
	case c.MinLimit > c.MaxLimit:
		add("min_limit", fmt.Sprintf("is %d, above max_limit (%d)", c.MinLimit, c.MaxLimit))
	}
	if c.MaxLimit > highest {
		add("max_limit", fmt.Sprintf("is %d; write at most %d", c.MaxLimit, highest))
	}
	if !(c.Percentile >= 10 && c.Percentile <= 99) {
		add("percentile", "must be from 10 to 99, such as 50 for the median")
	}
	if !(c.TolerancePercent >= 1 && c.TolerancePercent <= 500) {
		add("tolerance_percent", "must be from 1 to 500; without any the limit would fall by chance")
	}
	if !(c.Allowance >= 0 && c.Allowance <= highest) {
		add("allowance", "must not be negative; 0 means the square root of the limit")
	}
	if c.Interval < 10*time.Millisecond || c.Interval > 10*time.Second {
		add("interval", "must be from 10ms to 10s, such as 100ms")
	}
	if c.Relearn < time.Second {
		add("relearn", "must be at least 1s, such as 15s: lowering the limit so often would cost much of it")
	}
}
