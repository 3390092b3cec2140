package explain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

const text = `
service: {name: web, port: 8080}
identity: {trust_domain: t.test, files: {cert: c, key: k, bundle: b}}
discovery: {file: {path: "%s"}}
inbound: {timeout: 3s}
outbound:
  upstreams:
    - service: api
      listen: "127.0.0.1:9001"
      routes:
        - {name: pay, match: {path: /pay}, timeout: 1s, retry: {attempts: 4, per_try_timeout: 100ms}}
        - {name: fast, match: {path: /fast}, timeout: 0s, stream_idle_timeout: 0s, retry: off}
        - {name: guarded, match: {path: /guarded}, timeout: 0s, stream_idle_timeout: 0s, retry: {per_try_timeout: 100ms, attempts: 2}, limits: {max_requests: 3, queue: {max_wait: 700ms}}, priority: low, hedge: {delay: 20ms}}
        - {name: v2, match: {path: /v2}, subset: v2}
        - {name: split, match: {path: /split}, split: [{service: api, weight: 75}, {service: api2, weight: 25}]}
    - {service: db, listen: "127.0.0.1:9002", protocol: tcp}
policies:
  api: {timeout: 2s, connect_timeout: 300ms, retry: {retry_after_max: 50ms}, limits: {max_requests: 7}, admission: {scope: route}, breaker: {scope: route}, adaptive: {mode: observe}, subsets: {v2: {version: "2"}}}
faults:
  allow: true
  rules:
    - {name: dead, to: api, match: {path: /dead}, inject: {abort: 418}}
    - {name: slow, to: api, match: {path: /guarded}, inject: {delay: 30ms, percent: 20}}
    - {name: call, to: api, match: {path: /guarded}, inject: {abort_grpc: UNAVAILABLE}}
authorization:
  rules:
    - {name: shop, from: [spiffe://t.test/shop]}
`

