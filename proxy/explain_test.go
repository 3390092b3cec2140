package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// asker sends the requests of a test that compares what is explained with what
// happens.
type asker struct {
	from string // the SPIFFE ID; empty for the own application
	to   string
	dial func() (net.Conn, error)
	conn net.Conn
	r    *bufio.Reader
}

// send makes one request and returns the answer.
func (a *asker) send(t *testing.T, text, method string) *http.Response {
	t.Helper()
	if a.conn == nil {
		c, err := a.dial()
		if err != nil {
			t.Fatal(err)
		}
		a.conn, a.r = c, bufio.NewReader(c)
	}
	if _, err := io.WriteString(a.conn, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(a.r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.Close {
		_ = a.conn.Close()
		a.conn = nil
	}
	return resp
}

// stall is where requests with X-Hold wait: each says that it has come, and is answered when all may be.
type stall struct{ came, release chan struct{} }

// backend says which service it is and what it was asked for.
func backend(t *testing.T, name string, stalls ...stall) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, h := range stalls {
			if r.Header.Get("X-Hold") != "" {
				h.came <- struct{}{}
				<-h.release
			}
		}
		w.Header().Set("X-Tag", r.Header.Get("X-Outrigger-Retries"))
		w.Header().Set("X-Address", r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		w.Header().Set("X-Backend", name)
		w.Header().Set("X-Got", r.Method+" "+r.RequestURI)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

const explainedConfig = `
service: {name: web, address: 127.0.0.1, port: %s}
identity: %s
discovery: {file: {path: "%s"}}
admin: {listen: ""}
telemetry: {access_log: {path: "off"}, ledger: {sample_percent: 100}}
drain: {delay: 0s, timeout: 1s}
inbound:
  listen: "127.0.0.1:0"
  limits: {max_requests: 100, queue: {}}
  priorities:
    - {priority: critical, from: [spiffe://t.test/shop], match: {path_prefix: /shop}}
    - {priority: high, match: {methods: [GET]}}
  routes:
    - {name: full, match: {path: /shop/full}, limits: {max_requests: 1}}
    - {name: old, match: {path_prefix: /old/}, rewrite: {path_prefix: /}}
    - {name: gone, match: {path_regex: "/gone/[0-9]+"}, respond: {status: 410, body: gone}}
  rate_limits: [{name: none, rate: {requests: 1, per: 1h}, key: header, header: x-once, match: {headers: [{name: x-once, present: true}]}}]
outbound:
  upstreams:
    - service: api
      listen: "127.0.0.1:0"
      unmatched: refuse
      routes:
        - {name: pay, match: {path_prefix: /pay, methods: [POST, PUT]}, timeout: 5s, rewrite: {path_prefix: /v2/pay}}
        - {name: beta, match: {path_prefix: /b, headers: [{name: x-beta, exact: "1"}]}, to: api2}
        - {name: split, match: {path_prefix: /b, query: [{name: q, regex: "a.*"}]}, split: [{service: api, weight: 50}, {service: api2, weight: 50}]}
        - {name: none, match: {path: /nobody}, to: empty}
        - {name: answer, match: {path: /healthz, ignore_case: true}, respond: {status: 204}}
        - {name: busy, match: {path_prefix: /busy}, limits: {max_requests: 1}, priority: low}
        - {name: part, match: {path: /part}, subset: new}
        - {name: nobody, match: {path: /part/none}, subset: old}
        - {name: all, match: {methods: [GET, HEAD], path_prefix: /}}
policies:
  "*": {transport: plaintext, retry: {backoff_base: 1ms, backoff_max: 1ms}}
  api: {subsets: {new: {version: "2"}, old: {version: "0"}}, subset_fallback: none}
faults:
  allow: true
  rules:
    - {name: teapot, to: api, match: {path_prefix: /tea, methods: [GET, DELETE]}, inject: {abort: 418}, stop: {errors_percent: 0, breaker: false, panic: false}, for: 1h}
    - {name: never, to: api, match: {path: /tea, methods: [GET]}, inject: {abort: 500}}
authorization:
  rules:
    - {name: shop, from: [spiffe://t.test/shop], paths: ["/shop/*", "/old/*", "/gone/*"]}
    - {name: readers, from: [spiffe://t.test/*], methods: [GET]}
    - {name: no-admin, action: deny, from: ["*"], paths: ["/admin", "/admin/*"]}
`

// What is explained is what happens, for a thousand requests made of pieces that
// meet conditions, miss them narrowly, or are refused for their form.
func TestExplainAgreesWithTheLiveProxy(t *testing.T) {
	h := stall{make(chan struct{}), make(chan struct{})}
	app := backend(t, "web", h)
	_, port, _ := net.SplitHostPort(app)
	catalog := filepath.Join(t.TempDir(), "catalog.yaml")
	text := fmt.Sprintf("services:\n  api: {endpoints: [{address: %q}, {address: %q, metadata: {version: \"2\"}}]}\n  api2: {endpoints: [{address: %q}]}\n  empty: {endpoints: []}\n", backend(t, "api", h), backend(t, "api", h), backend(t, "api2"))
	if err := os.WriteFile(catalog, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := testkit.NewCA(t)
	p := run(t, fmt.Sprintf(explainedConfig, port, identityFiles(ca, "spiffe://t.test/web"), catalog))
	soon(t, "the endpoints are known", func() bool { ok, _ := p.Ready(); return ok })
	listen := p.Listen()
	askers := []*asker{{to: "api", dial: func() (net.Conn, error) { return net.Dial("tcp", listen["outbound:api"].String()) }}}
	for _, id := range []string{"spiffe://t.test/shop", "spiffe://t.test/deep/er"} {
		_, client := ca.MutualTLS()
		client = client.Clone()
		client.Certificates = []tls.Certificate{ca.Issue(id, nil)}
		client.InsecureSkipVerify = true //nolint:gosec // the proxy's name is no DNS name; its rules are what is tested
		askers = append(askers, &asker{from: id, to: "web", dial: func() (net.Conn, error) { return tls.Dial("tcp", listen["inbound"].String(), client) }})
	}
	explainedRepeats(t, p.Proxy, askers[1])
	fill(t, h, askers[0].dial, "/busy")
	fill(t, h, askers[1].dial, "/shop/full")
	rnd := rand.New(rand.NewPCG(1, 2))
	one := func(list ...string) string { return list[rnd.IntN(len(list))] }
	seen, legs := map[string]int{}, map[string]*admin.LegView{}
	for i := range 1000 {
		a := askers[rnd.IntN(len(askers))]
		q := &admin.Question{From: a.from, To: a.to, Method: one("GET", "GET", "POST", "PUT", "HEAD", "DELETE", "FOO")}
		q.Target = one("/", "/pay", "/pay/", "/payx", "/b", "/b/c", "/c", "/nobody", "/nobody/", "/healthz", "/HealthZ", "/shop/1", "/shop", "/old/x", "/old", "/old/../admin",
			"/gone/12", "/gone/x", "/admin", "/admin/x", "/%61dmin", "/pay/%2e%2e/x", "/b//c", "/busy", "/busy/x", "/part", "/part/none", "/tea", "/tea/x", "/shop/full", "*", "http://h/pay/1", "no-slash") + one("", "", "?q=a", "?q=abc&x=1", "?q=b&q=a", "?Q=a")
		if rnd.IntN(3) == 0 {
			q.Fields = append(q.Fields, one("X-Beta: 1", "x-beta: 1", "X-Beta: 2", "X-Beta:1 ", "X-Other: 1"))
		}
		if rnd.IntN(8) == 0 {
			q.Fields = append(q.Fields, one("X-Once: a", "X-Once: b", "Bad Name: x", "X-Outrigger-Deadline: 9000"))
		}
		id := fmt.Sprintf("r%d", i)
		q.Fields = append(q.Fields, "X-Request-Id: "+id)
		leg, err := p.viewExplain(q)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		head := q.Method + " " + q.Target + " HTTP/1.1\r\nHost: " + q.To + "\r\n" + strings.Join(q.Fields, "\r\n") + "\r\n\r\n"
		resp := a.send(t, head, q.Method)
		compare(t, head, leg, resp)
		if leg.Route != "" { // else it ended before there was one
			legs[id] = leg
		}
		seen[leg.Reason+" "+leg.Route]++
	}
	close(h.release)
	for _, a := range askers {
		if a.conn != nil {
			_ = a.conn.Close()
		}
	}
	for id, leg := range legs {
		var why []admin.WhyView
		soon(t, "the ledger has "+id, func() bool { why = p.viewWhy(id); return len(why) > 0 })
		if w := why[0]; w.Route != leg.Route || w.Rule != leg.Rule || w.RouteAt != leg.RouteAt || w.RuleAt != leg.RuleAt {
			t.Errorf("%s: explained route %s at %s, rule %s at %s; was %s at %s, %s at %s", leg.Request, leg.Route, leg.RouteAt, leg.Rule, leg.RuleAt, w.Route, w.RouteAt, w.Rule, w.RuleAt)
		}
		if w := why[0]; leg.Reason == "limit_requests" && w.Priority != leg.Destinations[0].Priority {
			t.Errorf("%s: explained priority %s, was %s", leg.Request, leg.Destinations[0].Priority, w.Priority)
		}
	}
	// The requests were worth it: every way that the configuration knows was taken.
	for _, want := range []string{
		"ok pay", "ok beta", "ok split", "no_endpoints none", "ok answer", "ok all", "no_route api", "bad_request api", "bad_request ",
		"ok inbound", "ok old", "ok gone", "denied ", "rate_limited inbound",
		"limit_requests busy", "limit_requests full", "ok part", "no_endpoints nobody", "fault_injected all",
	} {
		if seen[want] == 0 {
			t.Errorf("no request came to %q: %v", want, seen)
		}
	}
}

// fill has one request under way that is not answered before h is released.
func fill(t *testing.T, h stall, dial func() (net.Conn, error), path string) {
	t.Helper()
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\nX-Hold: 1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-h.came
}

// explainedRepeats: of a request with which the application passes on that its
// caller's sidecar repeats it, it is told that this one does not.
func explainedRepeats(t *testing.T, p *Proxy, caller *asker) {
	t.Helper()
	tag := caller.send(t, "GET /shop/1 HTTP/1.1\r\nHost: web\r\nX-Outrigger-Retries: caller\r\n\r\n", "GET").Header.Get("X-Tag")
	for value, want := range map[string]bool{tag: true, "caller": false, strings.Repeat("0", len(tag)): false} {
		leg, err := p.viewExplain(&admin.Question{To: "api", Target: "/c", Fields: []string{"X-Outrigger-Retries: " + value}})
		if err != nil {
			t.Fatal(err)
		}
		if d := &leg.Destinations[0]; d.CallerRepeats != want || (d.Processed == 1) != want || d.Attempts != 2 {
			t.Errorf("with %q: %+v", value, d)
		}
	}
}

// compare holds what was explained against what happened.
func compare(t *testing.T, head string, leg *admin.LegView, resp *http.Response) {
	t.Helper()
	reason := resp.Header.Get("x-outrigger-reason")
	if reason == "" {
		reason = "ok"
	}
	local := resp.Header.Get("X-Backend") == ""
	switch {
	case reason != leg.Reason:
		t.Fatalf("%q: explained %s (%s), was %s", head, leg.Reason, leg.Detail, reason)
	case local && leg.Status != resp.StatusCode:
		t.Fatalf("%q: explained status %d, was %d", head, leg.Status, resp.StatusCode)
	case !local && !slices.ContainsFunc(leg.Destinations, func(d admin.DestinationView) bool { return d.Percent > 0 && d.Cluster == resp.Header.Get("X-Backend") }):
		t.Fatalf("%q: explained %+v, went to %s", head, leg.Destinations, resp.Header.Get("X-Backend"))
	case !local && !slices.ContainsFunc(leg.Destinations, func(d admin.DestinationView) bool {
		return slices.ContainsFunc(d.Endpoints, func(e admin.EndpointView) bool { return e.Address == resp.Header.Get("X-Address") })
	}):
		t.Fatalf("%q: explained %+v, was answered by %s", head, leg.Destinations, resp.Header.Get("X-Address"))
	case !local && leg.Sent != "" && leg.Sent != resp.Header.Get("X-Got"):
		t.Fatalf("%q: explained %q, was sent as %q", head, leg.Sent, resp.Header.Get("X-Got"))
	}
}
