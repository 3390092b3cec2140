// Package admission holds back a share of the requests to a service that accepts too few of them, so that what reaches it falls to what it can take.
package admission

import (
	"fmt"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Scope is for what requests are counted together. The zero value is
// ScopeCluster.
type Scope uint8

const (
	// ScopeCluster counts all that goes to the cluster.
	ScopeCluster Scope = iota
	// ScopeRoute counts for each route that leads to the cluster by itself.
	ScopeRoute
)

var scopes = [...]string{ScopeCluster: "cluster", ScopeRoute: "route"}

// String returns the name used in configuration and on the admin API.
func (s Scope) String() string {
	if int(s) < len(scopes) {
		return scopes[s]
	}
	return fmt.Sprintf("scope(%d)", uint8(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. The empty string means
// cluster.
func (s *Scope) UnmarshalText(b []byte) error {
	switch string(b) {
	case "", "cluster":
		*s = ScopeCluster
	case "route":
		*s = ScopeRoute
	default:
		return fmt.Errorf("unknown scope %q; use cluster or route", b)
	}
	return nil
}

// Config says when requests are held back (client-side throttling of the book
// Site Reliability Engineering, chapter 21; Envoy admission_control).
type Config struct {
	// Mode says whether requests are refused (enforce, the default) or only
	// counted as what would have been (observe). With a percentage, such as
	// 25%, it refuses for so many of the exchanges.
	Mode guard.Mode `yaml:"mode"`
	// Scope is for what requests are counted together: cluster (default), all
	// that goes there, or route, what one route sends there.
	Scope Scope `yaml:"scope"`
	// Multiplier is how many requests may reach the service for each that it
	// accepts, from 1 to 100. Lower ones hold back sooner and notice later that
	// the service has recovered. Default 2; 1.05 is what Envoy's sr_threshold
	// of 95 % comes to.
	Multiplier float64 `yaml:"multiplier"`
	// Window is how far back requests count. It rolls in tenths. From 1s to 1h.
	// Default 30s (Envoy sampling_window).
	Window time.Duration `yaml:"window"`
	// MinimumRequests is how many requests the window must hold before any is
	// held back. Default 20.
	MinimumRequests uint32 `yaml:"minimum_requests"`
	// MaxRejectionPercent is the largest share of requests that is held back.
	// What is left finds out that the service has recovered. Default 80 (Envoy
	// max_rejection_probability).
	MaxRejectionPercent float64 `yaml:"max_rejection_percent"`
	// Statuses are the response statuses by which the service refuses. What
	// could not be sent, was reset or timed out counts as refused, too. Default
	// 429, 502, 503 and 504: an error of the application is no sign of overload.
	Statuses []int `yaml:"statuses"`
	// GRPCStatuses are the same for gRPC calls. Default DEADLINE_EXCEEDED,
	// RESOURCE_EXHAUSTED and UNAVAILABLE.
	GRPCStatuses []retry.GRPCStatus `yaml:"grpc_statuses"`
}

// Default returns the defaults given at each field of Config.
func Default() Config {
	return Config{
		Multiplier: 2, Window: 30 * time.Second, MinimumRequests: 20, MaxRejectionPercent: 80,
		Statuses: []int{429, 502, 503, 504}, GRPCStatuses: []retry.GRPCStatus{4, 8, 14},
	}
}

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if !c.Mode.Known() {
		add("mode", guard.Unknown)
	}
	if int(c.Scope) >= len(scopes) {
		add("scope", "is unknown; use cluster or route")
	}
	if !(c.Multiplier >= 1 && c.Multiplier <= 100) { // also refuses NaN
		add("multiplier", "must be from 1 to 100; below 1 a service that accepts all would be held back")
	}
	if c.Window < time.Second || c.Window > time.Hour {
		add("window", "must be from 1s to 1h, such as 30s")
	}
	if c.MinimumRequests == 0 {
		add("minimum_requests", "must be at least 1")
	}
	if !(c.MaxRejectionPercent > 0 && c.MaxRejectionPercent <= 99) {
		add("max_rejection_percent", "must be above 0 and at most 99: with nothing let through it would never be noticed that the service is well again")
	}
	for _, s := range c.Statuses {
		if s < 400 || s > 599 {
			add("statuses", fmt.Sprintf("has %d; write statuses from 400 to 599", s))
			break
		}
	}
	for _, g := range c.GRPCStatuses {
		if g == 0 || g > 16 {
			add("grpc_statuses", "has one that is no failure; leave out OK")
			break
		}
	}
}

// Refused reports whether an answer with this status means that the service did
// not accept the request. grpc is the status of a gRPC call, 0 for other requests.
func (c *Config) Refused(status int, grpc retry.GRPCStatus) bool {
	return slices.Contains(c.Statuses, status) || grpc != 0 && slices.Contains(c.GRPCStatuses, grpc)
}

// Equal reports whether two configurations are the same.
func (c *Config) Equal(o *Config) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.Mode == o.Mode && c.Scope == o.Scope && c.Multiplier == o.Multiplier && c.Window == o.Window &&
		c.MinimumRequests == o.MinimumRequests && c.MaxRejectionPercent == o.MaxRejectionPercent &&
		slices.Equal(c.Statuses, o.Statuses) && slices.Equal(c.GRPCStatuses, o.GRPCStatuses)
}
