package explain

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// Of limits that others count it is said who does, and nobody is asked.
func TestRatesOfOthers(t *testing.T) {
	l, err := config.Parse("web.yaml", []byte(`
service: {name: web, port: 8080}
rate_limiters: {grpc: {address: "127.0.0.1:9", domain: a, transport: plaintext}}
inbound:
  mtls: "off"
  rate_limits:
    - {name: shared, scope: grpc, descriptor: [{key: kind, value: a}, {key: m, from: method}]}
    - {name: own, rate: {requests: 5}, key: path}
`))
	if err != nil {
		t.Fatal(err)
	}
	v, err := File(&admin.Question{To: "web", Method: "GET", Target: "/"}, l)
	if err != nil {
		t.Fatal(err)
	}
	want := []admin.LimitVerdict{
		{Name: "shared", Quota: "as it says", Key: "kind, m", Mode: "enforce", Scope: "grpc"},
		{Name: "own", Quota: "5 requests per 1s", Key: "path", Mode: "enforce"},
	}
	if len(v.RateLimits) != 2 || v.RateLimits[0] != want[0] || v.RateLimits[1] != want[1] {
		t.Errorf("%+v, want %+v", v.RateLimits, want)
	}
}