func load(t *testing.T) *config.Loaded {
	t.Helper()
	catalog := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(catalog, []byte("services:\n  api:\n    endpoints: [{address: \"10.0.0.1:1\"}, {address: \"10.0.0.2:1\", health: critical}, {address: \"10.0.0.3:1\", metadata: {version: \"2\"}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := config.Parse("web.yaml", fmt.Appendf(nil, text, catalog))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Of a file it is said what the proxy that would run with it does.
func TestFile(t *testing.T) {
	l := load(t)
	for _, c := range []struct {
		q    admin.Question
		want []string // in the text
	}{
		{admin.Question{To: "api", Target: "/pay"}, []string{"would be forwarded", "10.0.0.1:1 healthy", "10.0.0.2:1 by_catalog", "2 of 3 endpoints", "within 1s, by timeout; 4 attempts\n", "routes[0].timeout = 1s (web.yaml", "limits.max_requests = 7 (web.yaml"}},
		{admin.Question{To: "api", Method: "POST", Target: "/pay"}, []string{"4 attempts, of which an endpoint processes 1"}},
		{admin.Question{To: "api", Target: "/pay", Fields: []string{"X-Outrigger-Deadline: 250"}}, []string{"within 250ms, by the caller's x-outrigger-deadline"}},
		{admin.Question{To: "api", Method: "POST", Target: "/pay", Fields: []string{"Content-Type: application/grpc", "grpc-timeout: 90m"}}, []string{"within 90ms, by the caller's grpc-timeout"}},
		{admin.Question{To: "api", Target: "/fast"}, []string{"nothing bounds how long the answer takes; 1 attempt", "routes[1].retry = off"}},
		{admin.Question{To: "api", Target: "/guarded"}, []string{
			"would be forwarded", "breaker of the route outbound:api/guarded closed", "0 requests to the route guarded under way, of 3 at most; 128 may wait beyond, 700ms each at most",
			"0 requests to api under way, of 7 at most, 10 if what is observed were enforced; adaptive limit 10 (observed); those beyond are refused", "it would have priority low",
			"held back  by admission control no request now", "hedged     1 more at most asked beside the first, where an answer takes longer than 20ms",
			"fault      slow, made on purpose: delay 30ms for 20 % of the attempts\n  at worst",
			"by max_wait in the queue, per_try_timeout for each attempt, and the waits between them; 3 attempts\n",
		}},
		{admin.Question{To: "api", Method: "POST", Target: "/guarded", Fields: []string{"Content-Type: application/grpc"}}, []string{"call, made on purpose", "2 attempts, of which an endpoint processes 1\n"}},
		{admin.Question{To: "api", Target: "/dead"}, []string{"would be refused: fault_injected, status 418", "dead, abort 418"}},
		{admin.Question{To: "api", Target: "/v2"}, []string{"p2c_ewma in subset v2 (version=2), 1 of 1 endpoints usable", "10.0.0.3:1 healthy"}},
		{admin.Question{To: "api", Target: "/split"}, []string{"api, by 75 %", "api2, by 25 %", "would end there now: no_endpoints"}},
		{admin.Question{To: "db", From: "web"}, []string{"a connection would be refused: no_endpoints"}},
		{admin.Question{To: "web", From: "shop"}, []string{"from spiffe://t.test/shop", "rule       shop (web.yaml", "within 3s, by timeout", "inbound.timeout = 3s"}},
		{admin.Question{To: "web", From: "spiffe://t.test/evil"}, []string{"denied, status 403", "default-deny"}},
		{admin.Question{To: "web"}, []string{"a call would be refused: handshake_failed"}},
		{admin.Question{To: "api", Method: "CONNECT", Target: "a:1"}, []string{"unsupported, status 501"}},
		{admin.Question{To: "api", Target: "no-slash"}, []string{"bad_request, status 400"}},
	} {
		v, err := File(&c.q, l)
		if err != nil {
			t.Fatalf("%+v: %v", c.q, err)
		}
		var b strings.Builder
		_ = v.WriteText(&b)
		for _, w := range c.want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%+v: no %q in\n%s", c.q, w, b.String())
			}
		}
	}
}

// The worst case without an overall timeout is that of all attempts with the
// longest waits between them.
func TestWorstOfAttempts(t *testing.T) {
	l := load(t)
	r := &l.Config.Outbound.Upstreams[0].Routes[0]
	zero := *r.Timeout * 0
	r.Timeout = &zero
	v, err := File(&admin.Question{To: "api", Target: "/pay"}, l)
	if err != nil {
		t.Fatal(err)
	}
	// 4 x (300 ms to connect + 100 ms) and three waits: 50 ms of a Retry-After, or
	// the back-off's 25, 50 and 100.
	if d := &v.Destinations[0]; d.WorstMs != 1600+50+50+100 || d.Attempts != 4 {
		t.Errorf("%v ms by %s, %d attempts", d.WorstMs, d.WorstBy, d.Attempts)
	}
}

// A question that the proxy has nothing to do with, or that is none, is told apart.
func TestQuestions(t *testing.T) {
	l := load(t)
	for _, c := range []struct {
		q       admin.Question
		notHere bool
		want    string
	}{
		{admin.Question{To: "other"}, true, "web has no upstream other; it has: api, db"},
		{admin.Question{From: "a", To: "b"}, true, "neither of a nor of b"},
		{admin.Question{}, false, "--to SERVICE"},
		{admin.Question{To: "api", Fields: []string{"nothing"}}, false, "Name: value"},
		{admin.Question{To: "api", Fields: []string{"a: b\r\nc: d"}}, false, "Name: value"},
		{admin.Question{To: "api", Target: "/ HTTP/1.1\r\n\r\nGET /"}, false, "line break"},
		{admin.Question{To: "web", From: "http://x"}, false, "write a SPIFFE ID"},
	} {
		_, err := File(&c.q, l)
		if err == nil || errors.Is(err, admin.ErrNotHere) != c.notHere || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.q, err, c.want)
		}
	}
	none, err := config.Parse("a.yaml", []byte("service: {name: a}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := File(&admin.Question{To: "a"}, none); !errors.Is(err, admin.ErrNotHere) || !strings.Contains(err.Error(), "no service.port") {
		t.Error(err)
	}
}
