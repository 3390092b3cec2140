package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// whyBed is a sidecar that a case of TestWhy provokes.
type whyBed struct {
	*testing.T
	web     *sidecar
	address string // where the application calls
}

// whyID is the request id that cases send where they can.
const whyID = "why-this-one"

// whyCase is a reason with a way to provoke it.
type whyCase struct {
	reason string
	app    func(*testing.T) int // the application behind, nil for echo
	conf   sections
	// make takes the place of a plaintext outbound sidecar with app behind it.
	make func(*mesh, int, sections) (*sidecar, string)
	// provoke makes it happen; nil sends one GET.
	provoke func(*whyBed)
	says    []string // lines of the story, in this order; * stands for anything
}

func plaintext(more string) sections {
	if more != "" {
		more = ", " + more
	}
	return sections{"policies": "{api: {transport: plaintext" + more + "}}"}
}

// swallow reads and never answers.
func swallow(t *testing.T) int {
	return serveTCP(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
}

// saying answers the first bytes of each connection with text and closes.
func saying(text string) func(*testing.T) int {
	return func(t *testing.T) int {
		return serveTCP(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, text)
		})
	}
}

// get sends one GET with the request id.
func (b *whyBed) get(path string, fields ...string) {
	b.Helper()
	_, _ = fetch(b.T, http.MethodGet, "http://"+b.address+path, func(r *http.Request) {
		r.Header.Set("x-request-id", whyID)
		for i := 0; i < len(fields); i += 2 {
			r.Header.Set(fields[i], fields[i+1])
		}
	})
}

// raw sends text and leaves the connection open until the test ends.
func (b *whyBed) raw(text string) net.Conn {
	b.Helper()
	c, err := net.Dial("tcp", b.address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		b.Fatal(err)
	}
	return c
}

// hold keeps one request under way, which the application does not answer.
func (b *whyBed) hold(n float64) {
	b.Helper()
	b.raw("GET /held HTTP/1.1\r\nHost: api\r\n\r\n")
	eventually(b.T, patience, "the request is under way", func() (bool, string) {
		v := b.web.metric("outrigger_exchanges_active", `direction="outbound"`)
		return v >= n, fmt.Sprint(v)
	})
}

func raw(text string) func(*whyBed) { return func(b *whyBed) { b.raw(text) } }

// inboundPlain is a sidecar that others call in plaintext.
func inboundPlain(m *mesh, app int, conf sections) (*sidecar, string) {
	listen := freeAddress(m.t)
	s := m.sidecar("api", sections{
		"service": fmt.Sprintf("{name: api, port: %d}", app), "identity": "",
		"inbound": fmt.Sprintf(`{listen: "%s", mtls: off}`, listen),
	}.with(conf))
	return s, listen
}

// outboundTLS calls app by mTLS.
func outboundTLS(m *mesh, app int, conf sections) (*sidecar, string) {
	m.catalog(map[string][]string{"api": {loopback(app)}})
	return m.outbound("web", "api", conf)
}

