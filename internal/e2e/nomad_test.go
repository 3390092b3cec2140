package e2e

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// nomadApplication holds the name and the address of an application that is a
// task of Nomad's.
const nomadApplication = "OUTRIGGER_E2E_APPLICATION"

// An application of a job: it answers, and calls others when it is asked to.
func TestNomadApplication(t *testing.T) {
	name, address, _ := strings.Cut(os.Getenv(nomadApplication), " ")
	if name == "" {
		t.Skip("a task of the jobs of testdata/nomad")
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{
		Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, to string) (net.Conn, error) {
			if server := os.Getenv("OUTRIGGER_E2E_DNS"); server != "" {
				to = server
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		}},
	}).DialContext}}
	mux := http.NewServeMux()
	mux.Handle("/", echo(name))
	mux.HandleFunc("/never", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/call", func(w http.ResponseWriter, r *http.Request) {
		resp, err := client.Get(r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_ = resp.Write(w)
	})
	t.Fatal((&http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: patience}).ListenAndServe())
}

// Jobs whose sidecars Nomad registers and starts with Envoy's command line.
func TestNomadConnect(t *testing.T) {
	m := withNomad(t, testkit.ConsulOptions{})
	if m == nil {
		return
	}
	for _, name := range []string{"web", "web-connect", "web-native"} {
		m.command("job", "validate", filepath.Join("..", "..", "deploy", "nomad", name+".nomad.hcl"))
	}
	for _, service := range []string{"web", "api", "shop", "native"} {
		m.agent.Do(t, http.MethodPut, "/v1/config", object{"Kind": "service-defaults", "Name": service, "Protocol": "http"})
	}
	web := m.run("mesh")["web"]
	for _, service := range []string{"api", "web", "api-sidecar-proxy", "web-sidecar-proxy"} {
		m.passing(service, 1) // that of api has a check through the sidecar
	}
	web.calls("web calls api", "http://127.0.0.1:9001/hello", http.StatusOK)
	web.calls("web's sidecar is ready where Nomad says", "http://127.0.0.1:19101/ready", http.StatusOK)
	web.calls("web's sidecar has its admin API where Nomad says", "http://127.0.0.2:19001/ready", http.StatusOK)
	web.calls("web's policy for api is that of its job", "http://127.0.0.1:9001/never", http.StatusGatewayTimeout)
	m.agent.Intentions(t, "api", testkit.Source("web", "deny"))
	web.calls("web may not call api", "http://127.0.0.1:9001/hello", http.StatusForbidden)
	m.agent.Intentions(t, "api", testkit.Source("web", "allow"))
	web.calls("web may call api again", "http://127.0.0.1:9001/hello", http.StatusOK)

	m.run("native")
	web.calls("web calls a native service", "http://127.0.0.1:9002/hello", http.StatusOK)

	shop := m.run("transparent")["shop"]
	shop.calls("shop calls api by a name of the mesh", "http://api.virtual.consul/hello", http.StatusOK)
	m.agent.Intentions(t, "api", testkit.Source("web", "allow"), testkit.Source("shop", "deny"))
	// It is no upstream any more: the address leads nowhere.
	shop.calls("shop may not call api", "http://api.virtual.consul/hello", http.StatusBadGateway)
	m.agent.Intentions(t, "api", testkit.Source("*", "allow"))
	shop.calls("shop may call api again", "http://api.virtual.consul/hello", http.StatusOK)

	// A Nomad that starts anew has the plugins check the networks of what runs, and
	// would end what has a wrong one.
	m.process.kill()
	m.start()
	m.eventually("Nomad has what it had", func() (bool, string) {
		out := m.process.out.String()
		return strings.Contains(out, "node registration complete"), tail(out, 1000)
	})
	shop.calls("shop calls api after a restart of Nomad", "http://api.virtual.consul/hello", http.StatusOK)
	for _, job := range []string{"mesh", "native", "transparent"} {
		for group, a := range m.allocations(job) {
			for name, task := range a.Tasks {
				if task.State != "running" || task.Restarts > 0 {
					t.Errorf("%s of %s after a restart of Nomad: %+v", name, group, task)
				}
			}
		}
	}
}

// Consul lets in nobody without a token: Nomad has each task's own by the identity
// that it gives to the task.
func TestNomadACL(t *testing.T) {
	m := withNomad(t, testkit.ConsulOptions{ACL: true})
	if m == nil {
		return
	}
	m.command("setup", "consul", "-y", "-jwks-url", nomadAPI+"/.well-known/jwks.json")
	for _, service := range []string{"web", "api"} {
		m.agent.Do(t, http.MethodPut, "/v1/config", object{"Kind": "service-defaults", "Name": service, "Protocol": "http"})
	}
	m.agent.Intentions(t, "api", testkit.Source("web", "allow"))
	groups := m.run("mesh")
	groups["web"].calls("web calls api", "http://127.0.0.1:9001/hello", http.StatusOK)
	m.stop("mesh")
}
