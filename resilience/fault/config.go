// Package fault makes failures on purpose: it says which attempt meets which fault, and when an experiment must stop.
package fault

import (
	"math"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Bounds of faults. None is for ever: whoever forgets one does not hurt the
// traffic for good.
const (
	// DefaultFor is how long a fault lasts that says nothing about it.
	DefaultFor = 10 * time.Minute
	// MinFor and MaxFor are the shortest and the longest that one may last.
	MinFor, MaxFor = time.Second, 24 * time.Hour
	// MaxDelay is the longest that an attempt is held.
	MaxDelay = time.Minute
	// MinRate and MaxRate bound a rate, in bytes a second.
	MinRate, MaxRate = 16, 1 << 40
	// MaxRules is how many faults may be there at a time.
	MaxRules = 16
)

// Config is what is done to the attempts, or connections, that meet a fault. A
// delay comes first, then an abort or a reset ends the attempt before the
// endpoint sees it; rates hold for what goes on.
type Config struct {
	// Percent is the share of attempts, or of connections that are not HTTP,
	// which meet the fault, above 0 to 100. Each is drawn by itself, so that
	// another attempt of the same request may go well. Default 100.
	Percent float64 `yaml:"percent"`
	// Seed makes the draws the same each time: the first, second, third
	// attempt and so on meets the fault or does not. 0 (default): as chance
	// has it.
	Seed uint64 `yaml:"seed"`
	// Delay holds an attempt before it is sent, a connection before its first
	// byte: "200ms" as long each time, "100ms..500ms" as long as chance has it
	// between the two, "exp 200ms" exponentially distributed with that mean.
	// At most 1m. It counts against all timeouts. Empty: none.
	Delay string `yaml:"delay"`
	// Abort ends an attempt as if the endpoint had answered with that status,
	// 400 to 599. 0: none.
	Abort int `yaml:"abort"`
	// AbortGRPC is the same with a gRPC status, such as UNAVAILABLE or
	// "grpc 14". It concerns gRPC calls alone. Empty: none.
	AbortGRPC string `yaml:"abort_grpc"`
	// Reset ends an attempt as if the endpoint had reset the connection. A
	// caller of the inbound listener, and of a service by TCP, sees its own
	// connection reset.
	Reset bool `yaml:"reset"`
	// ResponseRate is how many bytes a second of the answer are passed on,
	// such as "64KiB/s". Empty: as they come.
	ResponseRate string `yaml:"response_rate"`
	// RequestRate is the same of the request.
	RequestRate string `yaml:"request_rate"`
	// Count has the outlier detection, the breaker and the balancer's
	// latencies take faults for the endpoints' own. Without it (default) a
	// fault costs no endpoint its good name: only retries and their budget,
	// deadlines and limits are put to the test.
	Count bool `yaml:"count"`
}

// Default returns the defaults given at each field of Config.
func Default() Config { return Config{Percent: 100} }

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if !(c.Percent > 0 && c.Percent <= 100) { // NaN is neither
		add("percent", "must be above 0 and at most 100")
	}
	if _, err := ParseDelay(c.Delay); err != nil {
		add("delay", err.Error())
	}
	if c.Abort != 0 && (c.Abort < minStatus || c.Abort > maxStatus) {
		add("abort", "must be a status from 400 to 599")
	}
	if _, err := ParseCode(c.AbortGRPC); err != nil {
		add("abort_grpc", err.Error())
	}
	if _, err := ParseRate(c.ResponseRate); err != nil {
		add("response_rate", err.Error())
	}
	if _, err := ParseRate(c.RequestRate); err != nil {
		add("request_rate", err.Error())
	}
	ends := 0
	for _, end := range [...]bool{c.Reset, c.Abort != 0, c.AbortGRPC != ""} {
		if end {
			ends++
		}
	}
	switch {
	case ends > 1:
		add("", "has more than one of abort, abort_grpc and reset: an attempt ends in one way; make two faults of them")
	case ends > 0 && c.ResponseRate+c.RequestRate != "":
		add("", "leaves nothing that a rate could slow down; make two faults of abort or reset and the rate")
	case c.Delay == "" && ends == 0 && c.ResponseRate == "" && c.RequestRate == "":
		add("", "does nothing; give delay, abort, abort_grpc, reset, response_rate or request_rate")
	}
}

// Stop says when a fault stops before its time: over a window it is looked at
// how the cluster fares beside what is done on purpose.
type Stop struct {
	// Mode says whether the fault is stopped (enforce, the default) or only
	// said that it would have been (observe).
	Mode guard.Mode `yaml:"mode" enum:"enforce,observe"`
	// ErrorsPercent stops it when more of the exchanges that met no fault fail,
	// 0 to 100; what their callers have done wrong is no failure. Default 10.
	// 0: never.
	ErrorsPercent float64 `yaml:"errors_percent"`
	// SuccessPercent stops it when fewer of all exchanges end well, those that
	// met a fault included, 0 to 100. 0 (default): never.
	SuccessPercent float64 `yaml:"success_percent"`
	// P99 stops it when more than one exchange in a hundred takes longer, those
	// that met a fault included. 0 (default): never.
	P99 time.Duration `yaml:"p99"`
	// Ejections stops it when as many endpoints are ejected in the window. 0
	// (default): never.
	Ejections int `yaml:"ejections"`
	// Breaker stops it when the circuit breaker opens. Default true.
	Breaker bool `yaml:"breaker"`
	// Panic stops it when so few endpoints are available that all are used.
	// Default true.
	Panic bool `yaml:"panic"`
	// Window is over which time it is looked at that, 1s to 10m. Default 10s.
	Window time.Duration `yaml:"window"`
	// MinRequests is how many exchanges a share must rest on. Default 20.
	MinRequests uint64 `yaml:"min_requests"`
}

// DefaultStop returns the defaults given at each field of Stop.
func DefaultStop() Stop {
	return Stop{ErrorsPercent: 10, Breaker: true, Panic: true, Window: 10 * time.Second, MinRequests: 20}
}

// Validate calls add once for every mistake, with the field's YAML name.
func (s Stop) Validate(add func(field, problem string)) {
	for _, f := range [...]struct {
		name  string
		value float64
	}{{"errors_percent", s.ErrorsPercent}, {"success_percent", s.SuccessPercent}} {
		if f.value < 0 || f.value > 100 || math.IsNaN(f.value) {
			add(f.name, "must be from 0 to 100; 0 means never")
		}
	}
	if s.Mode != guard.Enforce && s.Mode != guard.Observe {
		add("mode", "must be enforce or observe: it stops the fault for all or not at all")
	}
	if s.P99 < 0 {
		add("p99", "must not be negative; 0 means never")
	}
	if s.Ejections < 0 {
		add("ejections", "must not be negative; 0 means never")
	}
	if s.Window < time.Second || s.Window > 10*time.Minute {
		add("window", "must be from 1s to 10m")
	}
	if s.MinRequests < 1 {
		add("min_requests", "must be at least 1: a share of nothing says nothing")
	}
}
