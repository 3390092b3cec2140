package admin

import "time"

// Views are where the pages get their data from: functions that the proxy
// gives. Each may be called from several goroutines at any time and must
// return soon. A nil one makes its page empty.
type Views struct {
	Ready       func() (bool, []Check) // whether the proxy may get traffic, and what that rests on
	Config      func() ([]byte, error) // the effective configuration and the plan, as YAML
	Endpoints   func() []EndpointView
	Clusters    func() []ClusterView
	RateLimits  func() []RateLimitView
	Connections func() []ConnectionView
	Plaintext   func() []PlaintextView // who came without mTLS to a permissive listener
	Identity    func() IdentityView
	Discovery   func() []WatchView
	// Mesh is what Consul's mesh says of this sidecar; nil where it is none.
	Mesh    func() MeshView
	Reload  func() ReloadView
	Process func() ProcessView
	Why     func(id string) []WhyView            // what was decided for the exchanges with a request id
	Ledger  func(n int, failures bool) []WhyView // the same for the last n, or the last n that failed
	// Explain says what would become of a request; an error is the question's, or ErrNotHere.
	Explain func(*Question) (*LegView, error)
	// Order obeys what an operator orders for endpoints; nil turns that off. An
	// error of type *OrderError says with which status to answer.
	Order func(*Order) (OrderView, error)
	// Faults are those made on purpose.
	Faults FaultViews
}

// Check is one condition of readiness.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// EndpointView is one endpoint of one cluster.
type EndpointView struct {
	Cluster          string        `json:"cluster"`
	Address          string        `json:"address"`
	ID               string        `json:"id"`                // the discovery source's name for the instance
	Health           string        `json:"health"`            // as discovery says: passing, warning, critical
	Absent           bool          `json:"absent,omitempty"`  // discovery does not list it: there is only an order for it
	Standing         StandingView  `json:"standing"`          // what all below comes to; filled in by the server
	Hand             *HandView     `json:"hand,omitempty"`    // nil when no order by hand concerns it
	Check            *CheckView    `json:"check,omitempty"`   // nil without active checks
	Breaker          *BreakerView  `json:"breaker,omitempty"` // its own; nil unless breaker.scope is endpoint
	State            string        `json:"state"`             // as outlier detection says: healthy, ejected, probation
	Cause            string        `json:"cause"`             // why it is in that state
	Since            time.Time     `json:"since,omitzero"`
	Until            time.Time     `json:"until,omitzero"` // when an ejection ends
	Evidence         []OutcomeView `json:"evidence"`       // the last outcomes, oldest first
	Weight           uint32        `json:"weight"`
	Active           int64         `json:"active"`                // attempts in flight
	MostActive       int64         `json:"most_active,omitempty"` // that it may have; 0: unlimited
	EWMAMs           float64       `json:"ewma_ms"`               // the balancer's latency estimate
	Requests         uint64        `json:"requests"`
	Failures         uint64        `json:"failures"`
	Ejections        uint64        `json:"ejections"`
	WouldHaveEjected uint64        `json:"would_have_ejected"`
	Caution          *CautionView  `json:"caution,omitempty"` // nil without it
	// Reported is nil unless endpoints are weighted by the load they report.
	Reported *ReportedView `json:"reported,omitempty"`
	// Draining is why it gets nothing new; empty when it does.
	Draining string            `json:"draining,omitempty"`
	Region   string            `json:"region,omitempty"`
	Zone     string            `json:"zone,omitempty"`
	Priority uint16            `json:"priority,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"` // of the catalog
}

// CautionView is what is suspected of an endpoint that is not ejected.
type CautionView struct {
	Mode          string    `json:"mode"`          // enforce, observe
	SharePercent  float64   `json:"share_percent"` // that it keeps of its share of the attempts, or in observe mode would
	Since         time.Time `json:"since,omitzero"`
	FailedPercent float64   `json:"failed_percent"` // of its attempts of late
	LatencyMs     float64   `json:"latency_ms"`     // the mean of those that did not fail
}

