package consul

import (
	"fmt"
	"math"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/outrigger-mesh/outrigger/discovery"
)

func entry(change func(*api.ServiceEntry)) *api.ServiceEntry {
	e := &api.ServiceEntry{
		Node:    &api.Node{Node: "n1", Address: "10.0.0.9", Datacenter: "dc1"},
		Service: &api.AgentService{ID: "api-1", Service: "api", Address: "10.0.0.1", Port: 80, Weights: api.AgentWeights{Passing: 4, Warning: 2}},
	}
	change(e)
	return e
}

func checks(states ...string) api.HealthChecks {
	var out api.HealthChecks
	for i, s := range states {
		out = append(out, &api.HealthCheck{CheckID: fmt.Sprint("c", i), Status: s})
	}
	return out
}

func TestEndpoints(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*api.ServiceEntry)
		want    string // address weight health
		warning string
	}{
		{"plain", func(e *api.ServiceEntry) {}, "10.0.0.1:80 4 passing", ""},
		{"passing", func(e *api.ServiceEntry) { e.Checks = checks("passing", "passing") }, "10.0.0.1:80 4 passing", ""},
		{"warning", func(e *api.ServiceEntry) { e.Checks = checks("passing", "warning", "passing") }, "10.0.0.1:80 2 warning", ""},
		{"critical", func(e *api.ServiceEntry) { e.Checks = checks("critical", "warning") }, "10.0.0.1:80 4 critical", ""},
		{"unknown state", func(e *api.ServiceEntry) { e.Checks = checks("passing", "odd") }, "10.0.0.1:80 4 critical", ""},
		{"no check", func(e *api.ServiceEntry) { e.Checks = api.HealthChecks{nil} }, "10.0.0.1:80 4 passing", ""},
		{"node maintenance", func(e *api.ServiceEntry) {
			e.Checks = checks("passing")
			e.Checks[0].CheckID = "_node_maintenance"
		}, "10.0.0.1:80 4 critical", ""},
		{"service maintenance", func(e *api.ServiceEntry) {
			e.Checks = checks("passing")
			e.Checks[0].CheckID = "_service_maintenance:api-1"
		}, "10.0.0.1:80 4 critical", ""},
		{"warning means no traffic", func(e *api.ServiceEntry) {
			e.Checks, e.Service.Weights.Warning = checks("warning"), 0
		}, "10.0.0.1:80 4 critical", ""},
		{"no weights", func(e *api.ServiceEntry) {
			e.Checks, e.Service.Weights = checks("warning"), api.AgentWeights{}
		}, "10.0.0.1:80 1 warning", ""},
		{"odd weights", func(e *api.ServiceEntry) { e.Service.Weights.Passing = -3 }, "10.0.0.1:80 1 passing", ""},
		{"huge weights", func(e *api.ServiceEntry) { e.Service.Weights.Passing = math.MaxInt }, "10.0.0.1:80 65535 passing", ""},
		{"address of the node", func(e *api.ServiceEntry) { e.Service.Address = "" }, "10.0.0.9:80 4 passing", ""},
		{"mapped address", func(e *api.ServiceEntry) { e.Service.Address = "::ffff:10.0.0.1" }, "10.0.0.1:80 4 passing", ""},
		{"IPv6", func(e *api.ServiceEntry) { e.Service.Address = "fd00::1" }, "[fd00::1]:80 4 passing", ""},
		{"default of several ports", func(e *api.ServiceEntry) {
			e.Service.Port, e.Service.Ports = 0, api.ServicePorts{{Name: "a", Port: 1}, {Name: "b", Port: 2, Default: true}}
		}, "10.0.0.1:2 4 passing", ""},
		{
			"host name", func(e *api.ServiceEntry) { e.Service.Address = "db.local" }, "",
			`1 of 1 instances are not used: "api-1" has the address "db.local", which is not an IP address`,
		},
		{"no port", func(e *api.ServiceEntry) { e.Service.Port = 0 }, "", `1 of 1 instances are not used: "api-1" has the port 0`},
		{"port too high", func(e *api.ServiceEntry) { e.Service.Port = 65536 }, "", `1 of 1 instances are not used: "api-1" has the port 65536`},
		{"no service", func(e *api.ServiceEntry) { e.Service = nil }, "", "1 of 1 instances are not used: an entry without a service"},
		{"no node", func(e *api.ServiceEntry) { e.Node = nil }, "10.0.0.1:80 4 passing", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eps, warning := endpoints([]*api.ServiceEntry{entry(tt.change)})
			got := ""
			for _, e := range eps {
				got += fmt.Sprintf("%v %d %v", e.Address, e.Weight, e.Health)
			}
			if got != tt.want || warning != tt.warning {
				t.Errorf("got %q, %q; want %q, %q", got, warning, tt.want, tt.warning)
			}
		})
	}
}

func TestEndpointDetails(t *testing.T) {
	eps, _ := endpoints([]*api.ServiceEntry{
		entry(func(e *api.ServiceEntry) { e.Service.Address = "10.0.0.2" }),
		nil,
		entry(func(e *api.ServiceEntry) {
			e.Service.Tags, e.Service.Meta = []string{"a", "b"}, map[string]string{"k": "v"}
		}),
	})
	if len(eps) != 2 {
		t.Fatalf("got %v", eps)
	}
	want := discovery.Endpoint{
		Address: eps[0].Address, ID: "api-1", Weight: 4, Tags: []string{"a", "b"},
		Meta: map[string]string{"k": "v"}, Node: "n1", Datacenter: "dc1", NodeMeta: eps[0].NodeMeta,
	}
	if !eps[0].Equal(&want) || eps[0].Address.String() != "10.0.0.1:80" {
		t.Errorf("got %+v", eps[0])
	}
}