// whyCases are the ways to provoke each reason.
var whyCases = []whyCase{
	{
		reason: "ok", conf: sections{"telemetry": `{ledger: {sample_percent: 100}, access_log: {path: off}}`},
		says: []string{whyID + ": GET */pay: ok, status 200 after *", "came * to listener outbound:api by HTTP/1.1, plan 1", "cluster * 1 of 1 endpoints usable", "attempt 1 * ok, status 200 * connected in *", "ended early by: nobody"},
	},
	{
		reason: "no_route",
		make: func(m *mesh, _ int, _ sections) (*sidecar, string) {
			listen := freeAddress(m.t)
			return m.sidecar("web", plaintext("").with(sections{
				"service": "{name: web}", "identity": "", "discovery": m.discovery(),
				"outbound": fmt.Sprintf(`{upstreams: [{service: api, listen: "%s", unmatched: refuse, routes: [{match: {path: /other}}]}]}`, listen),
			})), listen
		},
		says: []string{"no_route, status 404", "route * because: no other route takes it (*web-1.yaml:*)", "to change outbound.upstreams[0].unmatched = refuse (*web-1.yaml:*)"},
	},
	{
		reason: "no_endpoints",
		make: func(m *mesh, _ int, _ sections) (*sidecar, string) {
			m.catalog(map[string][]string{"api": {}})
			return m.outbound("web", "api", plaintext("").with(sections{"identity": ""}))
		},
		says: []string{"no_endpoints, status 503", "to change policies.api.balance.panic_percent ="},
	},
	{
		reason: "connect_failed", app: freePort, conf: plaintext("retry: {attempts: 3, backoff_base: 1ms, backoff_max: 1ms}"),
		says: []string{
			"connect_failed, status 503", "attempt 1 * connect_failed * no connection", "another attempt after * retries left in the budget", "attempt 3",
			"no further attempt: all attempts that the policy allows have been made (attempts_spent)", "cause * connection refused", "to change policies.api.retry.attempts = 3 (*web-1.yaml:*)",
		},
	},
	{
		reason: "connect_timeout", app: swallow, make: outboundTLS, conf: sections{"policies": "{api: {connect_timeout: 200ms, retry: off}}"},
		says: []string{"connect_timeout, status 503", "attempt 1 * connect_timeout", "retries are off", "to change policies.api.connect_timeout = 200ms (*web-1.yaml:*)", "policies.api.retry = off"},
	},
	{
		reason: "peer_identity",
		make: func(m *mesh, app int, conf sections) (*sidecar, string) {
			p := m.pair(app, conf, nil)
			return p.web, p.address
		},
		conf: sections{"policies": fmt.Sprintf(`{api: {identities: ["%s"], retry: off}}`, "spiffe://"+trustDomain+"/other")},
		says: []string{"peer_identity, status 503", "cause * spiffe://e2e.test/api", "to change policies.api.identities = *other*"},
	},
	{
		reason: "handshake_failed", make: outboundTLS, conf: sections{"policies": "{api: {retry: off}}"},
		says: []string{"handshake_failed, status 503", "attempt 1 * handshake_failed"},
	},
	{
		reason: "stale_connection", conf: plaintext("retry: off"),
		app: func(t *testing.T) int {
			return serveTCP(t, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				_, _ = c.Read(make([]byte, 4096))
			})
		},
		provoke: func(b *whyBed) {
			// The first has a connection of its own. So has the next one that comes before
			// that one is put back.
			for status := 0; status != http.StatusServiceUnavailable; {
				resp, _ := fetch(b.T, http.MethodPost, "http://"+b.address+"/pay", func(r *http.Request) { r.Header.Set("x-request-id", whyID) })
				status = resp.StatusCode
			}
		},
		says: []string{"stale_connection, status 503", "attempt 1 * stale_connection * on a kept connection", "ended early by: the endpoint"},
	},
	{
		reason: "rate_limited", conf: plaintext("rate_limits: [{name: few, rate: {requests: 1, per: 1h, burst: 1}}]"),
		provoke: func(b *whyBed) {
			for range 2 {
				b.get("/pay")
			}
		},
		says: []string{"rate_limited, status 429", "few", "to change policies.api.rate_limits[0].rate.requests = 1 (*web-1.yaml:*)"},
	},
	{
		reason: "rate_unknown", conf: plaintext("rate_limits: [{name: few, scope: grpc, on_error: refuse}]").with(sections{
			"rate_limiters": `{grpc: {address: "127.0.0.1:9", domain: a, transport: plaintext}}`,
		}),
		says: []string{"rate_unknown, status 503", "few", "to change policies.api.rate_limits[0].on_error = refuse (*web-1.yaml:*)"},
	},
	{
		reason: "upstream_reset", app: saying(""), conf: plaintext("retry: {on: [connect_failure]}"),
		says: []string{"upstream_reset, status 503", "no further attempt: the policy does not retry after this failure (not_configured)", "ended early by: the endpoint", "to change policies.api.retry.on = [connect_failure] (*web-1.yaml:*)"},
	},
	{
		reason: "upstream_protocol", app: saying("not HTTP\r\n\r\n"), conf: plaintext(""),
		says: []string{"upstream_protocol, status 502", "(not_retryable)", "cause", "ended early by: this proxy"},
	},
	{
		reason: "request_timeout", app: swallow, conf: plaintext("timeout: 3s"),
		says: []string{"request_timeout, status 504", "deadline 3s, by the policy", "in force policies.api.timeout = 3s (*web-1.yaml:*)", "attempt 1 * request_timeout", "to change policies.api.timeout = 3s (*web-1.yaml:*)"},
	},
	{
		reason: "request_timeout", app: swallow, conf: plaintext("timeout: 1h"),
		provoke: func(b *whyBed) { b.get("/pay", "x-outrigger-deadline", "3000") },
		says:    []string{"deadline 3s, by the caller's x-outrigger-deadline", "to change the caller's own deadline"},
	},
	{
		reason: "try_timeout", app: swallow, conf: plaintext("retry: {attempts: 1, per_try_timeout: 3s}"),
		says: []string{"try_timeout, status 504", "to change policies.api.retry.per_try_timeout = 3s (*web-1.yaml:*)"},
	},
	{
		reason: "stream_idle", app: swallow, conf: plaintext("stream_idle_timeout: 3s"),
		says: []string{"stream_idle, status 504", "to change policies.api.stream_idle_timeout = 3s (*web-1.yaml:*)"},
	},
	{
		reason: "breaker_open", conf: plaintext("retry: off, outlier: off, breaker: {consecutive_failures: 1, open_for: 1h}"),
		provoke: func(b *whyBed) {
			_, _ = fetch(b.T, http.MethodGet, "http://"+b.address+"/status/500", nil)
			b.get("/pay")
		},
		says: []string{"breaker_open, status 503", "breaker open", "to change policies.api.breaker.failure_percent", "policies.api.breaker.consecutive_failures = 1 (*web-1.yaml:*)", "policies.api.breaker.open_for = 1h"},
	},
	{
		reason: "breaker_open", conf: plaintext("retry: off, outlier: off, breaker: {scope: endpoint, consecutive_failures: 1, open_for: 1h}"),
		provoke: func(b *whyBed) {
			_, _ = fetch(b.T, http.MethodGet, "http://"+b.address+"/status/500", nil)
			b.get("/pay")
		},
		says: []string{"breaker_open, status 503", "cause the breakers of all endpoints that might be picked are open", "policies.api.breaker.consecutive_failures = 1 (*web-1.yaml:*)"},
	},
	{
		reason: "throttled", conf: plaintext("retry: off, outlier: off, admission: {minimum_requests: 5, max_rejection_percent: 99}"),
		provoke: func(b *whyBed) {
			for range 300 { // one in a hundred goes through
				_, _ = fetch(b.T, http.MethodGet, "http://"+b.address+"/status/503", nil)
			}
			b.get("/pay")
		},
		says: []string{"throttled, status 503", "cause the service accepted too few of the last requests", "to change policies.api.admission.multiplier = 2"},
	},
	{
		reason: "limit_connections", app: swallow, conf: plaintext("connect_timeout: 3s, limits: {max_connections: 1}"),
		provoke: func(b *whyBed) { b.hold(1); b.get("/pay") },
		says:    []string{"limit_connections, status 503", "to change policies.api.limits.max_connections = 1 (*web-1.yaml:*)"},
	},
	{
		reason: "limit_pending", app: swallow, conf: plaintext("connect_timeout: 1h, limits: {max_connections: 1, max_pending: 1}"),
		provoke: func(b *whyBed) {
			b.hold(1)
			b.hold(2)
			eventually(b.T, patience, "one waits for a connection", func() (bool, string) {
				v := b.web.metric("outrigger_exchanges_pending", `cluster="api"`)
				return v == 1, fmt.Sprint(v)
			})
			b.get("/pay")
		},
		says: []string{"limit_pending, status 503", "to change policies.api.limits.max_pending = 1 (*web-1.yaml:*)"},
	},
	{
		reason: "limit_requests", app: swallow, conf: plaintext("limits: {max_requests: 1}"),
		provoke: func(b *whyBed) { b.hold(1); b.get("/pay") },
		says:    []string{"limit_requests, status 503", "to change policies.api.limits.max_requests = 1 (*web-1.yaml:*)"},
	},
	{
		reason: "queue_timeout", app: swallow, conf: plaintext("limits: {max_requests: 1, queue: {max_wait: 200ms}}"),
		provoke: func(b *whyBed) { b.hold(1); b.get("/pay") },
		says:    []string{"queue_timeout, status 503", "cause * max_wait", "to change policies.api.limits.queue.max_wait = 200ms (*web-1.yaml:*)"},
	},
	{
		reason: "denied", make: inboundPlain,
		conf: sections{"authorization": `{rules: [{name: reads, from: [anonymous]}, {name: no-pay, action: deny, from: [anonymous], paths: [/pay]}]}`},
		says: []string{"denied, status 403", "to listener inbound", "rule no-pay (*api-1.yaml:*)", "to change authorization.rules[1].name = no-pay (*api-1.yaml:*)"},
	},
	{
		reason: "bad_request", provoke: raw("GET / HTTP/1.1\r\nno colon\r\n\r\n"),
		says: []string{"GET *: bad_request, status 400", "cause whitespace in a field name", "ended early by: this proxy"},
	},
	{
		reason: "head_too_large", provoke: raw("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 5000) + "\r\n\r\n"), conf: sections{"http": "{max_head_bytes: 4096}"},
		says: []string{"head_too_large, status 431", "to change http.max_head_bytes = 4096 (*web-1.yaml:*)"},
	},
	{
		reason: "downstream_timeout", provoke: raw("GET / HT"), conf: sections{"http": "{head_timeout: 200ms}"},
		says: []string{"downstream_timeout, status 408", "to change http.head_timeout = 200ms (*web-1.yaml:*)"},
	},
	{
		reason: "downstream_gone", provoke: func(b *whyBed) { _ = b.raw("GET / HT").Close() },
		says: []string{"downstream_gone after *", "ended early by: the caller"},
	},
	{
		reason: "unsupported", provoke: raw("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
		says: []string{"unsupported, status 501"},
	},
	{
		reason: "upstream_error", conf: plaintext("retry: {on: [reset]}"), provoke: func(b *whyBed) { b.get("/status/503") },
		says: []string{"upstream_error, status 503", "attempt 1 * upstream_error, status 503", "(not_configured)", "ended early by: nobody", "to change policies.api.retry.on = [reset]"},
	},
	{
		reason: "max_lifetime", app: func(t *testing.T) int { return serve(t, webSocketApp()) }, conf: plaintext("websocket: {max_lifetime: 300ms}"),
		provoke: func(b *whyBed) {
			c := b.raw("GET /chat HTTP/1.1\r\nHost: api\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			_, _ = io.Copy(io.Discard, bufio.NewReader(c))
		},
		says: []string{"max_lifetime, status 101", "to change policies.api.websocket.max_lifetime = 300ms (*web-1.yaml:*)"},
	},
	{
		reason: "fault_injected",
		conf: plaintext("retry: {attempts: 2, on: [unavailable], backoff_base: 1ms, backoff_max: 1ms}").with(sections{
			"faults": "{allow: true, rules: [{name: down, to: api, inject: {abort: 503, delay: 10ms}}]}",
		}),
		says: []string{
			"fault_injected, status 503", "attempt 1 * fault_injected, status 503 * before the endpoint saw it", "met the fault down: held for *, answered 503 in the endpoint's place",
			"another attempt after", "attempt 2", "(attempts_spent)", "cause fault down: delay 10ms, abort 503", "to change faults.rules[0].name = down (*web-1.yaml:*)",
		},
	},
	{
		reason: "draining",
		make: func(m *mesh, app int, _ sections) (*sidecar, string) {
			return inboundPlain(m, app, sections{"drain": "{delay: 0s, timeout: 1m}"})
		},
		app: func(t *testing.T) int {
			chat := webSocketApp()
			return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/chat" {
					<-r.Context().Done()
					return
				}
				chat.ServeHTTP(w, r)
			}))
		},
		provoke: func(b *whyBed) {
			b.raw("GET /held HTTP/1.1\r\nHost: api\r\n\r\n") // so that the drain, and the admin API, last
			c := b.raw("GET /chat HTTP/1.1\r\nHost: api\r\nX-Request-Id: " + whyID + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			eventually(b.T, patience, "both are under way", func() (bool, string) {
				v, w := b.web.metric("outrigger_exchanges_active", `direction="inbound"`), b.web.metric("outrigger_tunnels_active", `direction="inbound"`)
				return v == 2 && w == 1, fmt.Sprint(v, w)
			})
			b.web.signal(syscall.SIGTERM)
			_, _ = io.Copy(io.Discard, c)
		},
		says: []string{whyID + ": GET */chat: draining, status 101", "end This proxy is shutting down.", "ended early by: this proxy", "to change drain.timeout = 1m (*api-1.yaml:*)"},
	},
}

