package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// Two sidecars share the buckets in Redis. While it is away on_error says what
// becomes of requests; started again it counts anew, and nobody is restarted.
func TestRateLimitRedis(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	redis := startRedis(t, port)
	m := newMesh(t)
	app := serve(t, named("api", echo("api")))
	var sides [2]*sidecar
	var calls [2]string
	for i := range sides {
		sides[i], calls[i] = m.open(app, "http",
			fmt.Sprintf(`{redis: {address: "%s", transport: plaintext, timeout: 5s, breaker: {consecutive_failures: 3, open_for: 100ms}}}`, loopback(port)),
			`{name: tenant, rate: {requests: 4, per: 1h}, scope: redis, key: header, header: X-Tenant, on_error: refuse, tell: always, match: {path: /limited}},
			{name: all, rate: {requests: 100000, per: 1h}, scope: redis, lease: 1000}`)
		calls[i] = "http://" + calls[i]
	}
	ask := func(i int, path, tenant string) (*http.Response, string) {
		return fetch(t, "GET", calls[i]+path, func(r *http.Request) { r.Header.Set("X-Tenant", tenant) })
	}
	for i := range 4 {
		res, body := ask(i%2, "/limited", "acme")
		if res.StatusCode != 200 || res.Header.Get("ratelimit-policy") != `"tenant";q=4;w=3600` || !strings.HasPrefix(res.Header.Get("ratelimit"), fmt.Sprintf(`"tenant";r=%d;t=`, 3-i)) {
			t.Fatalf("request %d: %d, %v: %s", i+1, res.StatusCode, res.Header, body)
		}
	}
	for i := range 2 {
		res, body := ask(i, "/limited", "acme")
		if after, err := strconv.Atoi(res.Header.Get("retry-after")); res.StatusCode != 429 || err != nil || after < 1 || after > 900 || !strings.Contains(body, "limit: tenant") {
			t.Errorf("beyond the rate: %d, %v: %s", res.StatusCode, res.Header, body)
		}
	}
	if res, _ := ask(0, "/limited", "other"); res.StatusCode != 200 {
		t.Errorf("another tenant: %d", res.StatusCode)
	}
	// Of a lease most requests are let pass without a question.
	for range 50 {
		if res, _ := ask(0, "/free", "x"); res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
	}
	if n := sides[0].metric("outrigger_rate_limit_ask_duration_seconds_count", `limit="all"`); n < 1 || n > 10 {
		t.Errorf("%v questions for more than 50 requests", n)
	}

	redis.kill()
	for i := range 30 {
		if res, body := ask(0, "/limited", fmt.Sprint("new ", i)); res.StatusCode != 503 || !strings.Contains(body, "rate_unknown") {
			t.Fatalf("with Redis away: %d: %s", res.StatusCode, body)
		}
	}
	sides[0].counts(30, "outrigger_rate_limit_decisions_total", `limit="tenant"`, `result="unknown_refused"`)
	sides[0].counts(1, "outrigger_rate_limit_errors_total", `limit="tenant"`, `kind="unreachable"`)
	startRedis(t, port)
	eventually(t, patience, "Redis is asked again", func() (bool, string) {
		res, _ := ask(0, "/limited", "acme")
		return res.StatusCode == 200, res.Status
	})
}
