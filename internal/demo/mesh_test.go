package demo

import (
	"os"
	"slices"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/file"
)

// What the demo writes is what the proxy takes.
func TestMeshFiles(t *testing.T) {
	for _, consul := range []string{"", "http://127.0.0.1:8500"} {
		m, err := newMesh(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		m.Consul = consul
		if err := m.write(); err != nil {
			t.Fatal(err)
		}
		for _, p := range m.places() {
			loaded, err := config.Load(m.configPath(p))
			if err != nil {
				text, _ := os.ReadFile(m.configPath(p))
				t.Fatalf("%v\n%s", err, text)
			}
			c := loaded.Config
			if c.Inbound.MTLS != config.MTLSStrict || c.Inbound.Listen != p.Inbound || c.Admin.Listen != p.Admin {
				t.Errorf("%s: inbound %+v, admin %+v", p.Name, c.Inbound, c.Admin)
			}
			if p.Service == serviceWeb {
				pol := c.Policy(serviceAPI)
				if len(c.Outbound.Upstreams) != 1 || pol.Outlier == nil || pol.Outlier.BaseEjection != baseEjection || pol.Outlier.KeepEndpoints != 1 {
					t.Errorf("web: %+v, %+v", c.Outbound, pol.Outlier)
				}
				continue
			}
			if rules := c.Authorization.Rules; len(rules) != 1 || !slices.Equal(rules[0].From, []string{"spiffe://demo.test/web"}) {
				t.Errorf("%s: rules %+v", p.Name, rules)
			}
			if got := c.Discovery.Consul != nil && c.Discovery.Consul.Register != nil; got != (consul != "") {
				t.Errorf("%s: discovery %+v", p.Name, c.Discovery)
			}
		}
		if consul != "" {
			continue
		}
		services, err := file.Load(m.catalogPath())
		if err != nil {
			t.Fatal(err)
		}
		if len(services) != 1 || services[0].Name != serviceAPI || len(services[0].Endpoints) != instances {
			t.Fatalf("catalog: %+v", services)
		}
		names := m.names()
		for _, e := range services[0].Endpoints {
			if names[e.Address.String()] != e.ID {
				t.Errorf("%s is %s in the catalog and %s in the mesh", e.Address, e.ID, names[e.Address.String()])
			}
		}
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := freePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if n := len(slices.Compact(ports)); n != 20 {
		t.Errorf("%d different ports of 20", n)
	}
}
