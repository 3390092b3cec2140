package plan

import (
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/limiter"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// RateKey says whose requests a RateLimit counts together.
type RateKey uint8

// The keys.
const (
	RateAll      RateKey = iota // everybody's
	RateIdentity                // of a caller's SPIFFE ID
	RateSourceIP
	RateField // with the same value of a field
	RateRoute
	RatePath // without the query, as it is written
	RateMethod
)

var rateKeyNames = [...]string{"none", "identity", "source_ip", "header", "route", "path", "method"}

// String returns the word of the configuration.
func (k RateKey) String() string { return rateKeyNames[k] }

// RateEntry is something of a request that a limit tells requests apart by.
type RateEntry struct {
	Kind  RateKey
	Field string // with RateField: its name in lower case
	Value []byte // with RateAll: the same for all
}

// RateTell says which answers tell of a limit.
type RateTell uint8

// The choices.
const (
	TellRefused RateTell = iota
	TellAlways
	TellNever
)

// RateLimit bounds how many requests come in a time.
type RateLimit struct {
	Name      string
	Cluster   string // whose traffic it is
	Direction telemetry.Direction
	Scope     string           // the word of the configuration
	Rate      ratelimit.Config // without Requests: known only to who counts
	Key       RateKey
	Field     string // with RateField: its name in lower case
	MaxKeys   int
	Tell      RateTell
	Peers     int // the fewest instances that Rate is divided among; 0: it is not divided
	Mode      guard.Mode
	Match     Match
	OnlyHTTP  bool // it does not concern connections that are not HTTP

	// Policy is the value of the field RateLimit-Policy.
	Policy string
	// Refusal says in the records of exchanges which limit it was.
	Refusal error
	Table   *ratelimit.Table // outlives the plan; nil with Shared

	// Shared counts for several proxies; nil where this one counts alone.
	Shared   limiter.Limiter
	Counted  *limiter.Limit // what Shared is told of the limit
	Entries  []RateEntry    // what it is told of a request
	FailShut bool           // requests that it says nothing of are refused

	Metrics *telemetry.RateLimit // the same
}

// PolicyText is what RateLimit-Policy says of a limit
// (draft-ietf-httpapi-ratelimit-headers-10, section 3): the quota, and its
// window where that is whole seconds. Without a quota it is empty.
func PolicyText(name string, c ratelimit.Config) string {
	if c.Requests == 0 {
		return ""
	}
	s := `"` + name + `";q=` + strconv.FormatInt(c.Requests, 10)
	if c.Per%time.Second == 0 {
		s += ";w=" + strconv.FormatInt(int64(c.Per/time.Second), 10)
	}
	return s
}

// Counts reports whether the limit concerns a request whose head is r in raw. A
// path that can be read in more than one way meets every condition on the path,
// so that none is evaded by writing it otherwise.
func (l *RateLimit) Counts(r *http1.Request, raw []byte) bool {
	if p := &l.Match.Path; p.Kind != AnyText {
		path := pathOf(r, raw)
		if path == nil || !p.matches(path) && !http1.AmbiguousPath(path) {
			return false
		}
	}
	return l.Match.beside(r, raw)
}

// FieldValue is the value of a field, whose name is in lower case; nil without one.
func FieldValue(field string, r *http1.Request, raw []byte) []byte {
	switch id := http1.FieldOf(field); id {
	case http1.Host:
		return r.Host.Of(raw)
	case http1.Other:
		if v, ok := r.Lookup(raw, field); ok {
			return v.Of(raw)
		}
	default:
		if v, ok := r.Get(id); ok {
			return v.Of(raw)
		}
	}
	return nil
}

// RatePathOf is the path that requests are told apart by: as it is written.
func RatePathOf(r *http1.Request, raw []byte) []byte { return pathOf(r, raw) }
