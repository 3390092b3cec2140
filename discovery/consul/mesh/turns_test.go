package mesh

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// More upstreams than may wait at Consul take turns over a few connections, and
// every change is noticed all the same: an instance that fails, a new one, a new
// chain, and the way back to few.
func TestTakingTurns(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true, Config: map[string]any{
		"limits": map[string]any{"http_max_conns_per_client": 40},
	}})
	names, upstreams := fill(t, c, 60, 2)
	register := func(upstreams string) {
		c.Do(t, "PUT", "/v1/agent/service/register", json.RawMessage(
			`{"ID":"web-1","Name":"web","Port":8080,"Connect":{"SidecarService":{"Port":21000,"Checks":[],"Proxy":{"Upstreams":[`+upstreams+`]}}}}`))
	}
	register(upstreams)
	r := start(t, consul.Config{Address: c.Address, Stale: true, Sidecar: &consul.Sidecar{ProxyID: "web-1-sidecar-proxy"}}, Options{}, names...)
	r.until(t, "all chains and instances", func() bool {
		if r.snapshot == nil || len(r.snapshot.Chains) != 60 {
			return false
		}
		for _, name := range names {
			if s := r.services[name]; s == nil || len(s.Endpoints) != 2 {
				return false
			}
		}
		return true
	})
	if holding, _ := r.Endpoints().lane.now(); holding != nil {
		t.Error("60 queries wait at the agent")
	}
	c.Do(t, "PUT", "/v1/txn", json.RawMessage(`[{"Check":{"Verb":"set","Check":{"Node":"n1","CheckID":"c-s0007-1","Name":"alive","Status":"critical","ServiceID":"s0007-1"}}}]`))
	r.until(t, "the failed instance", func() bool { return line(r.services["s0007"]) == "10.0.1.0:20007 10.0.1.1:20007:critical" })
	instance(t, c, "s0009", 7, "passing", "")
	r.until(t, "the new instance", func() bool { return strings.Contains(line(r.services["s0009"]), "10.0.0.7:20007") })
	entry(t, c, `{"Kind":"service-resolver","Name":"s0011","ConnectTimeout":"3s"}`)
	r.until(t, "the new chain", func() bool {
		c := r.snapshot.Chains["s0011"]
		return c != nil && c.Nodes[c.StartNode].Resolver.ConnectTimeout == 3e9
	})
	register(strings.Join(strings.Split(upstreams, ",{")[:2], ",{"))
	r.Endpoints().Follow(names[:2])
	r.until(t, "few of them", func() bool {
		holding, _ := r.Endpoints().lane.now()
		chains, _ := r.Follower.lane.now()
		return len(r.snapshot.Chains) == 2 && holding != nil && chains != nil
	})
	instance(t, c, "s0001", 8, "passing", "")
	r.until(t, "the last instance", func() bool { return strings.Contains(line(r.services["s0001"]), "10.0.0.8:20008") })
}