// ReportedView is what the load that an endpoint reports makes of its weight.
type ReportedView struct {
	Mode  string `json:"mode"`  // enforce, observe
	State string `json:"state"` // silent, blackout, counted, expired
	// WeightPercent is of its weight in the catalog; 100 is the mean.
	WeightPercent float64 `json:"weight_percent"`
	AgeMs         *int64  `json:"age_ms,omitempty"` // of the last report; nil without one
}

// HandView is what orders by hand make of an endpoint.
type HandView struct {
	State  string    `json:"state"`            // free, ejected, pinned, passed_over (others are pinned), needed (all are ejected)
	Act    string    `json:"act,omitempty"`    // its own order: eject, pin; empty for one that is passed over
	By     string    `json:"by,omitempty"`     // who gave it
	Reason string    `json:"reason,omitempty"` // in their words
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"`
}

// CheckView is what an endpoint's active checks say.
type CheckView struct {
	Kind        string    `json:"kind"`  // grpc, http, tcp
	Mode        string    `json:"mode"`  // enforce, observe
	State       string    `json:"state"` // unknown, healthy, unhealthy
	Fit         bool      `json:"fit"`   // whether they leave it traffic; always in observe mode
	Since       time.Time `json:"since,omitzero"`
	Cause       string    `json:"cause,omitempty"` // why it is unhealthy: connect, identity, timeout, status, not_serving ...
	CauseDetail string    `json:"cause_detail,omitempty"`
	Result      string    `json:"result,omitempty"` // of the last check: passed, or a cause
	Detail      string    `json:"detail,omitempty"`
	At          time.Time `json:"at,omitzero"` // when the last check ended
	Next        time.Time `json:"next"`        // when the next one is due
	Against     uint32    `json:"against"`     // results in a row that speak against the state
	Checks      uint64    `json:"checks"`      // made so far
}

// OutcomeView is one attempt's outcome, kept as evidence.
type OutcomeView struct {
	AgeMs  int64  `json:"age_ms"` // how long ago
	Result string `json:"result"` // success, failure, local_failure, ignored
	Status uint16 `json:"status"` // 0 if there was no response
}

// ClusterView is one cluster.
type ClusterView struct {
	Name          string          `json:"name"`
	Direction     string          `json:"direction"` // inbound, outbound
	Protocol      string          `json:"protocol"`
	Balance       string          `json:"balance"` // how an endpoint is picked, and by what
	Endpoints     int             `json:"endpoints"`
	Available     int             `json:"available"`
	Ejected       int             `json:"ejected"`
	Unhealthy     int             `json:"unhealthy"`           // by active checks
	Draining      int             `json:"draining,omitempty"`  // by discovery: they get nothing new
	Panic         bool            `json:"panic"`               // too few are available, so all are used
	Breaker       *BreakerView    `json:"breaker,omitempty"`   // nil: none configured; of several the one that refuses most
	Breakers      []BreakerView   `json:"breakers,omitempty"`  // one a route or endpoint, where that is the scope
	Admission     []AdmissionView `json:"admission,omitempty"` // of the cluster, or one a route
	BudgetBalance float64         `json:"budget_balance"`      // retries that may be made now
	Limits        LimitsView      `json:"limits"`
	Active        int64           `json:"active"` // exchanges in flight
	Requests      uint64          `json:"requests"`
	Failures      uint64          `json:"failures"`
	Retries       uint64          `json:"retries"`
	P50Ms         float64         `json:"p50_ms"`
	P99Ms         float64         `json:"p99_ms"`
	Durations     []uint64        `json:"durations"`  // exchanges in each bucket of outrigger_exchange_duration_seconds, the last without bound
	Identities    []string        `json:"identities"` // the SPIFFE IDs that its endpoints may have
	Subsets       []SubsetView    `json:"subsets,omitempty"`
	Gates         []GateView      `json:"gates,omitempty"` // limits on active requests: the cluster's, then those of routes
	// QueueResults say how many of those who had to wait came to which end.
	QueueResults map[string]uint64 `json:"queue_results,omitempty"`
	Faults       []string          `json:"faults,omitempty"` // made on purpose, that run, by name; filled in by the server
	// Shares are how attempts are divided by priority and zone; empty where they are not.
	Shares []ShareView `json:"shares,omitempty"`
	// Failover are the services that have its attempts while none of its endpoints
	// is available, in their order.
	Failover []FailoverView `json:"failover,omitempty"`
}

