package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// write says what Consul answers to a config entry.
func (m *consulMesh) write(e object) (status int, body string) {
	m.t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		m.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodPut, m.agent.Address+"/v1/config", bytes.NewReader(b))
	if err != nil {
		m.t.Fatal(err)
	}
	resp, err := adminClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// What the free edition of Consul refuses never reaches a sidecar.
func TestConsulFreeEdition(t *testing.T) {
	t.Parallel()
	m := &consulMesh{t: t, agent: testkit.Consul(t, testkit.ConsulOptions{Mesh: true})}
	for _, e := range []object{
		entry("sameness-group", "one", "Members", []object{{"Partition": "default"}}),
		entry("control-plane-request-limit", "one", "Mode", "permissive"),
		entry("service-defaults", "api", "Protocol", "http", "RateLimits", object{"InstanceLevel": object{"RequestsPerSecond": 1}}),
		entry("proxy-defaults", "global", "PrioritizeByLocality", object{"Mode": "failover"}),
		entry("proxy-defaults", "global", "Partition", "other"),
		entry("service-defaults", "api", "Namespace", "other"),
		entry("service-intentions", "api", "Partition", "other", "Sources", []object{{"Name": "web", "Action": "allow"}}),
		entry("jwt-provider", "one", "Partition", "other", "JSONWebKeySet", object{"Local": object{"JWKS": "e30="}}),
		{"Kind": "mesh", "Partition": "other"},
	} {
		if status, body := m.write(e); status/100 == 2 {
			t.Errorf("%v was taken: %d %s", e, status, body)
		}
	}
}

// Whatever is registered and is no sidecar is refused with the reason.
func TestConsulGateways(t *testing.T) {
	t.Parallel()
	m := &consulMesh{t: t, agent: testkit.Consul(t, testkit.ConsulOptions{Mesh: true})}
	for _, kind := range []string{"mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway"} {
		m.agent.Do(t, http.MethodPut, "/v1/agent/service/register", object{"Kind": kind, "ID": kind, "Name": kind, "Port": 8443})
	}
	m.agent.Do(t, http.MethodPut, "/v1/agent/service/register", object{"ID": "native", "Name": "native", "Port": 8080, "Connect": object{"Native": true}})
	for id, words := range map[string]string{
		"mesh-gateway": "is of kind mesh-gateway", "terminating-gateway": "is of kind terminating-gateway", "ingress-gateway": "is of kind ingress-gateway",
		"api-gateway": "is of kind api-gateway", "native": "is a Connect-native service",
	} {
		admin := freeAddress(t)
		cmd := exec.Command(program, "run", "--proxy-id", id, "--admin", admin)
		cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+m.agent.Address, "CONSUL_GRPC_ADDR="+m.agent.GRPC)
		s := &sidecar{process: spawn(t, id, cmd), t: t, admin: "http://" + admin}
		eventually(t, patience, fmt.Sprintf("%s is refused", id), func() (bool, string) { return hasLine(s.out.String(), words), s.out.String() })
		s.kill()
	}
}
