// Package balance picks the endpoint for an attempt: by latency, requests in flight, turn, chance or a hash of the request, with slow start and a panic rule.
package balance

import (
	"fmt"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/orca"
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
	// LeastTime is P2CEWMA by the mean latency instead of its peaks.
	LeastTime
	// RingHash gives a request to the endpoint whose point on a ring follows
	// the request's hash (Karger 1997; Envoy RING_HASH).
	RingHash
	// Maglev gives a request to the endpoint that a table of evenly divided
	// slots has for the request's hash (Eisenbud 2016; Envoy MAGLEV).
	Maglev
)

// algorithms holds the configuration's name of each Algorithm.
var algorithms = [...]string{
	P2CEWMA:            "p2c_ewma",
	WeightedRoundRobin: "weighted_round_robin",
	LeastRequest:       "least_request",
	Random:             "random",
	LeastTime:          "least_time",
	RingHash:           "ring_hash",
	Maglev:             "maglev",
}

// algorithmRule is what a name must be, in the words of an error message.
const algorithmRule = "use p2c_ewma, least_time, least_request, weighted_round_robin, random, ring_hash or maglev"

// ByHash reports whether a picks by a hash of the request.
func (a Algorithm) ByHash() bool { return a == RingHash || a == Maglev }

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
	return fmt.Errorf("unknown algorithm %q; %s", b, algorithmRule)
}

// Config says how a cluster's endpoints are picked.
type Config struct {
	// Algorithm is how an endpoint is picked: p2c_ewma (default), least_time,
	// least_request, weighted_round_robin, random, ring_hash or maglev.
	Algorithm Algorithm `yaml:"algorithm"`
	// Choices is how many endpoints are drawn, of which the best is taken
	// (p2c_ewma, least_time and least_request). From the number of endpoints on
	// all are compared, which takes time in proportion. Default 2 (Envoy
	// choice_count).
	Choices int `yaml:"choices"`
	// Hash says what a request is known by (ring_hash and maglev): the first
	// that it has. A request that has none goes to an endpoint drawn by weight.
	Hash []HashOn `yaml:"hash"`
	// BoundedLoadPercent is how much of its fair share of the requests in
	// flight, by weight and rounded up, an endpoint may have before the next one
	// takes over (ring_hash and maglev; Mirrokni 2016, Envoy
	// hash_balance_factor, usually 120 to 200). 0 (default): no bound.
	BoundedLoadPercent float64 `yaml:"bounded_load_percent"`
	// MinRingSize is the least number of points on the ring (ring_hash; Envoy
	// minimum_ring_size). An endpoint has 128 for each unit of weight, twice as
	// many as often as the ring would be smaller. Where endpoints that come and go
	// change how often, more requests move. 0 (default): 128 always.
	MinRingSize int `yaml:"min_ring_size"`
	// MaxRingSize is the most points that the ring is to have (ring_hash): the
	// points of a unit of weight are halved as often as it would be larger, but
	// every endpoint has one. 8 bytes each. Default 262144.
	MaxRingSize int `yaml:"max_ring_size"`
	// MaglevTableSize is the number of slots in the table, rounded up to a prime
	// (maglev). It is doubled as often as there are fewer than 16 for each
	// endpoint. 4 bytes each. Default 65537 (Envoy table_size).
	MaglevTableSize int `yaml:"maglev_table_size"`
	// Affinity keeps a client at the endpoint that it had first, by a cookie,
	// whatever the algorithm. off (default): none.
	Affinity *Affinity `yaml:"affinity" off:"true"`
	// DefaultRTT is the latency assumed of an endpoint before its first
	// response (p2c_ewma and least_time). Default 30ms, as linkerd.
	DefaultRTT time.Duration `yaml:"default_rtt"`
	// Decay is the time in which an old latency loses its weight to 1/e
	// (p2c_ewma and least_time). Default 10s, as linkerd and Finagle.
	Decay time.Duration `yaml:"decay"`
	// SlowStart is how long a new endpoint takes to reach its full weight,
	// linearly. 0 switches it off. Default 10s (Envoy slow_start_window with
	// aggression 1.0). It never applies while all endpoints are new, nor to
	// ring_hash and maglev, whose requests would move twice.
	SlowStart time.Duration `yaml:"slow_start"`
	// SlowStartMinPercent is the share of its weight, in percent, that an
	// endpoint starts with. Default 10 (Envoy min_weight_percent).
	SlowStartMinPercent float64 `yaml:"slow_start_min_percent"`
	// ORCA gives endpoints weights by the load that they report with their
	// responses (not for ring_hash and maglev). off (default): those of the
	// catalog.
	ORCA *orca.Config `yaml:"orca" off:"true"`
	// Zones prefers endpoints nearby.
	Zones Zones `yaml:"zones"`
	// OverprovisioningPercent is how much more than its share of the load a group
	// of endpoints, a level of priority or a zone, is taken to bear: with 140 all
	// attempts go to it until fewer than 100/140 of its endpoints are available,
	// and what is beyond goes to the next group. Default 140 (Envoy
	// overprovisioning_factor).
	OverprovisioningPercent float64 `yaml:"overprovisioning_percent"`
	// PanicPercent: when fewer than this percentage of the endpoints are
	// available (healthy and not ejected), the others are used too; see Choose.
	// 0 switches the rule off. Default 30; Envoy has 50, Consul with Envoy 0.
	PanicPercent float64 `yaml:"panic_percent"`
	// FailurePenalty is the least latency a failed attempt is entered with, so
	// that an endpoint which fails fast does not attract traffic (p2c_ewma and
	// least_time). It is forgotten a hundred times as fast as latency is; see
	// Load.End. 0 switches it off. Default 5s, as linkerd's load biaser.
	FailurePenalty time.Duration `yaml:"failure_penalty"`
	// RetryAfterMax bounds for how long the Retry-After of a 429 or 503 keeps an
	// endpoint at the full failure_penalty (p2c_ewma and least_time). 0: it is
	// not listened to. Default 1m.
	RetryAfterMax time.Duration `yaml:"retry_after_max"`
}

