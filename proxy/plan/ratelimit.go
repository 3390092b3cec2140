package plan

import (
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
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
)

var rateKeyNames = [...]string{"none", "identity", "source_ip", "header", "route"}

// String returns the word of the configuration.
func (k RateKey) String() string { return rateKeyNames[k] }

// RateLimit bounds how many requests come in a time.
type RateLimit struct {
	Name      string
	Cluster   string // whose traffic it is
	Direction telemetry.Direction
	Rate      ratelimit.Config
	Key       RateKey
	Field     string // with RateField: its name in lower case
	MaxKeys   int
	Mode      guard.Mode
	Match     Match
	OnlyHTTP  bool // it does not concern connections that are not HTTP

	// Policy is the value of the field RateLimit-Policy.
	Policy string
	// Refusal says in the records of exchanges which limit it was.
	Refusal error
	Table   *ratelimit.Table     // outlives the plan
	Metrics *telemetry.RateLimit // the same
}

// PolicyText is what RateLimit-Policy says of a limit
// (draft-ietf-httpapi-ratelimit-headers-10, section 3): the quota, and its
// window where that is whole seconds.
func PolicyText(name string, c ratelimit.Config) string {
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

// FieldValue is the value that requests are told apart by; nil without one.
func (l *RateLimit) FieldValue(r *http1.Request, raw []byte) []byte {
	switch id := http1.FieldOf(l.Field); id {
	case http1.Host:
		return r.Host.Of(raw)
	case http1.Other:
		if v, ok := r.Lookup(raw, l.Field); ok {
			return v.Of(raw)
		}
	default:
		if v, ok := r.Get(id); ok {
			return v.Of(raw)
		}
	}
	return nil
}
