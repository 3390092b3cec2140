// Package retry decides whether a failed attempt is followed by another one, when, and within which budget.
package retry

import (
	"fmt"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Config is the retry policy of one destination. Default returns the values
// that apply to an empty policy; the zero Config retries nothing.
type Config struct {
	// Mode is enforce (default) or observe. Observe decides and counts in the
	// same way, but never retries. With a percentage, such as 25%, so many of
	// the exchanges are retried.
	Mode guard.Mode `yaml:"mode"`

	// Attempts is how many attempts a request may have, the first included;
	// 1 means no retry. Default 2 (Envoy num_retries 1).
	Attempts int `yaml:"attempts"`

	// Layer is which of the sidecars along a chain of services repeats requests:
	// outermost (default), only the first of those that would, as far as the
	// services in between pass on the field x-outrigger-retries; every, each by
	// itself, so that attempts multiply. What no endpoint can have processed is
	// tried again by each.
	Layer Layer `yaml:"layer"`

	// On lists what is retried. Default connect_failure, reset, unavailable,
	// stale_connection.
	On []Condition `yaml:"on"`

	// Statuses lists the statuses of answers, 400 to 599, that are retried beside
	// on, whatever the method: whoever lists a status says that a request which is
	// answered with it may be made again (Envoy's retriable_status_codes). Default
	// none.
	Statuses []int `yaml:"statuses"`

	// GRPCStatuses lists the gRPC statuses that are retried beside on, such as
	// UNAVAILABLE, whatever the method: whoever lists a status says that a call
	// which ends with it may be made again. A call is retried only while nothing
	// of its response was passed on. Default none, as in gRPC itself (gRFC A6,
	// retryableStatusCodes) and Envoy. Without it, still retried are calls that
	// the endpoint says it has not processed, and, by unavailable in on, those
	// that it answers with UNAVAILABLE or RESOURCE_EXHAUSTED and a
	// grpc-retry-pushback-ms of 0 or more.
	GRPCStatuses []GRPCStatus `yaml:"grpc_statuses"`

	// PerTryTimeout bounds each attempt by itself; an attempt that exceeds it
	// counts as reset. Default 0, none: only the request's own timeout applies.
	PerTryTimeout time.Duration `yaml:"per_try_timeout"`

	// BackoffBase is the upper bound of the wait before the first retry; the
	// bound doubles with each further one. The wait is uniformly random below
	// it (full jitter). Default 25ms (Envoy base_interval).
	BackoffBase time.Duration `yaml:"backoff_base"`

	// BackoffMax caps that bound. Default 250ms (Envoy: 10 times the base).
	BackoffMax time.Duration `yaml:"backoff_max"`

	// BudgetPercent is how many retries the destination gets for 100 first
	// attempts, over 10s. Default 20.
	BudgetPercent float64 `yaml:"budget_percent"`

	// BudgetMinPerSecond is the rate of retries, averaged over 10s, that is
	// allowed however few the requests are. Default 10.
	BudgetMinPerSecond float64 `yaml:"budget_min_per_second"`

	// NonIdempotent allows retries of requests that the endpoint may have
	// processed and whose method is not idempotent (RFC 9110 section 9.2.2).
	// Default false.
	NonIdempotent bool `yaml:"non_idempotent"`

	// MaxBodyBytes is how much of a request body is kept for another attempt,
	// of a body that is passed on as it comes too; a request of which more was
	// sent is not retried. Default 65536.
	MaxBodyBytes int `yaml:"max_body_bytes"`

	// RetryAfterMax is the longest Retry-After (RFC 9110 section 10.2.3) or
	// grpc-retry-pushback-ms (gRFC A6) that is waited for; with a longer one
	// there is no retry. Default 5s.
	RetryAfterMax time.Duration `yaml:"retry_after_max"`
}

// mostBody is the largest buffer in which a request is kept.
const mostBody = 64 << 10

// Default returns the policy of a destination that sets nothing.
func Default() Config {
	return Config{
		Attempts:           2,
		On:                 []Condition{ConnectFailure, Reset, Unavailable, StaleConnection},
		BackoffBase:        25 * time.Millisecond,
		BackoffMax:         250 * time.Millisecond,
		BudgetPercent:      20,
		BudgetMinPerSecond: 10,
		MaxBodyBytes:       64 << 10,
		RetryAfterMax:      5 * time.Second,
	}
}

// Validate calls add once for each mistake, with the YAML name of the field.
func (c Config) Validate(add func(field, problem string)) {
	if c.Layer > Every {
		add("layer", "is unknown; use outermost or every")
	}
	if !c.Mode.Known() {
		add("mode", guard.Unknown)
	}
	if c.Attempts < 1 || c.Attempts > 10 {
		add("attempts", "must be between 1 (no retry) and 10")
	}
	var seen [conditionCount]bool
	for i, on := range c.On {
		field := fmt.Sprintf("on[%d]", i)
		switch {
		case on == NoCondition || on >= conditionCount:
			add(field, "is no condition; use "+conditionList)
		case seen[on]:
			add(field, on.String()+" is listed twice; remove one")
		default:
			seen[on] = true
		}
	}
	validateStatuses(c.Statuses, add)
	var listed [len(grpcNames)]bool
	for i, g := range c.GRPCStatuses {
		field := fmt.Sprintf("grpc_statuses[%d]", i)
		switch {
		case g == 0 || int(g) >= len(grpcNames):
			add(field, "is no failure; "+statusAdvice)
		case listed[g]:
			add(field, g.String()+" is listed twice; remove one")
		default:
			listed[g] = true
		}
	}
	if c.PerTryTimeout < 0 {
		add("per_try_timeout", "must not be negative; 0 means none")
	}
	if c.BackoffBase < 0 || c.BackoffBase > time.Minute {
		add("backoff_base", "must be between 0 and 1m")
	}
	if c.BackoffMax < c.BackoffBase || c.BackoffMax > 10*time.Minute {
		add("backoff_max", "must be between backoff_base and 10m")
	}
	if !(c.BudgetPercent >= 0 && c.BudgetPercent <= 1000) {
		add("budget_percent", "must be between 0 and 1000")
	}
	if !(c.BudgetMinPerSecond >= 0 && c.BudgetMinPerSecond <= 1e6) {
		add("budget_min_per_second", "must be between 0 and 1000000")
	}
	if c.MaxBodyBytes < 0 || c.MaxBodyBytes > mostBody {
		add("max_body_bytes", "must be between 0 and 65536: longer bodies are passed on as they come")
	}
	if c.RetryAfterMax < 0 || c.RetryAfterMax > time.Hour {
		add("retry_after_max", "must be between 0 and 1h")
	}
}
