package config

import (
	"fmt"
	"slices"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/limiter"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

// RateLimit bounds how many requests come in a time. A connection that is not
// HTTP counts as one request.
type RateLimit struct {
	// The name in answers, logs and metrics, unique in its list: letters, digits, "-", "_" and ".". Required.
	Name string `yaml:"name"`
	// How many requests in which time. Required, but with scope: grpc, where the service knows its limits and this replaces them.
	Rate *ratelimit.Config `yaml:"rate"`
	// For whom requests are counted. proxy: in this proxy alone. peers: in this proxy, which keeps to an equal share of the rate among the instances of its own service that discovery finds alive. grpc: by the service under rate_limiters.grpc, for all who ask it. redis: in buckets under rate_limiters.redis, for all who use it with a limit of that name.
	Scope RateScope `yaml:"scope" enum:"proxy,peers,redis,grpc"`
	// With scope: redis, how many requests of a key are taken at a time, 1 to 10000, at most the burst. More than 1 saves questions; each proxy may then have as many less one at hand that others lack.
	Lease int `yaml:"lease"`
	// With scope: peers, the fewest instances that the rate is divided among, whatever discovery finds: 1 to 1000000.
	MinPeers int `yaml:"min_peers"`
	// Whose requests are counted together: identity (the caller's SPIFFE ID), source_ip, header (the value of the field named by header), route, path (without the query), method, or none: all together. Callers without identity share one bucket, and so do requests without the field.
	Key RateKey `yaml:"key" enum:"none,identity,source_ip,header,route,path,method"`
	// The field for key: header, in any case. host is the authority that the request is for.
	Header string `yaml:"header"`
	// Which requests are counted. Empty: all. A path that can be read in more than one way meets every condition on the path.
	Match RouteMatch `yaml:"match"`
	// With scope: grpc, what the service is told of a request, in this order, in place of the one entry that key makes (generic_key, identity, remote_address, route, path, method, or the name of the field).
	Descriptor []RateEntry `yaml:"descriptor"`
	// With scope: grpc, as how many requests each counts (hits_addend).
	Hits int `yaml:"hits"`
	// What becomes of requests when who counts them gives no answer: allow lets them pass, refuse answers 503.
	OnError RateOnError `yaml:"on_error" enum:"allow,refuse"`
	// Which answers have the fields RateLimit and RateLimit-Policy: refused ones, always also those of requests within the rate, or never.
	Tell RateTell `yaml:"tell" enum:"refused,always,never"`
	// How many keys have a bucket at a time, 1 to 1000000. For another one a bucket that is nearly full and long unused is forgotten.
	MaxKeys int `yaml:"max_keys"`
	// Whether requests beyond the rate are refused (enforce) only counted (observe), or refused in this percentage of exchanges and counted in the others.
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
	RateKeyPath     RateKey = "path"
	RateKeyMethod   RateKey = "method"
)

// RateScope says for whom a rate limit counts.
type RateScope string

// The scopes.
const (
	RateScopeProxy RateScope = "proxy"
	RateScopePeers RateScope = "peers"
	RateScopeRedis RateScope = "redis"
	RateScopeGRPC  RateScope = "grpc"
)

// RateOnError says what becomes of requests that nobody could count.
type RateOnError string

// The ways.
const (
	RateAllow  RateOnError = "allow"
	RateRefuse RateOnError = "refuse"
)

// RateTell says which answers tell of a rate limit.
type RateTell string

// The choices.
const (
	RateTellRefused RateTell = "refused"
	RateTellAlways  RateTell = "always"
	RateTellNever   RateTell = "never"
)

// RateEntry is one entry of a descriptor: a name, and a value that is given or
// taken from the request.
type RateEntry struct {
	// The name by which the service knows it. Required.
	Key string `yaml:"key"`
	// The value, the same for all requests. Either this or from.
	Value string `yaml:"value"`
	// Where the value is taken from. It is empty where the request has none.
	From RateKey `yaml:"from" enum:"none,identity,source_ip,header,route,path,method"`
	// The field for from: header.
	Header string `yaml:"header"`
}

// RateLimiters are those who count requests for several proxies.
type RateLimiters struct {
	// A service that speaks Envoy's protocol for rate limits (envoy.service.ratelimit.v3), for limits with scope: grpc.
	GRPC *limiter.GRPC `yaml:"grpc"`
	// A Redis that keeps token buckets, for limits with scope: redis.
	Redis *limiter.Redis `yaml:"redis"`
}

// DefaultRateLimit returns a rate limit with the defaults of its keys.
func DefaultRateLimit() RateLimit {
	return RateLimit{
		Key: RateKeyNone, Scope: RateScopeProxy, MaxKeys: ratelimit.DefaultKeys, MinPeers: 1, Lease: 1, Hits: 1, OnError: RateAllow, Tell: RateTellRefused,
	}
}

// ofRequest reports whether k is something that only requests have.
func (k RateKey) ofRequest() bool {
	return k == RateKeyHeader || k == RateKeyRoute || k == RateKeyPath || k == RateKeyMethod
}

// MaxRateLimits is how many rate limits a list may have.
const MaxRateLimits = 32

// OnlyHTTP reports whether the limit looks at what only requests have, so that
// it does not concern connections that are not HTTP.
func (r *RateLimit) OnlyHTTP() bool {
	for i := range r.Descriptor {
		if r.Descriptor[i].From.ofRequest() {
			return true
		}
	}
	return r.Key.ofRequest() || r.Match.onlyHTTP()
}

// Validate calls add for each mistake in the limit by itself.
func (r RateLimit) Validate(add func(field, problem string)) {
	switch {
	case r.Name == "":
		add("name", "is required; answers, logs and metrics say it")
	case !serviceName(r.Name):
		add("name", fmt.Sprintf("is %q; %s", r.Name, nameRule))
	}
	validateField(add, "key", r.Key, r.Header)
	if r.Rate == nil && r.Scope != RateScopeGRPC {
		add("rate", "is required; write how many requests may come, such as rate: {requests: 100, per: 1s}")
	}
	r.validateShared(add)
	if r.MaxKeys < 1 || r.MaxKeys > ratelimit.MaxKeys {
		add("max_keys", fmt.Sprintf("is %d; write a number from 1 to %d", r.MaxKeys, ratelimit.MaxKeys))
	}
}

// validateField checks the name of a field that goes with a key.
func validateField(add func(field, problem string), what string, key RateKey, header string) {
	switch {
	case key == RateKeyHeader && header == "":
		add("header", fmt.Sprintf("is required by %s: header; name the field", what))
	case key != RateKeyHeader && header != "":
		add("header", fmt.Sprintf("has no effect with %s: %s; write %s: header", what, key, what))
	case header != "" && !http1.IsToken(header):
		add("header", fmt.Sprintf("is %q, which is not the name of a field", header))
	}
}

// validateShared checks what concerns those who count for several proxies.
func (r *RateLimit) validateShared(add func(field, problem string)) {
	switch {
	case r.Scope != RateScopePeers && r.MinPeers != 1:
		add("min_peers", fmt.Sprintf("has no effect with scope: %s; write scope: peers", r.Scope))
	case r.MinPeers < 1 || r.MinPeers > ratelimit.MaxShares:
		add("min_peers", fmt.Sprintf("is %d; write a number from 1 to %d", r.MinPeers, ratelimit.MaxShares))
	}
	switch most := int64(ratelimit.MaxLease); {
	case r.Scope != RateScopeRedis && r.Lease != 1:
		add("lease", fmt.Sprintf("has no effect with scope: %s; write scope: redis", r.Scope))
	case r.Rate != nil && r.Rate.Requests > 0 && (r.Lease < 1 || int64(r.Lease) > min(most, r.Rate.Size())):
		add("lease", fmt.Sprintf("is %d; write a number from 1 to %d, which is all that a bucket holds or may be taken", r.Lease, min(most, r.Rate.Size())))
	}
	if r.Scope != RateScopeGRPC {
		if len(r.Descriptor) > 0 {
			add("descriptor", fmt.Sprintf("has no effect with scope: %s; write scope: grpc", r.Scope))
		}
		if r.Hits != 1 {
			add("hits", fmt.Sprintf("has no effect with scope: %s; write scope: grpc", r.Scope))
		}
		if r.OnError != RateAllow && r.Scope != RateScopeRedis {
			add("on_error", fmt.Sprintf("has no effect with scope: %s, which cannot fail", r.Scope))
		}
		return
	}
	if r.Rate != nil {
		if problem := limiter.CanOverride(r.Rate); problem != "" {
			add("rate", problem+"; change it, or leave it out: the service has limits of its own")
		}
	}
	if r.Hits < 1 || r.Hits > maxHits {
		add("hits", fmt.Sprintf("is %d; write a number from 1 to %d", r.Hits, maxHits))
	}
	if len(r.Descriptor) > MaxRateEntries {
		add("descriptor", fmt.Sprintf("has %d entries; at most %d are possible", len(r.Descriptor), MaxRateEntries))
	}
	if len(r.Descriptor) > 0 && r.Key != RateKeyNone {
		add("key", "has no effect beside descriptor; make it an entry of it")
	}
}

// MaxRateEntries is how many entries a descriptor may have.
const MaxRateEntries = 8

const maxHits = 1_000_000

// Validate calls add for each mistake in the entry by itself.
func (e RateEntry) Validate(add func(field, problem string)) {
	switch {
	case e.Key == "":
		add("key", "is required; name the entry as the service knows it")
	case len(e.Key) > 256:
		add("key", "is longer than 256 bytes")
	}
	switch {
	case e.Value != "" && e.From != RateKeyNone:
		add("value", "is a second value beside from; keep one")
	case e.Value == "" && e.From == RateKeyNone:
		add("value", "is required; write the value, or where it is taken from: from: identity")
	case len(e.Value) > 512:
		add("value", "is longer than 512 bytes")
	}
	validateField(add, "from", e.From, e.Header)
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
		for j := range r.Descriptor {
			if r.Descriptor[j].From == RateKeyIdentity && anonymous != "" {
				v.say(joinIndex(at+".descriptor", j)+".from", "is identity, %s", anonymous)
			}
		}
		if r.Scope == RateScopePeers {
			v.peers(at + ".scope")
		}
		if r.Scope == RateScopeRedis && v.RateLimiters.Redis == nil {
			v.say(at+".scope", "is redis, and none is given; write rate_limiters: {redis: {address: ...}}")
		}
		if r.Scope == RateScopeGRPC && v.RateLimiters.GRPC == nil {
			v.say(at+".scope", "is grpc, and no service is given; write rate_limiters: {grpc: {address: ..., domain: ...}}")
		}
		if proto.opaque() && r.OnlyHTTP() {
			v.say(at, "looks at requests, and tcp is spoken here; leave match empty, and use key: identity, source_ip or none")
		}
	}
}

