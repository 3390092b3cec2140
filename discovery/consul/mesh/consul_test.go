package mesh

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// register puts a service with a sidecar and upstreams into an agent.
func register(t *testing.T, c *testkit.ConsulAgent, body string) {
	t.Helper()
	c.Do(t, "PUT", "/v1/agent/service/register", json.RawMessage(body))
}

func entry(t *testing.T, c *testkit.ConsulAgent, body string) {
	t.Helper()
	c.Do(t, "PUT", "/v1/config", json.RawMessage(body))
}

// instance puts an instance of a service in the mesh into the catalog.
func instance(t *testing.T, c *testkit.ConsulAgent, service string, n int, status, more string) {
	t.Helper()
	body := fmt.Sprintf(`{"Node":"n%[2]d","Address":"10.0.0.%[2]d","SkipNodeUpdate":false,
		"Service":{"ID":"%[1]s-%[2]d","Service":"%[1]s-sidecar-proxy","Kind":"connect-proxy","Port":%[3]d,
		"Proxy":{"DestinationServiceName":"%[1]s"}%[5]s},
		"Checks":[{"Node":"n%[2]d","CheckID":"%[1]s-%[2]d","Name":"c","Status":"%[4]s","ServiceID":"%[1]s-%[2]d"}]}`,
		service, n, 20000+n, status, more)
	c.Do(t, "PUT", "/v1/catalog/register", json.RawMessage(body))
}

const webWithApi = `{"ID":"web-1","Name":"web","Port":8080,"Connect":{"SidecarService":{"Port":21000,"Checks":[],"Proxy":{
	"Config":{"protocol":"http","custom":{"a":1}},
	"Upstreams":[{"DestinationName":"api","LocalBindPort":15001,"Config":{"connect_timeout_ms":2222}}]}}}}`

func TestFollowsASidecar(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	r := start(t, consul.Config{Address: c.Address, Stale: true, Sidecar: &consul.Sidecar{For: "web-1"}}, Options{}, "api", "v1.api")
	r.until(t, "a word on the missing registration", func() bool {
		return strings.Contains(r.status("sidecar/registration").LastError, `no sidecar for the service "web-1" is registered`)
	})
	register(t, c, webWithApi)
	r.until(t, "the first snapshot", func() bool { return r.snapshot != nil })
	s := r.snapshot
	if s.Proxy.ID != "web-1-sidecar-proxy" || s.Datacenter != "dc1" || !strings.HasSuffix(s.TrustDomain, ".consul") || !s.DefaultAllow || len(s.Failures) != 0 {
		t.Errorf("snapshot %+v", s)
	}
	if api := s.Chains["api"]; api == nil || api.Protocol != "tcp" || api.Nodes[api.StartNode].Resolver.ConnectTimeout != 2222e6 {
		t.Errorf("chain %+v", api)
	}

	instance(t, c, "api", 1, "passing", "")
	instance(t, c, "api", 2, "warning", `,"Weights":{"Passing":3,"Warning":2}`)
	instance(t, c, "api", 3, "critical", `,"Meta":{"version":"v1"}`)
	const three = "10.0.0.1:20001 10.0.0.2:20002*2:warning 10.0.0.3:20003:critical"
	r.until(t, "three instances", func() bool { return line(r.services["api"]) == three })
	api := r.services["api"]
	if want := "spiffe://" + s.TrustDomain + "/ns/default/dc/dc1/svc/api"; len(api.Identities) != 1 || api.Identities[0] != want {
		t.Errorf("identities %v, want %s", api.Identities, want)
	}
	if want := "api.default.dc1.internal." + s.TrustDomain; api.SNI != want {
		t.Errorf("SNI %q, want %q", api.SNI, want)
	}

	entry(t, c, `{"Kind":"service-resolver","Name":"api","DefaultSubset":"v1","Subsets":{"v1":{"Filter":"Service.Meta.version == v1"}}}`)
	r.until(t, "the subset", func() bool {
		return r.snapshot.Chains["api"].Targets["v1.api.default.default.dc1"] != nil && line(r.services["v1.api"]) == "10.0.0.3:20003:critical"
	})
	entry(t, c, `{"Kind":"service-intentions","Name":"web","Sources":[{"Name":"db","Action":"deny","Description":"no"}]}`)
	r.until(t, "the intention", func() bool {
		return len(r.snapshot.Intentions) == 1 && r.snapshot.Intentions[0].SourceName == "db" && len(r.snapshot.Intentions[0].Unknown) == 0
	})
}

