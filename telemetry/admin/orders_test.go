package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// orders is a server that obeys, and what it was last ordered.
func orders(answer error) (*Server, *Order) {
	last := &Order{}
	return sample(func(o *Options) {
		o.Views.Order = func(got *Order) (OrderView, error) {
			*last = *got
			return OrderView{Act: got.Act, Cluster: got.Cluster, Endpoints: got.Endpoints, Until: noon.Add(got.Time)}, answer
		}
	}), last
}

const asksJSON = "application/json; charset=utf-8"

func TestOrder(t *testing.T) {
	s, got := orders(nil)
	w := ask(s, "POST", "/endpoints/eject", `{"cluster":"api","endpoints":["10.0.0.1:80"],"for":"10m","reason":"bad disk"}`, "Content-Type", asksJSON)
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), "api: ejected 10.0.0.1:80 for 10m, until ") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got.Act != "eject" || got.Cluster != "api" || got.Time != 10*time.Minute || got.Reason != "bad disk" || got.By != "127.0.0.1:40000" {
		t.Errorf("%+v", got)
	}
	w = ask(s, "POST", "/endpoints/pin?format=json", `{"cluster":"api","endpoints":["a","b"]}`, "Content-Type", asksJSON)
	var v OrderView
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || v.Act != "pin" || len(v.Endpoints) != 2 || got.Time != 0 {
		t.Errorf("%v %s, ordered %+v", err, w.Body, got)
	}
	if w := ask(s, "POST", "/endpoints/release", `{"cluster":"api"}`, "Content-Type", asksJSON); w.Code != http.StatusOK || got.Act != "release" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestOrdersAreRefused(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name, method, act, kind, body string
		status                        int
		says                          string
	}{
		{"a form", "POST", "eject", "application/x-www-form-urlencoded", "cluster=api", 415, "curl --json"},
		{"no type", "POST", "eject", "", `{"cluster":"api","endpoints":["a"]}`, 415, "curl --json"},
		{"no JSON", "POST", "eject", asksJSON, "api", 400, "not an order"},
		{"a wrong word", "POST", "eject", asksJSON, `{"cluster":"api","endpoint":"a"}`, 400, `"endpoint"`},
		{"who sent it", "POST", "eject", asksJSON, `{"cluster":"api","endpoints":["a"],"By":"root"}`, 400, `"By"`},
		{"two", "POST", "eject", asksJSON, `{"cluster":"api","endpoints":["a"]}{}`, 400, "something follows"},
		{"no cluster", "POST", "eject", asksJSON, `{"endpoints":["a"]}`, 400, "cluster is missing"},
		{"no endpoints", "POST", "pin", asksJSON, `{"cluster":"api"}`, 400, "endpoints are missing"},
		{"an empty endpoint", "POST", "release", asksJSON, `{"cluster":"api","endpoints":[""]}`, 400, "1 to 255"},
		{"a long endpoint", "POST", "pin", asksJSON, `{"cluster":"api","endpoints":["` + long + `"]}`, 400, "1 to 255"},
		{"many endpoints", "POST", "pin", asksJSON, `{"cluster":"api","endpoints":["a"` + strings.Repeat(`,"a"`, 64) + `]}`, 400, "more than 64"},
		{"a long reason", "POST", "pin", asksJSON, `{"cluster":"api","endpoints":["a"],"reason":"` + long + `"}`, 400, "one line"},
		{"two lines of reason", "POST", "pin", asksJSON, `{"cluster":"api","endpoints":["a"],"reason":"a\nb"}`, 400, "one line"},
		{"for ever", "POST", "pin", asksJSON, `{"cluster":"api","endpoints":["a"],"for":"24h0m1s"}`, 400, "1s to 24h"},
		{"no time", "POST", "pin", asksJSON, `{"cluster":"api","endpoints":["a"],"for":"0s"}`, 400, "1s to 24h"},
		{"backwards", "POST", "pin", asksJSON, `{"cluster":"api","endpoints":["a"],"for":"-5m"}`, 400, "1s to 24h"},
		{"a release for a time", "POST", "release", asksJSON, `{"cluster":"api","endpoints":["a"],"for":"5m"}`, 400, "leave out"},
		{"too long", "POST", "eject", asksJSON, `{"cluster":"` + strings.Repeat("x", maxBodyBytes) + `"}`, 413, "longer than"},
		{"GET", "GET", "eject", asksJSON, `{"cluster":"api","endpoints":["a"]}`, 405, ""},
		{"an unknown act", "POST", "kill", asksJSON, `{"cluster":"api","endpoints":["a"]}`, 404, ""},
	} {
		s, got := orders(nil)
		w := ask(s, c.method, "/endpoints/"+c.act, c.body, "Content-Type", c.kind)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %s; want %d and %q", c.name, w.Code, w.Body, c.status, c.says)
		}
		if got.Act != "" {
			t.Errorf("%s: obeyed %+v", c.name, got)
		}
	}
}

