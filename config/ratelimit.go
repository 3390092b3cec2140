package config

import (
	"fmt"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

// RateLimit bounds how many requests come in a time, in this proxy alone. A
// connection that is not HTTP counts as one request.
type RateLimit struct {
	// The name in answers, logs and metrics, unique in its list: letters, digits, "-", "_" and ".". Required.
	Name string `yaml:"name"`
	// How many requests in which time.
	Rate ratelimit.Config `yaml:"rate"`
	// Whose requests are counted together: identity (the caller's SPIFFE ID), source_ip, header (the value of the field named by header), route, or none: all together. Callers without identity share one bucket, and so do requests without the field.
	Key RateKey `yaml:"key" enum:"none,identity,source_ip,header,route"`
	// The field for key: header, in any case. host is the authority that the request is for.
	Header string `yaml:"header"`
	// Which requests are counted. Empty: all. A path that can be read in more than one way meets every condition on the path.
	Match RouteMatch `yaml:"match"`
	// How many keys have a bucket at a time, 1 to 1000000. For another one a bucket that is nearly full and long unused is forgotten.
	MaxKeys int `yaml:"max_keys"`
	// Whether requests beyond the rate are refused (enforce) or only counted (observe).
	Mode guard.Mode `yaml:"mode"`
}

// RateKey says whose requests a rate limit counts together.
type RateKey string

// The keys.
const (
	RateKeyNone     RateKey = "none"
	RateKeyIdentity RateKey = "identity"
	RateKeySourceIP RateKey = "source_ip"
	RateKeyHeader   RateKey = "header"
	RateKeyRoute    RateKey = "route"
)

// DefaultRateLimit returns a rate limit with the defaults of its keys.
func DefaultRateLimit() RateLimit {
	return RateLimit{Rate: ratelimit.Default(), Key: RateKeyNone, MaxKeys: ratelimit.DefaultKeys}
}

// MaxRateLimits is how many rate limits a list may have.
const MaxRateLimits = 32

// OnlyHTTP reports whether the limit looks at what only requests have, so that
// it does not concern connections that are not HTTP.
func (r *RateLimit) OnlyHTTP() bool {
	m := &r.Match
	return r.Key == RateKeyHeader || r.Key == RateKeyRoute || m.GRPC != nil || m.Path != "" || m.PathPrefix != "" || m.PathRegex != "" ||
		len(m.Methods)+len(m.Headers)+len(m.Query) > 0
}

// Validate calls add for each mistake in the limit by itself.
func (r RateLimit) Validate(add func(field, problem string)) {
	switch {
	case r.Name == "":
		add("name", "is required; answers, logs and metrics say it")
	case !serviceName(r.Name):
		add("name", fmt.Sprintf("is %q; %s", r.Name, nameRule))
	}
	switch {
	case r.Key == RateKeyHeader && r.Header == "":
		add("header", "is required by key: header; name the field")
	case r.Key != RateKeyHeader && r.Header != "":
		add("header", fmt.Sprintf("has no effect with key: %s; write key: header", r.Key))
	case r.Header != "" && !http1.IsToken(r.Header):
		add("header", fmt.Sprintf("is %q, which is not the name of a field", r.Header))
	}
	if r.MaxKeys < 1 || r.MaxKeys > ratelimit.MaxKeys {
		add("max_keys", fmt.Sprintf("is %d; write a number from 1 to %d", r.MaxKeys, ratelimit.MaxKeys))
	}
}

// rateLimits checks a list of them with what is around it: the protocol, and
// why callers have no identity there, if so.
func (v *validator) rateLimits(path string, list []RateLimit, proto Protocol, anonymous string) {
	if len(list) > MaxRateLimits {
		v.say(path, "are %d; at most %d are possible", len(list), MaxRateLimits)
	}
	names := map[string]int{}
	for i := range list {
		r, at := &list[i], joinIndex(path, i)
		if earlier, ok := names[r.Name]; ok && r.Name != "" {
			v.say(at+".name", "is %q, which %s is already; choose another", r.Name, joinIndex(path, earlier))
		} else {
			names[r.Name] = i
		}
		if r.Key == RateKeyIdentity && anonymous != "" {
			v.say(at+".key", "is identity, %s", anonymous)
		}
		if proto == ProtocolTCP && r.OnlyHTTP() {
			v.say(at, "looks at requests, and tcp is spoken here; leave match empty, and use key: identity, source_ip or none")
		}
	}
}