// In transparent mode the services that intentions let the sidecar call are
// there with their virtual addresses, without being named.
func TestImpliedUpstreams(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	register(t, c, `{"ID":"web-1","Name":"web","Port":8080,"Connect":{"SidecarService":{"Port":21000,"Checks":[],"Proxy":{"Mode":"transparent"}}}}`)
	for i, name := range []string{"api", "db"} {
		register(t, c, fmt.Sprintf(`{"Name":%q,"Port":9%d,"Connect":{"SidecarService":{"Port":2200%d,"Checks":[]}}}`, name, i, i))
	}
	register(t, c, `{"Name":"outside","Port":99}`)
	r := start(t, consul.Config{Address: c.Address, Stale: true, Sidecar: &consul.Sidecar{For: "web-1"}}, Options{}, "api")
	r.until(t, "both services of the mesh", func() bool {
		return r.snapshot != nil && len(r.snapshot.Chains) == 2 && r.snapshot.Chains["api"] != nil && r.snapshot.Chains["db"] != nil
	})
	if ips := r.snapshot.Chains["api"].AutoVirtualIPs; len(ips) != 1 {
		t.Errorf("virtual addresses %v", ips)
	}
	r.until(t, "the instances", func() bool { return len(line(r.services["api"])) > 0 })
	entry(t, c, `{"Kind":"service-intentions","Name":"*","Sources":[{"Name":"*","Action":"deny"}]}`)
	r.until(t, "nothing", func() bool { return len(r.snapshot.Chains) == 0 })
	entry(t, c, `{"Kind":"service-defaults","Name":"db","Protocol":"http"}`)
	entry(t, c, `{"Kind":"service-intentions","Name":"db","Sources":[{"Name":"web","Permissions":[{"Action":"allow","HTTP":{"PathPrefix":"/"}}]}]}`)
	r.until(t, "the one that is allowed", func() bool { return len(r.snapshot.Chains) == 1 && r.snapshot.Chains["db"] != nil })
	register(t, c, `{"Name":"late","Port":97,"Connect":{"SidecarService":{"Port":22009,"Checks":[]}}}`)
	entry(t, c, `{"Kind":"service-intentions","Name":"late","Sources":[{"Name":"web","Action":"allow"}]}`)
	r.until(t, "a late one", func() bool { return len(r.snapshot.Chains) == 2 && r.snapshot.Chains["late"] != nil })
	entry(t, c, `{"Kind":"service-defaults","Name":"bank","Destination":{"Addresses":["bank.example.com"],"Port":443}}`)
	r.until(t, "the destination", func() bool {
		return len(r.snapshot.Chains) == 2 && fmt.Sprint(r.snapshot.Destinations) == "[{bank [bank.example.com] 443}]"
	})
}

// A prepared query's instances come with the identities of all that it found.
func TestPreparedQuery(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	instance(t, c, "api", 1, "passing", "")
	c.Do(t, "POST", "/v1/query", json.RawMessage(`{"Name":"q-api","Service":{"Service":"api"}}`))
	register(t, c, `{"ID":"web-1","Name":"web","Port":8080,"Connect":{"SidecarService":{"Port":21000,"Checks":[],"Proxy":{
		"Upstreams":[{"DestinationType":"prepared_query","DestinationName":"q-api","LocalBindPort":15003}]}}}}`)
	r := start(t, consul.Config{Address: c.Address, Stale: true, Sidecar: &consul.Sidecar{For: "web-1"}}, Options{}, "query.q-api")
	r.until(t, "the instance", func() bool { return line(r.services["query.q-api"]) == "10.0.0.1:20001" })
	s, td := r.services["query.q-api"], r.snapshot.TrustDomain
	if s.SNI != "q-api.default.dc1.query."+td || len(s.Identities) != 1 || s.Identities[0] != "spiffe://"+td+"/ns/default/dc/dc1/svc/api" {
		t.Errorf("SNI %q, identities %v", s.SNI, s.Identities)
	}
}

// Without an agent the registration comes from the catalog, under its node.
func TestAgentless(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	entry(t, c, `{"Kind":"service-defaults","Name":"web","Protocol":"http","MutualTLSMode":""}`)
	r := start(t, consul.Config{Address: c.Address, Stale: true, Sidecar: &consul.Sidecar{ProxyID: "web-proxy-1", Node: "k8s-virtual"}}, Options{})
	r.until(t, "a word on what is missing", func() bool {
		return strings.Contains(r.status("sidecar/registration").LastError, `no sidecar with the ID "web-proxy-1" is registered under node "k8s-virtual" in the catalog`)
	})
	c.Do(t, "PUT", "/v1/catalog/register", json.RawMessage(`{"Node":"k8s-virtual","Address":"10.1.1.1","Service":{"ID":"web-1","Service":"web","Port":80}}`))
	c.Do(t, "PUT", "/v1/catalog/register", json.RawMessage(`{"Node":"k8s-virtual","Address":"10.1.1.1","Service":{"ID":"web-proxy-1","Kind":"connect-proxy","Service":"web-sidecar-proxy","Port":20000,
		"Proxy":{"DestinationServiceName":"web","DestinationServiceID":"web-1","LocalServicePort":80,"Upstreams":[{"DestinationName":"api","LocalBindPort":15001}]}}}`))
	r.until(t, "the snapshot", func() bool { return r.snapshot != nil && r.snapshot.Chains["api"] != nil })
	if p := r.snapshot.Proxy; p.Node != "k8s-virtual" || p.Datacenter != "dc1" || p.Proxy.Config["protocol"] != "http" {
		t.Errorf("registration %+v", p)
	}
}

// The servers' policy for intentions goes before that of ACLs.
func TestDefaultIntentionPolicy(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true, Config: map[string]any{"default_intention_policy": "deny"}})
	register(t, c, webWithApi)
	r := start(t, consul.Config{Address: c.Address, Stale: true, Sidecar: &consul.Sidecar{For: "web-1"}}, Options{})
	r.until(t, "the snapshot", func() bool { return r.snapshot != nil })
	if r.snapshot.DefaultAllow {
		t.Error("allowed by default")
	}
}