// ShareView is what endpoints of one priority that are equally far away have of
// a cluster's attempts.
type ShareView struct {
	Priority  uint16  `json:"priority"`
	Place     string  `json:"place"` // zone, region, elsewhere
	Available int     `json:"available"`
	Percent   float64 `json:"percent"`
}

// SubsetView is a named part of a cluster's endpoints.
type SubsetView struct {
	Name      string            `json:"name"`
	Match     map[string]string `json:"match"`    // the metadata of its endpoints
	Fallback  string            `json:"fallback"` // none, any
	Endpoints int               `json:"endpoints"`
	Available int               `json:"available"`
	Panic     bool              `json:"panic"`
	FallsBack bool              `json:"falls_back"` // it is empty, and the whole cluster is used
	Fallbacks uint64            `json:"fallbacks"`  // attempts
	Refused   uint64            `json:"refused"`    // exchanges
}

// BreakerView is the state of a circuit breaker.
type BreakerView struct {
	Scope             string    `json:"scope"`        // cluster, route, endpoint
	Of                string    `json:"of,omitempty"` // the listener and route, or the endpoint's address
	State             string    `json:"state"`        // closed, half_open, open
	Mode              string    `json:"mode"`         // enforce, observe
	Since             time.Time `json:"since,omitzero"`
	Until             time.Time `json:"until,omitzero"` // when an open one lets a probe through
	Requests          uint64    `json:"requests"`       // in the window
	Failures          uint64    `json:"failures"`       // in the window
	Opened            uint64    `json:"opened"`         // times
	Cause             string    `json:"cause"`          // why it opened last: none, failure_percent, consecutive_failures, trial_failed
	Rejected          uint64    `json:"rejected"`
	WouldHaveRejected uint64    `json:"would_have_rejected"`
}

// AdmissionView is what admission control makes of the requests to a cluster.
type AdmissionView struct {
	Scope             string  `json:"scope"`           // cluster, route
	Route             string  `json:"route,omitempty"` // the listener and route
	Mode              string  `json:"mode"`            // enforce, observe
	Requests          uint64  `json:"requests"`        // in the window
	Accepts           uint64  `json:"accepts"`         // in the window
	RejectionPercent  float64 `json:"rejection_percent"`
	Rejected          uint64  `json:"rejected"`
	WouldHaveRejected uint64  `json:"would_have_rejected"`
}

// LimitsView is the use of a cluster's limits.
type LimitsView struct {
	Connections       LimitView `json:"connections"`
	Pending           LimitView `json:"pending"`
	Requests          LimitView `json:"requests"`
	WouldHaveRejected uint64    `json:"would_have_rejected"`
}

// LimitView is the use of one limit.
type LimitView struct {
	Value    int64  `json:"value"`
	Max      int64  `json:"max"` // in force; 0: unlimited
	Rejected uint64 `json:"rejected"`
}

// RateLimitView is one rate limit of one cluster.
type RateLimitView struct {
	Cluster    string `json:"cluster"`
	Direction  string `json:"direction"` // inbound, outbound
	Name       string `json:"name"`
	Requests   int64  `json:"requests"` // that may come in each time of PerMs
	PerMs      int64  `json:"per_ms"`
	Burst      int64  `json:"burst"` // that may come at once
	Key        string `json:"key"`   // none, identity, source_ip, route, or header: and its name
	Mode       string `json:"mode"`  // enforce, observe
	Keys       int    `json:"keys"`  // that have a bucket now
	MaxKeys    int    `json:"max_keys"`
	Evictions  uint64 `json:"evictions"` // keys that had to make room
	Passed     uint64 `json:"passed"`
	Limited    uint64 `json:"limited"`
	WouldLimit uint64 `json:"would_limit"` // beyond the rate in observe mode
	Scope      string `json:"scope"`       // for whom it counts: proxy, or who counts for several

	Shares int `json:"shares"` // that the rate is divided into: this proxy keeps to one

	// Of one that somebody else counts for several proxies.
	Entries        []string `json:"entries,omitempty"` // what it is told of a request, by name
	Errors         uint64   `json:"errors"`            // questions without an answer
	UnknownPassed  uint64   `json:"unknown_passed"`    // requests let pass because of that
	UnknownRefused uint64   `json:"unknown_refused"`   // refused because of that
	AskP50Ms       float64  `json:"ask_p50_ms"`        // how long answers take
	AskP99Ms       float64  `json:"ask_p99_ms"`
}

