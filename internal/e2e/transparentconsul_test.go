package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// virtualAddress waits until Consul has given a service a virtual address.
func (m *consulMesh) virtualAddress(service string) string {
	m.t.Helper()
	var found string
	eventually(m.t, patience, "Consul gives "+service+" a virtual address", func() (bool, string) {
		body := m.agent.Do(m.t, http.MethodGet, "/v1/discovery-chain/"+service, nil)
		var v struct {
			Chain struct{ AutoVirtualIPs []string }
		}
		if err := json.Unmarshal(body, &v); err != nil || len(v.Chain.AutoVirtualIPs) == 0 {
			return false, string(body)
		}
		found = v.Chain.AutoVirtualIPs[0]
		return true, ""
	})
	return found
}

// A sidecar in Consul's transparent mode needs no upstream in its registration:
// the application calls services by the virtual addresses that Consul has given
// them, also those that come later.
func TestTransparentConsul(t *testing.T) {
	if !alone(t) {
		return
	}
	m := &consulMesh{t: t, agent: testkit.Consul(t, testkit.ConsulOptions{Mesh: true})}
	serveEcho := func(name string) int {
		app := httptest.NewServer(echo(name))
		t.Cleanup(app.Close)
		return app.Listener.Addr().(*net.TCPAddr).Port
	}
	m.protocol("http", "api", "late")
	m.join(ownKind, testkit.Sidecar{Service: "api", App: serveEcho("api-1")})
	web := m.register(ownKind, testkit.Sidecar{Service: "web", Proxy: object{"Mode": "transparent"}})
	dir, admin := t.TempDir(), freeAddress(t)
	own := &sidecar{t: t, admin: "http://" + admin, config: filepath.Join(dir, "web.yaml"), access: filepath.Join(dir, "access.log")}
	writeFile(t, own.config, sections{
		"admin":     fmt.Sprintf(`{listen: "%s"}`, admin),
		"telemetry": fmt.Sprintf(`{access_log: {path: "%s"}}`, own.access),
		"drain":     `{delay: 0s, timeout: 5s}`,
	}.yaml())
	cmd := exec.Command(program, "run", "--consul-sidecar-for", web.ID, "--config", own.config)
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+m.agent.Address, "CONSUL_GRPC_ADDR="+m.agent.GRPC, "CONSUL_HTTP_TOKEN="+m.agent.Token)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 0, Gid: proxyGroup}}
	own.process = spawn(t, web.ProxyID(), cmd)
	own.ready()
	redirect(t, interceptPort)

	reaches := func(service, instance string) string {
		t.Helper()
		address := m.virtualAddress(service)
		eventually(t, patience, service+" is reached at "+address, func() (bool, string) {
			status, body, err := fetchOnce("http://" + address + ":8080/hello")
			var s seen
			ok := err == nil && status == http.StatusOK && json.Unmarshal([]byte(body), &s) == nil && s.Instance == instance
			return ok, fmt.Sprint(status, body, err)
		})
		return address
	}
	address := reaches("api", "api-1")
	r := own.recorded("the call", func(r *record) bool { return r.Original == address+":8080" && r.Status == http.StatusOK })
	if r.Cluster != "api" || r.Listener != "outbound:api" || r.UpstreamID == "" {
		t.Errorf("the record is %+v", r)
	}
	outside := greetAt(t, "10.9.9.1:0", "outside\n")
	if got, err := chat(outside, "hello"); err != nil || got != "outside\nhello" {
		t.Errorf("outside: %q %v", got, err)
	}

	m.join(ownKind, testkit.Sidecar{Service: "late", App: serveEcho("late-1")})
	reaches("late", "late-1")

	m.agent.WriteEntry(t, object{"Kind": "mesh", "TransparentProxy": object{"MeshDestinationsOnly": true}})
	eventually(t, patience, "destinations outside of the mesh are refused", func() (bool, string) {
		got, err := chat(outside, "hello")
		return errors.Is(err, syscall.ECONNRESET), fmt.Sprintf("%q %v", got, err)
	})
	reaches("api", "api-1")
}
