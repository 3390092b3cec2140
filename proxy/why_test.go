package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
)

const whyConfig = `
service: {name: web, port: 8080}
identity: {trust_domain: t.test, files: {cert: c, key: k, bundle: b}}
discovery: {file: {path: catalog.yaml}}
inbound: {timeout: 3s}
outbound:
  upstreams:
    - service: api.v1
      listen: "127.0.0.1:0"
      routes:
        - {name: pay, match: {path: /pay}, timeout: 1s, retry: {attempts: 4}}
        - {name: once, match: {path: /once}, retry: off}
policies:
  "*": {connect_timeout: 7s}
  api.v1: {timeout: 2s, retry: {budget_percent: 5}}
authorization:
  rules:
    - {from: ["*"]}
    - {name: no-admin, action: deny, from: ["*"], paths: [/admin]}
`

func whyOf(t *testing.T, e *ledger.Entry) whyView {
	t.Helper()
	l := parse(t, whyConfig)
	return whyView{e: e, cfg: l.Config, settings: l.Settings()}
}

// Which setting decides is found as the plan does: the route's own value, else
// the policy's, else that of the policy "*", else the default.
func TestWhySettings(t *testing.T) {
	pay, once := "outbound.upstreams[0].routes[0]", "outbound.upstreams[0].routes[1]"
	for _, c := range []struct {
		route, key string
		inbound    bool
		want       string
	}{
		{"", "timeout", false, `policies."api.v1".timeout = 2s`},
		{pay, "timeout", false, pay + ".timeout = 1s"},
		{once, "timeout", false, `policies."api.v1".timeout = 2s`},
		{pay, "retry.attempts", false, pay + ".retry.attempts = 4"},
		{pay, "retry.budget_percent", false, `policies."api.v1".retry.budget_percent = 5`},
		{once, "retry.attempts", false, once + ".retry = off"},
		{pay, "connect_timeout", false, `policies."api.v1".connect_timeout = 7s (policies.*)`},
		{"", "breaker.open_for", false, `policies."api.v1".breaker = off`},
		{"", "timeout", true, "inbound.timeout = 3s"},
		{"", ".http.max_fields", true, "http.max_fields = 100 default"},
		{"", "no_such_key", false, ""},
	} {
		w := whyOf(t, &ledger.Entry{Cluster: "api.v1", RoutePath: c.route, Inbound: c.inbound})
		s, ok := w.setting(c.key)
		got := ""
		if ok {
			got = s.Path + " = " + s.Value
			switch {
			case s.Origin == "default" && strings.HasSuffix(c.want, " default"):
				got += " default"
			case strings.HasSuffix(s.Origin, "(policies.*)"):
				got += " (policies.*)"
			}
		}
		if got != c.want {
			t.Errorf("%s %s: %q (%s), want %q", c.route, c.key, got, s.Origin, c.want)
		}
	}
}

