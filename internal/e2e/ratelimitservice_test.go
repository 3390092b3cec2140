package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// startRedis starts Redis without any memory of its past.
func startRedis(t *testing.T, port int) *process {
	t.Helper()
	dir := t.TempDir()
	s := spawn(t, "redis", command(dir, nil, need(t, "redis-server"),
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir))
	listening(t, s, port)
	return s
}

// rateLimitService is Envoy's own service, with these limits.
type rateLimitService struct {
	t    *testing.T
	port int
	cmd  func() *process
}

func newRateLimitService(t *testing.T, limits string) *rateLimitService {
	t.Helper()
	bin := testkit.RateLimit().Find(t)
	// It counts anew at midnight, in the middle of a test if need be.
	if now := time.Now().UTC(); now.Hour() == 23 && now.Minute() >= 58 {
		time.Sleep(time.Until(now.Truncate(24 * time.Hour).Add(24 * time.Hour)))
	}
	redis := freePort(t)
	startRedis(t, redis)
	dir := t.TempDir()
	config := filepath.Join(dir, "sub", "config")
	if err := os.MkdirAll(config, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "limits.yaml"), []byte(limits), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &rateLimitService{t: t, port: freePort(t)}
	http, debug := freePort(t), freePort(t)
	s.cmd = func() *process {
		cmd := command(dir, nil, bin)
		cmd.Env = append(cmd.Env,
			"RUNTIME_ROOT="+dir, "RUNTIME_SUBDIRECTORY=sub", "RUNTIME_WATCH_ROOT=false", "USE_STATSD=false",
			"REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+loopback(redis), "HOST=127.0.0.1", "GRPC_HOST=127.0.0.1", "DEBUG_HOST=127.0.0.1",
			fmt.Sprint("GRPC_PORT=", s.port), fmt.Sprint("PORT=", http), fmt.Sprint("DEBUG_PORT=", debug),
		)
		return spawn(t, "ratelimit", cmd)
	}
	return s
}

func (s *rateLimitService) start() *process {
	s.t.Helper()
	p := s.cmd()
	listening(s.t, p, s.port)
	return p
}

// open starts the sidecar of an application that anybody may call in plaintext,
// with those who count and its limits, and returns the address for callers.
func (m *mesh) open(app int, protocol, limiters, limits string) (*sidecar, string) {
	m.t.Helper()
	listen := freeAddress(m.t)
	s, _ := m.inbound("api", app, sections{
		"service":       fmt.Sprintf("{name: api, port: %d, protocol: %s}", app, protocol),
		"inbound":       fmt.Sprintf(`{listen: "%s", mtls: "off", rate_limits: [%s]}`, listen, limits),
		"rate_limiters": limiters,
	})
	s.ready()
	return s, listen
}

// Two sidecars share what Envoy's rate limit service counts; what it says is
// told to callers. While it is away the limits say what becomes of requests,
// without waiting for it each time; once it is back it counts again.
func TestRateLimitService(t *testing.T) {
	t.Parallel()
	service := newRateLimitService(t, `
domain: shop
descriptors:
  - {key: tenant, rate_limit: {unit: day, requests_per_unit: 4}}
  - {key: remote_address, rate_limit: {unit: day, requests_per_unit: 1000}}
`)
	rls := service.start()
	m := newMesh(t)
	app := serve(t, named("api", echo("api")))
	var calls [2]string
	var sides [2]*sidecar
	for i := range calls {
		sides[i], calls[i] = m.open(app, "http", fmt.Sprintf(`{grpc: {address: "%s", domain: shop, transport: plaintext, timeout: 5s, breaker: {consecutive_failures: 3, open_for: 100ms}}}`, loopback(service.port)),
			`{name: tenant, scope: grpc, tell: always, on_error: refuse, match: {path: /limited}, descriptor: [{key: tenant, from: header, header: x-tenant}]},
			{name: caller, scope: grpc, key: source_ip}`)
		calls[i] = "http://" + calls[i]
	}
	ask := func(call, path, tenant string) (*http.Response, string) {
		return fetch(t, "GET", call+path, func(r *http.Request) { r.Header.Set("X-Tenant", tenant) })
	}
	for i := range 4 {
		res, body := ask(calls[i%2], "/limited", "acme")
		if res.StatusCode != 200 || res.Header.Get("ratelimit-policy") != `"tenant";q=4;w=86400` || !strings.HasPrefix(res.Header.Get("ratelimit"), fmt.Sprintf(`"tenant";r=%d;t=`, 3-i)) {
			t.Fatalf("request %d: %d, %v: %s", i+1, res.StatusCode, res.Header, body)
		}
	}
	for i := range 2 {
		res, body := ask(calls[i], "/limited", "acme")
		after, err := strconv.Atoi(res.Header.Get("retry-after"))
		if res.StatusCode != 429 || err != nil || after < 1 || after > 86400 || !strings.Contains(body, "limit: tenant") {
			t.Errorf("beyond the rate: %d, %v: %s", res.StatusCode, res.Header, body)
		}
	}
	if res, _ := ask(calls[0], "/limited", "other"); res.StatusCode != 200 {
		t.Errorf("another tenant: %d", res.StatusCode)
	}
	if res, _ := ask(calls[0], "/free", "acme"); res.StatusCode != 200 || res.Header.Get("ratelimit") != "" {
		t.Errorf("another path: %d, %v", res.StatusCode, res.Header)
	}

	rls.kill()
	began := time.Now()
	for range 50 {
		if res, body := ask(calls[0], "/limited", "acme"); res.StatusCode != 503 || !strings.Contains(body, "rate_unknown") {
			t.Fatalf("with the service away: %d: %s", res.StatusCode, body)
		}
		if res, body := ask(calls[0], "/free", "acme"); res.StatusCode != 200 {
			t.Fatalf("with the service away, where that is allowed: %d: %s", res.StatusCode, body)
		}
	}
	if took := time.Since(began); took > patience {
		t.Errorf("100 requests waited %s for a service that is away", took)
	}
	sides[0].counts(50, "outrigger_rate_limit_decisions_total", `limit="tenant"`, `result="unknown_refused"`)
	sides[0].counts(50, "outrigger_rate_limit_decisions_total", `limit="caller"`, `result="unknown_passed"`)
	sides[0].counts(1, "outrigger_rate_limit_errors_total", `limit="tenant"`)

	service.start()
	eventually(t, patience, "the service is asked again", func() (bool, string) {
		res, _ := ask(calls[0], "/limited", "acme")
		return res.StatusCode == 429, res.Status
	})
}

// A gRPC caller gets RESOURCE_EXHAUSTED by the service's word.
func TestRateLimitServiceGRPC(t *testing.T) {
	t.Parallel()
	service := newRateLimitService(t, "domain: shop\ndescriptors: [{key: generic_key, value: calls, rate_limit: {unit: day, requests_per_unit: 2}}]\n")
	service.start()
	m := newMesh(t)
	port, _ := serveGRPC(t, newGRPCApp("api"))
	_, address := m.open(port, "grpc", fmt.Sprintf(`{grpc: {address: "%s", domain: shop, transport: plaintext, timeout: 5s}}`, loopback(service.port)), "{name: calls, scope: grpc}")
	refused := 0
	call := dialGRPC(t, address)
	for range 4 {
		if _, err := call.EmptyCall(within(t, patience), &testpb.Empty{}); status.Code(err) == codes.ResourceExhausted {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("%d calls were refused, want 2", refused)
	}
}
