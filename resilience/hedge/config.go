// Package hedge decides when a second attempt is started beside one that is slow to answer, and learns from latencies after what time that is.
package hedge

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Config is how requests to one destination are hedged. Default returns what
// an empty section means.
type Config struct {
	// Mode is enforce (default) or observe. Observe waits and decides in the same
	// way and counts, but starts nothing and takes nothing from the budget. With a
	// percentage, such as 25%, so many of the exchanges are hedged.
	Mode guard.Mode `yaml:"mode"`

	// Percentile says after what time another attempt is started: when the first
	// has waited longer for its answer than this share of the recent ones did, of
	// the same gRPC method or route where these have been enough, else of the
	// destination. p95 costs up to 5 % more requests. Between p50 and p99.9.
	// Default p95.
	Percentile Percentile `yaml:"percentile"`

	// Delay is a fixed time in place of the percentile. Default 0: the percentile.
	Delay time.Duration `yaml:"delay"`

	// MinDelay is the shortest time, whatever was learnt. Default 1ms.
	MinDelay time.Duration `yaml:"min_delay"`

	// MinSamples is how many answers of the last half minute there must be before
	// anything is learnt from them; it takes five beyond the percentile in any
	// case, 100 for p95. Default 100.
	MinSamples int `yaml:"min_samples"`

	// MaxAttempts is how many attempts a request may have before no other is
	// started beside them, the first and retries included; each waits for as long
	// as the one before did. Between 2 and 4. Default 2.
	MaxAttempts int `yaml:"max_attempts"`

	// NonIdempotent hedges requests whose method is not idempotent (RFC 9110
	// section 9.2.2), gRPC calls among them. Two endpoints may then process one
	// request, so give it to the routes that can bear that. Default false.
	NonIdempotent bool `yaml:"non_idempotent"`

	// NonFatalStatuses are the gRPC statuses that do not end the wait for the
	// other attempts (gRFC A6, nonFatalStatusCodes); with any other the call is
	// answered at once. Default UNAVAILABLE; gRPC's own default is none.
	NonFatalStatuses []retry.GRPCStatus `yaml:"non_fatal_statuses"`
}

// MostAttempts is the most that MaxAttempts may be.
const MostAttempts = 4

// Default returns what an empty section means.
func Default() Config {
	return Config{
		Percentile: 95, MinDelay: time.Millisecond, MinSamples: 100, MaxAttempts: 2,
		NonFatalStatuses: []retry.GRPCStatus{retry.GRPCUnavailable},
	}
}

// Validate calls add once for each mistake, with the YAML name of the field.
func (c Config) Validate(add func(field, problem string)) {
	if !c.Mode.Known() {
		add("mode", guard.Unknown)
	}
	if !(c.Percentile >= least && c.Percentile <= most) {
		add("percentile", "must be between p50 and p99.9")
	}
	if c.Delay < 0 || c.Delay > longest {
		add("delay", "must be between 0, which means the percentile, and 1m")
	}
	if c.MinDelay < 0 || c.MinDelay > longest {
		add("min_delay", "must be between 0 and 1m")
	}
	if c.Delay > 0 && c.Delay < c.MinDelay {
		add("delay", "is below min_delay, so it is never what is waited; lower min_delay")
	}
	if c.MinSamples < 1 || c.MinSamples > 1_000_000 {
		add("min_samples", "must be between 1 and 1000000")
	}
	if c.MaxAttempts < 2 || c.MaxAttempts > MostAttempts {
		add("max_attempts", "must be between 2 and 4; write hedge: off for no second attempt")
	}
	for i, s := range c.NonFatalStatuses {
		field := fmt.Sprintf("non_fatal_statuses[%d]", i)
		switch {
		case s == 0:
			add(field, "is no failure")
		case slices.Contains(c.NonFatalStatuses[:i], s):
			add(field, s.String()+" is listed twice; remove one")
		}
	}
}

const (
	least, most = Percentile(50), Percentile(99.9)
	longest     = time.Minute
)

// Percentile is a share of all values in percent, written p95 or p99.9.
type Percentile float64

// String returns the form used in configuration.
func (p Percentile) String() string { return "p" + strconv.FormatFloat(float64(p), 'f', -1, 64) }

// MarshalText implements encoding.TextMarshaler.
func (p Percentile) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Percentile) UnmarshalText(b []byte) error {
	text, ok := strings.CutPrefix(string(b), "p")
	if !ok || len(text) == 0 || len(text) > len("99.999") || strings.Trim(text, "0123456789.") != "" {
		return fmt.Errorf("%q is no percentile; write p95, p99 or the like", b)
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return fmt.Errorf("%q is no percentile; write p95, p99 or the like", b)
	}
	*p = Percentile(v)
	return nil
}