// Every end that a setting decides about names one, and nothing is named for
// what went well.
func TestWhyRemedies(t *testing.T) {
	attempts := func(why retry.Why) []ledger.Attempt { return []ledger.Attempt{{Asked: true, Why: why}} }
	for _, c := range []struct {
		e    ledger.Entry
		want string
	}{
		{ledger.Entry{Reason: outcome.OK, Attempts: attempts(retry.AttemptsSpent)}, ""},
		{ledger.Entry{Reason: outcome.OK, IsGRPC: true, GRPC: 14, Attempts: attempts(retry.AttemptsSpent)}, "retry.attempts"},
		{ledger.Entry{Reason: outcome.RequestTimeout, DeadlineBy: ledger.PolicyDeadline}, "timeout"},
		{ledger.Entry{Reason: outcome.RequestTimeout, DeadlineBy: ledger.CallerDeadline}, ""},
		{ledger.Entry{Reason: outcome.StreamIdle, Protocol: "tcp"}, "tcp_idle_timeout"},
		{ledger.Entry{Reason: outcome.StreamIdle, Status: 101}, "websocket.idle_timeout"},
		{ledger.Entry{Reason: outcome.StreamIdle}, "stream_idle_timeout"},
		{ledger.Entry{Reason: outcome.UpstreamReset, Attempts: attempts(retry.NotIdempotent)}, "retry.non_idempotent"},
		{ledger.Entry{Reason: outcome.UpstreamReset, Attempts: attempts(retry.BudgetSpent)}, "retry.budget_percent retry.budget_min_per_second"},
		{ledger.Entry{Reason: outcome.UpstreamReset, Attempts: attempts(retry.PushedBack)}, ""},
		{ledger.Entry{Reason: outcome.Denied, Inbound: true, Rule: "no-admin"}, "authorization.rules[1].name"},
		{ledger.Entry{Reason: outcome.Denied, Inbound: true, Rule: "rules[0]"}, "authorization.rules[0].from"},
		{ledger.Entry{Reason: outcome.Denied, Inbound: true, Rule: "default deny"}, "authorization.mode"},
		{ledger.Entry{Reason: outcome.LimitRequests, Inbound: true}, "inbound.limits.max_requests inbound.limits.max_requests_per_endpoint inbound.limits.queue inbound.adaptive"},
		{ledger.Entry{Reason: outcome.QueueTimeout, Inbound: true}, "inbound.limits.queue inbound.limits.max_requests inbound.adaptive"},
	} {
		c.e.Cluster, c.e.MaxAttempts = "api.v1", 2
		if c.e.Protocol == "" {
			c.e.Protocol = "HTTP/1.1"
		}
		w := whyOf(t, &c.e)
		var got []string
		for _, s := range w.remedies() {
			got = append(got, strings.TrimPrefix(s.Path, `policies."api.v1".`))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v: %q, want %q", c.e.Reason, got, c.want)
		}
	}
}

// Each answer of the retry machine is told in words.
func TestWhyRefusals(t *testing.T) {
	for _, why := range retry.Whys() {
		w := whyView{e: &ledger.Entry{Reason: outcome.UpstreamReset, MaxAttempts: 2, Attempts: []ledger.Attempt{{Asked: true, Why: why}}}}
		if w.noFurther() == "" {
			t.Errorf("nothing is said of %v", why)
		}
	}
}

// An exchange is told by the configuration it went under; of one that is no
// longer kept nothing is said, and no more than a few are kept.
func TestWhyHistory(t *testing.T) {
	p := &Proxy{ledger: ledger.New(ledger.Default(), 0)}
	const plans = 3 * maxHistory
	for v := uint64(1); v <= plans; v += 2 {
		l := parse(t, strings.Replace(whyConfig, "timeout: 2s", fmt.Sprintf("timeout: %dm", v), 1))
		p.remember(v, l)
		p.remember(v+1, l) // identities have changed
		for k := range uint64(2) {
			e := p.ledger.Draft()
			e.ID, e.Plan, e.Cluster, e.Reason, e.Start = []byte(fmt.Sprint(v+k)), v+k, "api.v1", outcome.RequestTimeout, time.Unix(0, 0)
			e.DeadlineBy = ledger.PolicyDeadline
			p.ledger.Put(e)
		}
	}
	if len(p.history) != maxHistory {
		t.Errorf("%d configurations are kept", len(p.history))
	}
	known := 0
	for v := uint64(1); v <= plans; v++ {
		list := p.viewWhy(fmt.Sprint(v))
		if len(list) != 1 {
			t.Fatalf("plan %d: %d exchanges", v, len(list))
		}
		if list[0].Unknown {
			if known > 0 || len(list[0].Settings) != 0 || list[0].InForce[0].Origin != "unknown" {
				t.Errorf("plan %d: %+v", v, list[0])
			}
			continue
		}
		known++
		if want := fmt.Sprintf("%dm", v-(v+1)%2); len(list[0].Settings) != 1 || list[0].Settings[0].Value != want {
			t.Errorf("plan %d: %+v, want %s", v, list[0].Settings, want)
		}
	}
	if known != 2*maxHistory {
		t.Errorf("%d plans are known", known)
	}
}
