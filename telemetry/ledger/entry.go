// Package ledger keeps in a bounded ring what was decided for exchanges, so that it can be asked afterwards why one ended as it did.
package ledger

import (
	"net/netip"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// MaxAttempts is how many attempts an Entry keeps: the first and the last.
const MaxAttempts = 8

// Deadline is who set the time within which an exchange had to end.
type Deadline uint8

// The sources of deadlines.
const (
	NoDeadline     Deadline = iota
	PolicyDeadline          // the timeout of the policy or the route
	CallerDeadline          // the caller's x-outrigger-deadline
	GRPCDeadline            // the caller's grpc-timeout
	deadlineCount
)

// String returns the word used on the admin API.
func (d Deadline) String() string {
	switch d {
	case PolicyDeadline:
		return "policy"
	case CallerDeadline:
		return "caller"
	case GRPCDeadline:
		return "grpc-timeout"
	}
	return "none"
}

// Entry is what was decided for one exchange. One that Draft gave is filled and
// given back with Put; the slices of one that was read are its own.
type Entry struct {
	ID    []byte // the request id
	Start time.Time

	Inbound  bool
	Listener string
	Plan     uint64 // the version of the plan
	Route    string
	// RoutePath is where the route stands in the configuration; empty for what
	// no route of the listener's table took.
	RoutePath string
	// RouteWhy are the route's conditions in words; empty without a table.
	RouteWhy string
	Cluster  string

	Method, Authority, Path []byte // the path without query
	Protocol                string
	Caller                  netip.AddrPort
	Original                netip.AddrPort // where an intercepted connection was going
	CallerID                string         // SPIFFE ID
	Rule                    string         // the authorization rule that decided
	WouldDeny               bool           // a rule that is only observed would have refused

	// What was in force, 0 for none.
	Timeout, ConnectTimeout, StreamIdle, PerTryTimeout time.Duration
	MaxAttempts                                        int
	Deadline                                           time.Duration // from Start; 0 none
	DeadlineBy                                         Deadline

	// Priority is whose turn it had, and Queued how long it waited, where the limit
	// on active exchanges was reached as it came; empty where there was room.
	Priority string
	Queued   time.Duration

	Reason    outcome.Reason
	Detail    string // the cause in words
	Status    uint16
	GRPC      uint8 // the status of a gRPC call
	IsGRPC    bool
	Duration  time.Duration
	FirstByte time.Duration // from Start to the first byte of the answer; 0 none
	BytesIn   uint64
	BytesOut  uint64

	UpstreamID string // the endpoint's SPIFFE ID

	// Usable and Total are the endpoints of the cluster at the last pick.
	Usable, Total int
	Panicking     bool          // so few were available that others were used, too
	Breaker       breaker.State // at the end
	HasBreaker    bool

	AttemptCount int // made in all
	Attempts     []Attempt

	buf []byte // memory of the encoded form
}

// Failed reports whether the exchange ended badly, by its reason or by the status of a gRPC call.
func (e *Entry) Failed() bool { return e.Reason != outcome.OK || e.IsGRPC && e.GRPC != 0 }

// TCP reports whether it was a connection of another protocol than HTTP.
func (e *Entry) TCP() bool { return !strings.HasPrefix(e.Protocol, "HTTP/") }

// Attempt is one try against one endpoint, and what came of it.
type Attempt struct {
	Endpoint  string
	Cluster   string // whose endpoint it is, where that is not the exchange's: failover
	Algorithm string // by which the endpoint was picked
	// Candidates are those that were compared, the picked one among them; none
	// where nothing was compared.
	Candidates [2]Candidate
	Compared   int

	Offset   time.Duration // from the start of the exchange
	Duration time.Duration
	Connect  time.Duration // 0 for a connection that was there already
	Reason   outcome.Reason
	Status   uint16
	Hedge    bool // started beside an earlier one that was slow

	// Asked says that the policy was asked for another attempt after this one;
	// the rest is its answer.
	Asked     bool
	Why       retry.Why
	Wait      time.Duration
	Budget    float64 // retries left for the cluster
	HasBudget bool

	Fault string // the fault made on purpose that it met, in words; empty without one
}

// Candidate is an endpoint that a pick looked at.
type Candidate struct {
	Address string
	Score   float64 // the lower one wins; see Attempt.Algorithm for what it measures
	State   string  // of its ejection
}

// Next returns the place for one more attempt. When all are taken that is the
// last one.
func (e *Entry) Next() *Attempt {
	e.AttemptCount++
	if len(e.Attempts) < MaxAttempts {
		e.Attempts = append(e.Attempts, Attempt{})
	}
	a := &e.Attempts[len(e.Attempts)-1]
	*a = Attempt{}
	return a
}

// Latest returns the last place that Next gave.
func (e *Entry) Latest() *Attempt { return &e.Attempts[len(e.Attempts)-1] }

func (e *Entry) reset() { *e = Entry{Attempts: e.Attempts[:0], buf: e.buf[:0]} }
