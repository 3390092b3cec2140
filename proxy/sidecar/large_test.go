package sidecar

import (
	"fmt"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
)

// large is a sidecar with n upstreams.
func large(n int) *mesh.Snapshot {
	s := &mesh.Snapshot{Datacenter: "dc1", TrustDomain: "11111111-2222-3333-4444-555555555555.consul", Chains: map[string]*mesh.Chain{}}
	s.Proxy = mesh.Registration{Kind: "connect-proxy", ID: "web-sidecar-proxy", Port: 21000, Datacenter: "dc1"}
	s.Proxy.Proxy.DestinationServiceName, s.Proxy.Proxy.LocalServicePort = "web", 8080
	for i := range n {
		name := fmt.Sprintf("service-%d", i)
		id := name + ".default.default.dc1"
		s.Proxy.Proxy.Upstreams = append(s.Proxy.Proxy.Upstreams, mesh.Upstream{
			DestinationName: name, LocalBindPort: 22000 + i,
			Config: map[string]any{"protocol": "http", "passive_health_check": map[string]any{"max_failures": float64(3)}},
		})
		s.Chains[name] = &mesh.Chain{
			ServiceName: name, Protocol: "http", StartNode: "resolver:" + id,
			Nodes:   map[string]*mesh.Node{"resolver:" + id: {Type: "resolver", Name: id, Resolver: &mesh.Resolver{Default: true, Target: id}}},
			Targets: map[string]*mesh.Target{id: {ID: id, Service: name, Namespace: "default", Datacenter: "dc1", ConnectTimeout: 5e9}},
		}
	}
	return s
}

func BenchmarkTranslate1000(b *testing.B) {
	base, err := config.ParseBase("base.yaml", []byte("discovery: {consul: {}}\n"))
	if err != nil {
		b.Fatal(err)
	}
	s := large(1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Translate(base, s, nil); err != nil {
			b.Fatal(err)
		}
	}
}
