package admin

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// WhyView is what was decided for one exchange.
type WhyView struct {
	RequestID string    `json:"request_id"`
	Time      time.Time `json:"time"`
	Direction string    `json:"direction"`
	Listener  string    `json:"listener"`
	Plan      uint64    `json:"plan"` // the version of the plan

	Method    string `json:"method,omitempty"` // empty for TCP
	Authority string `json:"authority,omitempty"`
	Path      string `json:"path,omitempty"` // without query
	Protocol  string `json:"protocol,omitempty"`
	Caller    string `json:"caller,omitempty"`
	CallerID  string `json:"caller_id,omitempty"`
	// Original is where an intercepted connection was going.
	Original string `json:"original_destination,omitempty"`

	Route     string `json:"route,omitempty"`
	RouteWhy  string `json:"route_why,omitempty"` // the conditions that were met
	RouteAt   string `json:"route_at,omitempty"`  // where they stand
	Cluster   string `json:"cluster,omitempty"`
	Rule      string `json:"rule,omitempty"` // the authorization rule that decided
	RuleAt    string `json:"rule_at,omitempty"`
	WouldDeny bool   `json:"would_deny,omitempty"` // rules that are only observed would have refused

	DeadlineMs float64 `json:"deadline_ms,omitempty"`
	DeadlineBy string  `json:"deadline_by"` // policy, caller, grpc-timeout or none
	// Priority is whose turn it had, where the limit on active requests was reached
	// as it came, and QueuedMs how long it waited then.
	Priority string        `json:"priority,omitempty"`
	QueuedMs float64       `json:"queued_ms,omitempty"`
	InForce  []SettingView `json:"in_force"`

	// Usable and Endpoints are those of the cluster at the last pick.
	Usable       int           `json:"usable_endpoints"`
	Endpoints    int           `json:"endpoints"`
	Panicking    bool          `json:"panicking,omitempty"`
	Breaker      string        `json:"breaker,omitempty"` // at the end
	AttemptCount int           `json:"attempt_count"`
	Attempts     []AttemptView `json:"attempts"` // the first ones and the last
	NoFurther    string        `json:"no_further,omitempty"`

	Reason      string  `json:"reason"`
	Meaning     string  `json:"meaning"`
	Detail      string  `json:"detail,omitempty"`
	Status      int     `json:"status,omitempty"`
	GRPCStatus  *int    `json:"grpc_status,omitempty"`
	ClosedBy    string  `json:"closed_by"`
	UpstreamID  string  `json:"upstream_id,omitempty"`
	DurationMs  float64 `json:"duration_ms"`
	FirstByteMs float64 `json:"first_byte_ms,omitempty"`
	BytesIn     uint64  `json:"bytes_in"`
	BytesOut    uint64  `json:"bytes_out"`

	// Settings would have changed the end.
	Settings []SettingView `json:"settings"`
	// Unknown: the configuration of that time is no longer kept, so that
	// nothing is said of where values came from.
	Unknown bool `json:"configuration_unknown,omitempty"`
}

// SettingView is a value of the configuration with where it came from.
type SettingView struct {
	Path   string `json:"path"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

// AttemptView is one try against one endpoint.
type AttemptView struct {
	Cluster    string          `json:"cluster,omitempty"` // whose endpoint it is, where that is failover
	Endpoint   string          `json:"endpoint"`
	Algorithm  string          `json:"algorithm,omitempty"`
	Candidates []CandidateView `json:"candidates"` // that were compared
	OffsetMs   float64         `json:"offset_ms"`
	DurationMs float64         `json:"duration_ms"`
	ConnectMs  float64         `json:"connect_ms,omitempty"` // left out for a kept connection
	Reason     string          `json:"reason"`
	Status     int             `json:"status,omitempty"`
	Hedge      bool            `json:"hedge,omitempty"` // started beside an earlier one that was slow
	Retry      string          `json:"retry,omitempty"` // the answer to whether another attempt may follow
	WaitMs     float64         `json:"wait_ms,omitempty"`
	Budget     *float64        `json:"budget,omitempty"` // retries left for the cluster
	Fault      string          `json:"fault,omitempty"`  // made on purpose, in words
}

// CandidateView is an endpoint that a pick compared.
type CandidateView struct {
	Address string  `json:"address"`
	Score   float64 `json:"score"` // the lower one wins: nanoseconds of peak EWMA, or requests in flight, by weight
	State   string  `json:"state"`
}

const (
	defaultLedger = 10
	maxLedger     = 1000
)

// why tells the exchanges with the request id ?id=.
func (s *Server) why(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	if id == "" {
		http.Error(w, "say which exchange: /why?id=REQUEST-ID, as in x-request-id", http.StatusBadRequest)
		return
	}
	var list []WhyView
	if f := s.opts.Views.Why; f != nil {
		list = f(id)
	}
	if len(list) == 0 {
		http.Error(w, fmt.Sprintf("nothing is kept about the request %.64q: it was another proxy's, or went well and was not in the sample, or is too long ago", id), http.StatusNotFound)
		return
	}
	s.page(w, r, http.StatusOK, list, func(w io.Writer) { storiesText(w, list) })
}

// ledger tells the last exchanges: ?last=N of all that are kept, ?failures=N of
// those that failed.
func (s *Server) ledger(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	n, failures := defaultLedger, q.Has("failures")
	for _, key := range []string{"last", "failures"} {
		text := q.Get(key)
		if text == "" {
			continue
		}
		v, err := strconv.Atoi(text)
		if err != nil || v < 1 || v > maxLedger {
			http.Error(w, fmt.Sprintf("%s is %.32q; write a number from 1 to %d", key, text, maxLedger), http.StatusBadRequest)
			return
		}
		n = v
	}
	list := call(func() []WhyView {
		if f := s.opts.Views.Ledger; f != nil {
			return f(n, failures)
		}
		return nil
	})
	s.page(w, r, http.StatusOK, list, func(w io.Writer) {
		switch {
		case len(list) > 0:
		case failures:
			_, _ = fmt.Fprintln(w, "no failure is kept: none came, or those that did are too long ago")
		default:
			_, _ = fmt.Fprintln(w, "nothing is kept")
		}
		storiesText(w, list)
	})
}