// notProvoked are the reasons that a test of processes cannot provoke at will:
// why not, and the test, in a file of proxy/exchange, that does it within one.
var notProvoked = map[string]struct{ why, file, test string }{
	"no_identity": {"the proxy does not start before it has an identity, and keeps the last one", "reasons_test.go", "TestReasonNoIdentity"},
	"overload":    {"takes memory to be short at a moment, which other requests end", "reasons_test.go", "TestReasonOverload"},
	"superseded":  {"only an attempt ends so", "hedge_test.go", "TestHedge"},
	"internal":    {"a defect", "", ""},
}

// outrigger why tells for each reason what happened, and which line of the
// configuration would change it.
func TestWhy(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile("../../docs/reference/outcomes.md")
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{}
	for _, c := range whyCases {
		tested[c.reason] = true
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(string(table), -1) {
		if other, ok := notProvoked[m[1]]; tested[m[1]] == ok {
			t.Errorf("the reason %s must either be provoked or have a reason why not", m[1])
		} else if ok && other.test != "" {
			text, err := os.ReadFile("../../proxy/exchange/" + other.file)
			if err != nil || !strings.Contains(string(text), "\nfunc "+other.test+"(") {
				t.Errorf("the reason %s is not provoked (%s), and there is no %s: %v", m[1], other.why, other.test, err)
			}
		}
	}
	for i, c := range whyCases {
		t.Run(fmt.Sprintf("%s-%d", c.reason, i), func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

func (c *whyCase) run(t *testing.T) {
	m := newMesh(t)
	var app int
	if c.app != nil {
		app = c.app(t)
	} else {
		app = serve(t, echo("api"))
	}
	if c.make == nil {
		c.make = (*mesh).plain
	}
	m.catalog(map[string][]string{"api": {loopback(app)}})
	b := &whyBed{T: t}
	b.web, b.address = c.make(m, app, c.conf)
	b.web.ready()
	if c.provoke == nil {
		c.provoke = func(b *whyBed) { b.get("/pay") }
	}
	c.provoke(b)

	var id string
	eventually(t, patience, c.reason+" is in the ledger", func() (bool, string) {
		var list []struct {
			RequestID string `json:"request_id"`
			Reason    string
		}
		status, body := b.web.get("/ledger?last=20&format=json")
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		for _, e := range list {
			if e.Reason == c.reason {
				id = e.RequestID
				return true, ""
			}
		}
		return false, body
	})
	args := []string{"why", id}
	if id == "" { // gone before it was one
		args = []string{"why", "--last-failures", "20"}
	}
	args = append(args, "--admin", strings.TrimPrefix(b.web.admin, "http://"))
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	rest := regexp.MustCompile(` +`).ReplaceAllString(string(out), " ")
	for _, want := range c.says {
		re := regexp.MustCompile(strings.ReplaceAll(regexp.QuoteMeta(want), `\*`, `[^\n]*`))
		at := re.FindStringIndex(rest)
		if at == nil {
			t.Fatalf("the story does not go on with %q:\n%s", want, out)
		}
		rest = rest[at[1]:]
	}
	// The same as JSON.
	out, err = exec.Command(program, append(args, "--json")...).CombinedOutput()
	var list []struct{ Reason string }
	if err != nil || json.Unmarshal(out, &list) != nil || len(list) == 0 || list[len(list)-1].Reason != c.reason {
		t.Errorf("as JSON: %v\n%s", err, out)
	}
}

// What nothing is known of is said so, by the exit code too.
func TestWhyUnknown(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	web, _ := m.plain(serve(t, echo("api")), nil)
	web.ready()
	admin := strings.TrimPrefix(web.admin, "http://")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"nobody-knows", "--admin", admin}, "nothing is kept about the request"},
		{[]string{}, "give one request id, or --last-failures"},
		{[]string{"--last-failures=0", "--admin", admin}, "write a number from 1 to"},
		{[]string{"--last-failures", "x", "--admin", admin}, "invalid argument"},
		{[]string{"a", "--admin", freeAddress(t)}, "no admin API at"},
	} {
		out, err := exec.Command(program, append([]string{"why"}, c.args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%v: %v, %s; want %q", c.args, err, out, c.want)
		}
	}
}

// A program reads in Proxy-Status what failed. Others than the own application
// learn the type of the error only.
func TestProxyStatus(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	gone := freePort(t)
	p := m.pair(gone, sections{"policies": "{api: {retry: off}}"}, nil)
	resp, _ := fetch(t, http.MethodGet, p.call+"/", nil)
	if got := resp.Header.Get("proxy-status"); got != "outrigger; error=connection_refused" {
		t.Errorf("from the other side: %q", got)
	}
	if strings.Contains(fmt.Sprint(resp.Header), loopback(gone)) {
		t.Errorf("the other side's address is told: %v", resp.Header)
	}
	p.api.kill()
	// A request may still meet the connection that ended with it.
	want := `outrigger; error=connection_refused; next-hop="` + p.inbound + `"; details="`
	eventually(t, patience, "the own sidecar says "+want, func() (bool, string) {
		resp, _ := fetch(t, http.MethodGet, p.call+"/", nil)
		got := resp.Header.Get("proxy-status")
		return strings.HasPrefix(got, want), got
	})
}
