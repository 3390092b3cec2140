package consul

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// TestPlace: the service's word counts before the node's, and a locality before
// metadata.
func TestPlace(t *testing.T) {
	meta := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for _, tt := range []struct {
		name   string
		change func(*api.ServiceEntry)
		want   string // region/zone priority draining
	}{
		{"nothing", func(*api.ServiceEntry) {}, "/ 0 "},
		{"locality", func(e *api.ServiceEntry) {
			e.Service.Locality = &api.Locality{Region: "eu", Zone: "eu-1"}
			e.Service.Meta = meta("zone", "x")
		}, "eu/eu-1 0 "},
		{"service meta", func(e *api.ServiceEntry) {
			e.Service.Meta, e.Node.Meta = meta("zone", "eu-2", "priority", "3"), meta("zone", "x", "region", "eu")
		}, "eu/eu-2 3 "},
		{"node locality", func(e *api.ServiceEntry) { e.Node.Locality = &api.Locality{Zone: "n-1"} }, "/n-1 0 "},
		{"node of Kubernetes", func(e *api.ServiceEntry) {
			e.Node.Meta = meta("topology.kubernetes.io/zone", "k-1", "topology.kubernetes.io/region", "k")
		}, "k/k-1 0 "},
		{"priority is nonsense", func(e *api.ServiceEntry) { e.Service.Meta = meta("priority", "70000") }, "/ 0 "},
		{"a long zone", func(e *api.ServiceEntry) { e.Service.Meta = meta("zone", strings.Repeat("ü", 100)) }, "/" + strings.Repeat("ü", 64) + " 0 "},
		{"service in maintenance", func(e *api.ServiceEntry) {
			e.Checks = append(e.Checks, nil, &api.HealthCheck{CheckID: "_service_maintenance:api-1", Notes: "new disk"})
		}, "/ 0 in maintenance: new disk"},
		{"node in maintenance", func(e *api.ServiceEntry) {
			e.Checks = append(e.Checks, &api.HealthCheck{CheckID: "_node_maintenance"})
		}, "/ 0 node in maintenance"},
		{"meta draining", func(e *api.ServiceEntry) { e.Service.Meta = meta("draining", "deploy") }, "/ 0 its metadata say draining: deploy"},
		{"meta not draining", func(e *api.ServiceEntry) { e.Service.Meta = meta("draining", "false") }, "/ 0 "},
		{"no node", func(e *api.ServiceEntry) { e.Node = nil }, "/ 0 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eps, _ := endpoints([]*api.ServiceEntry{entry(tt.change)})
			e := eps[0]
			if got := fmt.Sprintf("%s/%s %d %s", e.Region, e.Zone, e.Priority, e.Draining); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// latest is a sink that keeps the last word of it.
type latest chan *discovery.Service

func (l latest) Update(s *discovery.Service) { l <- s }
func (l latest) Fail(string, error)          {}

// TestConsulMetadata follows metadata, tags, locality and maintenance of a real
// agent.
func TestConsulMetadata(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{})
	register := func(node, id string, meta, service object, checks ...object) {
		body := object{"Service": "api", "ID": id, "Address": node, "Port": 80}
		for k, v := range service {
			body[k] = v
		}
		agent.Do(t, "PUT", "/v1/catalog/register", object{"Node": id + "-node", "Address": node, "NodeMeta": meta, "Service": body, "Checks": checks})
	}
	near := object{"Tags": []string{"blue"}, "Meta": object{"version": "2"}, "Locality": object{"Region": "eu", "Zone": "eu-1"}}
	register("10.0.0.2", "far", object{"rack": "r7", "zone": "eu-9"}, object{"Meta": object{"version": "1", "priority": "2"}})
	register("10.0.0.1", "near", nil, near)
	cfg := Default()
	cfg.Address = agent.Address
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := make(latest, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, []string{"api"}, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	expect := func(want string) {
		t.Helper()
		end, got := time.After(patience), ""
		for {
			select {
			case svc := <-l:
				var words []string
				for i := range svc.Endpoints {
					e := &svc.Endpoints[i]
					var meta []string
					e.Metadata(func(k, v string) { meta = append(meta, k+"="+v) })
					slices.Sort(meta)
					words = append(words, fmt.Sprintf("%s %s/%s %d [%s] %v %q", e.ID, e.Region, e.Zone, e.Priority, strings.Join(meta, " "), e.Health, e.Draining))
				}
				if got = strings.Join(words, "; "); got == want {
					return
				}
			case <-end:
				t.Fatalf("got  %s\nwant %s", got, want)
			}
		}
	}
	far := `; far /eu-9 2 [node.rack=r7 node.zone=eu-9 priority=2 version=1] passing ""`
	expect(`near eu/eu-1 0 [tag.blue=true version=2] passing ""` + far)
	maintenance := object{"Node": "near-node", "CheckID": "_service_maintenance:near", "Name": "Service Maintenance Mode", "Notes": "new disk", "Status": "critical", "ServiceID": "near"}
	register("10.0.0.1", "near", nil, near, maintenance)
	expect(`near eu/eu-1 0 [tag.blue=true version=2] critical "in maintenance: new disk"` + far)
	agent.Do(t, "PUT", "/v1/catalog/deregister", object{"Node": "near-node", "CheckID": "_service_maintenance:near"})
	expect(`near eu/eu-1 0 [tag.blue=true version=2] passing ""` + far)
}