// Default returns the defaults given at each field of Config.
func Default() Config {
	return Config{
		Algorithm:           P2CEWMA,
		Choices:             2,
		MaxRingSize:         1 << 18,
		MaglevTableSize:     65537,
		DefaultRTT:          30 * time.Millisecond,
		Decay:               10 * time.Second,
		SlowStart:           10 * time.Second,
		SlowStartMinPercent: 10,
		PanicPercent:        30,
		Zones:               Zones{SpillLatencyPercent: 200},

		OverprovisioningPercent: 140,
		FailurePenalty:          5 * time.Second,
		RetryAfterMax:           time.Minute,
	}
}

// Summary says in a line how endpoints are picked, for people.
func (c *Config) Summary() string {
	s := c.Algorithm.String()
	if c.Algorithm.ByHash() {
		before := " by "
		for i := range c.Hash {
			s += before + c.Hash[i].String()
			if before = ", else "; c.Hash[i].Combine {
				before = " with "
			}
		}
		if c.BoundedLoadPercent > 0 {
			s += fmt.Sprintf(", at most %g%% of the fair load", c.BoundedLoadPercent)
		}
	}
	if c.Zones.Prefer {
		s += ", nearby first"
	}
	if c.ORCA != nil {
		s += ", " + c.ORCA.String()
	}
	if c.Affinity != nil {
		s += ", affinity by " + c.Affinity.String()
	}
	return s
}

// IsZero reports whether c is the zero value; a valid Config has a Decay.
func (c *Config) IsZero() bool { return c.Decay == 0 }

// Bounds of sizes.
const (
	maxChoices = 1 << 16
	maxSlots   = 1 << 23 // of a ring or table; Envoy's maximum for a ring
)

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if int(c.Algorithm) >= len(algorithms) {
		add("algorithm", "is unknown; "+algorithmRule)
	}
	if c.Choices < 1 || c.Choices > maxChoices {
		add("choices", fmt.Sprintf("must be from 1 to %d; 2 is nearly as good as all", maxChoices))
	}
	c.validateHash(add)
	if c.ORCA != nil && c.Algorithm.ByHash() {
		add("orca", fmt.Sprintf("has no effect with algorithm: %v, which goes by keys; write orca: off, or another algorithm", c.Algorithm))
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
	if !(c.OverprovisioningPercent >= 100 && c.OverprovisioningPercent <= 1000) {
		add("overprovisioning_percent", "must be from 100 to 1000")
	}
	if !(c.Zones.SpillLatencyPercent >= 100 && c.Zones.SpillLatencyPercent <= 10_000) {
		add("zones.spill_latency_percent", "must be from 100 (no slower than those further away) to 10000")
	}
	if c.FailurePenalty < 0 {
		add("failure_penalty", "must not be negative; 0 switches it off")
	}
	if c.RetryAfterMax < 0 {
		add("retry_after_max", "must not be negative; 0 switches it off")
	}
}

func (c *Config) validateHash(add func(field, problem string)) {
	switch {
	case c.Algorithm.ByHash() && len(c.Hash) == 0:
		add("hash", fmt.Sprintf("is required for algorithm: %v; say what a request is known by, such as hash: [{header: x-user-id}]", c.Algorithm))
	case !c.Algorithm.ByHash() && len(c.Hash) > 0:
		add("hash", fmt.Sprintf("has no effect with algorithm: %v; write algorithm: maglev or ring_hash, or hash: []", c.Algorithm))
	case len(c.Hash) > maxHash:
		add("hash", fmt.Sprintf("has %d entries; at most %d", len(c.Hash), maxHash))
	}
	switch p := c.BoundedLoadPercent; {
	case p != 0 && !(p >= 100 && p <= 10_000):
		add("bounded_load_percent", "must be from 100 (nobody above the fair share) to 10000; 0 switches it off")
	case p != 0 && !c.Algorithm.ByHash():
		add("bounded_load_percent", fmt.Sprintf("has no effect with algorithm: %v; write algorithm: maglev or ring_hash, or 0", c.Algorithm))
	}
	if c.MinRingSize < 0 || c.MinRingSize > maxSlots {
		add("min_ring_size", fmt.Sprintf("must be from 0 to %d", maxSlots))
	}
	if c.MaxRingSize < max(c.MinRingSize, 1) || c.MaxRingSize > maxSlots {
		add("max_ring_size", fmt.Sprintf("must be from min_ring_size to %d", maxSlots))
	}
	if c.MaglevTableSize < 2 || c.MaglevTableSize > maxSlots {
		add("maglev_table_size", fmt.Sprintf("must be from 2 to %d, best a hundred times the number of endpoints", maxSlots))
	}
}