// What keeps pages of other sites and other machines out holds for orders, too.
func TestOrdersFromElsewhere(t *testing.T) {
	body := `{"cluster":"api","endpoints":["a"]}`
	for name, field := range map[string][2]string{
		"another site": {"Sec-Fetch-Site", "cross-site"}, "another origin": {"Origin", "https://example.test"},
		"another host": {"Host", "attacker.example"}, "another machine": {"RemoteAddr", "192.0.2.7:40000"},
	} {
		s, got := orders(nil)
		w := ask(s, "POST", "/endpoints/eject", body, "Content-Type", asksJSON, field[0], field[1])
		if w.Code != http.StatusForbidden || got.Act != "" {
			t.Errorf("%s: %d, obeyed %+v", name, w.Code, got)
		}
	}
}

func TestOrderErrors(t *testing.T) {
	for status, err := range map[int]error{
		404: &OrderError{404, errors.New("no cluster nobody")}, 409: &OrderError{409, errors.New("the last one")}, 500: errors.New("out of order"),
	} {
		s, _ := orders(err)
		w := ask(s, "POST", "/endpoints/eject", `{"cluster":"api","endpoints":["a"]}`, "Content-Type", asksJSON)
		if w.Code != status || strings.TrimSpace(w.Body.String()) != err.Error() {
			t.Errorf("%d %s, want %d", w.Code, w.Body, status)
		}
	}
}

