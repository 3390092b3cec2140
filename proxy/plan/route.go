package plan

import (
	"math/bits"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Route is where exchanges go and what is done to them on the way. It is
// immutable once the plan is built.
type Route struct {
	Name    string
	Path    string            // where it stands in the configuration; empty for one that is not written there
	Why     string            // its conditions in words; empty on a listener without routes
	Cluster *upstream.Cluster // of a route that answers itself: that of the listener's last route
	// Subset is the part of Cluster that exchanges go to; nil for the whole.
	Subset *upstream.Subset
	// Authz decides who may; nil allows everybody, as on outbound listeners. It
	// is asked before a route is chosen, so only that of Listener.Route counts.
	Authz *authz.Policy

	Match Match // which requests it takes; the zero value takes all
	// Policy is the cluster's with what the route changes; nil is the cluster's own.
	Policy *upstream.Policy
	// Split divides the route's requests; without it all go to Cluster.
	Split []Share
	// Rewrite is what becomes of the path.
	Rewrite Rewrite
	// Request and Response change the fields of heads on their way.
	Request, Response Edits
	// Reply answers in place of an endpoint; nil forwards.
	Reply *Reply
	// Refuse is the reason with which requests are refused; OK forwards.
	Refuse outcome.Reason
	// RateLimits are those of Cluster, in the order in which they are asked.
	RateLimits []*RateLimit
	// Breaker is the route's own; nil unless the policy of Cluster gives each route one.
	Breaker *upstream.RouteBreaker
	// Gate lets in under the route's own limit; nil without one.
	Gate *upstream.Gate
	// Priorities and, where none of them takes an exchange, Priority say whose
	// turn comes first.
	Priorities []PriorityRule
	Priority   queue.Priority
	// Throttle is the route's own; nil unless the policy of Cluster gives each route one.
	Throttle *upstream.Throttle
	// Latency is what hedging has learnt of the route's requests; nil where it is
	// told only by cluster.
	Latency *hedge.Latency
	// Partial says that some guard on the way of an exchange acts for a
	// percentage of them only: it needs a draw.
	Partial bool
	// Metrics count by route; nil on a listener without a table.
	Metrics *telemetry.Route
}

// Share is one destination of a split.
type Share struct {
	Below uint32 // of Parts: the sum of the weights up to and with this one
	Route *Route
}

// Parts is what the weights of a split add up to: a part is 0.01 %, as in
// Consul's service-splitter.
const Parts = 10_000

// Choose returns the route of one of the split's destinations, or r itself
// without a split. word is a fresh uniformly random word.
func (r *Route) Choose(word uint64) *Route {
	if len(r.Split) == 0 {
		return r
	}
	part, _ := bits.Mul64(word, Parts)
	i := 0
	for i < len(r.Split)-1 && uint32(part) >= r.Split[i].Below {
		i++
	}
	return r.Split[i].Route
}

// Reply is an answer given by the proxy itself.
type Reply struct {
	Status int
	Reason string // the phrase behind the status
	Body   []byte
	Type   string // content-type; left out with an empty Body
}

// Rewrite changes the path of a request before it is sent. The query stays.
type Rewrite struct {
	On bool
	// Cut is how much of the path To takes the place of; -1 all of it.
	Cut int
	To  string
}

// escapes reports whether what remains of the path might lead out of what it is
// put behind, as "/x../y" would if "/x" became "/".
func (w *Rewrite) escapes(path []byte) bool {
	return w.On && w.Cut > 0 && len(path) > w.Cut && path[w.Cut] != '/' && http1.AmbiguousRest(path[w.Cut:])
}

// AppendHead appends the head of the request for forwarding, as
// http1.Request.AppendHead does, with the path that the route gives it.
func (r *Route) AppendHead(dst []byte, req *http1.Request, raw []byte) []byte {
	w := &r.Rewrite
	if !w.On || req.Form != http1.OriginForm && req.Form != http1.AbsoluteForm {
		return req.AppendHead(dst, raw)
	}
	rest := req.Path
	if w.Cut < 0 {
		rest.Off = rest.End
	} else {
		rest.Off = min(rest.Off+uint32(w.Cut), rest.End)
	}
	to := w.To
	if rest.Len() > 0 && raw[rest.Off] == '/' && to[len(to)-1] == '/' {
		to = to[:len(to)-1] // else two slashes would meet
	}
	return req.AppendHeadAs(dst, raw, to, rest)
}

// destination names the cluster, and the subset of it.
func (r *Route) destination() string {
	if r.Subset == nil {
		return r.Cluster.Name()
	}
	return r.Cluster.Name() + "/" + r.Subset.Name()
}

// Extra is how many bytes the route may add to the head of a request.
func (r *Route) Extra() int { return len(r.Request.lines) + len(r.Rewrite.To) }
