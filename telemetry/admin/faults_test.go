package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

func sampleFaults() []FaultView {
	all := 100.0
	some := 97.5
	return []FaultView{
		{
			Name: "fault-2", Cluster: "payments", Direction: "outbound", Does: "delay 300ms", Percent: 0.5, By: "127.0.0.1:40000", Count: true,
			Of: "requests with path /pay", Began: noon.Add(-90 * time.Second), Until: noon.Add(time.Minute), State: "running", Words: "it runs", Would: "p99",
		},
		{
			Name: "fault-1", Cluster: "payments", Direction: "outbound", Does: "abort 503", Percent: 100, By: "configuration", Reason: "game day",
			Began: noon.Add(-10 * time.Minute), Until: noon, Ended: noon.Add(-9 * time.Minute), State: "errors", Words: "too many failed",
			Injected: map[string]uint64{"delay": 2, "abort": 12}, Complete: false,
			Places: []FaultPlace{{
				Cluster: "payments", Direction: "outbound",
				Before: FaultPhase{Seconds: 60, Requests: 10, Good: 10, SuccessPercent: &all, P50Ms: 1, P90Ms: 2.25, P99Ms: 3},
				During: FaultPhase{Seconds: 30, Requests: 40, Good: 39, SuccessPercent: &some, Failed: 5, Met: 12, MetFailed: 4, ByFault: 3, Retries: 9, RetriesByFault: 8, Ejections: 1, Openings: 2, P50Ms: 10},
			}},
		},
	}
}

func TestFaultPages(t *testing.T) {
	s := sample(func(o *Options) { o.Views.Faults.List = sampleFaults })
	got := ask(s, "GET", "/faults", "").Body.String()
	want := `fault-2: delay 300ms for 0.5 % of outbound payments, requests with path /pay, counted against endpoints
  runs since 1m30s, for 1m more; its guard, which observes, would have stopped it (p99); nobody has met it
fault-1: abort 503 for 100 % of outbound payments
  ended 9m ago after 1m: too many failed; attempts that met it: abort 12, delay 2
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got = ask(s, "GET", "/faults?name=fault-1", "").Body.String()
	want = `fault-1: abort 503 for 100 % of outbound payments
  ended 9m ago after 1m: too many failed; attempts that met it: abort 12, delay 2
  ordered by configuration: game day

outbound payments                  before       during        after
  seconds                            60.0         30.0            -
  requests                             10           40            -
  success                        100.00 %      97.50 %            -
  p50                              1.0 ms      10.0 ms            -
  p90                              2.2 ms       0.0 ms            -
  p99                              3.0 ms       0.0 ms            -
  met the fault                         0           12            -
  failed after it                       0            4            -
  failed otherwise                      0            1            -
  retries                               0            9            -
  retries after it                      0            8            -
  ejections                             0            1            -
  breaker openings                      0            2            -

what comes after it is followed for a minute; ask again
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var v FaultView
	if err := json.Unmarshal(ask(s, "GET", "/faults?name=fault-1&format=json", "").Body.Bytes(), &v); err != nil || v.Places[0].During.RetriesByFault != 8 {
		t.Errorf("%v %+v", err, v)
	}
	if w := ask(s, "GET", "/faults?name=x", ""); w.Code != 404 || !strings.Contains(w.Body.String(), `"x"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(sample(func(o *Options) { o.Views.Faults.List = nil }), "GET", "/faults", ""); w.Body.String() != "no fault runs, and none has\n" {
		t.Errorf("%s", w.Body)
	}
	if w := ask(sample(nil), "POST", "/faults/start", `{}`, "Content-Type", asksJSON); w.Code != 404 && w.Code != 405 {
		t.Errorf("where none can be started: %d", w.Code)
	}
}

func TestFaultOrders(t *testing.T) {
	var started *FaultOrder
	var stopped *string
	var answer error
	s := sample(func(o *Options) {
		o.Views.Faults.Start = func(f *FaultOrder) (FaultView, error) { started = f; return sampleFaults()[0], answer }
		o.Views.Faults.Stop = func(name string) ([]FaultView, error) { stopped = &name; return sampleFaults()[1:], answer }
	})
	for _, c := range []struct {
		path, kind, body string
		status           int
		says             string
	}{
		{"start", asksJSON, `{"fault":{"to":"payments"},"reason":"game day"}`, 200, "fault-2: delay"},
		{"start", "text/plain", `{"fault":{"to":"payments"}}`, 415, "curl --json"},
		{"start", asksJSON, `{}`, 400, "fault is missing"},
		{"start", asksJSON, `{"fault":{},"By":"root"}`, 400, "By"},
		{"start", asksJSON, `{"fault":{},"reason":"a\nb"}`, 400, "one line"},
		{"start", asksJSON, `{"fault":{}}{}`, 400, "something follows"},
		{"start", asksJSON, `{"fault":"` + strings.Repeat("x", maxBodyBytes) + `"}`, 413, "longer"},
		{"stop", asksJSON, `{"name":"fault-1"}`, 200, "fault-1: abort"},
		{"stop", asksJSON, `{"all":true}`, 200, "fault-1: abort"},
		{"stop", asksJSON, `{}`, 400, "give a name, or all"},
		{"stop", asksJSON, `{"name":"a","all":true}`, 400, "give a name, or all"},
		{"stop", "", `{"all":true}`, 415, ""},
	} {
		started, stopped = nil, nil
		w := ask(s, "POST", "/faults/"+c.path, c.body, "Content-Type", c.kind)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %s; want %d and %q", c.body, w.Code, w.Body, c.status, c.says)
		}
		if obeyed := started != nil || stopped != nil; obeyed != (c.status == 200) {
			t.Errorf("%s: obeyed %v", c.body, obeyed)
		}
	}
	ask(s, "POST", "/faults/start", `{"fault":{"to":"payments"},"reason":"game day"}`, "Content-Type", asksJSON)
	if string(started.Fault) != `{"to":"payments"}` || started.By != "127.0.0.1:40000" || started.Reason != "game day" {
		t.Errorf("%+v", started)
	}
	answer = &OrderError{http.StatusForbidden, errors.New("not allowed")}
	for _, path := range []string{"start", "stop"} {
		if w := ask(s, "POST", "/faults/"+path, map[string]string{"start": `{"fault":{}}`, "stop": `{"all":true}`}[path], "Content-Type", asksJSON); w.Code != 403 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := ask(s, "POST", "/faults/stop", `{"all":true}`, "Content-Type", asksJSON, "Origin", "https://example.test"); w.Code != 403 || stopped == nil {
		t.Errorf("%d", w.Code)
	}
}