func TestStanding(t *testing.T) {
	in := func(d time.Duration) time.Time { return noon.Add(d) }
	hand := func(state, act string) *HandView {
		return &HandView{State: state, Act: act, By: "127.0.0.1:1", Reason: "bad disk", Since: in(-9), Until: in(90)}
	}
	for _, c := range []struct {
		name string
		e    EndpointView
		want StandingView
	}{
		{"well", EndpointView{State: "healthy", Health: "passing", Since: in(-5)}, StandingView{State: "healthy", Since: in(-5)}},
		{"ejected", EndpointView{State: "ejected", Cause: "probe_failed", Since: in(-5), Until: in(7)}, StandingView{State: "ejected", Cause: "probe_failed", Since: in(-5), Until: in(7), Next: "probe", NextAt: in(7)}},
		{"probation", EndpointView{State: "probation", Since: in(-5)}, StandingView{State: "probation", Since: in(-5)}},
		{"catalog", EndpointView{State: "healthy", Health: "critical"}, StandingView{State: "by_catalog", Cause: "the catalog says critical"}},
		{"draining", EndpointView{State: "healthy", Health: "critical", Draining: "in maintenance"}, StandingView{State: "draining", Cause: "in maintenance"}},
		{
			"pinned while it drains",
			EndpointView{State: "healthy", Draining: "x", Hand: hand("pinned", "pin")},
			StandingView{State: "pinned", Cause: "bad disk, by 127.0.0.1:1", Since: in(-9), Until: in(90), Also: []string{"draining"}, Next: "end of order", NextAt: in(90)},
		},
		{
			"suspect",
			EndpointView{State: "healthy", Caution: &CautionView{Mode: "enforce", SharePercent: 40, FailedPercent: 12.5, LatencyMs: 3, Since: in(-2)}},
			StandingView{State: "suspect", Cause: "gets 40% of its share: of late 12.5% failed, the others took 3.0ms", Since: in(-2)},
		},
		{"suspect, observed", EndpointView{State: "healthy", Caution: &CautionView{Mode: "observe", SharePercent: 40}}, StandingView{State: "healthy"}},
		{"warning", EndpointView{State: "healthy", Health: "warning"}, StandingView{State: "healthy"}},
		{
			"check",
			EndpointView{State: "healthy", Check: &CheckView{Kind: "http", State: "unhealthy", Cause: "status", CauseDetail: "HTTP 503", Since: in(-4), Next: in(3)}},
			StandingView{State: "by_check", Cause: "http check: status: HTTP 503", Since: in(-4), Next: "check", NextAt: in(3)},
		},
		{"check, observed", EndpointView{State: "healthy", Check: &CheckView{State: "unhealthy", Fit: true, Next: in(3)}}, StandingView{State: "healthy", Next: "check", NextAt: in(3)}},
		{"not checked yet", EndpointView{State: "healthy", Check: &CheckView{Kind: "tcp", State: "unknown", Next: in(3)}}, StandingView{State: "by_check", Cause: "tcp check: not passed yet", Next: "check", NextAt: in(3)}},
		{
			"by hand, and more",
			EndpointView{State: "ejected", Cause: "x", Until: in(7), Health: "critical", Hand: hand("ejected", "eject")},
			StandingView{State: "by_hand", Cause: "bad disk, by 127.0.0.1:1", Since: in(-9), Until: in(90), Also: []string{"ejected", "by_catalog"}, Next: "end of order", NextAt: in(90)},
		},
		{
			"broken",
			EndpointView{State: "probation", Cause: "x", Breaker: &BreakerView{State: "open", Mode: "enforce", Cause: "trial_failed", Since: in(-5), Until: in(7)}},
			StandingView{State: "broken", Cause: "trial_failed", Since: in(-5), Until: in(7), Also: []string{"probation"}, Next: "probe", NextAt: in(7)},
		},
		{"broken, observed", EndpointView{State: "healthy", Breaker: &BreakerView{State: "open", Mode: "observe"}}, StandingView{State: "healthy"}},
		{"half-open", EndpointView{State: "healthy", Breaker: &BreakerView{State: "half-open"}}, StandingView{State: "healthy"}},
		{"pinned", EndpointView{State: "healthy", Hand: hand("pinned", "pin")}, StandingView{State: "pinned", Cause: "bad disk, by 127.0.0.1:1", Since: in(-9), Until: in(90), Next: "end of order", NextAt: in(90)}},
		{"pinned and ejected", EndpointView{State: "ejected", Until: in(95), Hand: hand("pinned", "pin")}, StandingView{State: "ejected", Until: in(95), Also: []string{"pinned"}, Next: "probe", NextAt: in(95)}},
		{"passed over", EndpointView{State: "healthy", Hand: &HandView{State: "passed_over"}}, StandingView{State: "passed_over", Cause: "others are pinned by hand"}},
		{
			"needed",
			EndpointView{State: "healthy", Hand: hand("needed", "eject")},
			StandingView{State: "needed", Cause: "used, as all are ejected by hand; bad disk, by 127.0.0.1:1", Since: in(-9), Until: in(90), Next: "end of order", NextAt: in(90)},
		},
		{
			"absent",
			EndpointView{Absent: true, Hand: hand("free", "eject")},
			StandingView{State: "absent", Cause: "eject by hand waits for its return; bad disk, by 127.0.0.1:1", Since: in(-9), Until: in(90), Next: "end of order", NextAt: in(90)},
		},
	} {
		got, _ := json.Marshal(standing(&c.e))
		want, _ := json.Marshal(c.want)
		if string(got) != string(want) {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for state, want := range map[string]string{
		"healthy": "healthy", "by_hand": "ejected by hand", "by_check": "unhealthy by check", "by_catalog": "unhealthy by catalog", "passed_over": "passed over",
		"broken": "breaker open",
	} {
		if got := (&StandingView{State: state}).Words(); got != want {
			t.Errorf("%s: %q, want %q", state, got, want)
		}
	}
}
