// Package balance picks the endpoint for an attempt: by peak-EWMA, least request, weighted round robin or at random, with slow start and a panic rule.
package balance

import (
	"fmt"
	"time"
)

// Algorithm names a way to pick. The zero value is P2CEWMA.
type Algorithm uint8

const (
	// P2CEWMA draws two endpoints and takes the one with the lower
	// peak-EWMA latency x (requests in flight + 1), divided by its weight.
	P2CEWMA Algorithm = iota
	// WeightedRoundRobin gives every endpoint its share in turn, evenly spread.
	WeightedRoundRobin
	// LeastRequest draws two endpoints by weight and takes the one with fewer
	// requests in flight per unit of weight.
	LeastRequest
	// Random draws one endpoint by weight.
	Random
)

// algorithms holds the configuration's name of each Algorithm.
var algorithms = [...]string{
	P2CEWMA:            "p2c_ewma",
	WeightedRoundRobin: "weighted_round_robin",
	LeastRequest:       "least_request",
	Random:             "random",
}

// String returns the name used in configuration and on the admin API.
func (a Algorithm) String() string {
	if int(a) < len(algorithms) {
		return algorithms[a]
	}
	return fmt.Sprintf("algorithm(%d)", uint8(a))
}

// MarshalText implements encoding.TextMarshaler. It fails on a value that is
// none of the constants.
func (a Algorithm) MarshalText() ([]byte, error) {
	if int(a) >= len(algorithms) {
		return nil, fmt.Errorf("balance: no algorithm has number %d", uint8(a))
	}
	return []byte(algorithms[a]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler. The empty string means
// p2c_ewma.
func (a *Algorithm) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = P2CEWMA
		return nil
	}
	for i, name := range algorithms {
		if name == string(b) {
			*a = Algorithm(i)
			return nil
		}
	}
	return fmt.Errorf("unknown algorithm %q; use p2c_ewma, weighted_round_robin, least_request or random", b)
}

// Config says how a cluster's endpoints are picked.
type Config struct {
	// Algorithm is how an endpoint is picked: p2c_ewma (default),
	// weighted_round_robin, least_request or random.
	Algorithm Algorithm `yaml:"algorithm"`
	// DefaultRTT is the latency assumed of an endpoint before its first
	// response (p2c_ewma only). Default 30ms, as linkerd.
	DefaultRTT time.Duration `yaml:"default_rtt"`
	// Decay is the time in which an old latency loses its weight to 1/e
	// (p2c_ewma only). Default 10s, as linkerd and Finagle.
	Decay time.Duration `yaml:"decay"`
	// SlowStart is how long a new endpoint takes to reach its full weight,
	// linearly. 0 switches it off. Default 10s (Envoy slow_start_window with
	// aggression 1.0). It never applies while all endpoints are new.
	SlowStart time.Duration `yaml:"slow_start"`
	// SlowStartMinPercent is the share of its weight, in percent, that an
	// endpoint starts with. Default 10 (Envoy min_weight_percent).
	SlowStartMinPercent float64 `yaml:"slow_start_min_percent"`
	// PanicPercent: when fewer than this percentage of the endpoints are
	// available (healthy and not ejected), the others are used too; see Choose.
	// 0 switches the rule off. Default 30; Envoy has 50, Consul with Envoy 0.
	PanicPercent float64 `yaml:"panic_percent"`
	// FailurePenalty is the least latency a failed attempt is entered with, so
	// that an endpoint which fails fast does not attract traffic (p2c_ewma
	// only). It is forgotten a hundred times as fast as latency is; see
	// Load.End. 0 switches it off. Default 5s, as linkerd's load biaser.
	FailurePenalty time.Duration `yaml:"failure_penalty"`
}

// Default returns the defaults given at each field of Config.
func Default() Config {
	return Config{
		Algorithm:           P2CEWMA,
		DefaultRTT:          30 * time.Millisecond,
		Decay:               10 * time.Second,
		SlowStart:           10 * time.Second,
		SlowStartMinPercent: 10,
		PanicPercent:        30,
		FailurePenalty:      5 * time.Second,
	}
}

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if int(c.Algorithm) >= len(algorithms) {
		add("algorithm", "is unknown; use p2c_ewma, weighted_round_robin, least_request or random")
	}
	if c.DefaultRTT <= 0 {
		add("default_rtt", "must be above 0, such as 30ms")
	}
	if c.Decay <= 0 {
		add("decay", "must be above 0, such as 10s")
	}
	if c.SlowStart < 0 {
		add("slow_start", "must not be negative; 0 switches it off")
	}
	if !(c.SlowStartMinPercent > 0 && c.SlowStartMinPercent <= 100) { // also refuses NaN
		add("slow_start_min_percent", "must be above 0 and at most 100")
	}
	if !(c.PanicPercent >= 0 && c.PanicPercent <= 100) {
		add("panic_percent", "must be between 0 and 100; 0 switches it off")
	}
	if c.FailurePenalty < 0 {
		add("failure_penalty", "must not be negative; 0 switches it off")
	}
}