// peers checks that the instances of the own service can be found.
func (v *validator) peers(path string) {
	d := &v.Discovery
	switch {
	case d.Kind() == "":
		v.say(path, "is peers, and nothing finds the other instances of %s; give one of consul, file and dns under discovery", v.Service.Name)
	case d.DNS != nil && len(d.DNS.Services) > 0:
		if _, ok := d.DNS.Services[v.Service.Name]; !ok {
			v.say(path, "is peers, and discovery.dns.services has no entry for %q, this proxy's own service", v.Service.Name)
		}
	}
}

// DividesRates reports whether a rate limit is divided among the instances of
// the own service, so that discovery must find these.
func (c *Config) DividesRates() bool {
	divided := func(r RateLimit) bool { return r.Scope == RateScopePeers }
	if c.Service.Called() && slices.ContainsFunc(c.Inbound.RateLimits, divided) {
		return true
	}
	return slices.ContainsFunc(c.Services(), func(name string) bool {
		return slices.ContainsFunc(c.Policy(name).RateLimits, divided)
	})
}

// rateLimiters checks those who count with what is around them.
func (v *validator) rateLimiters() {
	if r := v.RateLimiters.Redis; r != nil && r.Transport == limiter.MTLS && !v.Identity.Configured() {
		v.say("rate_limiters.redis.transport", "is mtls, which needs an identity; give one under identity, or write transport: tls")
	}
	if g := v.RateLimiters.GRPC; g != nil && g.Transport == limiter.MTLS && !v.Identity.Configured() {
		v.say("rate_limiters.grpc.transport", "is mtls, which needs an identity; give one under identity, or write transport: plaintext")
	}
}
