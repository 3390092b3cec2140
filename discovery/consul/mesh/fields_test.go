package mesh

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// refused writes an entry that Consul does not take.
func refused(t *testing.T, c *testkit.ConsulAgent, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, c.Address+"/v1/config", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode < 400 {
		t.Errorf("Consul takes %s", body)
	}
}

// What Consul keeps in its entries for a sidecar arrives where it is looked for,
// and what is for others does not disturb.
func TestFieldsOfRealConsul(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	for _, body := range []string{
		`{"Kind":"proxy-defaults","Name":"global","MutualTLSMode":"permissive"}`, // not allowed yet
		`{"Kind":"service-defaults","Name":"web","MutualTLSMode":"permissive"}`,
		`{"Kind":"service-defaults","Name":"web","UpstreamConfig":{"Defaults":{"Name":"api"}}}`,
		`{"Kind":"service-defaults","Name":"web","UpstreamConfig":{"Defaults":{"Namespace":"other"}}}`,
		`{"Kind":"service-defaults","Name":"web","UpstreamConfig":{"Defaults":{"Partition":"other"}}}`,
		`{"Kind":"service-defaults","Name":"web","UpstreamConfig":{"Overrides":[{"Name":"api","Namespace":"other"}]}}`,
		`{"Kind":"service-defaults","Name":"web","UpstreamConfig":{"Overrides":[{"Name":"api","Partition":"other"}]}}`,
		`{"Kind":"proxy-defaults","Name":"global","PrioritizeByLocality":{"Mode":"failover"}}`,
	} {
		refused(t, c, body)
	}
	for _, body := range []string{
		`{"Kind":"mesh","Meta":{"a":"b"},"AllowEnablingPermissiveMutualTLS":true,"ValidateClusters":true,"Peering":{"PeerThroughMeshGateways":true}}`,
		`{"Kind":"proxy-defaults","Name":"global","Meta":{"a":"b"},"MutualTLSMode":"permissive","MeshGateway":{"Mode":"local"},"FailoverPolicy":{"Mode":"order-by-locality"}}`,
		`{"Kind":"service-defaults","Name":"web","Meta":{"a":"b"},"UpstreamConfig":{"Defaults":{"Peer":"east","ConnectTimeoutMs":3456,"MeshGateway":{"Mode":"none"}},
			"Overrides":[{"Name":"api","MeshGateway":{"Mode":"local"},"ConnectTimeoutMs":1234},{"Name":"far","Peer":"east","ConnectTimeoutMs":2345}]}}`,
		`{"Kind":"service-defaults","Name":"api","MeshGateway":{"Mode":"remote"},"EnvoyExtensions":[{"Name":"builtin/aws/lambda","Required":true,"Arguments":{"ARN":"arn:aws:lambda:us-west-2:111111111111:function:f"}}]}`,
		`{"Kind":"service-defaults","Name":"bank","Destination":{"Addresses":["10.99.0.1"],"Port":443}}`,
		`{"Kind":"service-resolver","Name":"api","Failover":{"*":{"Service":"backup"}}}`,
		`{"Kind":"service-resolver","Name":"moved","Redirect":{"Service":"far","Peer":"east"}}`,
		`{"Kind":"exported-services","Name":"default","Services":[{"Name":"web","Consumers":[{"Peer":"east"}]}]}`,
	} {
		entry(t, c, body)
	}
	register(t, c, `{"ID":"web-1","Name":"web","Port":8080,"Connect":{"SidecarService":{"Port":21000,"Checks":[],"Tags":["t"],"Meta":{"m":"1"},
		"SocketPath":"/run/web.sock","TaggedAddresses":{"wan":{"Address":"198.51.100.1","Port":443}},"Proxy":{"Upstreams":[
		{"DestinationName":"api","LocalBindPort":15001},{"DestinationName":"other","LocalBindPort":15002,"Config":{"mesh_gateway":{"mode":"remote"}}},
		{"DestinationName":"far","DestinationPeer":"east","LocalBindPort":15003},{"DestinationName":"moved","LocalBindPort":15004},
		{"DestinationName":"spaced","DestinationNamespace":"other","LocalBindPort":15005},{"DestinationName":"parted","DestinationPartition":"other","LocalBindPort":15006},
		{"DestinationName":"bank","LocalBindPort":15007}]}}}}`)
	r := start(t, consul.Config{Address: c.Address, Stale: true, Sidecar: &consul.Sidecar{For: "web-1"}}, Options{}, "bank")
	r.until(t, "the snapshot", func() bool { return r.snapshot != nil && r.services["bank"] != nil })
	s := r.snapshot
	p := &s.Proxy
	if p.SocketPath != "/run/web.sock" || p.Port != 21000 || p.Tags[0] != "t" || p.Meta["m"] != "1" || p.TaggedAddresses["wan"].Port != 443 {
		t.Errorf("registration %+v", p)
	}
	if p.Proxy.MutualTLSMode != "permissive" || p.Proxy.MeshGateway.Mode != "local" {
		t.Errorf("of proxy-defaults: %q, %q", p.Proxy.MutualTLSMode, p.Proxy.MeshGateway.Mode)
	}
	if m := &s.Mesh; !m.ValidateClusters || !m.AllowEnablingPermissiveMutualTLS || m.Peering == nil || !m.Peering.PeerThroughMeshGateways {
		t.Errorf("mesh %+v", m)
	}
	got := map[string]string{}
	for _, u := range p.Proxy.Upstreams {
		got[UpstreamName(&u, p)] = fmt.Sprint(u.MeshGateway.Mode, " ", u.Config["connect_timeout_ms"])
	}
	for name, want := range map[string]string{"api": "local 1234", "other": "none 3456", "far.peer-east": "none 2345"} {
		if got[name] != want {
			t.Errorf("upstream %s has %q, want %q", name, got[name], want)
		}
	}
	api := s.Chains["api"]
	if target := api.Targets["api.default.default.dc1"]; len(api.EnvoyExtensions) != 1 || api.EnvoyExtensions[0]["Required"] != true || target.MeshGateway.Mode != "local" {
		t.Errorf("chain of api: %+v, %+v", api, target)
	}
	if f := api.Nodes[api.StartNode].Resolver.Failover; f == nil || f.Policy == nil || f.Policy.Mode != "order-by-locality" {
		t.Errorf("failover of api: %+v", f)
	}
	if target := s.Chains["moved"].Targets["far.default.default.external.east"]; target == nil || target.Peer != "east" {
		t.Errorf("chain of moved: %+v", s.Chains["moved"])
	}
	for name, words := range map[string]string{"spaced.ns-other": "Enterprise", "parted.ap-other": "Enterprise"} {
		if s.Chains[name] != nil || !strings.Contains(s.Failures[name], words) {
			t.Errorf("%s: %q", name, s.Failures[name])
		}
	}
	// What is reached through a terminating gateway has no instances.
	if n := len(r.services["bank"].Endpoints); s.Chains["bank"] == nil || n != 0 {
		t.Errorf("a destination has %d instances", n)
	}

	entry(t, c, `{"Kind":"service-defaults","Name":"web","MutualTLSMode":"strict","MeshGateway":{"Mode":"remote"}}`)
	r.until(t, "what service-defaults say", func() bool {
		p := &r.snapshot.Proxy.Proxy
		return p.MutualTLSMode == "strict" && p.MeshGateway.Mode == "remote"
	})
}
