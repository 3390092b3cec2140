package admin

import (
	"strings"
	"time"
)

// noon is the time that all sample data are of.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

func outcomes(marks string) []OutcomeView {
	var v []OutcomeView
	for i, c := range marks {
		o := OutcomeView{AgeMs: int64(len(marks)-i) * 350}
		switch c {
		case '.':
			o.Result, o.Status = "success", 200
		case 'x':
			o.Result, o.Status = "failure", 503
		case '!':
			o.Result = "local_failure"
		default:
			o.Result = "ignored"
		}
		v = append(v, o)
	}
	return v
}

// sampleCheck is a check that once failed, or one of an endpoint that is out.
func sampleCheck(now time.Time, state string) *CheckView {
	v := &CheckView{
		Kind: "grpc", Mode: "enforce", State: state, Fit: state == "healthy", Since: now.Add(-9 * time.Minute), At: now.Add(-200 * time.Millisecond), Next: now.Add(800 * time.Millisecond),
		Result: "timeout", Detail: "waiting for the answer", Against: 1, Checks: 118,
	}
	if state == "unhealthy" {
		v.Cause, v.CauseDetail, v.Against = "not_serving", "NOT_SERVING", 0
	}
	return v
}

// sampleViews are a proxy in trouble, so that every part of the pages shows.
func sampleViews(now time.Time) Views {
	good := strings.Repeat(".", 20)
	return Views{
		Ready: func() (bool, []Check) {
			return true, []Check{{"identity", true, "spiffe://example.test/web"}, {"discovery", true, "2 services"}, {"listeners", true, "2 bound"}}
		},
		Config: func() ([]byte, error) { return []byte("service:\n  name: web\n"), nil },
		Process: func() ProcessView {
			return ProcessView{Service: "web", Version: "0.1.0", Started: now.Add(-3*time.Hour - 12*time.Minute)}
		},
		Reload: func() ReloadView {
			return ReloadView{
				Version: 7, Applied: now.Add(-26 * time.Minute), Reloads: 7, Failures: 1, File: "/etc/outrigger/web.yaml",
				LastError:   "web.yaml:14:5: policies.api.retry.atempts: unknown key; did you mean attempts?",
				LastErrorAt: now.Add(-42 * time.Second),
			}
		},
		Identity: func() IdentityView {
			return IdentityView{
				Source: "workload_api", ID: "spiffe://example.test/web", NotBefore: now.Add(-20 * time.Minute), NotAfter: now.Add(40 * time.Minute), Updates: 5,
				Bundles: []BundleView{{"example.test", 1, now.Add(80 * 24 * time.Hour)}, {"partner.test", 2, now.Add(11 * 24 * time.Hour)}},
			}
		},
		Discovery: func() []WatchView {
			return []WatchView{
				{Service: "api", Source: "consul", AgeSec: 0.8, Index: 4711, Endpoints: 4},
				{Service: "ledger", Source: "consul", AgeSec: 97, Stale: true, Index: 4688, Endpoints: 2, LastError: "500 No cluster leader"},
			}
		},
		Clusters: func() []ClusterView {
			return []ClusterView{
				{
					Name: "web", Direction: "inbound", Protocol: "http", Balance: "p2c_ewma", Endpoints: 1, Available: 1, BudgetBalance: 10, Active: 3, Requests: 1843220, Failures: 12,
					Gates:        []GateView{{Most: 18, Active: 3, Rejected: 9, Queue: &QueueView{Size: 128, MaxWaitMs: 1000}, Adaptive: &AdaptiveView{Mode: "enforce", Limit: 18, BaselineMs: 0.7, LatencyMs: 0.8}}},
					QueueResults: map[string]uint64{"entered": 412, "delayed": 7, "full": 2},
					P50Ms:        0.8, P99Ms: 6.1, Limits: LimitsView{Connections: LimitView{Value: 12}, Pending: LimitView{Max: 1024}, Requests: LimitView{Value: 3, Max: 18, Rejected: 9}},
				},
				{
					Name: "api", Direction: "outbound", Protocol: "http", Balance: "maglev by header:x-user", Endpoints: 4, Available: 2, Ejected: 1,
					Breaker:       &BreakerView{State: "closed", Mode: "enforce", Requests: 1204, Failures: 31, Opened: 1},
					BudgetBalance: 84.5, Active: 18, Requests: 918211, Failures: 1741, Retries: 402, P50Ms: 2.4, P99Ms: 31.5,
					Limits:     LimitsView{Connections: LimitView{Value: 22, Max: 100}, Pending: LimitView{Max: 1024}, Requests: LimitView{Value: 18, Max: 256}},
					Identities: []string{"spiffe://example.test/api"},
				},
				{
					Name: "ledger", Direction: "outbound", Protocol: "http", Balance: "least_request", Endpoints: 2, Available: 2, Unhealthy: 1, Panic: true,
					Breaker:       &BreakerView{State: "open", Mode: "enforce", Since: now.Add(-2 * time.Second), Until: now.Add(3 * time.Second), Requests: 88, Failures: 61, Opened: 4},
					BudgetBalance: 0.2, Active: 97, Requests: 40122, Failures: 3811, Retries: 800, P50Ms: 18.2, P99Ms: 1480,
					Limits:     LimitsView{Connections: LimitView{Value: 100, Max: 100, Rejected: 37}, Pending: LimitView{Value: 211, Max: 1024}, Requests: LimitView{Value: 97}},
					Identities: []string{"spiffe://example.test/ledger"},
					Gates: []GateView{
						{WouldMost: 50, Active: 97, Adaptive: &AdaptiveView{Mode: "observe", Limit: 50, BaselineMs: 9.5, LatencyMs: 18, Learning: true}},
						{Route: "outbound:ledger/export", Most: 2, Active: 2, Rejected: 31, Queue: &QueueView{Waiting: 20, Size: 20, OldestMs: 431, MaxWaitMs: 500, Standing: true}},
					},
					Admission: []AdmissionView{
						{Scope: "route", Route: "outbound:ledger/export", Mode: "enforce", Requests: 400, Accepts: 120, RejectionPercent: 39.9, Rejected: 77},
						{Scope: "route", Route: "outbound:ledger/rest", Mode: "observe", Requests: 900, Accepts: 380, RejectionPercent: 15.5, WouldHaveRejected: 31},
					},
				},
			}
		},
		Endpoints: func() []EndpointView {
			return []EndpointView{
				{Cluster: "web", Address: "127.0.0.1:8080", Health: "passing", State: "healthy", Since: now.Add(-3 * time.Hour), Evidence: outcomes(good), Weight: 1, Active: 3, EWMAMs: 0.7, Requests: 1843220, Failures: 12},
				{Cluster: "api", Address: "10.1.4.21:20000", ID: "api-7f6c-1", Health: "passing", State: "healthy", Since: now.Add(-3 * time.Hour), Evidence: outcomes("................x..."), Weight: 1, Active: 9, EWMAMs: 2.2, Requests: 402112, Failures: 61},
				{
					Cluster: "api", Address: "10.1.4.22:20000", ID: "api-7f6c-2", Health: "passing", State: "ejected", Cause: "5 consecutive failures", Since: now.Add(-3200 * time.Millisecond), Until: now.Add(4800 * time.Millisecond),
					Evidence: outcomes(".............x.xxxxx"), Weight: 1, EWMAMs: 412, Requests: 211009, Failures: 1511, Ejections: 3,
				},
				{
					Cluster: "api", Address: "10.1.4.23:20000", ID: "api-7f6c-3", Health: "passing", State: "probation", Cause: "ejection over: one probe decides", Since: now.Add(-600 * time.Millisecond),
					Evidence: outcomes("............!!!!!"), Weight: 1, Active: 1, EWMAMs: 5000, Requests: 209870, Failures: 150, Ejections: 1,
				},
				{Cluster: "api", Address: "10.1.4.24:20000", ID: "api-7f6c-4", Health: "warning", Check: sampleCheck(now, "healthy"), State: "healthy", Since: now.Add(-9 * time.Minute), Evidence: outcomes("....o..............."), Weight: 1, Active: 9, EWMAMs: 2.6, Requests: 95220, Failures: 19, WouldHaveEjected: 2},
				{Cluster: "ledger", Address: "10.1.9.4:20000", ID: "ledger-0", Health: "critical", Check: sampleCheck(now, "unhealthy"), State: "healthy", Since: now.Add(-50 * time.Minute), Evidence: outcomes("x..xx.x..xx..xx.x.xx"), Weight: 1, Active: 48, EWMAMs: 640, Requests: 20011, Failures: 1904},
				{Cluster: "ledger", Address: "10.1.9.5:20000", ID: "ledger-1", Health: "passing", State: "healthy", Since: now.Add(-50 * time.Minute), Evidence: outcomes(".x..x.xx...x.xx..x.."), Weight: 1, Active: 49, EWMAMs: 588, Requests: 20111, Failures: 1907},
			}
		},
		Faults: FaultViews{List: func() []FaultView {
			return []FaultView{
				{
					Name: "slow-ledger", Cluster: "ledger", Direction: "outbound", Does: "delay 300ms", Percent: 20, By: "127.0.0.1:39420", Began: now.Add(-5 * time.Second), Until: now.Add(time.Minute),
					State: "running", Words: "it runs", Injected: map[string]uint64{"delay": 94}, Places: []FaultPlace{},
				},
				{Name: "over", Cluster: "api", Direction: "outbound", Does: "abort 503", Percent: 5, State: "time_over", Injected: map[string]uint64{}, Places: []FaultPlace{}},
			}
		}},
		RateLimits: func() []RateLimitView {
			return []RateLimitView{
				{Cluster: "web", Direction: "inbound", Name: "caller", Requests: 100, PerMs: 1000, Burst: 50, Key: "identity", Scope: "proxy", Mode: "enforce", Keys: 3, MaxKeys: 10000, Evictions: 1, Passed: 48213, Limited: 17},
				{Cluster: "api", Direction: "outbound", Name: "tenant", Requests: 5, PerMs: 60000, Burst: 5, Key: "header: x-tenant", Scope: "peers", Shares: 3, Mode: "observe", MaxKeys: 500, WouldLimit: 4},
				{Cluster: "web", Direction: "inbound", Name: "shared", Key: "none", Scope: "grpc", Entries: []string{"kind", "tenant"}, Mode: "enforce", Passed: 900, Limited: 12, Errors: 3, UnknownPassed: 3, AskP50Ms: 0.8, AskP99Ms: 4.2},
			}
		},
		Connections: func() []ConnectionView {
			return []ConnectionView{
				{ID: 41, Direction: "inbound", Listener: "inbound", Protocol: "HTTP/1.1", Remote: "10.1.2.9:51022", Local: "10.1.4.9:15006", Peer: "spiffe://example.test/gateway", TLS: "1.3", State: "active", Since: now.Add(-90 * time.Second), Exchanges: 120, BytesIn: 52110, BytesOut: 981221},
				{ID: 42, Direction: "outbound", Listener: "api", Protocol: "HTTP/1.1", Remote: "127.0.0.1:40112", Local: "127.0.0.1:9001", State: "idle", Since: now.Add(-5 * time.Second)},
			}
		},
		Plaintext: func() []PlaintextView {
			return []PlaintextView{
				{Listener: "inbound", Address: "10.1.2.30", Connections: 1204, Last: now.Add(-4 * time.Second)},
				{Listener: "inbound", Address: "2001:db8::17", Connections: 1, Last: now.Add(-2 * time.Hour)},
				{Listener: "inbound", Address: OtherCallers, Connections: 88},
			}
		},
	}
}
