package plan

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

func TestRateLimitCounts(t *testing.T) {
	login := RateLimit{Match: Match{Path: Text{Kind: Exact, Value: "/login"}, Methods: []string{"POST"}}}
	for request, want := range map[string]bool{
		"POST /login?x=1":        true,
		"GET /login":             false,
		"POST /logins":           false,
		"POST /a/../login":       true,
		"POST /%2e/login":        true,
		"GET /a/../login":        false,
		"POST http://a/login":    true,
		"OPTIONS *":              false,
		"POST /a/%2e%2e%2flogin": true,
	} {
		raw := []byte(request + " HTTP/1.1\r\nHost: Shop\r\nX-Tenant: one\r\nx-tenant: two\r\nUser-Agent: me\r\n\r\n")
		var r http1.Request
		if _, err := r.Parse(raw, &http1.Limits{HeadBytes: 1000, Fields: 10}); err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		if got := login.Counts(&r, raw); got != want {
			t.Errorf("%s: %v, want %v", request, got, want)
		}
		if !(&RateLimit{}).Counts(&r, raw) {
			t.Errorf("%s is not counted by a limit without conditions", request)
		}
		for field, want := range map[string]string{"x-tenant": "one", "user-agent": "me", "x-other": "", "authorization": ""} {
			if got := string(FieldValue(field, &r, raw)); got != want {
				t.Errorf("%s: %q, want %q", field, got, want)
			}
		}
	}
}

func TestPolicyText(t *testing.T) {
	for _, c := range []struct {
		rate ratelimit.Config
		want string
	}{
		{ratelimit.Config{Requests: 100, Per: time.Second, Burst: 5}, `"a";q=100;w=1`},
		{ratelimit.Config{Requests: 3, Per: time.Hour}, `"a";q=3;w=3600`},
		{ratelimit.Config{Requests: 3, Per: 1500 * time.Millisecond}, `"a";q=3`},
	} {
		if got := PolicyText("a", c.rate); got != c.want {
			t.Errorf("%+v: %s, want %s", c.rate, got, c.want)
		}
	}
}
