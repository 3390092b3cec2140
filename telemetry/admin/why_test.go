package admin

import (
	"net/http"
	"strings"
	"testing"
)

// sampleWhy are exchanges of every kind.
func sampleWhy() []WhyView {
	left, code := 7.2, 14
	force := []SettingView{
		{"policies.api.timeout", "2s", "web.yaml:14:9"},
		{"policies.api.connect_timeout", "1s", "default"},
	}
	retried := WhyView{
		RequestID: "0f8fad5b-d9cb-469f-a165-70867728950e", Time: noon, Direction: "outbound", Listener: "outbound:api", Plan: 3,
		Method: "GET", Authority: "api", Path: "/pay", Protocol: "HTTP/1.1", Caller: "127.0.0.1:50123", Original: "240.0.0.5:80",
		Route: "pay", RouteWhy: "path_prefix /pay, method GET", RouteAt: "web.yaml:9:9", Cluster: "api",
		DeadlineMs: 2000, DeadlineBy: "policy", InForce: force, Usable: 2, Endpoints: 3, Breaker: "closed", AttemptCount: 2,
		Attempts: []AttemptView{
			{
				Endpoint: "10.0.0.1:15006", Algorithm: "p2c_ewma", OffsetMs: 0.02, DurationMs: 12.4, ConnectMs: 3.25, Reason: "upstream_error", Status: 503,
				Candidates: []CandidateView{{"10.0.0.1:15006", 1.2e6, "healthy"}, {"10.0.0.2:15006", 3.4e6, "probation"}},
				Retry:      "again", WaitMs: 8, Budget: &left,
			},
			{Endpoint: "10.0.0.2:15006", Algorithm: "p2c_ewma", OffsetMs: 20.42, DurationMs: 1979.58, Reason: "request_timeout", Retry: "not_retryable", Budget: &left, Candidates: []CandidateView{}},
		},
		NoFurther: "another attempt cannot help after this failure, or must not be made",
		Reason:    "request_timeout", Meaning: "The request was not answered within its timeout.", Status: 504, ClosedBy: "this proxy",
		DurationMs: 2000.1, BytesOut: 210, Settings: force[:1], UpstreamID: "spiffe://example.org/api",
	}
	denied := WhyView{
		RequestID: "a", Time: noon, Direction: "inbound", Listener: "inbound", Plan: 1, Method: "POST", Authority: "api", Path: "/admin", Protocol: "HTTP/2",
		Caller: "10.0.0.9:4000", CallerID: "spiffe://example.org/shop", Route: "inbound", Cluster: "api", Rule: "no-admin", RuleAt: "api.yaml:8:5",
		DeadlineBy: "none", InForce: []SettingView{}, Attempts: []AttemptView{},
		Reason: "denied", Meaning: "The caller is not allowed to do this.", Status: 403, ClosedBy: "this proxy", DurationMs: 0.08,
		Settings: []SettingView{{"authorization.rules[1].name", "no-admin", "api.yaml:8:5"}},
	}
	call := WhyView{
		RequestID: "b\x1b[2J", Time: noon, Direction: "outbound", Listener: "outbound:api", Plan: 1, Method: "POST", Authority: "api", Path: "/shop.Cart/Add", Protocol: "HTTP/2",
		Cluster: "api", DeadlineMs: 150, DeadlineBy: "grpc-timeout", InForce: []SettingView{}, Usable: 3, Endpoints: 3, Panicking: true, AttemptCount: 12,
		Attempts: []AttemptView{
			{Endpoint: "10.0.0.1:1", Algorithm: "least_request", Candidates: []CandidateView{{"10.0.0.1:1", 2, "healthy"}, {"10.0.0.2:1", 7, "healthy"}}, Reason: "connect_failed", Retry: "again"},
			{Endpoint: "10.0.0.3:1", Algorithm: "least_request", Candidates: []CandidateView{}, OffsetMs: 11_000, DurationMs: 149, Reason: "request_timeout"},
		},
		Reason: "request_timeout", Meaning: "The request was not answered within its timeout.", Detail: "a\nb", Status: 200, GRPCStatus: &code, ClosedBy: "this proxy",
		DurationMs: 11_149, FirstByteMs: 12, NoFurther: "the answer had begun", Settings: []SettingView{}, Unknown: true, WouldDeny: true,
	}
	tcp := WhyView{
		Time: noon, Direction: "outbound", Listener: "outbound:db", Plan: 1, Protocol: "tcp", Route: "db", Cluster: "db", DeadlineBy: "none",
		InForce: []SettingView{{"policies.db.tcp_idle_timeout", "1h", "default"}}, Attempts: []AttemptView{}, AttemptCount: 0,
		Reason: "no_endpoints", Meaning: "The cluster has no endpoint that may be used.", ClosedBy: "this proxy",
		Settings: []SettingView{{"policies.db.health", "off", "default"}},
	}
	return []WhyView{retried, denied, call, tcp}
}

func TestWhyPages(t *testing.T) {
	var n int
	var failures bool
	s := sample(func(o *Options) {
		o.Views.Why = func(id string) []WhyView {
			for _, v := range sampleWhy() {
				if v.RequestID == id {
					return []WhyView{v}
				}
			}
			return nil
		}
		o.Views.Ledger = func(most int, only bool) []WhyView {
			n, failures = most, only
			return sampleWhy()
		}
	})
	w := ask(s, "GET", "/ledger", "")
	golden(t, "ledger.txt", w.Body.String())
	if w.Code != http.StatusOK || n != defaultLedger || failures {
		t.Errorf("%d: %d, failures %v", w.Code, n, failures)
	}
	w = ask(s, "GET", "/ledger?failures=7&format=json", "")
	golden(t, "ledger.json", w.Body.String())
	if n != 7 || !failures || strings.Contains(w.Body.String(), "null") {
		t.Errorf("%d, failures %v", n, failures)
	}
	w = ask(s, "GET", "/why?id=a", "")
	golden(t, "why.txt", w.Body.String())
	for target, c := range map[string]struct {
		code int
		want string
	}{
		"/why":                  {http.StatusBadRequest, "say which exchange"},
		"/why?id=other":         {http.StatusNotFound, "nothing is kept"},
		"/ledger?last=0":        {http.StatusBadRequest, "write a number"},
		"/ledger?failures=1001": {http.StatusBadRequest, "write a number"},
		"/ledger?failures":      {http.StatusOK, "request_timeout"},
	} {
		if w := ask(s, "GET", target, ""); w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	none := sample(func(o *Options) { o.Views.Why, o.Views.Ledger = nil, nil })
	if w := ask(none, "GET", "/why?id=a", ""); w.Code != http.StatusNotFound {
		t.Errorf("without a ledger: %d", w.Code)
	}
	if w := ask(none, "GET", "/ledger", ""); w.Code != http.StatusOK || w.Body.String() != "nothing is kept\n" {
		t.Errorf("without a ledger: %d %s", w.Code, w.Body)
	}
	if w := ask(none, "GET", "/ledger?failures=3", ""); w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), "no failure is kept") {
		t.Errorf("without failures: %d %s", w.Code, w.Body)
	}
}

// Nothing that a peer sends moves the reader's cursor.
func TestStoryIsPlain(t *testing.T) {
	for _, v := range sampleWhy() {
		if text := story(&v); strings.ContainsAny(text, "\x1b\r\x7f") {
			t.Errorf("%q", text)
		}
	}
}
