package admin

import (
	"errors"
	"io"
	"net/http"
	"net/url"
)

// Question is a request that nobody has sent.
type Question struct {
	From   string   // the caller: a service's name or a SPIFFE ID; empty for one without identity, or for the proxy's own service
	To     string   // the service that is called
	Method string   // default GET
	Target string   // path and query; default /
	Fields []string // field lines, "Name: value"
}

// Values writes the question as the query of /explain.
func (q *Question) Values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"from": q.From, "to": q.To, "method": q.Method, "target": q.Target} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if len(q.Fields) > 0 {
		v["header"] = q.Fields
	}
	return v
}

// ErrNotHere is the answer of a proxy that the question does not concern.
var ErrNotHere = errors.New("this proxy carries nothing of that")

// LegView is what one proxy would make of a request.
type LegView struct {
	Service   string `json:"service"` // the proxy's own
	Direction string `json:"direction"`
	Listener  string `json:"listener"`
	Address   string `json:"address"`
	Protocol  string `json:"protocol"`
	Security  string `json:"security"`
	Source    string `json:"source"` // the file the configuration was read from
	Live      bool   `json:"live"`   // states are those of a running proxy
	Plan      uint64 `json:"plan,omitempty"`
	Request   string `json:"request"`
	CallerID  string `json:"caller_id,omitempty"`

	// Reason is how the exchange would end as far as it can be told: "ok" where
	// an endpoint would be asked, or where the proxy gives the configured answer.
	Reason  string `json:"reason"`
	Meaning string `json:"meaning"`
	Detail  string `json:"detail,omitempty"`
	Status  int    `json:"status,omitempty"` // that the proxy itself would answer

	Rule      string `json:"rule,omitempty"`
	RuleAt    string `json:"rule_at,omitempty"`
	WouldDeny bool   `json:"would_deny,omitempty"`

	Route    string `json:"route,omitempty"`
	RouteWhy string `json:"route_why,omitempty"`
	RouteAt  string `json:"route_at,omitempty"`
	// Sent is the request line as the endpoint gets it, where it differs.
	Sent string `json:"sent,omitempty"`

	RateLimits   []LimitVerdict    `json:"rate_limits"`
	Destinations []DestinationView `json:"destinations"`
}

// LimitVerdict is what one rate limit says.
type LimitVerdict struct {
	Name   string `json:"name"`
	Quota  string `json:"quota"`
	Key    string `json:"key"`
	Mode   string `json:"mode"`
	Scope  string `json:"scope,omitempty"`  // who counts for several proxies
	Passes *bool  `json:"passes,omitempty"` // left out where it depends on who comes, others count, or nothing runs
}

// DestinationView is one of the places that the request may go to.
type DestinationView struct {
	Cluster    string   `json:"cluster"`
	Percent    float64  `json:"percent"` // of the requests
	Transport  string   `json:"transport"`
	Identities []string `json:"identities,omitempty"`

	Balance   string         `json:"balance"`
	Endpoints []EndpointView `json:"endpoints"`
	Usable    int            `json:"usable_endpoints"`
	Panicking bool           `json:"panicking,omitempty"`
	Breaker   string         `json:"breaker,omitempty"`
	// BreakerOf says in words whose it is; empty for that of the cluster.
	BreakerOf string `json:"breaker_of,omitempty"`
	// Breakers is how many endpoints have one of their own, BreakersOpen how many
	// of these are open; Breaker is then the one that refuses least.
	Breakers     int      `json:"breakers,omitempty"`
	BreakersOpen int      `json:"breakers_open,omitempty"`
	Active       int64    `json:"active_requests"`
	Budget       *float64 `json:"retry_budget,omitempty"` // retries that may be made now

	// Shares are how attempts are divided by priority and zone; empty where they are not.
	Shares []ShareView `json:"shares,omitempty"`

	// Failover are the services that have its attempts while none of its endpoints
	// is available, in their order.
	Failover []FailoverView `json:"failover,omitempty"`

	// Gates are the limits on active requests that it would pass, and Priority
	// whose turn it would have at them. WaitMs is for how long it would wait at
	// most, where there is no room now and a queue.
	Gates    []GateView `json:"gates,omitempty"`
	Priority string     `json:"priority,omitempty"`
	WaitMs   float64    `json:"wait_ms,omitempty"`
	// Admission is what holds it back with the probability that it says; nil without it.
	Admission *AdmissionView `json:"admission,omitempty"`
	// Faults are those made on purpose that it may meet, in the order in which they are drawn.
	Faults []FaultMatch `json:"faults,omitempty"`
	// CallerRepeats says that the caller's sidecar repeats the request, so that
	// this one does so only where no endpoint can have seen it.
	CallerRepeats bool `json:"caller_repeats,omitempty"`

	// Hedge is that further endpoints may be asked beside one that is slow to
	// answer; nil where that is not so.
	Hedge *HedgeMatch `json:"hedge,omitempty"`

	// Reason is why no endpoint of it would be asked now; empty if one would.
	Reason string `json:"reason,omitempty"`
	// Attempts is how many endpoints are asked at most, those of hedging
	// included, Processed how many of them may have processed the request.
	Attempts  int `json:"attempts_at_most"`
	Processed int `json:"processed_at_most"`
	// WorstMs is when the answer has begun, or the caller has been told that
	// there is none, at the latest; 0 where nothing bounds it. WorstBy says what.
	WorstMs float64 `json:"worst_ms"`
	WorstBy string  `json:"worst_by"`

	Settings []SettingView `json:"settings"`
}

// FaultMatch is a fault made on purpose that a request may meet.
type FaultMatch struct {
	Name     string  `json:"name"`
	Does     string  `json:"does"`
	Percent  float64 `json:"percent"`            // of the attempts
	Endpoint string  `json:"endpoint,omitempty"` // at which alone
}

// HedgeMatch is how a request would be hedged.
type HedgeMatch struct {
	Mode    string  `json:"mode"`               // enforce, observe
	Extra   int     `json:"extra"`              // endpoints that are asked beside another, at most
	DelayMs float64 `json:"delay_ms,omitempty"` // after which; left out where too little has been seen yet
}

// explain says what would become of a request: ?to=SERVICE&from=CALLER&
// method=GET&target=/&header=Name:+value.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	q := &Question{From: v.Get("from"), To: v.Get("to"), Method: v.Get("method"), Target: v.Get("target"), Fields: v["header"]}
	f := s.opts.Views.Explain
	if f == nil {
		http.Error(w, ErrNotHere.Error(), http.StatusNotFound)
		return
	}
	leg, err := f(q)
	switch {
	case errors.Is(err, ErrNotHere):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	leg.stand()
	s.page(w, r, http.StatusOK, leg, func(w io.Writer) { _ = leg.WriteText(w) })
}

// stand fills in where the endpoints stand.
func (v *LegView) stand() {
	for i := range v.Destinations {
		list := v.Destinations[i].Endpoints
		for k := range list {
			list[k].Standing = standing(&list[k])
		}
	}
}
