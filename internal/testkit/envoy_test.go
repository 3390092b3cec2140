package testkit

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"
)

var ports = Ports{Low: 26000, High: 28000}

// application answers with its name and returns its port.
func application(t *testing.T, name string) int {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// answers asks until the answer is the one wanted: Envoy takes a moment to know
// of a change, and tells nobody when.
func answers(t *testing.T, port, status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), envoyStart)
	defer cancel()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var last string
	for {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == status && (body == "" || string(b) == body) {
				return
			}
			last = resp.Status + " " + string(b)
		} else {
			last = err.Error()
		}
		if !pause(ctx) {
			t.Fatalf("port %d does not answer %d %s; last: %s", port, status, body, last)
		}
	}
}

// Two Envoys call each other as Consul tells them to, and not when an intention
// forbids it, with access control on and through a client agent.
func TestEnvoyToEnvoy(t *testing.T) {
	t.Parallel()
	FindEnvoy(t)
	server := Consul(t, ConsulOptions{Mesh: true, ACL: true})
	agent := Consul(t, ConsulOptions{Server: server})
	server.WriteEntry(t, map[string]any{"Kind": "proxy-defaults", "Name": "global", "Config": map[string]any{"protocol": "http"}})
	server.Intentions(t, "api", Source("web", "allow"))
	call := ports.Free(t)
	agent.Register(t, &Sidecar{Service: "api", App: application(t, "api"), Port: ports.Free(t)})
	agent.Register(t, &Sidecar{Service: "web", App: application(t, "web"), Port: ports.Free(t), Upstreams: []Upstream{{Service: "api", Port: call}}})
	api, web := agent.Envoy(t, "api-1-sidecar-proxy"), agent.Envoy(t, "web-1-sidecar-proxy")
	web.Healthy(t, "api.", 1)
	answers(t, call, http.StatusOK, "api")
	server.Intentions(t, "api", Source("web", "deny"))
	answers(t, call, http.StatusForbidden, "")
	api.Stop(t)
	answers(t, call, http.StatusServiceUnavailable, "")
}

// A service of another datacenter is reached through mesh gateways.
func TestMeshGateways(t *testing.T) {
	t.Parallel()
	FindEnvoy(t)
	one := Consul(t, ConsulOptions{Mesh: true})
	two := Consul(t, ConsulOptions{Primary: one, Datacenter: "dc2"})
	one.WriteEntry(t, map[string]any{
		"Kind": "proxy-defaults", "Name": "global", "Config": map[string]any{"protocol": "http"}, "MeshGateway": map[string]any{"Mode": "local"},
	})
	two.Until(t, "config entries are replicated", "/v1/config/proxy-defaults/global", func([]byte) bool { return true })
	for _, agent := range []*ConsulAgent{one, two} {
		agent.Envoy(t, agent.MeshGateway(t, ports.Free(t)))
	}
	call := ports.Free(t)
	two.Register(t, &Sidecar{Service: "api", App: application(t, "api in dc2"), Port: ports.Free(t)})
	one.Register(t, &Sidecar{
		Service: "web", App: application(t, "web"), Port: ports.Free(t),
		Upstreams: []Upstream{{Service: "api", Port: call, More: map[string]any{"Datacenter": "dc2"}}},
	})
	two.Envoy(t, "api-1-sidecar-proxy")
	one.Envoy(t, "web-1-sidecar-proxy")
	answers(t, call, http.StatusOK, "api in dc2")
	one.RotateCA(t, false)
	answers(t, call, http.StatusOK, "api in dc2")
}
