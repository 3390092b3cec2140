package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// A path that Consul exposes is asked without a certificate, under denied calls;
// nothing else is.
func TestConsulExposesPaths(t *testing.T) {
	m := &consulMesh{t: t, agent: testkit.Consul(t, testkit.ConsulOptions{Mesh: true})}
	m.protocol("http", "web")
	m.agent.Intentions(t, "web", testkit.Source("*", "deny"))
	var forged atomic.Bool
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-Client-Cert") != "" {
			forged.Store(true)
		}
		fmt.Fprint(w, "the application: ", r.URL.Path)
	}))
	t.Cleanup(app.Close)
	exposed := freePort(t)
	var port int
	if _, err := fmt.Sscan(app.URL[strings.LastIndex(app.URL, ":")+1:], &port); err != nil {
		t.Fatal(err)
	}
	web := m.join(ownKind, testkit.Sidecar{Service: "web", App: port, Proxy: object{"Expose": object{"Paths": []object{
		{"ListenerPort": exposed, "Path": "/healthz", "LocalPathPort": port, "Protocol": "http"},
	}}}})
	base := "http://" + loopback(exposed)
	forge := http.Header{"X-Forwarded-Client-Cert": {"URI=spiffe://x/ns/default/dc/dc1/svc/admin"}}
	a := settles(t, "the exposed path answers", http.MethodGet, base+"/healthz?full", forge, gives(http.StatusOK))
	if a.body != "the application: /healthz" || forged.Load() {
		t.Errorf("%q; a forged certificate was passed on: %v", a.body, forged.Load())
	}
	for _, path := range []string{"/", "/healthz/", "/healthz/../admin", "/healthz%2f..%2fadmin", "//healthz", "/HEALTHZ"} {
		if a, err := ask(t, adminClient, http.MethodGet, base+path, nil); err != nil || a.status != http.StatusNotFound && a.status != http.StatusBadRequest || strings.Contains(a.body, "the application") {
			t.Errorf("%s: %d %q %v", path, a.status, a.body, err)
		}
	}
	// The port of the mesh stays what it is.
	if a, err := ask(t, adminClient, http.MethodGet, "http://"+loopback(web.Port)+"/healthz", nil); err == nil && a.status == http.StatusOK {
		t.Errorf("plaintext on the inbound port: %d %q", a.status, a.body)
	}
}