// ConnectionView is one downstream connection.
type ConnectionView struct {
	ID        uint64    `json:"id"`
	Direction string    `json:"direction"`
	Listener  string    `json:"listener"`
	Protocol  string    `json:"protocol"`
	Remote    string    `json:"remote"`
	Local     string    `json:"local"`
	Peer      string    `json:"peer"` // the verified SPIFFE ID; empty for plaintext
	TLS       string    `json:"tls"`  // the version; empty for plaintext
	State     string    `json:"state"`
	Since     time.Time `json:"since,omitzero"`
	Exchanges uint64    `json:"exchanges"`
	BytesIn   uint64    `json:"bytes_in"`
	BytesOut  uint64    `json:"bytes_out"`
}

// PlaintextView is one caller that came without mTLS to a permissive listener.
type PlaintextView struct {
	Listener    string    `json:"listener"`
	Address     string    `json:"address"`       // of the caller, without a port; OtherCallers for those that had no row of their own
	Connections uint64    `json:"connections"`   // since the listener was opened
	Last        time.Time `json:"last,omitzero"` // when the last one came; zero for OtherCallers
}

// OtherCallers is the address of the row that counts the connections of
// callers for whom a listener's inventory had no room.
const OtherCallers = "others"

// IdentityView is the proxy's own identity and what it trusts.
type IdentityView struct {
	Source    string       `json:"source"` // workload_api, files, none
	ID        string       `json:"id"`
	NotBefore time.Time    `json:"not_before,omitzero"`
	NotAfter  time.Time    `json:"not_after,omitzero"`
	Updates   uint64       `json:"updates"`
	LastError string       `json:"last_error,omitempty"`
	Bundles   []BundleView `json:"bundles"`
}

// BundleView is the trust bundle of one trust domain.
type BundleView struct {
	TrustDomain string    `json:"trust_domain"`
	Roots       int       `json:"roots"`
	NotAfter    time.Time `json:"not_after,omitzero"` // of the root that expires first
}

// WatchView is one service that is looked up.
type WatchView struct {
	Service   string  `json:"service"`
	Source    string  `json:"source"`
	AgeSec    float64 `json:"age_seconds"` // since the data were last confirmed
	Stale     bool    `json:"stale"`       // the source has trouble; the last good data are used
	Index     uint64  `json:"index"`
	Endpoints int     `json:"endpoints"`
	LastError string  `json:"last_error,omitempty"`
}

// ReloadView is how the last attempts to load the configuration went.
type ReloadView struct {
	Version     uint64    `json:"version"` // of the plan in use
	Applied     time.Time `json:"applied,omitzero"`
	Reloads     uint64    `json:"reloads"`
	Failures    uint64    `json:"failures"`
	LastError   string    `json:"last_error,omitempty"` // empty when the last attempt went well
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	File        string    `json:"file"`
}

// MemoryView is the memory budget.
type MemoryView struct {
	Budget  int64             `json:"budget"` // bytes
	Used    int64             `json:"used"`
	Level   string            `json:"level"` // what is given up: easy, trim, narrow, refuse, shed
	GivenUp map[string]uint64 `json:"given_up"`
}

// ProcessView says what runs here.
type ProcessView struct {
	Service  string      `json:"service"`
	Version  string      `json:"version"`
	Started  time.Time   `json:"started,omitzero"`
	Draining bool        `json:"draining"`
	Memory   *MemoryView `json:"memory,omitempty"` // nil without a budget
}
