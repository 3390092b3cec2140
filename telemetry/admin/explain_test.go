package admin

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func sampleLeg() *LegView {
	passes, left := false, 99.5
	return &LegView{
		Service: "web", Direction: "outbound", Listener: "outbound:api", Address: "127.0.0.1:9001", Protocol: "http", Security: "plaintext",
		Source: "web.yaml", Live: true, Plan: 3, Request: "POST /pay", Reason: "ok", Meaning: "Everything went well.",
		Rule: "callers", RuleAt: "web.yaml:20:5", WouldDeny: true, Route: "pay", RouteWhy: "path_prefix /pay", RouteAt: "web.yaml:9:9", Sent: "POST /v2/pay",
		RateLimits: []LimitVerdict{
			{Name: "all", Quota: "100 requests per 1s", Key: "route", Mode: "observe", Passes: &passes},
			{Name: "ip", Quota: "10 requests per 1s", Key: "source_ip", Mode: "enforce"},
		},
		Destinations: []DestinationView{
			{
				Cluster: "api", Percent: 90, Transport: "mTLS", Identities: []string{"spiffe://t/api", "spiffe://t/api2"}, Balance: "p2c_ewma",
				Endpoints: []EndpointView{
					{Cluster: "api", Address: "10.0.0.1:1", Health: "passing", State: "healthy"},
					{Cluster: "api", Address: "10.0.0.2:1", Health: "critical", State: "healthy"},
				},
				Shares: []ShareView{{Priority: 0, Place: "zone", Available: 1, Percent: 80}, {Priority: 1, Place: "elsewhere", Available: 1, Percent: 20}},
				Gates: []GateView{
					{Route: "pay", Most: 2, Active: 2, Queue: &QueueView{Waiting: 3, Size: 20, OldestMs: 41, MaxWaitMs: 500, Standing: true}},
					{Most: 18, Active: 12, WouldMost: 10, Adaptive: &AdaptiveView{Mode: "enforce", Limit: 18, BaselineMs: 0.7, LatencyMs: 0.8}},
				},
				Priority: "high", WaitMs: 500,
				Admission: &AdmissionView{Scope: "cluster", Mode: "enforce", Requests: 400, Accepts: 120, RejectionPercent: 39.9},
				Hedge:     &HedgeMatch{Mode: "enforce", Extra: 1, DelayMs: 21},
				Faults:    []FaultMatch{{Name: "slow", Does: "delay 300ms", Percent: 20}, {Name: "dead", Does: "reset", Percent: 100, Endpoint: "10.0.0.2:1"}},
				Usable:    1, Panicking: true, Breaker: "closed", Budget: &left, Attempts: 3, Processed: 1, WorstMs: 2000, WorstBy: "timeout",
				Settings: []SettingView{{"policies.api.timeout", "2s", "web.yaml:14:9"}, {"policies.api.retry.attempts", "3", "default"}},
			},
			{
				Cluster: "api2", Percent: 10, Transport: "plaintext", Balance: "p2c_ewma", Endpoints: make([]EndpointView, mostTold+2),
				Breaker: "open", BreakerOf: "of the route outbound:api/pay", Gates: []GateView{{Most: 5, Active: 5}}, Priority: "normal",
				Admission: &AdmissionView{Mode: "observe"}, Hedge: &HedgeMatch{Mode: "observe", Extra: 2},
				Reason: "breaker_open", Attempts: 1, Processed: 1, Settings: []SettingView{},
			},
		},
	}
}

func TestExplainPage(t *testing.T) {
	var asked *Question
	s := sample(func(o *Options) {
		o.Views.Explain = func(q *Question) (*LegView, error) {
			asked = q
			switch q.To {
			case "api":
				return sampleLeg(), nil
			case "":
				return nil, errors.New("say which service is called: --to SERVICE")
			}
			return nil, fmt.Errorf("%w: other", ErrNotHere)
		}
	})
	q := &Question{From: "web", To: "api", Method: "POST", Target: "/pay?a=b", Fields: []string{"X-A: 1", "X-A: 2"}}
	w := ask(s, "GET", "/explain?"+q.Values().Encode(), "")
	golden(t, "explain.txt", w.Body.String())
	if w.Code != http.StatusOK || asked.From != q.From || asked.Method != q.Method || asked.Target != q.Target || !slices.Equal(asked.Fields, q.Fields) {
		t.Errorf("%d: asked %+v", w.Code, asked)
	}
	golden(t, "explain.json", ask(s, "GET", "/explain?to=api&format=json", "").Body.String())
	for target, code := range map[string]int{"/explain": http.StatusBadRequest, "/explain?to=db": http.StatusNotFound} {
		if w := ask(s, "GET", target, ""); w.Code != code {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	none := sample(func(o *Options) { o.Views.Explain = nil })
	if w := ask(none, "GET", "/explain?to=api", ""); w.Code != http.StatusNotFound {
		t.Errorf("without a view: %d", w.Code)
	}
}

// The headline says what would become of the request, whatever it is.
func TestExplainVerdicts(t *testing.T) {
	for want, change := range map[string]func(*LegView){
		"would be forwarded\n":                         func(*LegView) {},
		"would be answered by the proxy, status 204\n": func(v *LegView) { v.Status = 204 },
		"would be refused: denied, status 403. Not allowed: why\n": func(v *LegView) {
			v.Reason, v.Status, v.Meaning, v.Detail = "denied", 403, "Not allowed.", "why"
		},
	} {
		v := sampleLeg()
		change(v)
		var b strings.Builder
		if err := v.WriteText(&b); err != nil || !strings.HasPrefix(b.String(), "web, outbound: POST /pay "+want) {
			t.Errorf("%v %s, want %s", err, b.String(), want)
		}
	}
}
