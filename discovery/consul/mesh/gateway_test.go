package mesh

import (
	"encoding/json"
	"testing"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// A service of another datacenter is reached at the mesh gateways of the own one,
// under its own name and identity; when none of its instances is well, they are not.
func TestThroughMeshGateways(t *testing.T) {
	t.Parallel()
	one := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	two := testkit.Consul(t, testkit.ConsulOptions{Mesh: true, Datacenter: "dc2", Primary: one})
	instance(t, two, "api", 1, "passing", "")
	one.Do(t, "PUT", "/v1/catalog/register", json.RawMessage(`{"Node":"gw","Address":"10.9.9.9","Service":{"ID":"gw-1","Service":"mesh-gateway","Kind":"mesh-gateway","Port":8443,
		"TaggedAddresses":{"wan":{"Address":"198.51.100.1","Port":443}}}}`))
	register(t, one, `{"ID":"web-1","Name":"web","Port":8080,"Connect":{"SidecarService":{"Port":21000,"Checks":[],"Proxy":{"Upstreams":[
		{"DestinationName":"api","Datacenter":"dc2","LocalBindPort":15001,"MeshGateway":{"Mode":"local"}}]}}}}`)
	r := start(t, consul.Config{Address: one.Address, Stale: true, Sidecar: &consul.Sidecar{For: "web-1"}}, Options{}, "api.dc-dc2")
	r.until(t, "the gateway", func() bool { return line(r.services["api.dc-dc2"]) == "10.9.9.9:8443" })
	s, td := r.services["api.dc-dc2"], r.snapshot.TrustDomain
	if s.SNI != "api.default.dc2.internal."+td || len(s.Identities) != 1 || s.Identities[0] != "spiffe://"+td+"/ns/default/dc/dc2/svc/api" {
		t.Errorf("SNI %q, identities %v", s.SNI, s.Identities)
	}
	instance(t, two, "api", 1, "critical", "")
	r.until(t, "the gateway without an instance", func() bool { return line(r.services["api.dc-dc2"]) == "10.9.9.9:8443:critical" })
	register(t, one, `{"ID":"web-1","Name":"web","Port":8080,"Connect":{"SidecarService":{"Port":21000,"Checks":[],"Proxy":{"Upstreams":[
		{"DestinationName":"api","Datacenter":"dc2","LocalBindPort":15001,"MeshGateway":{"Mode":"none"}}]}}}}`)
	instance(t, two, "api", 1, "passing", "")
	r.until(t, "the instance itself", func() bool { return line(r.services["api.dc-dc2"]) == "10.0.0.1:20001" })
}
